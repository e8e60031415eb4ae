"""Runs that are interrupted or killed: they resume at their last whole epoch, to the same bytes."""
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import FLAGS, break_off, evaluate_run, failure, files_of, train_only
from pytest import CaptureFixture, LogCaptureFixture, MonkeyPatch, TempPathFactory

from ptm_mini.checkpoint import read_run
from ptm_mini.method.router import Router

ROOT = Path(__file__).parent.parent
COMMAND = ["--method", "prompt", "full_mixed", "--epochs", 2, *FLAGS, "--set",
           "train.backbone.epochs=3", "--set", "train.backbone.batch_size=4"]
# 15 epochs: three of the backbone, two each of four prompt sets, these together, and full_mixed
BACKBONE, FIRST_SET, TOGETHER, MIXED = 0, 3, 11, 13


@pytest.fixture(scope="module")
def whole(few_set: Path, tmp_path_factory: TempPathFactory) -> Path:
    """A run that was not interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train_only("--data", few_set, "--out", folder, *COMMAND)
    return folder


def log_of(folder: Path) -> list[dict]:
    return [{key: value for key, value in line.items() if key != "seconds"}
            for line in read_run(folder).read_log()]


def assert_same_run(folder: Path, whole: Path) -> None:
    assert files_of(folder, "*.pt") == files_of(whole, "*.pt")
    assert log_of(folder) == log_of(whole)
    assert not list(folder.rglob("*.state")) and not list(folder.rglob("*.tmp"))


@pytest.mark.parametrize("epochs, saved", [
    (BACKBONE + 1, True), (FIRST_SET + 2, False), (TOGETHER + 1, True), (MIXED + 2, True)])
def test_an_interrupted_run_resumes_to_the_same_bytes(
        whole: Path, few_set: Path, tmp_path: Path, monkeypatch: MonkeyPatch,
        capsys: CaptureFixture, epochs: int, saved: bool) -> None:
    """After an epoch's state is saved, or before: then that epoch is trained again."""
    out = tmp_path / "run"
    break_off(monkeypatch, epochs, saved)
    line, status = failure(capsys, train_only, "--data", few_set, "--out", out, *COMMAND)
    assert line == f"interrupted; resume with  python train.py --resume {out}" and status == 130
    assert len(log_of(out)) == epochs and not (out / "results.json").exists()
    train_only("--resume", out)
    assert_same_run(out, whole)


def test_the_same_command_again_resumes_too(whole: Path, few_set: Path, tmp_path: Path,
                                            monkeypatch: MonkeyPatch) -> None:
    command = ["--data", few_set, "--out", tmp_path / "run", *COMMAND]
    monkeypatch.setattr(Router, "fit", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train_only(*command)
    monkeypatch.undo()
    break_off(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        train_only(*command)
    train_only(*command)
    assert_same_run(tmp_path / "run", whole)


def test_a_run_that_is_finished_trains_nothing(whole: Path, tmp_path: Path,
                                               monkeypatch: MonkeyPatch) -> None:
    out = shutil.copytree(whole, tmp_path / "run")
    before = files_of(out)
    monkeypatch.setattr("ptm_mini.training.fit", None)                 # training would fail
    train_only("--resume", out)
    assert files_of(out) == before


def test_several_seeds_resume_together(few_set: Path, tmp_path: Path, capsys: CaptureFixture,
                                       monkeypatch: MonkeyPatch) -> None:
    command = ["--data", few_set, "--seeds", 2, "--method", "full_mixed", "--epochs", 2, *FLAGS]
    train_only("--out", tmp_path / "whole", *command)
    out = tmp_path / "two words"
    break_off(monkeypatch, 7)                               # the second seed's second stage
    line, _ = failure(capsys, train_only, "--out", out, *command)
    assert line == f"interrupted; resume with  python train.py --resume '{out}'"
    monkeypatch.chdir(tmp_path)
    train_only("--resume", out.name)
    for seed in ("seed-0", "seed-1"):
        assert_same_run(out / seed, tmp_path / "whole" / seed)


def test_a_broken_state_is_named_and_can_be_removed(whole: Path, few_set: Path, tmp_path: Path,
                                                    monkeypatch: MonkeyPatch,
                                                    capsys: CaptureFixture) -> None:
    out = tmp_path / "run"
    break_off(monkeypatch, MIXED + 1)
    failure(capsys, train_only, "--data", few_set, "--out", out, *COMMAND)
    state = out / "full_mixed.state"
    state.write_bytes(state.read_bytes()[:-1000])
    line, status = failure(capsys, train_only, "--resume", out)
    assert line.startswith(f"{state}: is no file of tensors, or a broken one") and status == 2
    state.unlink()
    train_only("--resume", out)
    assert_same_run(out, whole)


def test_an_evaluation_says_what_is_not_finished(few_set: Path, tmp_path: Path,
                                                 monkeypatch: MonkeyPatch, capsys: CaptureFixture,
                                                 caplog: LogCaptureFixture) -> None:
    out = tmp_path / "run"
    break_off(monkeypatch, TOGETHER)
    failure(capsys, train_only, "--data", few_set, "--out", out, *COMMAND)
    evaluate_run(out)
    assert (f"note: {out} has not finished prompt, full_mixed; python train.py --resume {out} does"
            in caplog.text)
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if "|" in
            line]
    assert rows[2:] == ["backbone"]


def test_a_method_that_diverged_is_trained_with_another_rate(few_set: Path, tmp_path: Path,
                                                             capsys: CaptureFixture) -> None:
    """As the error proposes."""
    out = tmp_path / "run"
    line, status = failure(capsys, train_only, "--data", few_set, "--out", out, "--method",
                           "head", "--epochs", 3, *FLAGS, "--set", "train.head.learning_rate=1e30",
                           "--set", "train.head.weight_decay=1e30")
    assert "lower the learning rate" in line and status == 1
    train_only("--out", out, "--method", "head", "--set", "train.head.learning_rate=1e-3", "--set",
               "train.head.weight_decay=0")
    assert (out / "head-noisy_both.pt").exists()


@contextmanager
def started(folder: Path, *arguments: object) -> Iterator[subprocess.Popen]:
    """Run train.py as a process, which is killed at the end."""
    command = [sys.executable, ROOT / "train.py", *arguments, "--device", "cpu"]
    with subprocess.Popen([*map(str, command)], cwd=folder, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True,
                          env={**os.environ, "OMP_NUM_THREADS": "1"}) as process:
        yield process
        process.kill()


def wait_for_epochs(log: Path, count: int) -> None:
    for _ in range(6000):
        if log.exists() and log.read_text().count("\n") >= count:
            return
        time.sleep(0.01)
    raise TimeoutError(log)


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, 6, 12])
def test_a_killed_process_resumes_to_the_same_bytes(few_set: Path, whole: Path, tmp_path: Path,
                                                    epochs: int) -> None:
    out = tmp_path / "run"
    with started(tmp_path, "--data", few_set, "--out", "run", *COMMAND):
        wait_for_epochs(out / "log.jsonl", epochs)
    assert not (out / "full_mixed.pt").exists()
    train_only("--resume", out)
    assert files_of(out, "*.pt") == files_of(whole, "*.pt") and log_of(out) == log_of(whole)
