"""Training curves from a run's log, and the charts of lines that they are drawn with."""
import io
import shutil
from pathlib import Path
from typing import Any

import pytest
from helpers import refusal
from PIL import Image, ImageChops

from ptm_mini.lab import curves, lines as charts
from ptm_mini.lab.lines import HEIGHT, INSET, LEFT, TOP, WIDTH, choose_ticks, lines, place_xs
from ptm_mini.plots import COLOURS


def line(stage: str, epoch: int, loss: float = 2.0, accuracy: float = 0.5) -> dict[str, Any]:
    return {"stage": stage, "epoch": epoch, "loss": loss, "validation_loss": loss + 0.5,
            "accuracy": accuracy, "seconds": 1.0, "peak_bytes": None}


def heights(png: bytes, x: float, colour: str) -> list[int]:
    """Where a colour is in a column of pixels."""
    picture = Image.open(io.BytesIO(png)).convert("RGB")
    wanted = tuple(bytes.fromhex(colour[1:]))
    return [y for y in range(picture.height) if picture.getpixel((round(x), y)) == wanted]


def test_every_stage_has_its_line_in_its_methods_row() -> None:
    stages = ["backbone", "prompt complete", "prompt noisy_audio", "prompt together", "full_mixed"]
    log = [line(stage, epoch, loss=3 - epoch) for stage in stages for epoch in (1, 2)]
    rows = curves.collect_curves([log])
    assert [list(row) for row in rows] == [
        [f"{method}: {figure}" for figure in ("training loss", "validation loss",
                                              "validation accuracy")]
        for method in ("backbone", "prompt", "full_mixed")]
    assert list(rows[1]["prompt: training loss"]) == ["complete", "noisy_audio", "together"]
    assert rows[1]["prompt: training loss"]["together"] == [(1, [2]), (2, [1])]
    assert rows[2]["full_mixed: validation loss"] == {"full_mixed": [(1, [2.5]), (2, [1.5])]}


def test_several_seeds_are_one_line_and_one_may_have_fewer_epochs() -> None:
    logs = [[line("backbone", epoch, accuracy=0.2 * epoch + 0.1 * seed)
             for epoch in range(1, epochs + 1)] for seed, epochs in enumerate((2, 3))]
    points = curves.collect_curves(logs)[0]["backbone: validation accuracy"]["backbone"]
    assert points == [(1, [0.2, pytest.approx(0.3)]), (2, [0.4, 0.5]), (3, [pytest.approx(0.7)])]


def test_the_command_draws_a_run_and_several_seeds(run_folder: Path, seeds_folder: Path,
                                                   tmp_path: Path) -> None:
    for name, folder in (("run", run_folder), ("seeds", seeds_folder)):
        copied = shutil.copytree(folder, tmp_path / name)
        curves.main([str(copied)])
        with Image.open(copied / "curves.png") as picture:
            assert picture.width > 3 * WIDTH
    (tmp_path / "run" / "log.jsonl").unlink()
    assert "no epoch is logged" in refusal(curves.main, [str(tmp_path / "run")])
    assert "config.json: no such file" in refusal(curves.main, [str(tmp_path)])


def test_lines_pass_where_their_numbers_say() -> None:
    """A loss that falls from 4 to 2: the axis goes by halves from 2 to 4.5."""
    png = lines([{"loss": {"a": [(1, [4.0]), (9, [2.0])]}}], "title", "epoch", fitted=["loss"])
    for x, loss in ((INSET, 4.0), (WIDTH / 2, 3.0), (WIDTH - INSET, 2.0)):
        ys = heights(png, LEFT + x, COLOURS[0])
        assert sum(ys) / len(ys) == pytest.approx(TOP + HEIGHT * (4.5 - loss) / 2.5, abs=2)


def test_an_axis_that_is_not_fitted_ends_at_1_and_a_spread_stays_in_the_panel() -> None:
    points = {"a": [(1, [0.5, 0.5]), (2, [0.7, 1.3])]}
    png = lines([{"accuracy": points}], "", "")
    assert choose_ticks([0.5], fitted=False) == [0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]
    ys = heights(png, LEFT + INSET, COLOURS[0])
    assert sum(ys) / len(ys) == pytest.approx(TOP + HEIGHT * 0.5 / 0.6, abs=2)
    above = Image.open(io.BytesIO(png)).crop((LEFT, TOP - 8, LEFT + WIDTH, TOP - 5))
    assert above.convert("RGB").getcolors() == [(above.width * above.height, (255, 255, 255))]


def test_a_logarithmic_axis_has_10_between_1_and_100() -> None:
    panel = {"a": [(x, [0.5]) for x in (1, 10, 100)]}
    assert list(place_xs([panel], logarithmic=True).values()) == pytest.approx(
        [INSET, WIDTH / 2, WIDTH - INSET])
    assert place_xs([{"a": [(7, [0.5])]}], logarithmic=False) == {7: WIDTH / 2}


def test_ticks_are_round_numbers_around_the_values() -> None:
    assert choose_ticks([0.31, 0.98], fitted=True) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert choose_ticks([11, 42], fitted=True) == [10, 20, 30, 40, 50]
    assert choose_ticks([0.5], fitted=True) == pytest.approx([0.5, 0.501])


def test_no_text_is_cut_off() -> None:
    long = "a name that is wider than a panel of lines, which has 330 pixels, by a good deal"
    for panel, name, title in ((long, "a", "b"), ("a", long, "b"), ("a", "b", 3 * long)):
        png = lines([{panel: {name: [(1, [0.5])]}}] * 2, title, "x")
        picture = Image.open(io.BytesIO(png)).convert("RGB")
        white = Image.new("RGB", picture.size, "white")
        left, top, right, bottom = ImageChops.difference(picture, white).getbbox()
        assert min(left, top, picture.width - right, picture.height - bottom) > 3
    names = {f"line {i}": [(1, [0.5])] for i in range(40)}
    assert Image.open(io.BytesIO(lines([{"": names}], "", ""))).height > charts.LINE * 40
