"""The tour: one sample from its files to the answer."""
import shutil
from pathlib import Path

import pytest
import torch
from helpers import files_of, refusal
from PIL import Image

from ptm_mini.lab import tour
from ptm_mini.plots import COLOURS, SIDE

PICTURES = {"sound.png", "picture.png", "damage.png", "prompts.png", "fusion.png", "answers.png"}


def test_the_command_prints_every_shape_and_draws_every_picture(
        run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    tour.main([str(run_folder), str(out), "--sample", "test-drum-0"])
    printed = capsys.readouterr().out
    shapes = {line[:25].strip(): line[25:40].strip() for line in printed.splitlines()}
    assert shapes["sound file"] == "[8000, 1]" and shapes["waveform"] == "[5360]"
    assert shapes["frames"] == shapes["windowed"] == "[32, 400]"
    assert shapes["power"] == "[32, 257]" and shapes["audio"] == "[32, 32]"
    assert shapes["rgb"] == "[20, 20, 3]" and shapes["image"] == "[3, 16, 16]"
    assert shapes["audio_input"] == "[2, 2, 16]" and shapes["audio tokens"] == "[4, 16]"
    assert shapes["fusion, audio's queries"] == "[2, 4, 6]" and shapes["features"] == "[16]"
    assert "| in, taken for |" in printed and "| p(drum)" in printed
    drawn = files_of(out)
    assert drawn.keys() == PICTURES
    tour.main([str(run_folder), str(out), "--sample", "test-drum-0"])
    assert files_of(out) == drawn                                              # the same again


def test_a_set_that_has_moved_is_found_and_an_unknown_sample_refused(
        run_folder: Path, small_set: Path, seeds_folder: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(small_set, tmp_path / "moved")
    tour.main([str(run_folder), str(tmp_path / "out"), "--sample", "test-bell-1",
               "--data", str(moved)])
    says = refusal(tour.main, [str(run_folder), str(tmp_path / "none"), "--sample", "bell"])
    assert says.startswith("--sample bell: no sample of that id") and "manifest.csv" in says
    assert "of one run" in refusal(tour.main, [str(seeds_folder), str(tmp_path / "none"),
                                               "--sample", "test-bell-1"])
    assert not (tmp_path / "none").exists()


def test_the_first_token_of_a_sound_is_at_the_bottom_and_of_an_image_at_the_top() -> None:
    sound, image = (tour.draw_tokens(Image.new("RGB", (8, 8)), 2, 1, upward)
                    for upward in (True, False))
    upper = (5, 5, SIDE - 5, SIDE // 2 - 5)
    lower = (5, SIDE // 2 + 5, SIDE - 5, SIDE - 5)
    assert sound.crop(upper).tobytes() == image.crop(lower).tobytes()
    assert sound.crop(upper).tobytes() != sound.crop(lower).tobytes()


def test_attention_has_a_column_for_each_key_and_a_line_after_the_prompts() -> None:
    probabilities = torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 1.0, 0.0]])
    drawn = tour.draw_matrix(probabilities, prompts=1)
    rows = [[drawn.getpixel((SIDE * x // 8, SIDE * y // 4)) for x in (1, 2, 3, 5, 7)]
            for y in (1, 3)]
    white, blue, orange = (255, 255, 255), tuple(bytes.fromhex(COLOURS[1][1:])), rows[0][4]
    assert rows == [[white, blue, white, white, orange], [white, blue, white, orange, white]]
    assert orange[0] - orange[2] > 100


def test_a_waveform_is_grey_where_it_is_not_used() -> None:
    drawn = tour.draw_wave(torch.zeros(1000), used=0.5)
    assert drawn.getpixel((10, 10)) == (255, 255, 255) != drawn.getpixel((SIDE - 10, 10))
