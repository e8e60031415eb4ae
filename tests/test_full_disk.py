"""A disk that fills up while something is written: one line, nothing half-written, and what was there before is there still."""
import json
import re
import shutil
import subprocess
from contextlib import contextmanager
from functools import lru_cache

import pytest
from conftest import save_random_run

import eval as eval_script
from data_prep import folder, toy
from ptm_mini.data.prepared import PreparedSet
from ptm_mini.data.storage import Storage
from ptm_mini.errors import run as run_command
from ptm_mini.golden import __main__ as golden
from ptm_mini.report import tour

resource = pytest.importorskip("resource", reason="this system sets no limits")


@contextmanager
def full_disk(size):
    """No file of this process grows beyond `size` bytes meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def files_in(place):
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def begun(toy_set, small, tmp_path_factory):
    """A folder with a run of random weights, whose set is cached already, with results of an older evaluation, and a list"""
    place = tmp_path_factory.mktemp("begun")
    save_random_run(place / "run", toy_set, small)
    (place / "run" / "log.jsonl").write_text(json.dumps({"stage": "full_mixed", "epoch": 1, "epochs": 1, "loss": 2.0,
                                                         "validation_loss": 2.0, "accuracy": 0.5, "seconds": 1.0}) + "\n")
    for name in ("results.json", "results.png", "gallery.png", "stress.json", "attention.png", "curves.png", "seconds.png"):
        (place / "run" / name).write_text("older")
    names = [f"{label}-00{n}-0" for label in ("siren", "dog_bark") for n in range(8)]
    (place / "pairs.csv").write_text("audio,image,label\n" + "".join(
        f"audio/{name}.wav,image/{name}.png,{name[:-6]}\n" for name in names))
    return place


def evaluate(place, *arguments):
    eval_script.main([str(place / "run"), *map(str, arguments), "--device", "cpu"])


def cache(place, toy_set, small):
    (place / "cache").mkdir(exist_ok=True)
    PreparedSet(toy_set, small, Storage(place / "cache"))


# What writes, and limits in bytes that strike at its different files.
COMMANDS = {
    "toy": (lambda place, toy_set, small: toy.main(["--recordings", "6", "--out", str(place / "sets" / "toy")]), (0, 70000)),
    "copies": (lambda place, toy_set, small: folder.main(["--csv", str(place / "pairs.csv"), str(toy_set), "--copy", "--out",
                                                          str(place / "copies")]), (100000, 0)),
    "report": (lambda place, toy_set, small: folder.main(["--csv", str(place / "pairs.csv"), str(toy_set), "--out",
                                                          str(place / "points")]), (1000, 0)),
    "cache": (cache, (3000, 0, 50000)),
    "results": (lambda place, *_: evaluate(place), (30000, 0, 4000, 10000)),
    "stress": (lambda place, *_: evaluate(place, "--stress"), (0, 4000)),
    "attention": (lambda place, *_: evaluate(place, "--attention"), (5000,)),
    "curves": (lambda place, *_: evaluate(place, "--curves"), (5000, 0)),
    "picture": (lambda place, toy_set, _: evaluate(place, "--audio", toy_set / "audio" / "siren-000-0.wav", "--picture",
                                                   place / "a.png"), (5000, 0)),
    "answers": (lambda place, toy_set, _: evaluate(place, "--pairs", toy_set / "manifest.csv", "--out", place / "a.csv"),
                (20000, 0, 50000)),
    "golden": (lambda place, *_: golden.main([str(place / "golden.npz")]), (100, 50000)),
    "tour": (lambda place, *_: tour.main([str(place / "run"), str(place / "tour"), "--sample", "siren-000-0"]),
             (10000, 0, 19000))}
QUICK = ("toy-0", "report-1000", "cache-3000", "results-30000", "picture-5000", "answers-20000")      # in every test run
CASES = [pytest.param(name, limit, id=f"{name}-{limit}", marks=[] if f"{name}-{limit}" in QUICK else [pytest.mark.slow])
         for name, (_, limits) in COMMANDS.items() for limit in limits]


@pytest.fixture(scope="module")
def whole(begun, toy_set, small, tmp_path_factory):
    """function(name of a command) -> what files it leaves where there is room, {path: bytes}"""
    @lru_cache
    def of(name):
        place = tmp_path_factory.mktemp(name) / "place"
        shutil.copytree(begun, place)
        COMMANDS[name][0](place, toy_set, small)
        return files_in(place)
    return of


@pytest.mark.parametrize("name, limit", CASES)
def test_a_full_disk_is_one_line_and_leaves_what_is_whole(begun, whole, toy_set, small, tmp_path, capsys, name, limit):
    expected, place = whole(name), tmp_path / "place"
    shutil.copytree(begun, place)
    before = files_in(place)
    with full_disk(limit), pytest.raises(SystemExit) as caught:
        run_command(lambda: COMMANDS[name][0](place, toy_set, small))
    out, err = capsys.readouterr()
    assert re.fullmatch(r"error: .*(File too large|features need).*\n", err) and caught.value.code == 2
    after = files_in(place)
    assert before.keys() <= after.keys() <= expected.keys()
    assert all(content in (before.get(path), expected[path]) for path, content in after.items())
    if name in ("results", "stress"):
        assert out.count("|") > 100                                  # what was measured is not lost with the picture


@contextmanager
def small_disk(place, kilobytes):
    """A disk of its own at the folder `place`"""
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", place], capture_output=True).returncode:
        pytest.skip("no right to mount a disk")
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [64, 400, 3000])
@pytest.mark.parametrize("name", ["toy", "cache", "copies", "answers", "golden", "tour"])
def test_a_disk_that_is_too_small(begun, whole, toy_set, small, tmp_path, capsys, name, kilobytes):
    """Here it is the sum of the files that counts, so that any of them is struck."""
    disk = tmp_path / "disk"
    with small_disk(disk, kilobytes):
        for file in begun.rglob("*"):                                # the disk holds the results, the run lies elsewhere
            if not (disk / file.name).exists():
                (disk / file.name).symlink_to(file)
        before = set(disk.iterdir())
        try:
            run_command(lambda: COMMANDS[name][0](disk, toy_set, small))
        except SystemExit as end:
            assert end.code == 2 and re.fullmatch(r"error: .*(No space left|features need).*\n", capsys.readouterr().err)
        made = {path: content for path, content in files_in(disk).items() if disk / path not in before}
        assert all(whole(name)[path] == content for path, content in made.items())
