"""The commands end to end on a small set."""
import json
import shutil
from pathlib import Path

import pytest
from helpers import (FLAGS, edit, evaluate_run, failure, files_of, read_manifest, read_results,
                     train, train_only, write_manifest, write_small_set)
from pytest import CaptureFixture, MonkeyPatch

import train as train_command
from ptm_mini import files
from ptm_mini.checkpoint import read_run
from ptm_mini.config import PRESETS, leaves
from ptm_mini.evaluation import STRATEGIES
from ptm_mini.files import locked
from ptm_mini.training import stages_of

FASTEST = ["--method", "full_mixed"]             # to train, and to evaluate


def test_without_flags_the_toy_set_is_made_and_runs_are_numbered(
        tmp_path: Path, monkeypatch: MonkeyPatch, capsys: CaptureFixture) -> None:
    made = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(train_command.toy, "make", lambda path: made.append(write_small_set(path)))
    train("--epochs", 0, *FLAGS)
    train_only("--epochs", 0, *FASTEST, *FLAGS)
    assert made == [Path("sets/toy")]
    assert {path.name for path in Path("runs/toy-1").iterdir()} == {
        "config.json", "results.json", "results.png", "gallery.png", "backbone.pt",
        *(f"{stage.replace(' ', '-')}.pt" for stage in stages_of("prompt"))}
    assert read_run(Path("runs/toy-1")).methods == ["prompt"]
    assert read_run(Path("runs/toy-2")).methods == ["full_mixed"]
    printed = capsys.readouterr().out
    assert all(f"| prompt {strategy} " in printed for strategy in STRATEGIES)


def test_several_seeds_get_more_methods_which_have_settings_of_their_own(few_set: Path,
                                                                         tmp_path: Path) -> None:
    out = tmp_path / "runs"
    train_only("--data", few_set, "--out", out, *FASTEST, "--seeds", 2, "--seed", 5, "--epochs", 0,
               *FLAGS)
    train_only("--out", out, "--method", "head", "--epochs", 1, "--set",
               "train.head.weight_decay=2")
    for seed in (5, 6):
        run = read_run(out / f"seed-{seed}")
        settings = run.config.train
        assert run.methods == ["full_mixed", "head"] and settings.seed == seed
        assert (settings.backbone.epochs, settings.head.epochs) == (0, 1)
        assert settings.head.weight_decay == 2 and len(run.read_log()) == 4
    before = files_of(out)
    more = ["--out", out, *FASTEST, "--seeds", 3, "--seed", 5, *FLAGS]
    line = failure(train_only, *more, "--data", few_set)     # of which the first two have a head
    assert line.startswith(f"{out / 'seed-7'}: has other settings, methods or another set than")
    assert "expected --seed with --seeds" in failure(train_only, *more, "--set", "train.seed=1")
    assert files_of(out) == before and not (out / "seed-7").exists()


@pytest.mark.parametrize("flags, message", [
    (["--set", "prompts.length=3"], "setting prompts.length=3: {} was trained with 2"),
    (["--seed", "5"], "setting train.seed=5: {} was trained with 0"),
    (["--damage", "paper"], "setting damage.both.audio_gaussian=0.22: {} was trained with 2.2"),
    (["--preset", "tiny"], "--preset: belongs to the backbone, which {} has")])
def test_a_method_is_added_on_the_settings_of_the_run(seeds_folder: Path, flags: list[str],
                                                      message: str) -> None:
    out = seeds_folder / "seed-0"
    before = files_of(out)
    line = failure(train_only, "--out", out, "--method", "head", *flags)
    assert line.startswith(message.format(out)) and files_of(out) == before


def test_a_run_stays_with_its_set(copied: Path, small_set: Path, tmp_path: Path) -> None:
    """A set that has moved is found where --data says; one that has changed is not the run's."""
    moved, path = shutil.copytree(small_set, tmp_path / "moved"), copied / "config.json"
    config = json.loads(path.read_text()) | {"data": str(tmp_path / "gone"), "methods": FASTEST[1:]}
    path.write_text(json.dumps(config))
    for command, arguments in ((train_only, ["--resume", copied]), (evaluate_run, [copied])):
        path.write_text(json.dumps(config))
        line = failure(command, *arguments)
        assert line.startswith(f"{tmp_path / 'gone'}: no such folder") and "--data says" in line
        command(*arguments, "--data", moved)
        assert read_run(copied).data == moved                # the run knows it from now on

    edit(moved, 2, split="test")
    line = failure(train_only, "--resume", copied)
    assert f"--data {moved}: is not the set that {copied} was trained on" in line
    assert f"{moved}: has changed since {copied} was" in failure(evaluate_run, copied)
    evaluate_run(copied, "--data", moved, *FASTEST)
    scores = read_results(copied, "-moved-full_mixed")["scores"]
    assert scores["complete"]["full_mixed"]["samples"] == 16


def test_decoded_files_are_kept_where_features_says(tmp_path: Path) -> None:
    """A set's folder that can't be written needs another place, in both commands."""
    fixed, out = write_small_set(tmp_path / "set"), tmp_path / "run"
    (fixed / "features").write_text("a file: no folder can be made here")
    command = ["--data", fixed, "--out", out, "--epochs", 0, *FASTEST, *FLAGS]
    assert "can't be written" in failure(train_only, *command)
    train_only(*command, "--features", tmp_path / "cache")
    assert len(list((tmp_path / "cache").iterdir())) == 2
    assert "name another folder with --features" in failure(evaluate_run, out)
    evaluate_run(out, "--features", tmp_path / "cache")


@pytest.mark.skipif(files.fcntl is None, reason="this system has no such locks")
def test_one_command_at_a_time_works_in_a_run(seeds_folder: Path) -> None:
    before = files_of(seeds_folder)
    for asked in (seeds_folder / "seed-0", seeds_folder):
        with locked(seeds_folder / "seed-0"):
            assert "another process is at work" in failure(train_only, "--resume", asked)
    assert files_of(seeds_folder) == before


def test_another_evaluation_is_written_beside_the_first(copied: Path) -> None:
    before = files_of(copied)
    for flags in ([], ["--damage", "paper"], ["--draws", 2], ["--windows", 2]):
        evaluate_run(copied, *flags, "--method", "head", "full_mixed")
    after = files_of(copied)
    suffixes = [f"{suffix}-head-full_mixed" for suffix in ("", "-paper", "-draws-2", "-windows-2")]
    assert after.keys() - before.keys() == {
        f"{name}{suffix}.{kind}" for suffix in suffixes
        for name, kind in (("results", "json"), ("results", "png"), ("gallery", "png"))}
    assert all(after[name] == before[name] for name in before)
    first, paper, draws, windows = (read_results(copied, suffix)["scores"] for suffix in suffixes)
    assert list(first["complete"]) == ["backbone", "head oracle", "head routed", "full_mixed"]
    for scores in (paper, draws):
        assert scores["complete"] == first["complete"]
        assert scores["noisy_both"] != first["noisy_both"]
    assert paper["noisy_audio"] == first["noisy_audio"] != draws["noisy_audio"]
    assert windows["complete"] != first["complete"]


def test_missing_modalities_end_to_end(missing_set: Path, tmp_path: Path,
                                       capsys: CaptureFixture) -> None:
    out = tmp_path / "run"
    train_only("--data", missing_set, "--out", out, "--epochs", 1, *FLAGS)
    evaluate_run(out, "--details")
    assert "Accuracy by available modalities, undamaged:" in capsys.readouterr().out

    only_sounds = shutil.copytree(missing_set, tmp_path / "sounds")
    write_manifest(only_sounds, [row | {"image": ""} for row in read_manifest(only_sounds)
                                 if row["audio"]])
    before = read_results(out)
    evaluate_run(out, "--data", only_sounds)
    results = read_results(out, "-sounds")
    assert read_results(out) == before
    assert list(results["accuracy"]["backbone"]) == ["noisy_image", "noisy_both", "average"]
    assert list(results["available"]["backbone"]) == ["audio only"]
    assert not (out / "gallery-sounds.png").exists()


def test_settings_are_listed_as_the_flags_make_them(capsys: CaptureFixture) -> None:
    train("--settings", "--preset", "base", "--epochs", 3, "--damage", "paper", "--set",
          "lora.rank=2")
    words = [line.split(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    values = {key: value for key, value, _ in words}
    assert list(values) == [key for key, _, _ in leaves(PRESETS["base"])]
    assert values["model.width"] == "768" and values["lora.rank"] == "2"
    assert values["damage.both.image_blur"] == "0.03"
    assert {values[key] for key in values if key.endswith(".epochs")} == {"3"}
