"""The tables, the charts and the figures in them."""
import io

import pytest
import torch
from PIL import Image

from ptm_mini import charts, report
from ptm_mini.config import DAMAGES, Situation, Strengths
from ptm_mini.cost import Cost
from ptm_mini.data import Batch
from ptm_mini.evaluate import Score, evaluate, lowest_entropy, measure, score_of
from ptm_mini.stress import scaled

SCORES = {situation: {"backbone": Score(0.5 + situation / 10, 0.5, 1.0, 40), "prompt situation": Score(1.0, 1.0, 0.1, 40)}
          for situation in Situation}
COSTS = {"backbone": [Cost("backbone", 2_000_000, 20, 100.0, 150_000_000, 0.9, "CPU")],
         "prompt": [Cost(f"prompt {s.label}", 1234, 8, 8.0 + s, 80_000_000 + s, 0.9, "CPU") for s in Situation]
         + [Cost("router", 9999, 6, 999.0, 999_000_000, 0.9, "CPU")]}
SIZES = {"backbone": 8_000_000, "prompt": 200_000}


def rows(shift=0.0):
    scores = {s: {name: score._replace(accuracy=score.accuracy + shift * (name == "backbone")) for name, score in own.items()}
              for s, own in SCORES.items()}
    return report.main_rows(scores, COSTS, SIZES)


def test_the_main_table_by_hand():
    assert report.table("", [rows()]) == """\
|                  | complete | noisy_audio | noisy_image | noisy_both | average | worst | macro-F1 |    learns | stored kB | s/epoch | step MB |
|------------------|---------:|------------:|------------:|-----------:|--------:|------:|---------:|----------:|----------:|--------:|--------:|
| backbone         |    0.500 |       0.600 |       0.700 |      0.800 |   0.650 | 0.500 |    0.500 | 2,000,000 |     2,000 |     5.0 |     150 |
| prompt situation |    1.000 |       1.000 |       1.000 |      1.000 |   1.000 | 1.000 |    1.000 |     1,234 |        50 |     1.2 |      80 |"""


def test_several_seeds_by_hand():
    tables = [rows(), rows(0.1), rows(0.2)]
    assert "| backbone         | 0.600 ± 0.100 |" in report.table("", tables)
    assert "| backbone | -0.250 ± 0.100 | yes |" in report.comparison(tables, "prompt situation")
    assert "| backbone | -0.250 ± 0.495 | no |" in report.comparison([rows(-0.25), rows(0.45)], "prompt situation")


def test_the_best_row_is_that_of_the_highest_mean():
    assert report.best_row([rows(), rows(0.9)]) == "backbone" and report.best_row([rows(), rows(0.1)]) == "prompt situation"


def test_bars_end_and_lines_pass_where_they_should():
    chart = Image.open(io.BytesIO(charts.bars([rows()], ["complete", "average"], "title"))).convert("RGB")
    column = [chart.getpixel((charts.LEFT + 13 + 4, y)) for y in range(charts.TOP, chart.height)]
    assert column.count((154, 160, 166)) == pytest.approx(150, abs=2)             # accuracy 0.5 of 300 pixels
    panel = {"": {"one": [(1, [0.5]), (2, [0.75]), (4, [1.0])]}}
    chart = Image.open(io.BytesIO(charts.lines(panel, "title", "P", logarithmic=True))).convert("RGB")
    middle = charts.LEFT + 330 // 2
    ys = [y for y in range(chart.height) if chart.getpixel((middle, y)) == (154, 160, 166)]
    low = 0.4                                                                      # the axis: below 0.5, to the tenth
    assert sum(ys) / len(ys) == pytest.approx(charts.TOP + 16 + 300 * (1 - 0.75) / (1 - low), abs=1.5)


def test_a_gallery_is_drawn():
    cells = {situation: (torch.randn(96, 64), torch.randn(3, 32, 32), {"backbone": "dog", "situation": "cat"})
             for situation in Situation}
    assert Image.open(io.BytesIO(report.gallery([("dog", cells), ("cat", cells)]))).width > 800


def test_macro_f1_by_hand():
    """Class 0: precision 1/2, recall 1/1; class 1: precision 1, recall 1/2; class 2: none there, none said."""
    score = score_of(torch.tensor([[1.0, 0, 0], [1, 1, 0], [0, 0, 0]]), 3.0)
    assert score.accuracy == pytest.approx(2 / 3) and score.macro_f1 == pytest.approx(2 / 3) and score.loss == 1.0


def test_severities_by_hand():
    strengths = DAMAGES["strong"].alone
    nothing, same, twice = (scaled(strengths, severity) for severity in (0.0, 1.0, 2.0))
    assert nothing == Strengths(0, 0, 0, 0, 0, 1.0)
    for name, value in vars(strengths).items():
        assert getattr(same, name) == pytest.approx(value)
    assert (twice.audio_gaussian, twice.audio_shift, twice.audio_mask, twice.image_blur) == (4.4, 1.0, 0.5, 0.46)
    assert 1 / twice.image_pixelate == pytest.approx(1 + 2 * (1 / 0.05 - 1))         # shrunk by 39 in place of 20
    assert scaled(Strengths(image_pixelate=0.0), 0.0).image_pixelate == 1.0


def test_the_surest_answer_is_taken():
    class Fixed:
        def situation(self, audio, image, situations):
            return torch.tensor([[0.0, 0.1], [3.0, 0.0], [0.0, 1.0], [1.0, 0.0]])[situations]

    answers = lowest_entropy(Fixed())(torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(2, dtype=torch.long))
    assert torch.equal(answers, torch.tensor([[3.0, 0.0], [3.0, 0.0]]))


class FakeSet:
    """Three blank samples of known classes."""
    labels = torch.tensor([0, 1, 1])
    classes = ["cat", "dog"]

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
