"""The loop: what it trains, which epoch it keeps, and that it gives the same bytes twice."""
import logging
import re
import shutil
from pathlib import Path

import pytest
import torch
from helpers import (CLASSES, CONFIG, FLAGS, break_off, edit, failure, files_of, random_backbone,
                     random_batch, read_manifest, refusal, train, train_only)
from pytest import CaptureFixture, LogCaptureFixture, MonkeyPatch
from torch.nn import functional as F

from ptm_mini import training
from ptm_mini.checkpoint import Run, fingerprint, trainable
from ptm_mini.config import PRESETS, Situation, change
from ptm_mini.data.dataset import PreparedSet
from ptm_mini.evaluation import Score
from ptm_mini.method.backbone import Backbone
from ptm_mini.training import METHODS, assemble, describe, pick_device

TRAINED = {"prompt": r"sets\.0\.", "head": r"head\.",       # method: names of what it trains
           "lora": r"head\.|.*parametrizations\.weight\.0\.(up|down)",
           "adapter": r"head\.|.*\.(attention|mlp)\.(up|down)",
           "scale_shift": r"head\.|.*norm\w*\.(scale|shift)",
           "full_per_situation": "", "full_mixed": ""}


@pytest.fixture
def run(tmp_path: Path, data: PreparedSet) -> Run:
    return Run(tmp_path, CONFIG, data.classes, data.normalisation, data.folder, data.fingerprint())


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("scores, best", [
    ([(0.2, 1.0), (0.9, 1.0), (0.5, 0.1)], 1),                # by accuracy, not by loss
    ([(0.9, 1.0), (0.9, 0.5), (0.9, 0.7)], 1),                # of equal ones the lowest loss
    ([(0.9, 0.5), (0.9, 0.5), (0.2, 0.1)], 0),                # of these the first
    ([(0.1, 1.0), (0.2, 1.0), (0.3, 1.0)], 2)])
def test_the_best_epoch_is_kept_over_an_interruption(
        run: Run, data: PreparedSet, monkeypatch: MonkeyPatch, scores: list[tuple[float, float]],
        best: int) -> None:
    run.config = change(CONFIG, {"train.backbone.epochs": len(scores)})
    after = []

    def scripted(answer: object, split: object, situation: Situation) -> dict[str, Score]:
        assert split.split == "val" and situation == Situation.COMPLETE
        after.append(fingerprint(backbone))
        accuracy, loss = scores[len(after) - 1]
        return {"logits": Score(accuracy, 0.0, loss, 9, None)}

    monkeypatch.setattr(training, "score_split", scripted)
    break_off(monkeypatch, 2)
    with pytest.raises(KeyboardInterrupt):
        backbone = random_backbone(CONFIG, generator())
        training.train(run, "backbone", backbone, data, [Situation.COMPLETE])
    backbone = random_backbone(CONFIG, generator())
    training.train(run, "backbone", backbone, data, [Situation.COMPLETE])
    assert len(set(after)) == len(scores) and fingerprint(backbone) == after[best]
    again = Backbone(CONFIG, len(CLASSES))
    run.load("backbone", again)
    assert fingerprint(again) == after[best]


def test_each_epoch_is_a_line_and_what_trains_is_named(run: Run, data: PreparedSet,
                                                       caplog: LogCaptureFixture) -> None:
    model = METHODS["head"].build(random_backbone(CONFIG, generator()), CONFIG, generator())
    run.config = change(CONFIG, {"train.head.epochs": 2})
    with caplog.at_level(logging.INFO):
        training.train(run, "head noisy_both", model, data, [Situation.NOISY_BOTH])
    first, one, two = caplog.messages
    assert first == ("head noisy_both: 83 trainable parameters: head.0.weight 16, head.0.bias 16, "
                     "head.1.weight 3x16, head.1.bias 3")
    line = r"head noisy_both +epoch +{}/2 +loss \d\.\d{{4}} +validation [01]\.\d{{4}} +\d+\.\d s"
    assert re.fullmatch(line.format(1), one) and re.fullmatch(line.format(2), two)
    caplog.clear()
    training.train(run, "head noisy_both", model, data, [Situation.NOISY_BOTH])    # it is there
    assert caplog.messages == []
    assert describe(trainable(random_backbone(CONFIG, generator()))).endswith(" tensors")


@pytest.mark.parametrize("method", METHODS)
def test_only_what_a_method_trains_has_gradients(method: str) -> None:
    backbone, batch = random_backbone(CONFIG, generator()), random_batch(CONFIG)
    before = fingerprint(backbone)
    model = METHODS[method].build(backbone, CONFIG, generator())
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    F.cross_entropy(model(batch.audio, batch.image), batch.label).backward()
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    assert reached == {name for name, p in trainable(model).items() if p.numel()}
    assert all(re.match(TRAINED[method], name) for name in reached)
    assert all(p.grad is None for p in backbone.parameters())
    torch.optim.SGD(trainable(model).values(), lr=0.1).step()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, start[name])}
    assert changed and changed <= reached and fingerprint(backbone) == before


def test_all_prompt_sets_train_together() -> None:
    """Each sample's own set by its answer, and all four by that of all side by side."""
    backbone, batch = random_backbone(CONFIG, generator()), random_batch(CONFIG, 8)
    model = assemble([METHODS["prompt"].build(backbone, CONFIG, generator()) for _ in Situation])
    situations = torch.full((8,), Situation.NOISY_IMAGE)
    model.answer_each(batch.audio, batch.image, situations).sum().backward()
    reached = [any(p.grad is not None and p.grad.any() for p in own.parameters())
               for own in model.sets]
    assert reached == [False, False, True, False]
    model(batch.audio, batch.image)[:, 0].sum().backward()
    assert all(own.audio_input.grad.any() and own.head[1].weight.grad.any() for own in model.sets)
    assert all(p.grad is None for p in backbone.parameters())


def same_weights(folder: Path, other: Path) -> bool:
    """Whether all weights in a folder are those in another, to the bit."""
    for path in folder.glob("*.pt"):
        ours, theirs = (torch.load(own / path.name)["weights"] for own in (folder, other))
        if ours.keys() != theirs.keys():
            return False
        if not all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items()):
            return False
    return True


def test_the_backbone_stays_as_it_was_to_the_byte(small_set: Path, run_folder: Path,
                                                  tmp_path: Path) -> None:
    """Methods trained one by one on a run's backbone equal those trained at once."""
    out = tmp_path / "run"
    train_only("--data", small_set, "--out", out, "--method", "head", "--epochs", 1, *FLAGS)
    backbone = (out / "backbone.pt").read_bytes()
    train_only("--out", out, "--method", "prompt", "--epochs", 1)
    assert (out / "backbone.pt").read_bytes() == backbone
    assert len(list(out.glob("*.pt"))) == 11 and same_weights(out, run_folder)


def test_the_same_command_twice_gives_the_same_bytes(few_set: Path, tmp_path: Path) -> None:
    """With the default settings, prompts and two epochs a stage."""
    for name in ("one", "two"):
        train_only("--data", few_set, "--out", tmp_path / name, "--epochs", 2)
    one, two = (files_of(tmp_path / name, "*.pt") for name in ("one", "two"))
    assert len(one) == 7 and one == two
    weights = torch.load(tmp_path / "one" / "backbone.pt")["weights"]
    with torch.device("meta"):
        backbone = Backbone(PRESETS["tiny"], len(CLASSES))
    assert weights.keys() == backbone.state_dict().keys()


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
    train_only("--data", altered, "--out", out, "--method", "prompt", "lora", "full_mixed",
               "--epochs", 1, *FLAGS)
    assert len(list(out.glob("*.pt"))) == 12 and same_weights(out, run_folder)


def test_another_seed_gives_other_weights(seeds_folder: Path) -> None:
    one, two = (torch.load(seeds_folder / f"seed-{seed}" / "backbone.pt")["weights"]
                for seed in (0, 1))
    assert not torch.equal(one["head.1.weight"], two["head.1.weight"])


def test_training_learns(small_set: Path, tmp_path: Path, caplog: LogCaptureFixture) -> None:
    """A few epochs of a small backbone beat chance, 1/3, by far."""
    with caplog.at_level(logging.INFO):
        train_only("--data", small_set, "--out", tmp_path / "run", "--method", "head", *FLAGS,
                   "--set", "train.backbone.epochs=6", "--set", "train.head.epochs=0",
                   "--set", "train.backbone.batch_size=4", "--set",
                   "train.backbone.learning_rate=5e-3")
    found = re.findall(r"backbone +epoch +\d+/6 .* validation (\d\.\d+)", caplog.text)
    assert max(map(float, found)) > 0.8


def test_a_loss_that_is_not_finite_ends_with_status_1(small_set: Path, tmp_path: Path,
                                                      capsys: CaptureFixture) -> None:
    out = tmp_path / "run"
    line, status = failure(capsys, train, "--data", small_set, "--out", out, "--method", "head",
                           "--epochs", 3, *FLAGS, "--set", "train.head.learning_rate=1e30",
                           "--set", "train.head.weight_decay=1e30")
    assert status == 1
    assert re.match(r"head complete: the loss became .*; lower the learning rate \(1e\+30\)", line)
    assert (out / "backbone.pt").exists() and not (out / "head-complete.pt").exists()


def test_a_fraction_leaves_the_backbone_whole(small_set: Path, run_folder: Path,
                                              tmp_path: Path) -> None:
    out = tmp_path / "run"
    train_only("--data", small_set, "--out", out, "--method", "head", "--fraction",
               0.3, "--epochs", 1, *FLAGS)
    weights, whole = ([torch.load(folder / name)["weights"]["head.1.weight"]
                       for name in ("backbone.pt", "head-noisy_audio.pt")]
                      for folder in (out, run_folder))
    assert torch.equal(weights[0], whole[0]) and not torch.equal(weights[1], whole[1])


def test_bfloat16_trains_on_the_cpu(small_set: Path, run_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train_only("--data", small_set, "--out", out, "--bf16", "--epochs", 1, *FLAGS)
    one, two = (torch.load(folder / "backbone.pt")["weights"]["head.1.weight"]
                for folder in (out, run_folder))
    assert one.dtype == torch.float32 and not torch.equal(one, two)
    assert torch.allclose(one, two, atol=0.05)


def test_prompts_of_no_length_without_a_head_are_refused(small_set: Path, tmp_path: Path,
                                                         capsys: CaptureFixture) -> None:
    line, status = failure(capsys, train, "--data", small_set, "--out", tmp_path / "run", *FLAGS,
                           "--epochs", 1, "--set", "prompts.length=0", "--set",
                           "prompts.tune_head=false")
    assert "prompts.length" in line and status == 2


def test_a_device_that_is_not_there_is_refused(monkeypatch: MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto") == pick_device("cpu") == torch.device("cpu")
    assert "--device cuda: no CUDA device is available" in refusal(pick_device, "cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device("auto") == pick_device("cuda") == torch.device("cuda")
    assert pick_device("cpu") == torch.device("cpu")
