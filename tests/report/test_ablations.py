"""Ablations: what they compare, and of a run that was broken off, that got more methods, or on which two processes work."""
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import SMALL, refusal

import eval as eval_script
import train as train_script
from ptm_mini.config import PRESETS
from ptm_mini.report import ablations, variants
from ptm_mini.runs.folder import load_run
from ptm_mini.settings import with_settings
from ptm_mini.training.methods import BACKBONE, reads

ROOT = Path(__file__).parent.parent.parent
SETTINGS = [part for assignment in SMALL for part in ("--set", assignment)]


def train(run, *arguments):
    train_script.main([*SETTINGS, "--out", str(run), *arguments, "--device", "cpu"])


def ablate(run, *arguments, kind="depth"):
    eval_script.main([str(run), "--ablate", kind, "--device", "cpu", *arguments])


def files_in(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(toy_set, tmp_path):
    """The folder of a run with nothing but a backbone"""
    short = [part for stage in ("head", "full_mixed") for part in ("--set", f"train.{stage}.epochs=1")]
    train(tmp_path / "run", "--data", str(toy_set), "--method", "backbone", *short)
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


def test_every_method_is_compared_at_every_share_in_as_many_steps(run, monkeypatch, capsys):
    monkeypatch.setattr(variants, "LEARNERS", ("prompt", "full_mixed"))
    monkeypatch.setattr(variants, "SHARES", (0.1, 1.0))
    monkeypatch.setattr(variants, "RATES_FOR_FEW", {"prompt": 0.007})
    train(run, "--method", "full_mixed", "--set", "train.full_mixed.epochs=2")
    ablate(run, kind="fraction")
    [rows] = json.loads((run / "ablate-fraction.json").read_text())
    assert list(rows) == [BACKBONE, "prompt, 10%", "prompt, 100%", "prompt, 30%, 5 epochs",
                          "full_mixed, 10%", "full_mixed, 100%", "full_mixed, 30%, 5 epochs"]
    kept = {path.name: load_run(path).config.train for path in (run / "variants").iterdir()}
    few, paper = "train.fraction=0.1,train.full_length=True", "train.fraction=0.3,train."
    assert kept.keys() == {f"prompt,{few},train.prompts.learning_rate=0.007", "prompt", f"prompt,{paper}prompts.epochs=5",
                           f"full_mixed,{few}", f"full_mixed,{paper}full_mixed.epochs=5"}
    assert kept["full_mixed,train.fraction=0.1,train.full_length=True"].full_mixed.epochs == 2
    trained = json.loads((run / "results.json").read_text())["average"]["full_mixed"]
    assert rows["full_mixed, 100%"]["average"] == trained                  # the run's own, as it stands
    printed, images = capsys.readouterr().out, (run / "ablate-fraction.png").exists()
    assert any(line.startswith("| full_mixed |") and line.split("|")[3].strip() == f"{trained:.3f}"
               for line in printed[printed.index("| average "):].splitlines())
    title, _, *lines = printed[printed.index("Average minus that of prompts with as much"):].splitlines()
    assert images and [line.split("|")[1].strip() for line in lines[2:]] == [row for row in rows if row.startswith("full")]
    assert f"{trained - rows['prompt, 100%']['average']:+.3f}" in lines[3]


def test_learning_rates_are_compared_on_the_validation_split_alone(run, monkeypatch):
    monkeypatch.setattr(variants, "LEARNERS", ("full_mixed",))
    monkeypatch.setattr(ablations, "OpenRun", None)                         # which looks at the test split
    ablate(run, kind="learning_rate")
    [rows] = json.loads((run / "ablate-learning_rate.json").read_text())
    assert list(rows) == [f"full_mixed, {share}, {rate}" for share in ("10%", "100%") for rate in ("0.0003", "0.001", "0.003")]
    assert all(columns.keys() == {"validation"} and 0 <= columns["validation"] <= 1 for columns in rows.values())
    cost = load_run(run / "variants" / "full_mixed,train.full_mixed.learning_rate=0.003").costs["full_mixed"][0]
    assert rows["full_mixed, 100%, 0.003"]["validation"] == cost.validation
    assert (run / "ablate-learning_rate.png").exists()


def test_learning_rates_are_a_third_of_the_own_one_itself_and_three_times_it():
    config = with_settings(PRESETS["tiny"], {"train.lora.learning_rate": 0.0123})
    assert [variant.x for variant in variants.learning_rate(config) if variant.method == "lora"] == 2 * [0.004, 0.0123, 0.04]
    said = refusal(variants.learning_rate, with_settings(config, {"train.lora.epochs": 0}))
    assert said == "setting train.lora.epochs=0: expected 1 or more, for learning rates to differ"


def test_views_are_of_what_can_start_from_kept_tokens(run, monkeypatch):
    monkeypatch.setattr(variants, "VIEWS", (0, 1))
    ablate(run, kind="views")
    [rows] = json.loads((run / "ablate-views.json").read_text())
    assert rows.keys() == {BACKBONE, "head, 0 views", "head, 1 views", "attention, 0 views", "attention, 1 views"}
    assert (run / "ablate-views.png").exists() and not list(run.rglob("kept-*"))


def test_every_row_is_compared_with_one_of_the_table_and_budgets_with_prompts_of_as_many_numbers():
    config = with_settings(PRESETS["tiny"], {"prompts.length": 5, "prompts.input_depth": 0})
    for kind, function in variants.ABLATIONS.items():
        found = {variant.label: variant for variant in function(config)}
        assert kind == "learning_rate" or all(found[variant.against].against == variant.against for variant in found.values())
    assert [variant.x for variant in variants.length(config)] == [1, 2, 4, 5, 8, 16, 32]
    assert {variant.against for variant in variants.length(config)} == {"P = 5"}
    assert {variant.against for variant in variants.depth(config)} == {"input_depth = 4"}         # the own one, 0, is no row
    assert {variant.label: variant.against for variant in variants.budget(PRESETS["tiny"])}["lora rank = 3, head"] \
        == "prompt length = 20, head"


def test_a_variant_reads_what_it_varies():
    """Else two rows of a table would be the same."""
    for kind, function in variants.ABLATIONS.items():
        for variant in function(PRESETS["tiny"]):
            for key in variant.changes:
                assert reads(variant.method, key), f"{kind}: {variant.label}: {key}"
            with_settings(PRESETS["tiny"], variant.changes)


@pytest.mark.slow
def test_two_at_once_both_end_well_and_train_each_variant_once(run):
    command = [sys.executable, ROOT / "eval.py", run, "--ablate", "length", "--device", "cpu"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0] and [err for _, err in said] == ["", ""]
    assert sum(out.count("training ") for out, _ in said) == 6        # lengths
    tables = [[line for line in out.splitlines() if line.startswith("|")] for out, _ in said]
    assert tables[0] == tables[1]
    assert len(tables[0]) == 2 + 1 + 6 + 2 + 5                        # head, backbone, lengths; head, all but the own length
