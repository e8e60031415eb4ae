"""Figures by hand."""
import pytest
import torch
from conftest import refusal

from ptm_mini.config import Situation
from ptm_mini.method.damage import Sample
from ptm_mini.training.measure import View, mean_answer, measure, measure_all, measure_present, places, routes, score_of


def test_macro_f1_by_hand():
    """Class 0: precision 1/2, recall 1/1; class 1: precision 1, recall 1/2; class 2: none there, none said."""
    score = score_of(torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 0]]), 3.0)
    assert score.accuracy == pytest.approx(2 / 3) and score.macro_f1 == pytest.approx(2 / 3) and score.loss == 1.0


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
