"""Tables by hand, and what a report writes."""
import shutil
from pathlib import Path

import pytest
import torch
from helpers import evaluate_run, read_results, refusal
from pytest import CaptureFixture

from ptm_mini.checkpoint import read_run
from ptm_mini.config import Situation
from ptm_mini.evaluation import Difference
from ptm_mini.report import Table, format_table, open_runs, summarise


def accuracies(shift: float = 0.0) -> Table:
    return {"backbone": {"complete": 0.5 + shift, "average": 0.65 + shift},
            "prompt oracle": {"complete": 1.0, "average": 0.98765}}


def test_a_table_by_hand() -> None:
    assert format_table([accuracies()]) == """\
|               | complete | average |
|---------------|---------:|--------:|
| backbone      |    0.500 |   0.650 |
| prompt oracle |    1.000 |   0.988 |"""


def test_several_seeds_by_hand() -> None:
    """The mean and, over three seeds, the standard deviation."""
    assert format_table([accuracies(shift) for shift in (0.0, 0.1, 0.2)], "row") == """\
| row           |    complete |     average |
|---------------|------------:|------------:|
| backbone      | 0.600±0.100 | 0.750±0.100 |
| prompt oracle | 1.000±0.000 | 0.988±0.000 |"""


def test_differences_by_hand() -> None:
    assert summarise({"head": Difference([0.1], 0.02)}) == {
        "head": {"difference": 0.1, "standard error": 0.02}}
    assert summarise({"head": Difference([0.1], None)}) == {"head": {"difference": 0.1}}
    table = summarise({"backbone": Difference([-0.15, -0.25, -0.35], 0.15),
                       "lora oracle": Difference([0.6, -0.1, 0.1], 0.05)})
    assert format_table([table]) == """\
|             | difference | spread over seeds | standard error |
|-------------|-----------:|------------------:|---------------:|
| backbone    |     -0.250 |             0.100 |          0.150 |
| lora oracle |     +0.200 |             0.361 |          0.050 |"""


def test_results_agree_with_one_another(run_folder: Path) -> None:
    results = read_results(run_folder)
    labels = [situation.label for situation in Situation]
    assert results["split"] == "test" and results["seed"] == 0 and results["draws"] == 1
    assert list(results["scores"]) == labels
    for row, accuracy in results["accuracy"].items():
        scores = [results["scores"][label][row] for label in labels]
        assert [accuracy[label] for label in labels] == [score["accuracy"] for score in scores]
        assert accuracy["average"] == pytest.approx(sum(accuracy[label] for label in labels) / 4)
        assert results["detail"][row]["worst"] == min(score["accuracy"] for score in scores)
        assert all(score["samples"] == 15 for score in scores)
        if row != "prompt oracle":
            difference = results["differences"][row]
            reference = results["accuracy"]["prompt oracle"]["average"]
            assert difference["by_seed"] == [pytest.approx(accuracy["average"] - reference)]
            assert 0 <= difference["standard_error"] < 0.3
    for label in labels:
        own = results["sets"][label][label]
        assert own == results["accuracy"]["prompt oracle"][label]
        assert sum(results["router"][label].values()) == pytest.approx(1)
    assert results["differences"].keys() == results["accuracy"].keys() - {"prompt oracle"}


def test_the_costs_are_those_of_one_model(run_folder: Path) -> None:
    detail = read_results(run_folder)["detail"]
    run = read_run(run_folder)
    for row, name in (("backbone", "backbone"), ("lora routed", "lora-complete"),
                      ("prompt concat", "prompt-complete"), ("full_mixed", "full_mixed")):
        path = run_folder / f"{name}.pt"
        weights = torch.load(path)["weights"].values()
        assert detail[row]["parameters"] == sum(weight.numel() for weight in weights)
        assert detail[row]["stored kB"] == path.stat().st_size / 1e3
    seconds = [line["seconds"] for line in run.read_log() if line["stage"].startswith("prompt")]
    assert len(seconds) == 5
    assert detail["prompt oracle"]["s/epoch"] == pytest.approx(sum(seconds) / 5)


def test_an_evaluation_again_writes_the_same_bytes_and_prints_details(
        seeds_folder: Path, tmp_path: Path, capsys: CaptureFixture) -> None:
    names = ["results.json", "seed-0/results.json", "results.png", "seed-0/gallery.png"]
    copied = shutil.copytree(seeds_folder, tmp_path / "seeds")     # results.png has this name
    before = {name: (copied / name).read_bytes() for name in names}
    for name in names:
        (copied / name).unlink()
    evaluate_run(copied, "--details")
    assert {name: (copied / name).read_bytes() for name in names} == before
    assert all(before[name].startswith(b"\x89PNG") for name in names if name.endswith(".png"))
    printed = capsys.readouterr().out
    titles = [line.split(":")[0] for line in printed.splitlines() if line[:1].isalpha()]
    assert titles == [
        "Accuracy", "The worst situation's accuracy, macro-F1, and the cost of one model",
        "Each prompt set (row) in each situation (column), accuracy",
        "Share of each situation (row) that the router takes for another (column)",
        "Average minus that of 'prompt oracle'; the standard error is over the test samples, each "
        "compared with itself"]
    assert all(len(line) <= 110 for line in printed.splitlines() if line.startswith("|"))


def test_several_seeds_are_reported_together(seeds_folder: Path) -> None:
    together = read_results(seeds_folder)
    alone = [read_results(seeds_folder / f"seed-{seed}") for seed in (0, 1)]
    assert [own["seed"] for own in alone] == [0, 1]
    for name in ("accuracy", "detail", "sets", "router"):
        assert together[name] == [own[name] for own in alone]
    for row, difference in together["differences"].items():
        each = [own["differences"][row] for own in alone]
        assert difference["by_seed"] == [one["by_seed"][0] for one in each]
        assert difference["standard_error"] <= max(one["standard_error"] for one in each)


def test_runs_with_other_methods_are_not_reported_together(seeds_folder: Path, run_folder: Path,
                                                           tmp_path: Path) -> None:
    shutil.copytree(seeds_folder / "seed-0", tmp_path / "seed-0")
    shutil.copytree(run_folder, tmp_path / "seed-1")
    assert f"{tmp_path / 'seed-1'}: has other methods than {tmp_path / 'seed-0'}" in refusal(
        open_runs, tmp_path)
