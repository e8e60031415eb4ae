"""The feature cache: made once and whole, gone on with, checked, kept where there is room, and tidied up."""
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import refusal

from ptm_mini.data import cache, prepared, workers
from ptm_mini.data.array_file import ArrayFile
from ptm_mini.data.cache import Cache
from ptm_mini.data.manifest import Row
from ptm_mini.data.prepared import PreparedSet
from ptm_mini.data.storage import Storage

SHAPES = (4, 5), (3, 2, 2)
ROWS = [Row(f"s{i}", f"{i}.wav", f"{i}.png", "a", "train") for i in range(10)]


@pytest.fixture
def decoded(monkeypatch):
    """Names of the sounds that were decoded so far"""
    names, original = [], prepared.read_waveform
    monkeypatch.setattr(prepared, "read_waveform", lambda path, *rest: names.append(path.name) or original(path, *rest))
    return names


def bytes_in(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def cache_in(folder):
    """The bytes of the one cache in a folder, which nothing else of ours stands beside"""
    found, = folder.glob("*features*")
    return bytes_in(found)


def made_up(audio, image):
    """Stands in for decoding: values that follow from the paths"""
    seed = int(audio.stem)
    return torch.full(SHAPES[0], seed + 0.5), torch.full(SHAPES[1], seed, dtype=torch.uint8)


def refuses_seven(audio, image):
    if audio.stem == "7":
        raise prepared.InputError(f"{audio}: is bad")
    return made_up(audio, image)


def dies_at_seven(audio, image):
    if audio.stem == "7":
        os.kill(os.getpid(), signal.SIGKILL)
    return made_up(audio, image)


def make(folder, decode=made_up, workers=1):
    return Cache(folder / "features", ROWS, Path("/set"), SHAPES, decode, workers)


def test_files_are_decoded_once_and_again_when_one_has_changed(tiny_set, small, decoded):
    first = PreparedSet(tiny_set, small)
    assert isinstance(first.cache.audio, np.memmap) and sorted(decoded) == ["0.wav", "1.wav", "2.wav", "3.wav", "5.wav"]
    PreparedSet(tiny_set, small)
    assert len(decoded) == 5
    soundfile.write(tiny_set / "0.wav", np.zeros(7000) + 0.1, 16000)
    assert not np.array_equal(PreparedSet(tiny_set, small).cache.audio[0], first.cache.audio[0]) and len(decoded) == 10


def test_a_bad_file_leaves_nothing_behind(tiny_set, small):
    (tiny_set / "3.wav").write_bytes(b"")
    before = sorted(os.listdir(tiny_set))
    assert "3.wav" in refusal(PreparedSet, tiny_set, small)
    assert sorted(os.listdir(tiny_set)) == before


def test_the_files_are_what_numpy_reads(tmp_path):
    made = make(tmp_path)
    assert np.array_equal(np.load(tmp_path / "features" / "audio.npy"), np.stack([np.full(SHAPES[0], i + 0.5) for i in range(10)]))
    assert np.load(tmp_path / "features" / "image.npy").dtype == np.uint8
    audio, image = made.read(3)
    assert audio.dtype == np.float32 and audio.flags.writeable and (audio == 3.5).all() and (image == 3).all()


def flip(path, at):
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def zero_tail(path):
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[:size // 2])
    os.truncate(path, size)


def swap_rows(folder):
    for name in cache.FILES:
        array = np.load(folder / name, mmap_mode="r+")
        array[[0, 5]] = array[[5, 0]]


@pytest.mark.parametrize("damage", [
    lambda folder: flip(folder / "audio.npy", 500), lambda folder: flip(folder / "image.npy", -1),
    lambda folder: flip(folder / "checksums.npy", -1), lambda folder: zero_tail(folder / "audio.npy"), swap_rows],
    ids=["audio bit", "image bit", "checksum bit", "zeroed tail", "rows and checksums swapped"])
def test_what_was_altered_is_decoded_again_when_it_is_read(tmp_path, caplog, damage):
    make(tmp_path)
    before = cache_in(tmp_path)
    damage(tmp_path / "features")
    assert cache_in(tmp_path) != before
    opened = make(tmp_path)
    for i in range(10):
        audio, image = opened.read(i)
        assert (audio == i + 0.5).all() and (image == i).all()
    assert cache_in(tmp_path) == before
    assert sum("was altered since it was written" in line for line in caplog.messages) == 1


def more_rows(folder):
    np.save(folder / "audio.npy", np.zeros((11, *SHAPES[0]), np.float32))


@pytest.mark.parametrize("damage", [
    lambda folder: os.truncate(folder / "audio.npy", 200), lambda folder: os.truncate(folder / "image.npy", 0),
    lambda folder: (folder / "checksums.npy").unlink(), more_rows,
    lambda folder: np.save(folder / "image.npy", np.zeros((10, 3, 4, 1), np.uint8)),
    lambda folder: np.save(folder / "audio.npy", np.zeros((10, *SHAPES[0]), np.int32)),
    lambda folder: np.save(folder / "audio.npy", np.array([{}]), allow_pickle=True)],
    ids=["cut off", "empty", "gone", "more rows", "other shape", "other type", "objects"])
def test_what_has_another_form_is_made_anew(tmp_path, caplog, damage):
    make(tmp_path)
    before = cache_in(tmp_path)
    damage(tmp_path / "features")
    make(tmp_path)
    assert cache_in(tmp_path) == before and "is not as it was written; it is made anew" in caplog.text


def test_what_is_not_ours_is_never_removed(tmp_path):
    make(tmp_path)
    (tmp_path / "features" / "notes.txt").write_text("mine")
    (tmp_path / "features" / "audio.npy").write_bytes(b"")
    assert "can't be made (Directory not empty)" in refusal(make, tmp_path)
    assert (tmp_path / "features" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("chunks", [0, 1, 2])
def test_an_interrupted_cache_is_gone_on_with(tmp_path, monkeypatch, caplog, chunks):
    caplog.set_level("INFO")
    monkeypatch.setattr(cache, "CHUNK", 3)
    make(tmp_path / "whole")
    calls = []

    def interrupted(audio, image):
        if len(calls) == 3 * chunks + 1:
            raise KeyboardInterrupt
        calls.append(audio)
        return made_up(audio, image)

    (tmp_path / "begun").mkdir()
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "begun", interrupted)
    assert "the same command goes on from there" in caplog.text and not (tmp_path / "begun" / "features").exists()
    calls.clear()
    make(tmp_path / "begun", lambda audio, image: calls.append(audio) or made_up(audio, image))
    assert len(calls) == 10 - 3 * chunks and f"{3 * chunks} are there" in caplog.text
    assert cache_in(tmp_path / "begun") == cache_in(tmp_path / "whole")


def test_what_a_dead_process_left_stops_nobody(tmp_path):
    (tmp_path / ".features.lock").write_bytes(b"")
    (tmp_path / ".features.unfinished").mkdir()
    (tmp_path / ".features.unfinished" / "audio.npy").write_bytes(b"half")
    make(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["features"]


def test_of_two_at_once_the_second_waits_and_decodes_nothing(tmp_path, caplog):
    caplog.set_level("INFO")
    started, calls = threading.Event(), []

    def slow(audio, image):
        started.set()
        calls.append(audio)
        while "is at work; waiting for it" not in caplog.text:
            time.sleep(0.01)
        return made_up(audio, image)

    first = threading.Thread(target=make, args=[tmp_path, slow])
    first.start()
    started.wait(10)
    assert (make(tmp_path, slow).read(9)[1] == 9).all()
    first.join()
    assert len(calls) == 10 and sorted(os.listdir(tmp_path)) == ["features"]


def test_a_full_disk_is_said_in_one_line(tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(ArrayFile, "open_at", lambda self, folder, row: open("/dev/full", "wb"))
        assert "can't be made (No space left on device); free space or name another" in refusal(make, tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda folder: os.terminal_size((0, 0)) and type("", (), {"free": 900}))
    assert "the features need 0 MB, 0 MB are free; free some" in refusal(make, tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_processes_make_the_same_bytes(tmp_path, monkeypatch):
    make(tmp_path / "one")
    monkeypatch.setattr(cache, "CHUNK", 2)
    monkeypatch.setattr(cache, "POOLED", 0)
    make(tmp_path / "two", workers=2)
    assert cache_in(tmp_path / "two") == cache_in(tmp_path / "one")


@pytest.mark.slow
def test_what_ends_a_process_ends_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "CHUNK", 2)
    monkeypatch.setattr(cache, "POOLED", 0)
    assert refusal(make, tmp_path, refuses_seven, 2) == "/set/7.wav: is bad"
    assert os.listdir(tmp_path) == [] and not workers.multiprocessing.active_children()
    assert "a process that decoded has died; what is decoded is kept" in refusal(make, tmp_path, dies_at_seven, 2)
    assert not workers.multiprocessing.active_children()
    calls = []
    make(tmp_path, lambda audio, image: calls.append(audio) or made_up(audio, image))
    assert len(calls) < 10 and sorted(os.listdir(tmp_path)) == ["features"]


def test_a_set_that_cannot_be_written_is_cached_elsewhere(tiny_set, small, tmp_path_factory, monkeypatch, caplog, decoded):
    caplog.set_level("INFO")
    home, asked = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("asked")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    before = sorted(os.listdir(tiny_set))
    with monkeypatch.context() as patched:
        patched.setattr("os.access", lambda path, mode: False)
        first = PreparedSet(tiny_set, small)
        PreparedSet(tiny_set, small)
    assert len(decoded) == 5 and first.cache.folder.is_relative_to(home / "ptm_mini") and "can't be written" in caplog.text
    assert PreparedSet(tiny_set, small, Storage(asked)).cache.folder.is_relative_to(asked)
    assert sorted(os.listdir(tiny_set)) == before
    (tiny_set / "file").write_text("")
    assert "can't be made (Not a directory)" in refusal(PreparedSet, tiny_set, small, Storage(tiny_set / "file" / "below"))


def test_other_caches_are_listed_and_removed_but_nothing_else(tiny_set, small, caplog):
    caplog.set_level("INFO")
    PreparedSet(tiny_set, small)
    assert "--clean-features" not in caplog.text
    for name in ("features-0123456789abcdef", ".features-0123456789abcdef.unfinished", "features-notes",
                 "features-aaaaaaaaaaaaaaaa"):
        (tiny_set / name).mkdir()
    (tiny_set / "features-0123456789abcdef" / "audio.npy").write_bytes(bytes(3_000_000))
    (tiny_set / "features-aaaaaaaaaaaaaaaa" / "mine.txt").write_text("")
    os.utime(tiny_set / "0.wav", (0, 0))
    PreparedSet(tiny_set, small)
    assert "3 feature caches of other settings, of files that have changed or unfinished, 3 MB; --clean-features" in caplog.text
    data = PreparedSet(tiny_set, small, Storage(clean=True))
    assert sorted(path.name for path in tiny_set.glob("*features*")) == sorted(
        [data.cache.folder.name, "features-aaaaaaaaaaaaaaaa", "features-notes"])


def test_what_another_process_works_on_is_left_alone(tiny_set, small):
    (tiny_set / ".features-0123456789abcdef.unfinished").mkdir()
    with cache.locked(tiny_set / ".features-0123456789abcdef.lock"):
        PreparedSet(tiny_set, small, Storage(clean=True))
    assert (tiny_set / ".features-0123456789abcdef.unfinished").exists()


def test_flags():
    import train                                   # not above: the processes of other tests import this file

    options = train.parse_arguments(["--features", "x", "--workers", "3", "--clean-features"])
    assert options.storage == Storage(Path("x"), 3, True)
    assert refusal(train.parse_arguments, ["--workers", "0"]) == "--workers: expected a whole number, 1 or more, not '0'"


MAKE = """
import logging, sys
from pathlib import Path
from ptm_mini.config import PRESETS
from ptm_mini.data import cache
from ptm_mini.data.prepared import PreparedSet
from ptm_mini.data.storage import Storage
from ptm_mini.settings import with_assignments
if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
    cache.CHUNK, cache.POOLED = 8, 0
    PreparedSet(Path(sys.argv[1]), with_assignments(PRESETS["tiny"], ["audio.seconds=2.575"]), Storage(Path(sys.argv[2]), 2))
"""


@pytest.mark.slow
def test_a_cache_that_was_killed_ten_times_has_the_bytes_of_one_that_was_not(toy_set, tmp_path):
    (tmp_path / "make.py").write_text(MAKE)

    def started(place):
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        with open(tmp_path / "said", "w") as said:
            return subprocess.Popen([sys.executable, tmp_path / "make.py", toy_set, place], env=environment, stdout=said)

    start = time.monotonic()
    assert started(tmp_path / "whole").wait() == 0
    seconds, random, noted = time.monotonic() - start, np.random.default_rng(0), [0]
    for _ in range(10):
        process = started(tmp_path / "killed")
        time.sleep(random.uniform(0, seconds / 2))
        process.kill()
        process.wait()
        for path in (tmp_path / "killed").glob("*/*features*/checksums.npy"):
            noted.append(int((np.load(path, mmap_mode="r") != 0).sum()))
    assert noted == sorted(noted) and len(set(noted)) > 1
    assert started(tmp_path / "killed").wait() == 0
    one, other = (next(folder.glob("*")) for folder in (tmp_path / "whole", tmp_path / "killed"))
    assert cache_in(one) == cache_in(other) and len(os.listdir(other)) == 1
