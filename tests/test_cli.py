"""The commands end to end on a small set, and what they say of bad input."""
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch

import eval as eval_script
import train as train_script
from conftest import SMALL
from data_prep import toy
from ptm_mini import checkpoint
from ptm_mini.command import run as run_command
from ptm_mini.config import Situation

ROOT = Path(__file__).parent.parent
SETTINGS = [part for assignment in SMALL for part in ("--set", assignment)]


def train(*arguments):
    return train_script.main([*SETTINGS, *map(str, arguments), "--device", "cpu"])


def refused(call, capsys):
    """The one line that a command ends with, and its exit status."""
    with pytest.raises(SystemExit) as caught:
        run_command(call)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0], caught.value.code


@pytest.fixture(scope="module")
def run_folder(toy_set, tmp_path_factory):
    """A run folder that train.py made of the toy set."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train("--data", toy_set, "--out", folder)
    return folder


def test_train_leaves_a_whole_run_and_eval_repeats_it_bit_for_bit(run_folder, capsys):
    assert sorted(path.name for path in run_folder.iterdir()) == [
        "backbone.pt", "config.json", "gallery.png", *sorted(f"prompts-{s.label}.pt" for s in Situation), "results.json",
        "results.png"]
    before = (run_folder / "results.json").read_bytes()
    (run_folder / "results.json").unlink()
    eval_script.main([str(run_folder), "--device", "cpu"])
    assert (run_folder / "results.json").read_bytes() == before
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines] == ["situation", "-" * 13, *(s.label for s in Situation), "average"]
    assert [cell.strip() for cell in lines[0].split("|")[2:-1]] == ["backbone", "situation", "concat", "samples"]
    assert lines[2].split("|")[-2].strip() == "40"
    results = json.loads(before)
    assert results["average"]["concat"] == pytest.approx(
        sum(results["scores"][s.label]["concat"]["accuracy"] for s in Situation) / 4)


def test_the_same_command_twice_gives_the_same_bytes(run_folder, toy_set, tmp_path):
    train("--data", toy_set, "--out", tmp_path / "again")
    for path in run_folder.iterdir():
        if path.suffix in (".pt", ".json"):
            assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_another_seed_gives_another_backbone(run_folder, toy_set, tmp_path):
    train("--data", toy_set, "--out", tmp_path / "other", "--seed", 1, "--stage", "backbone")
    assert (run_folder / "backbone.pt").read_bytes() != (tmp_path / "other" / "backbone.pt").read_bytes()


def test_stages_one_by_one_equal_all_at_once(run_folder, toy_set, tmp_path):
    train("--data", toy_set, "--out", tmp_path / "run", "--stage", "backbone")
    assert json.loads((tmp_path / "run" / "results.json").read_text())["average"].keys() == {"backbone"}
    backbone = (tmp_path / "run" / "backbone.pt").read_bytes()
    train("--out", tmp_path / "run", "--stage", "prompts")
    assert (tmp_path / "run" / "backbone.pt").read_bytes() == backbone            # frozen, to the byte
    for name in ("results.json", "prompts-noisy_both.pt"):
        assert (tmp_path / "run" / name).read_bytes() == (run_folder / name).read_bytes()


def test_another_damage_is_written_beside_the_first(run_folder):
    before = (run_folder / "results.json").read_bytes()
    scores = eval_script.evaluate_run(run_folder, torch.device("cpu"), damage="paper")
    assert (run_folder / "results.json").read_bytes() == before
    assert (run_folder / "results-paper.json").exists() and (run_folder / "gallery-paper.png").exists()
    assert scores[Situation.COMPLETE]["backbone"].accuracy == json.loads(before)["scores"]["complete"]["backbone"]["accuracy"]


def test_training_learns(toy_set, tmp_path):
    """Twenty epochs of a small model beat chance (0.1) by far: nothing in the graph is cut off."""
    train("--data", toy_set, "--out", tmp_path / "run", "--stage", "backbone", "--set", "train.backbone.epochs=20",
          "--set", "model.width=32", "--set", "train.backbone.batch_size=16", "--set", "train.backbone.learning_rate=3e-3")
    assert json.loads((tmp_path / "run" / "results.json").read_text())["scores"]["complete"]["backbone"]["accuracy"] > 0.4


@pytest.mark.parametrize("arguments, says", [
    (["--set", "model.widht=3"], "did you mean model.width?"), (["--data", "nowhere"], "classes.json: no such file"),
    (["--stage", "prompts"], "--stage prompts: expected --out RUN"), (["--bf16"], "--bf16: needs a CUDA device"),
    (["--stage", "prompts", "--out", "nowhere"], "config.json: no such file"), (["--out", "."], "is there already"),
    (["--epochs", "-1"], "train.backbone.epochs=-1"), (["--fraction", "2"], "train.fraction=2.0")])
def test_bad_arguments_end_with_one_line_and_status_2(toy_set, tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    if "--data" not in arguments and "--stage" not in arguments:
        arguments = [*arguments, "--data", str(toy_set)]
    line, status = refused(lambda: train_script.main([*arguments, "--device", "cpu"]), capsys)
    assert says in line and status == 2 and os.listdir(tmp_path) == []


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_cuda_without_a_device_is_refused(capsys, tmp_path):
    line, status = refused(lambda: eval_script.main([str(tmp_path), "--device", "cuda"]), capsys)
    assert "--device cuda: no CUDA device" in line and status == 2


def test_prompts_are_not_trained_twice_over(run_folder, capsys):
    line, status = refused(lambda: train("--stage", "prompts", "--out", run_folder), capsys)
    assert "has prompts already" in line and status == 2


def test_prompts_for_another_shape_of_backbone_are_refused(toy_set, tmp_path, capsys):
    train("--data", toy_set, "--out", tmp_path / "run", "--stage", "backbone")
    line, status = refused(lambda: train("--stage", "prompts", "--out", tmp_path / "run", "--set", "model.width=32"), capsys)
    assert "--set model.*: belongs to the backbone" in line and status == 2


def test_a_non_finite_loss_ends_with_status_1_and_leaves_nothing(toy_set, tmp_path, capsys):
    line, status = refused(lambda: train("--data", toy_set, "--out", tmp_path / "run",
                                         "--set", "train.backbone.learning_rate=1e30"), capsys)
    assert "backbone: the loss became" in line and status == 1 and not (tmp_path / "run").exists()


def test_a_bad_file_in_a_set_is_named_and_leaves_nothing(tmp_path, capsys):
    toy.make(tmp_path / "set", recordings=10, split="grouped", seed=0)
    victim = next((tmp_path / "set" / "audio").iterdir())
    soundfile.write(victim, [float("nan")] * 4000, 16000, subtype="FLOAT")
    line, status = refused(lambda: train("--data", tmp_path / "set", "--out", tmp_path / "run"), capsys)
    assert f"{victim}: holds NaN" in line and status == 2
    assert sorted(os.listdir(tmp_path)) == ["set"]
    assert sorted(os.listdir(tmp_path / "set")) == ["audio", "classes.json", "image", "manifest.csv"]


def test_evaluating_on_other_classes_is_refused(run_folder, toy_set, tmp_path, capsys):
    other = tmp_path / "set"
    other.mkdir()
    for path in toy_set.iterdir():
        (other / path.name).symlink_to(path)
    (other / "classes.json").unlink()
    (other / "classes.json").write_text(json.dumps(json.loads((toy_set / "classes.json").read_text())[::-1]))
    line, status = refused(lambda: eval_script.main([str(run_folder), "--data", str(other)]), capsys)
    assert "its classes differ from the run's" in line and status == 2


def test_a_set_that_moved_is_named(toy_set, tmp_path, capsys):
    moved = tmp_path / "toy"
    shutil.copytree(toy_set, moved)
    train("--data", moved, "--out", tmp_path / "run", "--stage", "backbone")
    moved.rename(tmp_path / "elsewhere")
    line, status = refused(lambda: eval_script.main([str(tmp_path / "run")]), capsys)
    assert f"{moved}: no such folder" in line and "--data" in line and status == 2
    eval_script.main([str(tmp_path / "run"), "--data", str(tmp_path / "elsewhere")])


def test_importing_does_nothing_and_help_explains_every_flag():
    for script in ("train", "eval"):
        silent = subprocess.run([sys.executable, "-c", f"import {script}"], cwd=ROOT, capture_output=True, text=True, check=True)
        assert silent.stdout == silent.stderr == ""
        shown = subprocess.run([sys.executable, f"{script}.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
        assert "--device" in shown.stdout and shown.stdout.startswith("usage:")


def test_run_folders_are_numbered_not_replaced(toy_set, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        train("--data", toy_set, "--stage", "backbone", "--epochs", 0)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["toy-1", "toy-2"]
    assert checkpoint.load_run(tmp_path / "runs" / "toy-2").config.train.backbone.epochs == 1
