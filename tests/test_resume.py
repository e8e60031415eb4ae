"""Runs that are interrupted or killed: they resume at their last whole epoch, to the same bytes."""
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from helpers import FLAGS, break_off, evaluate_run, failure, files_of, train_only
from pytest import CaptureFixture, LogCaptureFixture, MonkeyPatch, TempPathFactory

from ptm_mini.checkpoint import read_run
from ptm_mini.training import trained_methods

ROOT = Path(__file__).parent.parent
COMMAND = ["--method", "prompt", "full_mixed", "--epochs", 2, *FLAGS, "--set",
           "train.backbone.batch_size=4"]
# 14 epochs: two each of the backbone, the four prompt sets, these together, and full_mixed


@pytest.fixture(scope="module")
def whole(few_set: Path, tmp_path_factory: TempPathFactory) -> Path:
    """A run that was not interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train_only("--data", few_set, "--out", folder, *COMMAND)
    return folder


@pytest.fixture(scope="module")
def interrupted(few_set: Path, tmp_path_factory: TempPathFactory) -> Path:
    """A run that was interrupted three times, and resumed by the same command.

    After epoch 1; after epoch 6, before its state was saved: it is trained again; after epoch 11.
    """
    folder = tmp_path_factory.mktemp("interrupted") / "a run"
    for epochs, saved in ((1, True), (5, False), (6, True)):
        with MonkeyPatch.context() as monkeypatch, pytest.raises(KeyboardInterrupt):
            break_off(monkeypatch, epochs, saved)
            train_only("--data", few_set, "--out", folder, *COMMAND)
    return folder


@pytest.fixture
def out(interrupted: Path, tmp_path: Path) -> Path:
    """A copy of the interrupted run."""
    return shutil.copytree(interrupted, tmp_path / "a run")


def log_of(folder: Path) -> list[dict]:
    return [{key: value for key, value in line.items() if key != "seconds"}
            for line in read_run(folder).read_log()]


def test_an_interrupted_run_resumes_to_the_same_bytes(
        whole: Path, out: Path, monkeypatch: MonkeyPatch) -> None:
    """And trains nothing when it is finished."""
    assert len(log_of(out)) == 11 and (out / "prompt-together.state").exists()
    break_off(monkeypatch, 3)                              # the last epoch, before it is a .pt file
    line = failure(train_only, "--resume", out, status=130)
    assert line == f"interrupted; resume with  python train.py --resume '{out}'"
    train_only("--resume", out)
    assert files_of(out, "*.pt") == files_of(whole, "*.pt") and log_of(out) == log_of(whole)
    assert not list(out.glob("*.state")) and not list(out.glob(".*.tmp"))
    before = files_of(out)
    monkeypatch.setattr("ptm_mini.training.fit", None)                 # training would fail
    train_only("--resume", out)
    assert files_of(out) == before


def test_several_seeds_resume_together(few_set: Path, tmp_path: Path,
                                       monkeypatch: MonkeyPatch) -> None:
    (tmp_path / "runs" / "seed-0").mkdir(parents=True)
    (tmp_path / "runs" / "seed-0" / "lock").touch()            # killed before config.json
    break_off(monkeypatch, 3)                                  # the second seed's backbone
    with pytest.raises(KeyboardInterrupt):
        train_only("--out", tmp_path / "runs", "--data", few_set, "--seeds", 2, "--method",
                   "full_mixed", "--epochs", 1, *FLAGS)
    train_only("--resume", tmp_path / "runs")
    for seed in ("seed-0", "seed-1"):
        run = read_run(tmp_path / "runs" / seed)
        assert trained_methods(run) == ["full_mixed"] and len(run.read_log()) == 2


def test_an_evaluation_says_what_is_not_finished(out: Path, capsys: CaptureFixture,
                                                 caplog: LogCaptureFixture) -> None:
    evaluate_run(out)
    assert (f"note: {out} has not finished prompt, full_mixed; python train.py --resume {out} does"
            in caplog.text)
    printed = capsys.readouterr().out
    assert "| backbone |" in printed and "| prompt" not in printed


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, 6, 12])
def test_a_killed_process_resumes_to_the_same_bytes(few_set: Path, whole: Path, tmp_path: Path,
                                                    epochs: int) -> None:
    out, log = tmp_path / "run", tmp_path / "run" / "log.jsonl"
    command = [sys.executable, ROOT / "train.py", "--data", few_set, "--out", out, *COMMAND,
               "--device", "cpu"]
    with subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL,
                          env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        while not log.exists() or log.read_text().count("\n") < epochs:
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    assert not (out / "full_mixed.pt").exists()
    train_only("--resume", out)
    assert files_of(out, "*.pt") == files_of(whole, "*.pt") and log_of(out) == log_of(whole)
