"""The tour: its command makes every picture of docs/tour.md, and what the page says of shapes and functions is true."""
import ast
import re
from pathlib import Path

import pytest
import torch
from conftest import refusal, save_random_run
from PIL import Image

from ptm_mini.config import PRESETS
from ptm_mini.report import panels, tour
from ptm_mini.report.panels import SIDE

DOCS = Path(__file__).parents[2] / "docs"
TEXT = (DOCS / "tour.md").read_text()


@pytest.fixture
def run_folder(toy_set, tmp_path):
    """A run of random weights at `tiny`."""
    save_random_run(tmp_path / "run", toy_set, PRESETS["tiny"])
    return tmp_path / "run"


def test_shapes_draws_and_pictures_are_the_pages(run_folder, tmp_path, capsys):
    """Any weights have the shapes, and any run of seed 0 the damage, that the page states for the trained run."""
    tour.main([str(run_folder), str(tmp_path / "out"), "--sample", "siren-000-0"])
    lines = [line for line in capsys.readouterr().out.splitlines() if "[" in line or "draws" in line]
    assert len(lines) > 25
    for line in lines:
        assert (line if "draws" in line else line[:39].rstrip()) in TEXT, line
    drawn = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert set(re.findall(r"\(tour/(.*?\.png)\)", TEXT)) == set(drawn) == {path.name for path in (DOCS / "tour").iterdir()}
    tour.main([str(run_folder), str(tmp_path / "out"), "--sample", "siren-000-0"])
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == drawn       # the same again
    says = refusal(tour.main, [str(run_folder), str(tmp_path / "other"), "--sample", "siren"])
    assert says.startswith("--sample siren: no sample") and not (tmp_path / "other").exists()


def test_numbers_lie_on_their_patches_and_keys_in_their_columns():
    sound, picture = (panels.numbered(Image.new("RGB", (8, 8)), 2, 1, low_first) for low_first in (True, False))
    upper, lower = (5, 5, SIDE - 5, SIDE // 2 - 5), (5, SIDE // 2 + 5, SIDE - 5, SIDE - 5)
    assert sound.crop(upper).tobytes() == picture.crop(lower).tobytes() != sound.crop(lower).tobytes()
    drawn = panels.matrix(torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]]), prompts=1)       # 2 queries, 4 keys
    colours = [[drawn.getpixel((SIDE * x // 8, SIDE * y // 4)) for x in (1, 2, 3, 5, 7)] for y in (1, 3)]
    white, blue, orange = (255, 255, 255), (26, 115, 232), colours[0][4]
    assert colours == [[white, blue, white, white, orange], [white, blue, white, orange, white]] and orange[2] < 100


def test_a_run_without_prompts_is_refused(toy_set, small, tmp_path):
    save_random_run(tmp_path / "run", toy_set, small, prompts=False)
    assert "--method prompt" in refusal(tour.main, [str(tmp_path / "run"), str(tmp_path / "out"), "--sample", "siren-000-0"])


def test_the_pictures_are_small():
    sizes = [path.stat().st_size for path in (DOCS / "tour").iterdir()]
    assert max(sizes) < 100_000 and sum(sizes) < 300_000


def test_every_function_that_the_page_names_is_where_it_says():
    links = re.findall(r"\[`([\w/]+\.py): ([\w.]+)`\]\(\.\./(.*?)\)", TEXT)
    assert len(links) > 20 and TEXT.count(".py: ") == len(links)
    for file, name, target in links:
        assert target == f"ptm_mini/{file}"
        found = ast.parse((DOCS.parent / target).read_text())
        for part in name.split("."):
            found = next(node for node in found.body if getattr(node, "name", None) == part)
