"""Ablations of a run that was broken off, that got more methods, or on which two processes work."""
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL, refusal

import eval as eval_script
import train as train_script

ROOT = Path(__file__).parent.parent.parent
SETTINGS = [part for assignment in SMALL for part in ("--set", assignment)]


def train(run, *arguments):
    train_script.main([*SETTINGS, "--out", str(run), *arguments, "--device", "cpu"])


def ablate(run, *arguments):
    eval_script.main([str(run), "--ablate", "depth", "--device", "cpu", *arguments])


def files_in(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(toy_set, tmp_path):
    """The folder of a run with nothing but a backbone"""
    train(tmp_path / "run", "--data", str(toy_set), "--method", "backbone")
    return tmp_path / "run"


def test_a_run_that_got_another_method_keeps_its_ablations(run, caplog):
    ablate(run)
    before = files_in(run / "variants")
    train(run, "--method", "lora", "--set", "lora.rank=2", "--epochs", "1")
    caplog.set_level("INFO")
    caplog.clear()
    ablate(run, "--draws", "2")
    assert "training " not in caplog.text and files_in(run / "variants") == before
    one, two = (json.loads((run / f"ablate-depth{suffix}.json").read_text())[0] for suffix in ("", "-draws-2"))
    assert all(one[row]["complete"] == two[row]["complete"] for row in one) and (run / "ablate-depth-draws-2.png").exists()


def test_a_variant_of_other_settings_is_refused_by_name(run):
    ablate(run)
    one, other = sorted((run / "variants").iterdir())                 # "prompt" is the run's own depth, 2
    assert other.name == "prompt,prompts.input_depth=1"
    for path in one.iterdir():
        path.unlink()
    one.rmdir()
    other.rename(one)
    said = refusal(ablate, run)
    assert f"{one}: was trained with prompts.input_depth=1; expected 2, as the run has it now: remove that folder" in said


def test_a_variant_that_was_broken_off_is_trained_anew(run, caplog):
    caplog.set_level("INFO")
    (run / "variants" / "prompt").mkdir(parents=True)                 # as a process that was killed leaves it
    ablate(run)
    assert caplog.text.count("training ") == 2 and len(list(run.glob("variants/*/config.json"))) == 2
    assert not list((run / "variants").glob(".*"))


@pytest.mark.slow
def test_two_at_once_both_end_well_and_train_each_variant_once(run):
    command = [sys.executable, ROOT / "eval.py", run, "--ablate", "length", "--device", "cpu"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0] and [err for _, err in said] == ["", ""]
    assert sum(out.count("training ") for out, _ in said) == 6        # lengths
    tables = [[line for line in out.splitlines() if line.startswith("|")] for out, _ in said]
    assert tables[0] == tables[1] and len(tables[0]) == 8
