"""Ablations: what they compare, and that a variant is a run like any other, trained once."""
import json
import shutil
from pathlib import Path

import pytest
import torch
from helpers import (CONFIG, FLAGS, break_off, evaluate_run, files_of, open_run, read_results,
                     refusal, train_only)

from ptm_mini.checkpoint import load_tensors, read_run
from ptm_mini.config import PRESETS, Situation, change
from ptm_mini.lab import ablate
from ptm_mini.lab.ablate import ABLATIONS, Variant, train_variant
from ptm_mini.training import METHODS, private_settings

SHORT = [*FLAGS, *(word for stage in ("backbone", *METHODS)
                   for word in ("--set", f"train.{stage}.epochs=1"))]


@pytest.fixture(scope="module")
def trained_run(few_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with tuned heads, an epoch a stage of every method."""
    folder = tmp_path_factory.mktemp("ablate") / "run"
    train_only("--data", few_set, "--out", folder, "--method", "head", *SHORT)
    return folder


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(trained_run, tmp_path / "run")


def run_ablation(folder: Path, kind: str, *arguments: str) -> dict:
    """What the command writes."""
    ablate.main([str(folder), kind, *arguments, "--device", "cpu"])
    suffix = f"-draws-{arguments[1]}" if arguments else ""
    assert (folder / f"ablate-{kind}{suffix}.png").exists()
    return json.loads((folder / f"ablate-{kind}{suffix}.json").read_text())


@pytest.mark.parametrize("kind", ABLATIONS)
def test_every_row_is_compared_with_a_row_of_the_table(kind: str) -> None:
    rows = {variant.label: variant for variant in ABLATIONS[kind](CONFIG)}
    for variant in rows.values():
        change(CONFIG, variant.changes)
        others = private_settings(*(METHODS.keys() - {variant.method}))
        assert not any(key.startswith(others) for key in variant.changes)
        assert rows[variant.reference].reference == variant.reference


def test_attention_level_alone_needs_fusion_blocks() -> None:
    places = {variant.label for variant in ablate.level(CONFIG)}
    plain = {variant.label for variant in ablate.level(change(CONFIG, {"model.fusion": "none"}))}
    assert places - plain == {"attention", "attention, head"}


def test_what_is_varied() -> None:
    config = change(PRESETS["tiny"], {"prompts.length": 5, "prompts.input_depth": 0,
                                      "train.lora.learning_rate": 0.0123})
    assert [variant.x for variant in ablate.length(config)] == [1, 5, 8, 32]
    assert {variant.reference for variant in ablate.length(config)} == {"P = 5"}
    assert [variant.x for variant in ablate.depth(config)] == [0, 1, 2, 4]
    rates = [variant.x for variant in ablate.learning_rate(config) if variant.method == "lora"]
    assert rates == [0.001, 0.004, 0.01, 0.004, 0.0123, 0.04]     # on a tenth, and on all data
    budget = {variant.label: variant.reference for variant in ablate.budget(PRESETS["tiny"])}
    assert budget == {
        "prompts.length = 8": "prompts.length = 8", "lora.rank = 1": "prompts.length = 8",
        "adapter.bottleneck = 1": "prompts.length = 8",
        "prompts.length = 26": "prompts.length = 26", "lora.rank = 4": "prompts.length = 26",
        "adapter.bottleneck = 5": "prompts.length = 26"}
    few = {variant.label: variant.changes for variant in ablate.fraction(config)}
    assert few["full_mixed, 10%"] == {"train.fraction": 0.1, "train.full_mixed.epochs": 160,
                                      "train.full_mixed.learning_rate": 3e-4}
    assert few["full_mixed, 30%"] == {"train.fraction": 0.3, "train.full_mixed.epochs": 48}
    assert few["head, 3%"]["train.head.learning_rate"] == 0.01            # a third, up to 10%
    assert "adapter, 3%" in few and "adapter, 10%" not in few
    assert few["adapter, 30%, 5 epochs"] == {"train.fraction": 0.3, "train.adapter.epochs": 5}


def test_seeds_are_compared_and_variants_reused(seeds_folder: Path, tmp_path: Path,
                                                capsys: pytest.CaptureFixture) -> None:
    folder = shutil.copytree(seeds_folder, tmp_path / "seeds")
    first = run_ablation(folder, "depth")
    printed, trained = capsys.readouterr().out, files_of(folder, "variants/*/*")
    difference = "input_depth = 1 minus input_depth = 2"
    assert "spread over seeds" in first["differences"][difference]
    rows = first["rows"][0]
    assert list(rows) == ["backbone", "input_depth = 1", "input_depth = 2"]
    expected = read_results(folder / "seed-0")["accuracy"]["backbone"]
    assert rows["backbone"]["complete"] == expected["complete"]
    assert "| input_depth = 1 |" in printed and f"| {difference} |" in printed
    again = run_ablation(folder, "depth", "--draws", "2")
    assert files_of(folder, "variants/*/*") == trained
    assert again["rows"][0]["input_depth = 1"]["complete"] == rows["input_depth = 1"]["complete"]


def test_a_variant_has_the_weights_that_train_py_gives(run: Path, few_set: Path,
                                                       tmp_path: Path) -> None:
    variant = train_variant(open_run(run), Variant("rank 2", "lora", {"lora.rank": 2}, "rank 4"))
    train_only("--data", few_set, "--out", tmp_path / "same", "--method", "lora", *SHORT,
               "--set", "lora.rank=2")
    for situation in Situation:
        weights, expected = (load_tensors(folder / f"lora-{situation.label}.pt")["weights"]
                             for folder in (variant.folder, tmp_path / "same"))
        assert weights.keys() == expected.keys()
        assert all(torch.equal(weights[name], expected[name]) for name in weights)
    assert read_run(variant.folder).path("backbone").samefile(run / "backbone.pt")


def test_a_variant_that_differs_in_nothing_has_the_runs_own_files(run: Path) -> None:
    same = train_variant(open_run(run), Variant("all", "head", {"train.fraction": 1.0}, "all"))
    assert same.path("head complete").samefile(run / "head-complete.pt")
    few = train_variant(open_run(run), Variant("few", "head", {"train.fraction": 0.5}, "all"))
    assert not few.path("head complete").samefile(run / "head-complete.pt")


def test_a_variant_has_the_scores_of_an_evaluation(run: Path) -> None:
    evaluate_run(run)
    opened, expected = open_run(run), read_results(run)["accuracy"]
    table, _ = ablate.score_variants(opened, [Variant("all", "head", {}, "all")], opened.split)
    for label, row in ("backbone", "backbone"), ("all", "head oracle"):
        assert expected[row].items() <= table[label].items()


@pytest.mark.parametrize("method, views", [("lora", 0), ("head", 1)])
def test_a_variant_that_was_broken_off_resumes(method: str, views: int, run: Path, tmp_path: Path,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    whole = shutil.copytree(run, tmp_path / "whole")
    variant = Variant("two", method, {f"train.{method}.epochs": 2}, "one", views=views)
    train_variant(open_run(whole), variant)
    break_off(monkeypatch, epochs=3)
    with pytest.raises(KeyboardInterrupt):
        train_variant(open_run(run), variant)
    train_variant(open_run(run), variant)
    assert files_of(whole, "variants/*/*.pt") == files_of(run, "variants/*/*.pt")


def test_a_variant_of_other_settings_is_refused_by_name(run: Path) -> None:
    few = {"train.fraction": 0.5}
    folder = train_variant(open_run(run), Variant("few", "adapter", few, "all")).folder
    train_variant(open_run(run), Variant("few", "head", few, "all"))
    train_only("--out", run, "--method", "adapter", "--set", "adapter.bottleneck=3")
    message = refusal(train_variant, open_run(run), Variant("few", "adapter", few, "all"))
    assert message.startswith(f"{folder}: was trained with adapter.bottleneck=4; expected 3 ")
    train_variant(open_run(run), Variant("few", "head", few, "all"))     # which has no bottleneck


def test_learning_rates_are_chosen_on_the_validation_split(
        run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablate, "LEARNERS", ["head"])
    monkeypatch.setattr(ablate, "CURVE", ())                               # all data alone
    rows, = run_ablation(run, "learning_rate")["rows"]
    assert list(rows)[1:] == ["head, 100%, 0.01", "head, 100%, 0.03", "head, 100%, 0.09"]
    log = [line for line in read_run(run).read_log() if line["stage"].startswith("head")]
    mean = sum(line["accuracy"] for line in log) / len(log)    # an epoch for each situation
    assert rows["head, 100%, 0.03"]["average"] == pytest.approx(mean)


def test_a_variant_has_a_backbone_of_its_own_where_it_needs_one(
        run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablate, "FUSION_KINDS", ("cross", "none"))
    rows, = run_ablation(run, "fusion")["rows"]
    assert list(rows) == ["backbone", "cross", "none, backbone", "none"]
    assert rows["none, backbone"]["parameters"] < rows["backbone"]["parameters"]


def test_views_are_trained_on_cached_tokens(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ablate, "VIEWS", (0, 1))
    run_ablation(run, "views")
    whole, cached = ([line["loss"] for line in read_run(folder).read_log()
                      if line["stage"].startswith("head")]
                     for folder in (run, run / "variants" / "head,views=1"))
    assert whole == pytest.approx(cached, abs=1e-3) and whole != cached       # tokens were rounded
