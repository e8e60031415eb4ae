"""Figures by hand."""
import pytest
import torch

from ptm_mini.config import Situation
from ptm_mini.method.damage import Sample
from ptm_mini.training.measure import View, measure, measure_all, score_of


def test_macro_f1_by_hand():
    """Class 0: precision 1/2, recall 1/1; class 1: precision 1, recall 1/2; class 2: none there, none said."""
    score = score_of(torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 0]]), 3.0)
    assert score.accuracy == pytest.approx(2 / 3) and score.macro_f1 == pytest.approx(2 / 3) and score.loss == 1.0


class FakeSet:
    """Three blank samples of known classes."""
    labels = torch.tensor([0, 1, 1])
    classes = ["cat", "dog"]

    def indices(self, split, situation):
        assert split == "test"
        return torch.arange(3)

    def sample(self, index, normalisation):
        return Sample(torch.zeros(4, 2), torch.zeros(3, 2, 2), torch.tensor(0), self.labels[index], f"s{index}")


def view(config):
    return View(FakeSet(), "test", config, None, torch.device("cpu"))


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
