"""The commands on a CUDA device, where there is one: python -m pytest -m cuda"""
import math
from pathlib import Path

import pytest
import torch
from helpers import FLAGS, break_off, eval_command, files_of, read_results, train_command
from pytest import MonkeyPatch, TempPathFactory

import ptm_mini
from ptm_mini.checkpoint import read_run
from ptm_mini.lab import attention, tour

DEVICE = "cuda"
pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
    # From Python 3.12 on, of the workers that a DataLoader forks
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")]


def train_there(*arguments: object) -> None:
    train_command.main([*map(str, arguments), *FLAGS, "--epochs", "2", "--device", DEVICE])


@pytest.fixture(scope="module")
def run_there(small_set: Path, tmp_path_factory: TempPathFactory) -> Path:
    """A run of every method, two epochs a stage."""
    folder = tmp_path_factory.mktemp("cuda") / "run"
    train_there("--data", small_set, "--out", folder, "--method", "all")
    return folder


def test_every_method_trains_there(run_there: Path) -> None:
    lines = read_run(run_there).read_log()
    assert len(lines) == 2 * (1 + 6 * 4 + 1 + 1)
    assert all(math.isfinite(line["loss"]) and line["peak_bytes"] > 0 for line in lines)


def test_an_evaluation_on_either_device_agrees(run_there: Path) -> None:
    losses = {}
    for device in (DEVICE, "cpu"):
        eval_command.main([str(run_there), "--draws", "2", "--device", device])
        scores = read_results(run_there, "-draws-2")["scores"]
        losses[device] = [rows[row]["loss"] for rows in scores.values()
                          for row in ("backbone", "prompt oracle", "prompt concat", "lora oracle",
                                      "adapter oracle", "full_mixed")]
    assert losses["cpu"] == pytest.approx(losses[DEVICE], rel=0.02)


def test_a_pair_is_answered(run_there: Path, small_set: Path) -> None:
    audio, image = small_set / "test-bell-0.wav", small_set / "test-bell-0.png"
    there, here = (ptm_mini.load(run_there, device, windows=2) for device in (DEVICE, "cpu"))
    for pair in ((audio, image), (audio, None), (None, image)):
        expected = here.predict(*pair).probabilities
        assert there.predict(*pair).probabilities == pytest.approx(expected, abs=0.02)


def test_the_lab_looks_into_a_run_there(run_there: Path, tmp_path: Path) -> None:
    attention.main([str(run_there), "--device", DEVICE])
    tour.main([str(run_there), str(tmp_path), "--sample", "test-bell-0", "--device", DEVICE])
    assert (tmp_path / "answers.png").exists()


def test_an_interrupted_run_resumes(small_set: Path, run_there: Path, tmp_path: Path,
                                    monkeypatch: MonkeyPatch) -> None:
    out = tmp_path / "run"
    break_off(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        train_there("--data", small_set, "--out", out)
    train_command.main(["--resume", str(out), "--device", DEVICE])
    ours, whole = (read_run(folder).read_log()[:12] for folder in (out, run_there))
    assert [line["stage"] for line in ours] == [line["stage"] for line in whole]
    assert [line["loss"] for line in ours] == pytest.approx([line["loss"] for line in whole],
                                                            rel=0.02)


def test_deterministic_training_gives_the_same_bytes(small_set: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        train_there("--data", small_set, "--out", tmp_path / name, "--deterministic", "--bf16",
                    "--method", "prompt", "lora", "full_mixed")
    assert files_of(tmp_path / "one", "*.pt") == files_of(tmp_path / "two", "*.pt")


def test_bfloat16_trains(small_set: Path, run_there: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train_there("--data", small_set, "--out", out, "--bf16", "--method", "prompt", "lora")
    ours, plain = (read_run(folder).read_log()[0]["loss"] for folder in (out, run_there))
    assert ours != plain and ours == pytest.approx(plain, rel=0.1)
