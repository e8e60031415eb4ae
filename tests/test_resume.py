"""What train.py does in a run folder where something was broken off, seen from the command line."""
import json
import os
import shutil
import subprocess
import sys

import pytest
import train as train_script
from conftest import SMALL, edit

import eval as eval_script
from ptm_mini.errors import Stopped
from ptm_mini.errors import run as run_command
from ptm_mini.files import locked
from ptm_mini.runs.folder import load_run
from ptm_mini.runs.sealed import sealed
from ptm_mini.training.samples import Task

SETTINGS = [word for setting in [*SMALL, "train.backbone.epochs=2", "train.head.epochs=2"] for word in ("--set", setting)]


def train(*arguments):
    train_script.main([*map(str, arguments), "--device", "cpu"])


def refused(capsys, *arguments, main=train_script.main):
    """The one line and the exit status that a command ends with."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        run_command(lambda: main([*map(str, arguments), "--device", "cpu"]))
    line = capsys.readouterr().err
    assert line.count("\n") == 1 and line.startswith("error: ")
    return line, caught.value.code


def break_off_at(monkeypatch, count, kind=KeyboardInterrupt):
    """Let the validation after the count-th epoch from now on raise an interruption."""
    validate, left = Task.validate, [count]

    def validate_or_break_off(*arguments):
        left[0] -= 1
        if left[0] == 0:
            monkeypatch.setattr(Task, "validate", validate)
            raise kind
        return validate(*arguments)

    monkeypatch.setattr(Task, "validate", validate_or_break_off)


def result(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*")
            if path.suffix == ".pt" or path.name == "results.json"}


@pytest.fixture(scope="module")
def whole(toy_set, tmp_path_factory):
    """Two seeds' runs with a tuned head, in a folder, that were not broken off."""
    folder = tmp_path_factory.mktemp("whole") / "runs"
    train("--data", toy_set, "--out", folder, "--seeds", 2, "--method", "head", *SETTINGS)
    return folder


# of 20: a backbone's two, and two of each head, twice
@pytest.mark.parametrize("epoch", [3, 19, *(pytest.param(epoch, marks=pytest.mark.slow) for epoch in (1, 12))])
def test_several_seeds_go_on_to_the_same_bytes(whole, toy_set, tmp_path, monkeypatch, capsys, epoch):
    out = tmp_path / "runs"
    break_off_at(monkeypatch, epoch)
    line, status = refused(capsys, "--data", toy_set, "--out", out, "--seeds", 2, "--method", "head", *SETTINGS)
    assert line == f"error: interrupted; go on with  python train.py --resume {out}\n" and status == 130
    train("--resume", out)
    assert result(out) == result(whole)
    assert sorted(path.name for path in out.iterdir()) == sorted(path.name for path in whole.iterdir())


def test_it_goes_on_from_another_folder(whole, toy_set, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(toy_set.parent)
    break_off_at(monkeypatch, 5)
    refused(capsys, "--data", toy_set.name, "--out", tmp_path / "run", "--method", "head", *SETTINGS)
    monkeypatch.chdir(tmp_path)
    train("--resume", "run")
    assert result(tmp_path / "run") == result(whole / "seed-0")
    assert load_run(tmp_path / "run").data == str(toy_set.resolve())


def test_what_was_broken_off_is_not_touched_by_other_commands(toy_set, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    break_off_at(monkeypatch, 4, Stopped(15))
    line, status = refused(capsys, "--data", toy_set, "--out", out, "--method", "head", *SETTINGS)
    assert line == f"error: ended by SIGTERM; go on with  python train.py --resume {out}\n" and status == 143
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for arguments in (["--data", toy_set, *SETTINGS], ["--method", "lora"], ["--seeds", 2]):
        line, status = refused(capsys, "--out", out, *arguments)
        assert f"--out {out}: a command was broken off there; go on with  python train.py --resume {out}  or remove" in line
        assert status == 2
    assert before == {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    for flag, value in (("--method", "lora"), ("--epochs", 3), ("--data", toy_set), ("--out", out)):
        assert f"{flag}: does not go with --resume" in refused(capsys, "--resume", out, flag, value)[0]
    shutil.rmtree(out / "unfinished")
    train("--out", out, "--method", "lora", *SETTINGS)                                # the backbone was saved by then
    assert load_run(out).trained == ("backbone", "lora")


def test_there_is_nothing_to_go_on_with(whole, toy_set, tmp_path, monkeypatch, capsys):
    assert f"--resume {whole}: no command was broken off there" in refused(capsys, "--resume", whole)[0]
    assert "--resume nowhere: no command was broken off there" in refused(capsys, "--resume", "nowhere")[0]
    break_off_at(monkeypatch, 3)
    refused(capsys, "--data", toy_set, "--out", tmp_path / "runs", "--seeds", 2, "--method", "head", *SETTINGS)
    line = refused(capsys, "--resume", tmp_path / "runs" / "seed-0")[0]
    assert f"is one of several runs; go on with  python train.py --resume {tmp_path / 'runs'}" in line
    command = tmp_path / "runs" / "unfinished" / "command.json"
    asked = json.loads(command.read_text())
    del asked["sha256"]
    command.write_bytes(sealed({**asked, "method": ["prompt", "prompt_scale_shift"]}))        # as version 0.5 could ask for
    line = refused(capsys, "--resume", tmp_path / "runs")[0]
    assert f"--resume {tmp_path / 'runs'}: was asked for the method 'prompt_scale_shift', of another ptm_mini; expected" in line
    command.write_text(command.read_text().replace("prompt_scale_shift", "lora"))
    assert f"{command}: was altered" in refused(capsys, "--resume", tmp_path / "runs")[0]


def test_a_state_that_is_damaged_is_named_and_can_be_removed(whole, toy_set, tmp_path, monkeypatch, capsys):
    out = tmp_path / "run"
    break_off_at(monkeypatch, 2)
    refused(capsys, "--data", toy_set, "--out", out, "--method", "head", *SETTINGS)
    state = out / "unfinished" / "backbone.pt"
    state.write_bytes(state.read_bytes()[:-1000])
    line, status = refused(capsys, "--resume", out)
    assert f"{state}: is not as training saved it; remove it, and the stage begins anew" in line and status == 2
    state.unlink()
    train("--resume", out)
    assert result(out) == result(whole / "seed-0")


def test_evaluation_says_that_something_is_left_to_do(toy_set, tmp_path, monkeypatch, capsys, caplog):
    out = tmp_path / "run"
    break_off_at(monkeypatch, 4)
    refused(capsys, "--data", toy_set, "--out", out, "--method", "head", *SETTINGS)
    eval_script.main([str(out), "--device", "cpu"])
    assert f"note: in {out} something is left to do" in caplog.text and "| backbone" in capsys.readouterr().out


def test_a_stage_that_diverged_is_begun_anew_with_other_settings(whole, toy_set, tmp_path, capsys):
    out = tmp_path / "run"
    shutil.copytree(whole / "seed-0", out)
    bad = ["--set", "train.lora.learning_rate=10", "--set", "train.lora.weight_decay=100", "--set", "train.lora.batch_size=1"]
    line, status = refused(capsys, "--out", out, "--method", "lora", *bad)
    assert "lora complete: the loss became" in line and status == 1
    train("--out", out, "--method", "lora", "--epochs", 1)
    assert load_run(out).config.train.lora.learning_rate == 3e-3


def test_one_process_works_in_a_run_folder(whole, toy_set, tmp_path, capsys):
    with locked(whole / "train.lock"):
        line = subprocess.run([sys.executable, train_script.__file__, "--out", whole, "--method", "lora"], capture_output=True,
                              text=True).stderr
    assert line == (f"error: {whole / 'train.lock'}: another process ({os.getpid()}) is at work; wait until it ends, or end "
                    f"it\n")


@pytest.mark.parametrize("setting, says", [
    (["prompts.length=0", "prompts.tune_head=false"], "prompt: nothing can learn"), (["train.seed=-1"], "train.seed=-1"),
    (["train.lora.rank=3"], "no such setting")])
def test_what_can_be_known_before_training_is(toy_set, tmp_path, capsys, setting, says):
    words = [word for assignment in setting for word in ("--set", assignment)]
    line, status = refused(capsys, "--data", toy_set, "--out", tmp_path / "run", *SETTINGS, *words)
    assert says in line and status == 2 and os.listdir(tmp_path) == []


def test_a_run_stays_with_the_set_that_it_was_trained_on(whole, toy_set, tmp_path, capsys):
    moved, out = tmp_path / "moved", tmp_path / "run"
    shutil.copytree(whole / "seed-0", out)
    shutil.copytree(toy_set, moved)
    train("--data", moved, "--out", out, "--method", "lora", "--epochs", 1)                    # the same set elsewhere
    manifest = (moved / "manifest.csv").read_bytes()
    for cells in ({"split": "test"}, {"id": "other"}, {"image": next(moved.glob("image/siren*")).relative_to(moved)}):
        edit(moved, 2, **cells)
        line, _ = refused(capsys, "--out", out, "--method", "adapter")
        assert f"{moved}: has other samples or files than when the run was trained on it" in line
        line, _ = refused(capsys, out, main=eval_script.main)
        assert f"or say --data {moved} to take it as it is now" in line
        line, _ = refused(capsys, "--out", out, "--method", "adapter", "--data", moved)
        assert "is not the set that" in line
        (moved / "manifest.csv").write_bytes(manifest)
    edit(moved, 2, split="test")
    eval_script.main([str(out), "--data", str(moved), "--device", "cpu"])
    assert json.loads((out / "results.json").read_text())["data"] == str(moved)
