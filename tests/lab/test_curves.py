"""Training curves from a run's log, and the charts of lines that they are drawn with."""
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers import refusal
from PIL import Image
from test_plots import LONG, least_margin, open_png, rgb

from ptm_mini.lab import curves
from ptm_mini.lab.lines import HEIGHT, INSET, LEFT, TOP, WIDTH, choose_ticks, lines, place_xs
from ptm_mini.plots import COLOURS


def line(stage: str, epoch: int, loss: float = 2.0, accuracy: float = 0.5) -> dict[str, Any]:
    return {"stage": stage, "epoch": epoch, "loss": loss, "validation_loss": loss + 0.5,
            "accuracy": accuracy}


def test_every_stage_has_its_line_in_its_methods_row() -> None:
    stages = ["backbone", "prompt complete", "prompt noisy_audio", "prompt together", "full_mixed"]
    log = [line(stage, epoch, loss=3 - epoch) for stage in stages for epoch in (1, 2)]
    rows = curves.collect_curves([log])
    assert len(rows) == 3
    assert list(rows[1]["prompt: training loss"]) == ["complete", "noisy_audio", "together"]
    assert rows[1]["prompt: training loss"]["together"] == [(1, [2]), (2, [1])]
    assert rows[2]["full_mixed: validation loss"] == {"full_mixed": [(1, [2.5]), (2, [1.5])]}


def test_several_seeds_are_one_line_and_one_may_have_fewer_epochs() -> None:
    logs = [[line("backbone", epoch, accuracy=accuracy) for epoch, accuracy in enumerate(own, 1)]
            for own in ([0.2, 0.4], [0.3, 0.5, 0.7])]
    points = curves.collect_curves(logs)[0]["backbone: validation accuracy"]["backbone"]
    assert points == [(1, [0.2, 0.3]), (2, [0.4, 0.5]), (3, [0.7])]


def test_the_command_draws_a_run_and_several_seeds(copied: Path, seeds_folder: Path,
                                                   tmp_path: Path) -> None:
    for folder in (copied, shutil.copytree(seeds_folder, tmp_path / "seeds")):
        curves.main([str(folder)])
        with Image.open(folder / "curves.png") as picture:
            assert picture.width > 3 * WIDTH
    (copied / "log.jsonl").unlink()
    assert "no epoch is logged" in refusal(curves.main, [str(copied)])


@pytest.mark.parametrize("fitted, values, ticks", [
    (["panel"], (4.0, 2.0), (2.0, 4.0)), ((), (0.9, 0.6), (0.6, 1.0))])
def test_lines_pass_where_their_numbers_say(fitted: Sequence[str], values: tuple[float, float],
                                            ticks: tuple[float, float]) -> None:
    """An axis that is not fitted reaches 1."""
    (first, last), (low, high) = values, ticks
    panel = {"a": [(1, [first]), (9, [last])]}
    picture = open_png(lines([{"panel": panel}], "title", "epoch", fitted=fitted))
    for x, value in ((INSET, first), (WIDTH / 2, (first + last) / 2), (WIDTH - INSET, last)):
        ys = [y for y in range(picture.height)
              if picture.getpixel((LEFT + x, y)) == rgb(COLOURS[0])]
        expected = TOP + HEIGHT * (high - value) / (high - low)
        assert sum(ys) / len(ys) == pytest.approx(expected, abs=2)


def test_a_logarithmic_axis_has_10_between_1_and_100() -> None:
    panel = {"a": [(x, [0.5]) for x in (1, 10, 100)]}
    assert list(place_xs([panel], logarithmic=True).values()) == pytest.approx(
        [INSET, WIDTH / 2, WIDTH - INSET])
    assert place_xs([{"a": [(7, [0.5])]}], logarithmic=False) == {7: WIDTH / 2}


@pytest.mark.parametrize("values, ticks", [
    ([0.31, 0.98], [0.2, 0.4, 0.6, 0.8, 1.0]), ([11, 42], [10, 20, 30, 40, 50]),
    ([0.5], [0.5, 0.501])])
def test_ticks_are_round_numbers_around_the_values(values: list[float],
                                                   ticks: list[float]) -> None:
    assert choose_ticks(values) == pytest.approx(ticks)


@pytest.mark.parametrize("panel, names, title", [
    (LONG, ["a"], "b"), ("a", [LONG], "b"), ("a", ["b"], 3 * LONG), ("a", range(40), "b")])
def test_no_text_is_cut_off(panel: str, names: Sequence[object], title: str) -> None:
    points = {f"{name}": [(1, [0.5])] for name in names}
    assert least_margin(lines([{panel: points}] * 2, title, "x")) > 3
