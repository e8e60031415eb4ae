"""Figures by hand."""
from statistics import fmean

import pytest
import torch
from conftest import refusal

from ptm_mini.config import PRESETS, Situation
from ptm_mini.method.damage import FURTHER_DRAWS, Sample, damage_sample
from ptm_mini.settings import with_settings
from ptm_mini.training import measure as measure_module
from ptm_mini.training.measure import View, mean_answer, measure, measure_all, measure_present, places, routes, score_of


def test_macro_f1_by_hand():
    """Class 0: precision 1/2, recall 1/1; class 1: precision 1, recall 1/2; class 2: none there, none said."""
    right = torch.tensor([torch.nan, 1, 0, 1])
    score = score_of(torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 0]]), 3.0, right)
    assert score.accuracy == pytest.approx(2 / 3) and score.macro_f1 == pytest.approx(2 / 3) and score.loss == 1.0
    assert score.samples == 3 and score.right is right and list(score.figures()) == ["accuracy", "macro_f1", "loss", "samples"]


class FakeSet:
    """Three blank samples of known classes."""
    labels = torch.tensor([0, 1, 1])
    classes = ["cat", "dog"]

    def __init__(self, missing=(0, 0, 0)):
        self.missing = torch.tensor(missing)

    def indices(self, split, situation=Situation.NOISY_BOTH):
        assert split == "test"
        return (self.missing & ~int(situation) == 0).nonzero()[:, 0]

    def sample(self, index, normalisation):
        return Sample(torch.zeros(4, 2), torch.zeros(3, 2, 2), self.missing[index], self.labels[index], f"s{index}")


def view(config, missing=(0, 0, 0)):
    return View(FakeSet(missing), "test", config, None, torch.device("cpu"))


def test_accuracy_and_loss_by_hand(small):
    always_one = {"one": lambda audio, image, situations: torch.tensor([[0.0, 2.0]]).expand(len(audio), 2)}
    score = measure(always_one, view(small), Situation.COMPLETE)["one"]
    assert score.accuracy == pytest.approx(2 / 3) and score.samples == 3
    e2 = torch.tensor(2.0).exp()
    assert score.loss == pytest.approx(((1 + e2).log() - 2 / 3 * 2).item(), abs=1e-6)


def test_every_strategy_sees_the_same_damage(small):
    seen = {"first": [], "second": []}
    strategies = {name: lambda audio, image, situations, name=name: seen[name].append((audio, image, situations))
                  or torch.zeros(len(audio), 2) for name in seen}
    measure_all(strategies, view(small))
    for one, other in zip(seen["first"], seen["second"]):
        assert all(torch.equal(a, b) for a, b in zip(one, other))
    assert [situations[0].item() for _, _, situations in seen["first"]] == [0, 1, 2, 3]


def by_situation(audio, image, situations):
    """Says the class 1 of whatever has its audio."""
    return torch.stack([situations & 1, 1 - (situations & 1)], dim=1).float()


def test_samples_that_lack_something_count_by_what_there_is_of_them(small):
    """As they are: no damage is added. Classes 0, 1, 1; the second has its image alone, the third its audio alone."""
    scores = measure_present({"row": by_situation}, view(small, (0, Situation.NOISY_AUDIO, Situation.NOISY_IMAGE)))
    assert {name: (row["row"].accuracy, row["row"].samples) for name, row in scores.items()} == {
        "both": (0.0, 1), "image only": (0.0, 1), "audio only": (1.0, 1)}
    assert list(measure_present({"row": by_situation}, view(small, (2, 2, 2)))) == ["audio only"]


def test_a_situation_that_no_sample_can_be_in_is_left_out(small):
    class Router:
        def pick(self, audio, image):
            return torch.full((len(audio),), 2)

    without_images = view(small, (2, 2, 2))
    assert list(measure_all({"row": by_situation}, without_images)) == [Situation.NOISY_IMAGE, Situation.NOISY_BOTH]
    assert routes(Router(), without_images).tolist() == [[0] * 4, [0] * 4, [0, 0, 3, 0], [0, 0, 3, 0]]
    assert without_images._replace(data=FakeSet((2, 0, 1))).situations() == list(Situation)
    assert view(small, (2, 1, 1)).situations() == [Situation.NOISY_AUDIO, Situation.NOISY_IMAGE, Situation.NOISY_BOTH]


def test_windows_are_averaged_as_probabilities():
    scores = [torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 1.0], [0.0, 3.0]])]
    mean = (scores[0].softmax(dim=1) + scores[1].softmax(dim=1)) / 2
    assert torch.allclose(mean_answer(scores).softmax(dim=1), mean) and mean_answer(scores[:1]) is scores[0]
    assert places(1) == [0] and places(3) == [0, 0.5, 1]
    assert "windows=0: expected 1 or more" in refusal(places, 0)


NOISY = [Situation.NOISY_AUDIO, Situation.NOISY_IMAGE, Situation.NOISY_BOTH]


def by_noise(audio, image, situations):
    """Class 1 where the first numbers of the two modalities sum to more than 0: what that is, the damage draws."""
    first = audio.flatten(1)[:, 0] + image.flatten(1)[:, 0]
    return torch.stack([torch.zeros(len(first)), first], dim=1)


def same(one, other):
    return torch.equal(one.audio, other.audio) and torch.equal(one.image, other.image)


def test_the_first_draw_is_epoch_0_and_each_further_one_another(small):
    for situation in NOISY:
        whole = view(small)
        undamaged = whole.data.sample(1, None)
        drawn = [whole.sample(1, situation, draw) for draw in range(20)]
        for sample, epoch in zip(drawn, (0, *range(2**40 + 1, 2**40 + 20)), strict=True):
            assert same(sample, damage_sample(undamaged, situation, small.damage, small.train.seed, epoch))
        assert same(drawn[0], whole.sample(1, situation))
        assert 2 < sum(not same(sample, undamaged) for sample in drawn)                # of a blank one noise alone tells
    assert same(whole.sample(1, Situation.COMPLETE, 3), undamaged)


def test_no_training_reaches_the_epochs_of_further_draws():
    stages = [f"train.{name}.epochs" for name, stage in vars(PRESETS["tiny"].train).items() if hasattr(stage, "epochs")]
    assert len(stages) > 5
    for key in (*stages, "router.passes", "train.views"):
        assert f"{key}={FURTHER_DRAWS}: expected" in refusal(with_settings, PRESETS["tiny"], {key: FURTHER_DRAWS})


@pytest.mark.parametrize("situation", NOISY)
def test_figures_over_draws_are_the_mean_of_those_of_each(small, situation, monkeypatch):
    """Answered one by one here; there in batches of two, of which each draw's last is not full."""
    monkeypatch.setattr(measure_module, "BATCH_SIZE", 2)
    whole, D = view(small)._replace(draws=20), 20
    right, loss = torch.zeros(D, 3, dtype=torch.double), []
    for draw in range(D):
        for index in range(3):
            sample = whole.sample(index, situation, draw)
            scores = by_noise(sample.audio[None], sample.image[None], None)
            right[draw, index] = scores.argmax() == sample.label
            loss.append(float(torch.nn.functional.cross_entropy(scores, sample.label[None])))
    score = measure({"row": by_noise}, whole, situation)["row"]
    assert torch.allclose(score.right, right.mean(dim=0)) and 0 < right.mean() < 1
    assert score.accuracy == pytest.approx(right.mean().item()) and score.loss == pytest.approx(fmean(loss), abs=1e-6)
    assert score.samples == 3
    once = measure({"row": by_noise}, view(small), situation)["row"]
    assert torch.equal(once.right, right[0]) and once.accuracy == pytest.approx(right[0].mean().item())


def test_complete_samples_are_looked_at_once(small):
    seen = []
    measure_all({"row": lambda audio, image, situations: seen.append(len(audio)) or torch.zeros(len(audio), 2)},
                view(small)._replace(draws=5))
    assert seen == [3] + 3 * 5 * [3]


def test_windows_are_averaged_draw_by_draw(small):
    """Both windows are blank, so that the same draw leaves the same in both."""
    whole = view(small)._replace(draws=4, later=(FakeSet(),))
    for first, second in zip(*whole.windows(Situation.NOISY_BOTH), strict=True):
        assert all(torch.equal(one, other) for one, other in zip(first, second))
    one = measure({"row": by_noise}, whole, Situation.NOISY_BOTH)["row"]
    assert torch.equal(one.right, measure({"row": by_noise}, view(small)._replace(draws=4), Situation.NOISY_BOTH)["row"].right)


def test_rows_that_were_not_looked_at_are_neither_right_nor_wrong(small):
    score = measure({"row": by_situation}, view(small), Situation.COMPLETE, torch.tensor([2, 0]))["row"]
    assert score.right.nan_to_num(-1).tolist() == [0, -1, 1] and score.samples == 2 and score.accuracy == 0.5
    lacking = measure_all({"row": by_situation}, view(small, (0, 2, 0)))
    assert [row["row"].right.isnan().tolist() for row in lacking.values()] == [
        [False, True, False], [False, True, False], [False] * 3, [False] * 3]
