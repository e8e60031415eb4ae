"""The loop: what it trains, which epoch it keeps, and that it gives the same bytes twice."""
import shutil
from pathlib import Path

import pytest
import torch
from helpers import (CONFIG, FLAGS, break_off, edit, failure, files_of, random_backbone,
                     read_manifest, refusal, train_only)
from pytest import MonkeyPatch

from ptm_mini import training
from ptm_mini.checkpoint import Run, fingerprint, read_run
from ptm_mini.config import Situation, change
from ptm_mini.data.dataset import PreparedSet
from ptm_mini.evaluation import Score
from ptm_mini.training import pick_device


@pytest.fixture
def run(tmp_path: Path, data: PreparedSet) -> Run:
    return Run(tmp_path, CONFIG, data.classes, data.normalisation, data.folder, data.fingerprint())


def test_the_best_epoch_is_kept_over_an_interruption(run: Run, data: PreparedSet,
                                                     monkeypatch: MonkeyPatch) -> None:
    """By accuracy; of equal ones the lowest loss, and of these the first."""
    scores, best = [(0.5, 0.1), (0.9, 1.0), (0.9, 0.5), (0.9, 0.5), (0.2, 0.1)], 2
    run.config = change(CONFIG, {"train.backbone.epochs": len(scores)})
    after = []

    def scripted(answer: object, split: object, situation: Situation) -> dict[str, Score]:
        assert split.split == "val" and situation == Situation.COMPLETE
        after.append(fingerprint(backbone))
        accuracy, loss = scores[len(after) - 1]
        return {"logits": Score(accuracy, 0.0, loss, 9, None)}

    monkeypatch.setattr(training, "score_split", scripted)
    break_off(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        backbone = random_backbone(CONFIG, torch.Generator().manual_seed(0))
        training.train(run, "backbone", backbone, data, [Situation.COMPLETE])
    backbone = random_backbone(CONFIG, torch.Generator().manual_seed(0))
    training.train(run, "backbone", backbone, data, [Situation.COMPLETE])
    assert len(set(after)) == len(scores) and fingerprint(backbone) == after[best]


def test_training_together_reaches_all_prompt_sets(run_folder: Path) -> None:
    together = torch.load(run_folder / "prompt-together.pt")["weights"]
    for s, situation in enumerate(Situation):
        alone = torch.load(run_folder / f"prompt-{situation.label}.pt")["weights"]
        for name in ("audio_input", "image_input", "head.1.weight"):
            assert not torch.equal(together[f"sets.{s}.{name}"], alone[f"sets.0.{name}"])


def same_weights(folder: Path, other: Path, name: str) -> bool:
    """Whether all weights in a file are those in another folder's, to the bit."""
    ours, theirs = (torch.load(own / f"{name}.pt")["weights"] for own in (folder, other))
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_methods_trained_one_by_one_equal_those_at_once(small_set: Path, run_folder: Path,
                                                        tmp_path: Path) -> None:
    out = tmp_path / "run"
    train_only("--data", small_set, "--out", out, "--method", "full_mixed", "--epochs", 1, *FLAGS)
    train_only("--out", out, "--method", "head", "--epochs", 1)
    stages = [path.stem for path in out.glob("*.pt")]
    assert len(stages) == 6
    assert all(same_weights(out, run_folder, stage) for stage in stages)


@pytest.mark.parametrize("settings", [FLAGS, pytest.param([], marks=pytest.mark.slow)],
                         ids=["small", "default"])
def test_the_same_command_twice_gives_the_same_bytes(few_set: Path, tmp_path: Path,
                                                     settings: list[str]) -> None:
    for name in ("one", "two"):
        train_only("--data", few_set, "--out", tmp_path / name, "--epochs", 1, *settings)
    one, two = (files_of(tmp_path / name, "*.pt") for name in ("one", "two"))
    assert len(one) == 7 and one == two


def test_the_test_split_reaches_no_weight(small_set: Path, run_folder: Path,
                                          tmp_path: Path) -> None:
    """Other test files, labels and ids, one without a sound: every weight is what it was."""
    altered, out = shutil.copytree(small_set, tmp_path / "altered"), tmp_path / "run"
    for line, row in enumerate(read_manifest(altered), start=2):
        if row["split"] == "test":
            shutil.copy(altered / "train-bell-0.wav", altered / row["audio"])
            shutil.copy(altered / "val-drum-0.png", altered / row["image"])
            edit(altered, line, label="flute", id=f"other {line}", group="x")
    edit(altered, line, audio="")
    train_only("--data", altered, "--out", out, "--epochs", 1, *FLAGS)
    stages = [path.stem for path in out.glob("*.pt")]
    assert len(stages) == 7
    assert all(same_weights(out, run_folder, stage) for stage in stages)


def test_another_seed_starts_from_other_weights(few_set: Path, tmp_path: Path) -> None:
    train_only("--data", few_set, "--out", tmp_path, "--method", "full_mixed", "--seeds", 2,
               "--epochs", 0, *FLAGS)
    assert not same_weights(tmp_path / "seed-0", tmp_path / "seed-1", "backbone")


def test_a_fraction_is_validated_as_often_as_the_whole(few_set: Path, tmp_path: Path) -> None:
    """After every third epoch of a third of the samples, and after the last."""
    train_only("--data", few_set, "--out", tmp_path, "--method", "full_mixed", "--epochs", 5,
               "--fraction", 0.33, *FLAGS)
    epochs = {"backbone": [], "full_mixed": []}
    for line in read_run(tmp_path).read_log():
        epochs[line["stage"]].append(line["epoch"])
    assert epochs == {"backbone": [1, 2, 3, 4, 5], "full_mixed": [3, 5]}


@pytest.mark.parametrize("flags, same_backbone", [(["--fraction", 0.3], True), (["--bf16"], False)])
def test_a_fraction_leaves_the_backbone_whole_and_bfloat16_changes_all(
        small_set: Path, run_folder: Path, tmp_path: Path, flags: list[object],
        same_backbone: bool) -> None:
    out = tmp_path / "run"
    train_only("--data", small_set, "--out", out, "--method", "full_mixed", "--epochs", 1, *flags,
               *FLAGS)
    assert same_weights(out, run_folder, "backbone") == same_backbone
    assert not same_weights(out, run_folder, "full_mixed")
    one, two = (torch.load(folder / "backbone.pt")["weights"]["head.1.weight"]
                for folder in (out, run_folder))
    assert one.dtype == torch.float32 and torch.allclose(one, two, atol=0.05)


def test_deterministic_algorithms_are_asked_for_and_change_nothing_on_a_cpu(
        small_set: Path, run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train_only("--data", small_set, "--out", out, "--method", "full_mixed", "--epochs", 1,
               "--deterministic", *FLAGS)
    asked = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)
    assert asked and read_run(out).config.train.deterministic
    assert all(same_weights(out, run_folder, stage) for stage in ("backbone", "full_mixed"))


def test_training_learns(small_set: Path, tmp_path: Path) -> None:
    """A few epochs of a small backbone beat chance, 1/3, by far."""
    settings = ["train.backbone.epochs=4", "train.full_mixed.epochs=0",
                "train.backbone.batch_size=8", "train.backbone.learning_rate=1e-2"]
    train_only("--data", small_set, "--out", tmp_path / "run", "--method", "full_mixed", *FLAGS,
               *(word for setting in settings for word in ("--set", setting)))
    assert max(line["accuracy"] for line in read_run(tmp_path / "run").read_log()) > 0.8


def test_a_loss_that_is_not_finite_ends_with_status_1(few_set: Path, tmp_path: Path) -> None:
    """And the method is trained with another rate, as the error proposes."""
    out = tmp_path / "run"
    line = failure(train_only, "--data", few_set, "--out", out, "--method", "head", "--epochs", 3,
                   *FLAGS, "--set", "train.head.learning_rate=1e30", "--set",
                   "train.head.weight_decay=1e30", status=1)
    assert line.startswith("head complete: the loss became")
    assert "lower the learning rate (1e+30)" in line
    assert (out / "backbone.pt").exists() and not (out / "head-complete.pt").exists()
    train_only("--out", out, "--method", "head", "--epochs", 1, "--set",
               "train.head.learning_rate=1e-3", "--set", "train.head.weight_decay=0")
    assert (out / "head-noisy_both.pt").exists()


def test_a_stage_without_trainable_parameters_is_refused(run: Run, data: PreparedSet) -> None:
    arguments = run, "prompt complete", torch.nn.Identity(), data, [Situation.COMPLETE]
    assert "expected prompts.length above 0" in refusal(training.train, *arguments)


def test_a_device_that_is_not_there_is_refused(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    assert "--device cuda: no CUDA device is available" in refusal(pick_device, "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda")
