"""The note about what is cut off, with settings that can be used."""
import numpy as np
import pytest
import soundfile
from conftest import refusal
from PIL import Image

from ptm_mini.data.manifest import Row, read_set, write_set
from ptm_mini.data.prepared import PreparedSet
from ptm_mini.data.used import LOOKED_AT, spread, warn_of_what_is_cut
from ptm_mini.settings import with_assignments


def make_set(folder, seconds, sides):
    rows = []
    for i, (length, side) in enumerate(zip(seconds, sides)):
        soundfile.write(folder / f"{i}.wav", np.random.default_rng(i).uniform(-0.1, 0.1, round(8000 * length)), 8000)
        Image.new("RGB", (side, 2 * side)).save(folder / f"{i}.png")
        rows.append(Row(f"s{i}", f"{i}.wav", f"{i}.png", "ab"[i % 2], ("train", "val", "test")[i % 3]))
    write_set(folder, rows, ["a", "b"])
    return folder


@pytest.mark.parametrize("length", [0.3351, 0.7, 1.0, 2.58])
def test_long_clips_and_large_pictures_are_named_with_settings_that_take_them_whole(tmp_path, small, caplog, length):
    folder = make_set(tmp_path, [length] * 5 + [0.1], [29] * 5 + [9])
    warn_of_what_is_cut(PreparedSet(folder, small), small)
    assert "83% of the clips are longer than the 0.335 s" in caplog.text
    assert "83% of the pictures are larger than the 16 pixels" in caplog.text
    advised = [word.rstrip(";") for word in caplog.text.split() if word.startswith(("audio.seconds=", "image.size="))]
    config = with_assignments(small, advised)                     # what it advises is a valid setting
    assert length <= config.audio.seconds < length + 0.16 + 0.001 and config.image.size == 32
    caplog.clear()
    warn_of_what_is_cut(PreparedSet(folder, config), config)
    assert caplog.text == ""


def test_short_clips_and_small_pictures_are_not_mentioned(tmp_path, small, caplog):
    folder = make_set(tmp_path, [0.3] * 4 + [3.0] * 2, [16] * 4 + [200] * 2)
    warn_of_what_is_cut(PreparedSet(folder, small), small)
    assert caplog.text == ""


def test_a_set_without_pictures_has_none_to_mention(tiny_set, small, caplog):
    rows, classes = read_set(tiny_set)
    write_set(tiny_set, [row.__class__(**{**vars(row), "image": ""}) for row in rows if row.audio], classes)
    warn_of_what_is_cut(PreparedSet(tiny_set, small), small)
    assert "pictures" not in caplog.text


def test_a_large_set_is_looked_at_in_part():
    assert len(spread(list(range(100_000)))) <= LOOKED_AT and spread([1, 2, 3]) == [1, 2, 3]


def test_a_file_that_went_bad_behind_its_features_is_named(tmp_path, small):
    data = PreparedSet(make_set(tmp_path, [0.5] * 3, [9] * 3), small)
    for name in ("2.png", "1.wav"):
        (tmp_path / name).write_bytes(b"what is left")
        assert f"{name}: " in refusal(warn_of_what_is_cut, data, small)


def test_what_can_not_be_set_is_not_advised(tmp_path, small, caplog):
    warn_of_what_is_cut(PreparedSet(make_set(tmp_path, [0.5] * 3, [9] * 3), small), small)
    assert "--set audio.seconds=0.655 takes nearly all whole" in caplog.text
    caplog.clear()
    data = PreparedSet(make_set(tmp_path, [1100] * 3, [9] * 3), small)
    warn_of_what_is_cut(data, small)
    assert "100% of the clips are longer than the 0.335 s that are used of each" in caplog.text and "--set" not in caplog.text
