"""Charts and the gallery: what is drawn stands where it should."""
import io

import pytest
import torch
from PIL import Image

from ptm_mini.config import Situation
from ptm_mini.report import charts
from ptm_mini.report.gallery import gallery


def test_bars_end_and_lines_pass_where_they_should():
    chart = Image.open(io.BytesIO(charts.bars([{"backbone": {"complete": 0.5, "average": 0.65}, "prompt situation": {"complete": 1.0, "average": 1.0}}], ["complete", "average"], "title"))).convert("RGB")
    column = [chart.getpixel((charts.LEFT + 13 + 4, y)) for y in range(charts.TOP, chart.height)]
    assert column.count((154, 160, 166)) == pytest.approx(150, abs=2)             # accuracy 0.5 of 300 pixels
    panel = {"": {"one": [(1, [0.5]), (2, [0.75]), (4, [1.0])]}}
    chart = Image.open(io.BytesIO(charts.lines([panel], "title", "P", logarithmic=True))).convert("RGB")
    middle = charts.LEFT + 330 // 2
    ys = [y for y in range(chart.height) if chart.getpixel((middle, y)) == (154, 160, 166)]
    low = 0.4                                                                      # the axis: below 0.5, to the tenth
    assert sum(ys) / len(ys) == pytest.approx(charts.TOP + 16 + 300 * (1 - 0.75) / (1 - low), abs=1.5)


def test_a_gallery_is_drawn():
    cells = {situation: (torch.randn(96, 64), torch.randn(3, 32, 32), {"backbone": "dog", "situation": "cat"})
             for situation in Situation}
    assert Image.open(io.BytesIO(gallery([("dog", cells), ("cat", cells)]))).width > 800
