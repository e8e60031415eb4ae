"""The tour: one sample from its files to the answer."""
import shutil
from pathlib import Path

import pytest
from helpers import files_of, refusal
from PIL import Image

from ptm_mini.lab import tour
from ptm_mini.plots import SIDE


def test_the_command_prints_every_shape_and_draws_every_picture(
        copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "out"
    tour.main([str(copied), str(out), "--sample", "test-drum-0"])
    printed = capsys.readouterr().out
    shapes = {line[:25].strip(): line[25:40].strip() for line in printed.splitlines()}
    expected = {"sound file": "[8000, 1]", "waveform": "[5360]", "audio": "[32, 32]",
                "image": "[3, 16, 16]", "audio_input": "[2, 2, 16]", "audio tokens": "[4, 16]",
                "fusion, audio's queries": "[2, 4, 6]", "features": "[16]"}
    assert expected.items() <= shapes.items()
    assert "| in, taken for |" in printed
    assert files_of(out).keys() == {"inputs.png", "damage.png", "fusion.png", "answers.png"}


def test_a_set_that_has_moved_is_found_and_an_unknown_sample_refused(
        copied: Path, small_set: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(small_set, tmp_path / "moved")
    says = refusal(tour.main, [str(copied), str(tmp_path / "none"), "--sample", "bell",
                               "--data", str(moved)])
    assert says.startswith("--sample bell: no sample") and str(moved / "manifest.csv") in says
    assert not (tmp_path / "none").exists()


def test_the_first_token_of_a_sound_is_at_the_bottom_and_of_an_image_at_the_top() -> None:
    sound, image = (tour.draw_tokens(Image.new("RGB", (8, 16)), 8, upward)
                    for upward in (True, False))
    upper = (5, 5, SIDE - 5, SIDE // 2 - 5)
    lower = (5, SIDE // 2 + 5, SIDE - 5, SIDE - 5)
    assert sound.crop(upper).tobytes() == image.crop(lower).tobytes()
    assert sound.crop(upper).tobytes() != sound.crop(lower).tobytes()
