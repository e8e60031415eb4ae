"""Pictures: what is drawn stands where it should, and no text is cut off."""
import io

import pytest
import torch
from PIL import Image, ImageChops

from ptm_mini.plots import COLOURS, GAP, INK, SIDE, Cell, bars, draw_audio, grid

LONG = "a name that is much wider than the bars, the panels and the pictures below it"


def open_png(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


def rgb(colour: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(colour[1:]))


def least_margin(png: bytes) -> int:
    """Count the white pixels at the side that has the fewest."""
    picture = open_png(png)
    white = Image.new("RGB", picture.size, "white")
    left, top, right, bottom = ImageChops.difference(picture, white).getbbox()
    return min(left, top, picture.width - right, picture.height - bottom)


def test_bars_end_at_the_mean_and_the_spread_over_seeds_is_a_line() -> None:
    tables = [{"backbone": {"complete": 0.25}, "prompt": {"complete": value}}
              for value in (0.6, 0.8)]
    picture = open_png(bars(tables, "title"))
    bottom = [picture.getpixel((x, 355)) for x in range(picture.width)]
    for i, mean in enumerate((0.25, 0.7)):
        x = bottom.index(rgb(COLOURS[i]))
        column = [picture.getpixel((x, y)) for y in range(picture.height)]
        assert column.count(rgb(COLOURS[i])) == pytest.approx(300 * mean, abs=2)
    middle = [picture.getpixel((x + 36 // 2 - 1, y)) for y in range(picture.height)]
    assert middle.count(rgb(INK)) >= 2 * 0.1414 * 300 - 2


@pytest.mark.parametrize("tables, title", [
    ([{LONG: {"x": 1.0}}], "title"), ([{"x": {LONG: 1.0}}], "title"), ([{"x": {"y": 0.5}}], LONG),
    ([{f"row {i}": {"x": 1.0, "y": 0.0} for i in range(30)}], "title")])
def test_no_text_of_bars_is_cut_off(tables: list[dict], title: str) -> None:
    assert least_margin(bars(tables, title)) > 3


def test_a_grid_has_its_pictures_side_by_side_and_its_text_in_colour() -> None:
    red, blue = Image.new("RGB", (4, 4), "#ff0000"), Image.new("RGB", (9, 9), "#0000ff")
    cell = Cell([red, blue], [("right", "#188038"), ("wrong", "#d93025")])
    picture = open_png(grid([("one", {"a": cell, "b": cell}), ("two", {"a": cell, "b": cell})]))
    pixels = [picture.getpixel((x, y)) for y in range(picture.height)
              for x in range(picture.width)]
    assert pixels.count((255, 0, 0)) == pixels.count((0, 0, 255)) == 4 * SIDE * SIDE
    row = [picture.getpixel((x, 100)) for x in range(picture.width)]
    first = row.index((255, 0, 0))
    assert row[first + SIDE:first + SIDE + GAP] == [(255, 255, 255)] * GAP
    assert row[first + SIDE + GAP] == (0, 0, 255)
    assert rgb("#188038") in pixels and rgb("#d93025") in pixels


@pytest.mark.parametrize("label, column, line, title", [
    (LONG, "a", "b", ""), ("a", LONG, "b", ""), ("a", "b", LONG, ""),
    ("a", "b", "c", f"one\n{LONG}"), ("", "b", "c", "")])
def test_no_text_of_a_grid_is_cut_off(label: str, column: str, line: str, title: str) -> None:
    cell = Cell([Image.new("RGB", (4, 4), "red")], [(line, INK), (line, INK)])
    assert least_margin(grid([(label, {column: cell, "other": cell})] * 2, title)) > 3


def test_sound_has_time_to_the_right_and_low_notes_at_the_bottom() -> None:
    audio = torch.full((64, 32), -2.0)
    audio[60:, :4] = 3.0                               # at the end, in the lowest bands
    picture = draw_audio(audio)
    assert picture.size == (64, 32)
    assert picture.getpixel((62, 30)) == (255, 255, 25)
    for corner in ((1, 1), (62, 1), (1, 30)):
        assert picture.getpixel(corner) == (0, 0, 0)
