"""The commands on a CUDA device, where there is one: python -m pytest -m cuda"""
import json
import math
from pathlib import Path

import pytest
import torch
from helpers import (CONFIG, FLAGS, break_off, eval_command, random_batch, random_models,
                     read_results, train_command)
from pytest import CaptureFixture, MonkeyPatch, TempPathFactory

import ptm_mini
from ptm_mini.checkpoint import read_run
from ptm_mini.training import METHODS, load_models

DEVICE = "cuda"
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    # From Python 3.12 on, of the workers that a DataLoader forks
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")]


def train_there(*arguments: object) -> None:
    train_command.main([*map(str, arguments), *FLAGS, "--device", DEVICE])


@pytest.fixture(scope="module")
def run_there(small_set: Path, tmp_path_factory: TempPathFactory) -> Path:
    """A run of every method, two epochs a stage."""
    folder = tmp_path_factory.mktemp("cuda") / "run"
    train_there("--data", small_set, "--out", folder, "--method", "all", "--epochs", 2)
    return folder


def test_every_method_trains(run_there: Path) -> None:
    lines = read_run(run_there).read_log()
    assert len(lines) == 2 * (1 + 6 * 4 + 1 + 1)
    assert all(math.isfinite(line["loss"]) and line["peak_bytes"] > 0 for line in lines)
    assert all(math.isfinite(score["loss"]) for rows in read_results(run_there)["scores"].values()
               for score in rows.values())


def test_all_models_are_on_the_device(run_there: Path) -> None:
    models = load_models(read_run(run_there), torch.device(DEVICE))
    assert models.methods.keys() == METHODS.keys()
    for model in (models.backbone, models.router, *models.methods.values()):
        assert {tensor.device.type for tensor in model.state_dict().values()} == {DEVICE}


@torch.no_grad()
def test_answers_are_those_of_the_cpu() -> None:
    """Convolutions may round to 10 bits of a fraction there (TF32)."""
    models, batch = random_models(CONFIG), random_batch(CONFIG)
    expected = models.answer(batch)
    for model in (models.backbone, models.router, *models.methods.values()):
        model.to(DEVICE)
    found = models.answer(batch.to(torch.device(DEVICE)))
    assert found.rows.keys() == expected.rows.keys()
    for name in ("backbone", "prompt concat", "prompt oracle", "lora oracle", "full_mixed"):
        assert torch.allclose(found.rows[name].cpu(), expected.rows[name], atol=0.05), name


def test_an_evaluation_on_either_device_agrees(run_there: Path, capsys: CaptureFixture) -> None:
    for device in (DEVICE, "cpu"):
        eval_command.main([str(run_there), "--draws", "2", "--details", "--device", device])
        scores = read_results(run_there, "-draws-2")["scores"]
        losses = [scores[situation][row]["loss"] for situation in scores
                  for row in ("backbone", "prompt oracle", "adapter oracle", "full_mixed")]
        if device == DEVICE:
            there = losses
    assert losses == pytest.approx(there, rel=0.02)
    assert "Accuracy" in capsys.readouterr().out


def test_a_pair_is_answered(run_there: Path, small_set: Path, tmp_path: Path) -> None:
    audio, image = small_set / "test-bell-0.wav", small_set / "test-bell-0.png"
    there, here = (ptm_mini.load(run_there, device, windows=2).predict(audio, image)
                   for device in (DEVICE, "cpu"))
    assert there.probabilities == pytest.approx(here.probabilities, abs=0.02)
    pairs = tmp_path / "pairs.csv"
    pairs.write_text(f"audio,image\n{audio},{image}\n{audio},\n,{image}\n")
    eval_command.main([str(run_there), "--pairs", str(pairs), "--out", str(tmp_path / "out.csv"),
                       "--device", DEVICE])
    assert (tmp_path / "out.csv").read_text().count("\n") == 4


def test_an_interrupted_run_resumes(small_set: Path, run_there: Path, tmp_path: Path,
                                    monkeypatch: MonkeyPatch) -> None:
    out = tmp_path / "run"
    break_off(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        train_there("--data", small_set, "--out", out, "--epochs", 2)
    train_command.main(["--resume", str(out), "--device", DEVICE])
    epochs = [(line["stage"], line["epoch"]) for line in read_run(out).read_log()]
    assert len(epochs) == len(set(epochs)) == 12 and not list(out.glob("*.state"))
    losses = [[line["loss"] for line in read_run(folder).read_log()[:12]]
              for folder in (out, run_there)]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_bfloat16_trains(small_set: Path, run_there: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train_there("--data", small_set, "--out", out, "--epochs", 2, "--bf16", "--method", "prompt",
                "lora", "full_mixed")
    assert json.loads((out / "config.json").read_text())["config"]["train.bf16"] is True
    ours, plain = (read_run(folder).read_log()[0]["loss"] for folder in (out, run_there))
    assert ours != plain and ours == pytest.approx(plain, rel=0.1)
