"""Tables by hand, and what a report writes."""
import shutil
from pathlib import Path

import pytest
import torch
from helpers import evaluate_run, failure, files_of, read_results
from pytest import CaptureFixture

from ptm_mini.checkpoint import read_run
from ptm_mini.config import Situation
from ptm_mini.evaluation import Table
from ptm_mini.report import format_table


def accuracies(shift: float = 0.0) -> Table:
    return {"backbone": {"complete": 0.5 + shift, "average": 0.65 + shift},
            "prompt oracle": {"complete": 1.0, "average": 0.98765}}


def test_tables_by_hand() -> None:
    """Of several seeds the mean and the standard deviation."""
    assert format_table([accuracies()]) == """\
|               | complete | average |
|---------------|---------:|--------:|
| backbone      |    0.500 |   0.650 |
| prompt oracle |    1.000 |   0.988 |"""
    assert format_table([accuracies(shift) for shift in (0.0, 0.1, 0.2)], "row") == """\
| row           |    complete |     average |
|---------------|------------:|------------:|
| backbone      | 0.600±0.100 | 0.750±0.100 |
| prompt oracle | 1.000±0.000 | 0.988±0.000 |"""


def test_results_agree_with_one_another(seeds_folder: Path) -> None:
    results = read_results(seeds_folder / "seed-0")
    labels = [situation.label for situation in Situation]
    assert list(results["scores"]) == labels
    reference = results["accuracy"]["prompt oracle"]
    for row, accuracy in results["accuracy"].items():
        scores = [results["scores"][label][row]["accuracy"] for label in labels]
        assert [accuracy[label] for label in labels] == scores
        assert accuracy["average"] == pytest.approx(sum(scores) / 4)
        assert results["detail"][row]["worst"] == min(scores)
        if row != "prompt oracle":
            assert results["differences"][row]["difference"] == pytest.approx(
                accuracy["average"] - reference["average"])
    for label in labels:
        assert results["sets"][label][label] == reference[label]
        assert sum(results["router"][label].values()) == pytest.approx(1)


def test_the_costs_are_those_of_one_model(seeds_folder: Path) -> None:
    folder = seeds_folder / "seed-0"
    detail = read_results(folder)["detail"]
    for row, name in (("backbone", "backbone"), ("lora routed", "lora-complete"),
                      ("prompt concat", "prompt-complete")):
        weights = torch.load(folder / f"{name}.pt")["weights"].values()
        assert detail[row]["parameters"] == sum(weight.numel() for weight in weights)
    log = read_run(folder).read_log()
    seconds = [line["seconds"] for line in log if line["stage"].startswith("prompt")]
    assert detail["prompt oracle"]["s/epoch"] == pytest.approx(sum(seconds[:4]) / 4)    # one's


def test_an_evaluation_again_writes_the_same_bytes_and_prints_details(
        seeds_folder: Path, tmp_path: Path, capsys: CaptureFixture) -> None:
    copied = shutil.copytree(seeds_folder / "seed-0", tmp_path / "run")
    before = files_of(copied)
    for name in ("results.json", "gallery.png"):
        (copied / name).unlink()
    evaluate_run(copied, "--details")
    (copied / "results.png").unlink()              # seed-0 has none of its own
    assert files_of(copied) == before
    printed = capsys.readouterr().out
    titles = [line.split()[0] for line in printed.splitlines() if line[:1].isalpha()]
    assert titles == ["Accuracy:", "The", "Each", "Share", "Average"]


def test_several_seeds_are_reported_together(seeds_folder: Path) -> None:
    together = read_results(seeds_folder)
    alone = [read_results(seeds_folder / f"seed-{seed}") for seed in (0, 1)]
    for name in ("accuracy", "detail", "sets", "router"):
        assert together[name] == [own[name] for own in alone]
    for row, difference in together["differences"][0].items():
        each = [own["differences"][row]["difference"] for own in alone]
        assert difference["difference"] == pytest.approx(sum(each) / 2)


def test_runs_with_other_methods_are_not_reported_together(seeds_folder: Path,
                                                           tmp_path: Path) -> None:
    copied = shutil.copytree(seeds_folder, tmp_path / "seeds")
    (copied / "seed-1" / "lora-complete.pt").unlink()
    assert f"{copied / 'seed-1'}: has other methods" in failure(evaluate_run, copied)
