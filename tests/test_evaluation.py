"""Answers by strategy, scores, and paired differences, each against a plain count of its own."""
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from helpers import CONFIG, random_batch, random_models
from pytest import MonkeyPatch
from torch import Tensor
from torch.nn import functional as F

from ptm_mini import evaluation
from ptm_mini.config import Situation
from ptm_mini.data.dataset import PreparedSet, collate
from ptm_mini.evaluation import (STRATEGIES, EvalSplit, Models, Score, evaluate,
                                 paired_differences, score_logits, score_split, window_places)
from ptm_mini.method.damage import FURTHER_DRAWS, Sample, damage_sample
from ptm_mini.method.prompts import PromptedBackbone
from ptm_mini.training import METHODS


@pytest.fixture(scope="module")
def models() -> Models:
    return random_models(CONFIG)


@pytest.fixture(scope="module")
def lacking(missing_set: Path) -> PreparedSet:
    """15 test samples of which 3 lack their audio and 3 their image."""
    return PreparedSet(missing_set, CONFIG)


def answers_alone(models: Models, method: str, batch: Sample) -> Tensor:
    """[S, B, K]: each case's model called by itself."""
    model = models.methods[method]
    alone = ([PromptedBackbone(models.backbone, [own]) for own in model.sets]
             if method == "prompt" else model.models)
    return torch.stack([case(batch.audio, batch.image) for case in alone])


@torch.no_grad()
def test_answers_are_those_of_each_model_called_by_itself(models: Models) -> None:
    batch = random_batch(CONFIG)
    rows, sets, picks = models.answer(batch)
    assert list(rows) == ["backbone", *(f"prompt {strategy}" for strategy in STRATEGIES),
                          *(f"{method} {strategy}" for method in METHODS
                            if method not in ("prompt", "full_mixed")
                            for strategy in ("oracle", "routed")), "full_mixed"]
    pair = batch.audio, batch.image
    assert torch.equal(rows["backbone"], models.backbone(*pair))
    assert torch.equal(rows["full_mixed"], models.methods["full_mixed"](*pair))
    assert torch.equal(rows["prompt concat"], models.methods["prompt"](*pair))
    assert torch.equal(sets, answers_alone(models, "prompt", batch))
    for method in METHODS:
        if method != "full_mixed":
            alone = answers_alone(models, method, batch)
            for i, situation in enumerate(batch.situation):
                assert torch.equal(rows[f"{method} oracle"][i], alone[situation, i])
                assert torch.equal(rows[f"{method} routed"][i], alone[picks[i], i])


@torch.no_grad()
def test_the_router_and_the_entropy_select(models: Models) -> None:
    """A modality that is missing is known; the rest is the router's likeliest situation."""
    batch = random_batch(CONFIG)
    rows, sets, picks = models.answer(batch)
    tokens = models.backbone.encode(batch.audio, batch.image)
    assert picks[:-2].tolist() == models.router(*tokens).argmax(dim=1)[:-2].tolist()
    assert picks[-2:].tolist() == [Situation.NOISY_AUDIO, Situation.NOISY_IMAGE]
    p = sets.softmax(dim=2)
    surest = (p * p.log()).sum(dim=2).argmax(dim=0)
    for i, case in enumerate(surest):
        assert torch.equal(rows["prompt lowest_entropy"][i], sets[case, i])


def test_evaluation_equals_a_plain_count(lacking: PreparedSet) -> None:
    """Of samples damaged one by one, as in epoch 0; each counts where nothing else is missing."""
    models = random_models(CONFIG, ["prompt", "full_mixed"])
    results = evaluate(models, EvalSplit((lacking,), "test"))
    assert list(results.scores) == list(Situation)
    for situation, count in zip(Situation, (9, 12, 12, 15)):
        batch = collate([damage_sample(lacking.sample(row), situation, CONFIG.damage, 0, epoch=0)
                         for row, line in enumerate(lacking.rows) if line.split == "test"
                         and (line.audio or situation & Situation.NOISY_AUDIO)
                         and (line.image or situation & Situation.NOISY_IMAGE)])
        rows, sets, picks = models.answer(batch)
        assert results.scores[situation].keys() == rows.keys() and len(batch.label) == count
        for name, score in results.scores[situation].items():
            correct = (rows[name].argmax(dim=1) == batch.label).double()
            assert score.correct[~score.correct.isnan()].tolist() == correct.tolist()
            assert score.accuracy == pytest.approx(fmean(correct.tolist()))
            assert score.loss == pytest.approx(float(F.cross_entropy(rows[name], batch.label)))
            assert score.samples == count
        for case in Situation:
            right = (sets[case].argmax(dim=1) == batch.label).sum()
            assert results.sets[case.label][situation.label] == pytest.approx(float(right) / count)
            picked = picks.tolist().count(case)
            assert results.router[situation.label][case.label] == pytest.approx(picked / count)


@torch.no_grad()
def test_samples_count_by_what_they_have(lacking: PreparedSet, data: PreparedSet) -> None:
    """As they are, without damage; a set that lacks nothing has no such table."""
    models = random_models(CONFIG, [])
    available = evaluate(models, EvalSplit((lacking,), "test")).available
    for name, bit, count in (("both", 0, 9), ("audio only", Situation.NOISY_IMAGE, 3),
                             ("image only", Situation.NOISY_AUDIO, 3)):
        rows = [row for row in lacking.indices("test").tolist() if lacking.missing[row] == bit]
        batch = collate([lacking.sample(row) for row in rows])
        correct = models.answer(batch).rows["backbone"].argmax(dim=1) == batch.label
        assert available["backbone"][name] == pytest.approx(float(correct.sum()) / count)
    assert evaluate(models, EvalSplit((data,), "test")).available == {}


def test_scores_by_hand() -> None:
    """Class 0: precision 1/2, recall 1; class 1: precision 1, recall 1/2; class 2 is not there."""
    logits = torch.tensor([[2.0, 0, 0], [2, 0, 0], [0, 2, 0]])
    score = score_logits(logits, torch.tensor([0, 1, 1]), torch.tensor([4, 1, 2]), count=5)
    assert score.accuracy == pytest.approx(2 / 3) and score.macro_f1 == pytest.approx(2 / 3)
    assert score.correct.nan_to_num(-1).tolist() == [-1, 0, 1, -1, 1]


def by_noise(batch: Sample) -> dict[str, Tensor]:
    """Answer by the inputs' own numbers: the damage that was drawn decides."""
    sums = batch.audio.flatten(1)[:, :40].sum(dim=1) + batch.image.flatten(1)[:, :9].sum(dim=1)
    return {"row": torch.stack([torch.zeros(len(sums)), sums, sums.cos()], dim=1)}


def test_figures_over_draws_are_the_mean_of_those_of_each(data: PreparedSet,
                                                          monkeypatch: MonkeyPatch) -> None:
    """Answered one by one here, in batches of 4 there: of 15 samples the last is not full."""
    monkeypatch.setattr(evaluation, "BATCH_SIZE", 4)
    draws, rows, situation = 3, data.indices("test").tolist(), Situation.NOISY_BOTH
    correct, losses = torch.zeros(draws, len(rows), dtype=torch.double), []
    for draw in range(draws):
        for i, row in enumerate(rows):
            epoch = FURTHER_DRAWS + draw if draw else 0
            sample = damage_sample(data.sample(row), situation, CONFIG.damage, 0, epoch)
            logits = by_noise(collate([sample]))["row"]
            correct[draw, i] = logits.argmax() == sample.label
            losses.append(float(F.cross_entropy(logits, sample.label[None])))
    score = score_split(by_noise, EvalSplit((data,), "test", draws=draws), situation)["row"]
    assert score.correct[rows].tolist() == correct.mean(dim=0).tolist() and score.samples == 15
    assert score.accuracy == pytest.approx(correct.mean().item())
    assert score.loss == pytest.approx(fmean(losses), rel=1e-5)


def test_windows_are_averaged_as_probabilities(small_set: Path, data: PreparedSet) -> None:
    """The same draw damages every window; their answers' probabilities are averaged."""
    last = PreparedSet(small_set, CONFIG, data.normalisation, place=1.0)
    rows, situation = data.indices("test").tolist(), Situation.NOISY_IMAGE
    split, expected = EvalSplit((data, last), "test"), []
    for row in rows:
        windows = [damage_sample(own.sample(row), situation, CONFIG.damage, 0, 0)
                   for own in (data, last)]
        assert torch.equal(windows[0].image, windows[1].image)
        assert not torch.equal(windows[0].audio, windows[1].audio)
        p = [by_noise(collate([window]))["row"].softmax(dim=1) for window in windows]
        expected.append(float(-torch.log((p[0] + p[1]) / 2)[0, windows[0].label]))
    score = score_split(by_noise, split, situation)["row"]
    assert score.loss == pytest.approx(fmean(expected), rel=1e-4)
    assert window_places(1) == [0] and window_places(3) == [0, 0.5, 1]


ROWS = 300                # of the set; the first 100 are not of the test split
REFERENCE = "prompt oracle"


def made_scores(seed: int, shares: tuple[float, ...], size: int = 1,
                ) -> dict[Situation, dict[str, Score]]:
    """Scores of two rows whose answers agree in part; shares: of samples in each situation;
    size: of the groups, whose samples are equally hard."""
    generator, scores = np.random.default_rng(seed), {}
    hard = generator.random(ROWS)[np.arange(ROWS) // size]                # for both rows
    for situation, share in zip(Situation, shares):
        left_out = (generator.random(ROWS) >= share) | (np.arange(ROWS) < 100)
        scores[situation] = {}
        for row, better in (("backbone", 0.0), (REFERENCE, 0.1 * (1 + situation))):
            correct = np.where(left_out, np.nan, hard + 0.5 * generator.random(ROWS) < 0.7 + better)
            scores[situation][row] = Score(np.nanmean(correct), 0.0, 0.0, 0,
                                           torch.from_numpy(correct))
    return scores


def sample_differences(scores: dict[Situation, dict[str, Score]]) -> np.ndarray:
    """[S, test samples], NaN where a sample can't be in a situation"""
    return np.stack([(own["backbone"].correct - own[REFERENCE].correct).numpy()[100:]
                     for own in scores.values()])


@pytest.mark.parametrize(("shares", "size"), [((1, 1, 1, 1), 1), ((0.15, 0.95, 0.95, 1), 1),
                                             ((1, 1, 1, 1), 4), ((0.4, 0.95, 0.95, 1), 2)])
def test_the_error_is_that_of_drawing_other_groups(shares: tuple[float, ...], size: int) -> None:
    """A bootstrap over groups of samples with all their answers; some lack a modality."""
    scores = made_scores(1, shares, size)
    d, n = sample_differences(scores), 200 // size
    counts = np.random.default_rng(2).multinomial(n, np.full(n, 1 / n), size=4000)
    counts = counts.repeat(size, axis=1)                                            # [4000, 200]
    means = (counts @ np.nan_to_num(d).T) / (counts @ ~np.isnan(d).T)              # [4000, S]
    groups = torch.arange(ROWS) // size
    found = paired_differences([scores], REFERENCE, groups)["backbone"]
    assert found == {"difference": pytest.approx(np.nanmean(d, axis=1).mean()),
                     "standard error": pytest.approx(means.mean(axis=1).std(), rel=0.05)}


def test_seeds_are_averaged_sample_by_sample() -> None:
    first, second = made_scores(3, (1, 1, 1, 1)), made_scores(4, (1, 1, 1, 1))
    groups = torch.arange(ROWS)
    alone = [paired_differences([scores], REFERENCE, groups)["backbone"]
             for scores in (first, second)]
    both = paired_differences([first, second], REFERENCE, groups)["backbone"]
    each = [one["difference"] for one in alone]
    d = (sample_differences(first) + sample_differences(second)).mean(axis=0) / 2
    assert both == {"difference": pytest.approx(np.mean(each)),
                    "spread over seeds": pytest.approx(np.std(each, ddof=1)),
                    "standard error": pytest.approx(d.std(ddof=1) / np.sqrt(200))}
