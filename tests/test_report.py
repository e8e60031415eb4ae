"""The table and the pictures."""
import io

import pytest
import torch
from PIL import Image

from ptm_mini.config import Situation
from ptm_mini.data import Batch
from ptm_mini.evaluate import Score, average, evaluate, measure
from ptm_mini.report import bar_chart, gallery, table

SCORES = {situation: {"backbone": Score(0.5 + situation / 10, 1.0, 40), "situation": Score(1.0, 0.1, 40)}
          for situation in Situation}


def test_the_table_by_hand():
    assert table(SCORES) == """\
| situation   | backbone | situation | samples |
|-------------|---------:|----------:|--------:|
| complete    |    0.500 |     1.000 |      40 |
| noisy_audio |    0.600 |     1.000 |      40 |
| noisy_image |    0.700 |     1.000 |      40 |
| noisy_both  |    0.800 |     1.000 |      40 |
| average     |    0.650 |     1.000 |         |"""
    assert average(SCORES, "backbone") == pytest.approx(0.65)


def test_pictures_are_drawn_and_bars_end_where_they_should():
    chart = Image.open(io.BytesIO(bar_chart(SCORES, "title"))).convert("RGB")
    column = [chart.getpixel((82, y)) for y in range(chart.height)]               # inside the first bar, accuracy 0.5
    assert column.count((154, 160, 166)) == pytest.approx(150, abs=2)             # of a scale of 300 pixels
    cells = {situation: (torch.randn(96, 64), torch.randn(3, 32, 32), {"backbone": "dog", "situation": "cat"})
             for situation in Situation}
    assert Image.open(io.BytesIO(gallery([("dog", cells), ("cat", cells)]))).width > 800


class FakeSet:
    """Three blank samples of known classes."""
    labels = torch.tensor([0, 1, 1])

    def indices(self, split, situation):
        assert split == "test"
        return torch.arange(3)

    def batch(self, indices, normalisation):
        return Batch(torch.zeros(len(indices), 4, 2), torch.zeros(len(indices), 3, 2, 2), self.labels[indices],
                     torch.zeros(len(indices), dtype=torch.long), [f"s{i}" for i in indices.tolist()])


def test_accuracy_and_loss_by_hand(small):
    always_one = {"one": lambda audio, image, situations: torch.tensor([[0.0, 2.0]]).expand(len(audio), 2)}
    score = measure(always_one, FakeSet(), "test", Situation.COMPLETE, small, None, torch.device("cpu"))["one"]
    assert score.accuracy == pytest.approx(2 / 3) and score.samples == 3
    e2 = torch.tensor(2.0).exp()
    assert score.loss == pytest.approx(((1 + e2).log() - 2 / 3 * 2).item(), abs=1e-6)


def test_every_strategy_sees_the_same_damage(small):
    seen = {"first": [], "second": []}
    strategies = {name: lambda audio, image, situations, name=name: seen[name].append((audio, image, situations))
                  or torch.zeros(len(audio), 2) for name in seen}
    evaluate(strategies, FakeSet(), "test", small, None, torch.device("cpu"))
    for one, other in zip(seen["first"], seen["second"]):
        assert all(torch.equal(a, b) for a, b in zip(one, other))
    assert [situations[0].item() for _, _, situations in seen["first"]] == [0, 1, 2, 3]
