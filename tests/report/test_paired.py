"""Paired differences: their standard error against the textbook's and a bootstrap's, and the tables that show them."""
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ptm_mini.config import Situation
from ptm_mini.data.prepared import PreparedSet
from ptm_mini.report import paired
from ptm_mini.report.results import Selection, evaluate_runs
from ptm_mini.training.measure import Score

N = 300                           # rows of the set; the first 100 are not of the test split


def scored(right):
    """A Score of which the right answers alone matter. right [N], NaN where not looked at"""
    return Score(right.nanmean().item(), 0.0, 0.0, int((~right.isnan()).sum()), right)


def made(seed, held, better=0.1):
    """{Situation: {row: Score}} of two rows whose answers agree in part. held: the share of samples in each situation"""
    random = np.random.default_rng(seed)
    hard, scores = random.random(N), {}                   # of a sample, in all situations and for both rows
    for situation, share in zip(Situation, held):
        left_out = (random.random(N) >= share) | (np.arange(N) < 100)
        right = {row: np.where(left_out, np.nan, hard + 0.5 * random.random(N) < 0.7 + more)
                 for row, more in (("backbone", 0.0), ("prompt situation", better * (1 + situation)))}
        scores[situation] = {row: scored(torch.from_numpy(x)) for row, x in right.items()}
    return scores


def differences_of(scores):
    """[S, N] numpy, NaN where not looked at"""
    return np.stack([(own["backbone"].right - own["prompt situation"].right).numpy() for own in scores.values()])


def test_where_all_samples_are_in_all_situations_it_is_the_textbooks():
    scores = made(0, (1, 1, 1, 1))
    found = paired.differences([scores], "prompt situation")
    assert list(found) == ["backbone"]
    d = differences_of(scores)[:, 100:].mean(axis=0)                               # of each sample
    assert found["backbone"].by_seed == [pytest.approx(d.mean())]
    assert found["backbone"].standard_error == pytest.approx(d.std(ddof=1) / np.sqrt(200))


@pytest.mark.parametrize("held", [(1, 1, 1, 1), (0.5, 0.5, 1, 1), (0.15, 0.95, 0.95, 1)])
def test_it_is_that_of_drawing_other_samples(held):
    """A bootstrap: samples are drawn anew with all their answers, so that how many are in a situation varies too."""
    scores = made(1, held, better=0.2)
    d = differences_of(scores)[:, 100:]
    drawn = np.random.default_rng(2).multinomial(200, np.full(200, 1 / 200), size=4000)           # how often each
    means = (drawn @ np.nan_to_num(d).T) / (drawn @ ~np.isnan(d).T)                # [4000, S]
    found = paired.differences([scores], "prompt situation")["backbone"]
    assert found.by_seed == [pytest.approx(np.nanmean(d, axis=1).mean())]
    assert found.standard_error == pytest.approx(means.mean(axis=1).std(), rel=0.05)


def test_the_same_difference_everywhere_has_no_error():
    """However unevenly the samples lie in the situations."""
    ones = {s: scored(torch.tensor([1.0] * (8 - 2 * s) + [torch.nan] * 2 * s, dtype=torch.double)) for s in Situation}
    scores = {s: {"prompt situation": one, "backbone": scored(one.right - 1)} for s, one in ones.items()}
    assert paired.differences([scores], "prompt situation")["backbone"] == paired.Difference([-1.0], 0.0)


def test_seeds_are_averaged_sample_by_sample():
    first, second = made(3, (1, 1, 1, 1)), made(4, (1, 1, 1, 1))
    alone = [paired.differences([one], "prompt situation")["backbone"] for one in (first, second)]
    both = paired.differences([first, second], "prompt situation")["backbone"]
    assert both.by_seed == [one.by_seed[0] for one in alone]
    d = (differences_of(first) + differences_of(second))[:, 100:].mean(axis=0) / 2
    assert both.standard_error == pytest.approx(d.std(ddof=1) / np.sqrt(200))
    assert paired.differences([first, first], "prompt situation")["backbone"].standard_error == alone[0].standard_error
    assert paired.differences([first, second], "prompt situation", same_samples=False)["backbone"].standard_error is None


def test_one_sample_says_nothing_of_others():
    right = torch.full((N,), torch.nan, dtype=torch.double)
    right[7] = 1
    scores = {s: {"prompt situation": scored(right), "backbone": scored(right - 1)} for s in Situation}
    found = paired.differences([scores], "prompt situation")
    assert found == {"backbone": paired.Difference([-1.0], None)}
    assert paired.figures(found) == {"backbone": {"difference": -1.0}}


def test_the_table_by_hand():
    one = {"backbone": paired.Difference([-0.05], 0.0251), "full_mixed": paired.Difference([0.05], 0.0249)}
    assert paired.comparison(one, "'prompt situation'") == """\
Average minus that of 'prompt situation'; its standard error is over the test samples, each compared with itself:

|            | difference | standard error | larger than two of them |
|------------|-----------:|---------------:|------------------------:|
| backbone   |     -0.050 |          0.025 |                      no |
| full_mixed |     +0.050 |          0.025 |                     yes |"""
    seeds = {"backbone": paired.Difference([-0.15, -0.25, -0.35], 0.15),
             "lora situation": paired.Difference([0.6, -0.1, 0.1], 0.05)}
    assert paired.comparison(seeds, "'prompt situation'") == """\
Average minus that of 'prompt situation', seed by seed, with the standard deviation over the seeds, its spread; \
its standard error is over the test samples, each compared with itself:

|                |   difference | larger than the spread | standard error | larger than two of them |
|----------------|-------------:|-----------------------:|---------------:|------------------------:|
| backbone       | -0.250±0.100 |                    yes |          0.150 |                      no |
| lora situation | +0.200±0.361 |                     no |          0.050 |                     yes |"""
    unknown = {row: difference._replace(standard_error=None) for row, difference in seeds.items()}
    assert paired.comparison(unknown, "prompt situation").splitlines()[2::2] == [
        "|                |   difference | larger than the spread |",
        "| backbone       | -0.250±0.100 |                    yes |"]


def test_figures_are_numbers_of_one_run_and_lists_of_several():
    assert paired.figures({"a": paired.Difference([0.5], 0.1)}) == {"a": {"difference": 0.5, "standard_error": 0.1}}
    assert paired.figures({"a": paired.Difference([0.5, 0.25], 0.1)}) == {
        "a": {"difference": [0.5, 0.25], "standard_error": 0.1}}


def test_sets_are_the_same_by_their_fingerprints():
    views = [SimpleNamespace(data=SimpleNamespace(fingerprint=lambda name=name: name)) for name in "aab"]
    assert paired.same_samples(views[:2]) and paired.same_samples(views[2:]) and not paired.same_samples(views)


def test_several_seeds_are_compared_on_the_same_set_alone(asked, tmp_path, monkeypatch, capsys):
    """The run twice, as if it were two seeds' runs; then as if these had two sets. A part is asked for: nothing is written."""
    folder, _, _ = asked
    part = Selection(methods=("prompt",), strategies=("situation",))
    evaluate_runs(tmp_path, [folder, folder], torch.device("cpu"), part)
    assert "larger than the spread | standard error | larger than two of them |" in capsys.readouterr().out
    monkeypatch.setattr(PreparedSet, "fingerprint", lambda self: str(id(self)))
    evaluate_runs(tmp_path, [folder, folder], torch.device("cpu"), part)
    assert "larger than the spread |\n" in capsys.readouterr().out and not list(tmp_path.iterdir())
