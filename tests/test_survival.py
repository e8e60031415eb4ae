"""Runs that are killed, interrupted, short of disk or started twice: nothing is lost, and what goes on ends with the same bits."""
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import SMALL

from ptm_mini.runs.folder import load_run

ROOT = Path(__file__).parent.parent
TWO_EPOCHS = ["train.backbone.epochs=2", "train.prompts.epochs=2", "train.together.epochs=2"]
SETTINGS = [word for setting in [*SMALL, *TWO_EPOCHS] for word in ("--set", setting)]


def start(folder, *arguments):
    """train.py with these arguments in `folder`, as a process"""
    return subprocess.Popen([sys.executable, ROOT / "train.py", "--device", "cpu", *map(str, arguments)], cwd=folder,
                            env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    """returns the tables and what else it printed, the line of its error, and its exit status"""
    out, error = process.communicate()
    assert "Traceback" not in error and error.count("\n") <= 1, error
    return out, error, process.returncode


def tables(out):
    """The tables that were printed, but for the seconds an epoch, which alone have one decimal"""
    return [re.sub(r"\| +\d+\.\d \|", "|", line) for line in out.splitlines() if line.startswith("|")]


def result(folder):
    """The bytes of every weight file and of results.json"""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix == ".pt" or path.name == "results.json"}


def no_leftovers(folder):
    return [path for path in folder.rglob("*") if "unfinished" in path.name or path.suffix == ".lock"] == []


def go_on(folder, arguments):
    """Resume what was broken off in folder/run or, where nothing had been begun, give the command again."""
    begun = (folder / "run" / "unfinished" / "command.json").exists()
    return finish(start(folder, *(("--resume", "run") if begun else arguments)))


@pytest.fixture(scope="module")
def whole(toy_set, tmp_path_factory):
    """An uninterrupted run of every method: its folder, the arguments, its seconds, and what it printed."""
    folder = tmp_path_factory.mktemp("whole")
    arguments = ["--data", toy_set, "--method", "all", "--out", "run", "--features", "features", *SETTINGS]
    begun = time.monotonic()
    out, _, status = finish(start(folder, *arguments))
    assert status == 0 and no_leftovers(folder)
    return folder / "run", arguments, time.monotonic() - begun, out


@pytest.mark.slow
def test_killed_at_twenty_moments_it_goes_on_to_the_same_bits(whole, tmp_path):
    run, arguments, seconds, out = whole
    for seed in range(20):
        folder = tmp_path / str(seed)
        folder.mkdir()
        process = start(folder, *arguments)
        moment = random.Random(seed).uniform(0.05, 1) * seconds
        time.sleep(moment)
        process.kill()
        process.communicate()
        again, error, status = go_on(folder, arguments)
        assert (status, error) == (0, ""), (moment, error)
        assert result(folder / "run") == result(run) and tables(again) == tables(out), moment
        assert no_leftovers(folder)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_at_five_moments_it_says_how_to_go_on(whole, tmp_path, number):
    run, arguments, seconds, out = whole
    for seed in range(5):
        folder = tmp_path / str(seed)
        folder.mkdir()
        process = start(folder, *arguments)
        time.sleep(random.Random(seed).uniform(0.4, 0.9) * seconds)
        process.send_signal(number)
        _, error, status = finish(process)
        assert status == 128 + number and "python train.py --resume run" in error
        assert list((folder / "run").glob("*.lock")) == []
        again, error, status = go_on(folder, arguments)
        assert (status, error) == (0, "")
        assert result(folder / "run") == result(run) and tables(again) == tables(out) and no_leftovers(folder)


@pytest.fixture
def disk(tmp_path):
    """A function that makes a small disk of some kilobytes, or gives it another size, and returns its folder."""
    def sized(kilobytes):
        options = f"size={kilobytes}k" + (",remount" if folder.is_mount() else "")
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode:
            pytest.skip("needs the right to mount a small disk")
        return folder

    folder = tmp_path / "disk"
    folder.mkdir()
    yield sized
    if folder.is_mount():
        subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
def test_a_disk_that_fills_at_ten_moments_loses_nothing(whole, disk):
    run, arguments, seconds, out = whole
    arguments, failed = [run.parent / word if word == "features" else word for word in arguments], []          # decoded there
    for seed in range(10):
        folder = disk(20_000)
        process = start(folder, *arguments)
        time.sleep(random.Random(seed).uniform(0.3, 0.85) * seconds)
        fill(folder / "ballast")
        _, error, status = finish(process)
        assert status == 2 and "can't be written (No space left on device)" in error, error
        assert not list(folder.rglob("*.unfinished")) and not list(folder.rglob("*.lock"))
        failed.append(Path(error.split(":")[1]).name)
        saved = result(folder / "run") if (folder / "run" / "config.json").exists() else {}
        assert all(result(run)[name] == content for name, content in saved.items())
        (folder / "ballast").unlink()
        again, error, status = go_on(folder, arguments)
        assert (status, error) == (0, ""), error
        assert result(folder / "run") == result(run) and tables(again) == tables(out) and no_leftovers(folder)
        shutil.rmtree(folder / "run")
    print(failed)


def fill(path):
    """Write a file until the disk is full."""
    with open(path, "wb", buffering=0) as file, suppress(OSError):
        while file.write(bytes(4096)):
            pass


def both(folder, one, other):
    """Two commands at once, lists of arguments: their exit statuses; who was refused names the other's process."""
    processes = [start(folder, *arguments) for arguments in (one, other)]
    ended = [finish(process) for process in processes]
    for (_, error, status), theirs in zip(ended, processes[::-1]):
        assert status == 0 and not error or status == 2 and f"another process ({theirs.pid}) is at work" in error, error
    return [status for _, _, status in ended]


@pytest.mark.slow
def test_two_at_once_end_well_or_one_is_refused(whole, toy_set, tmp_path):
    run, arguments, _, _ = whole
    own = ["--data", toy_set, "--features", run.parent / "features", *SETTINGS]
    for pair in range(3):                                          # a new run, the same folder
        statuses = both(tmp_path, *[["--out", f"same-{pair}", "--method", "all", *own]] * 2)
        assert 0 in statuses and result(tmp_path / f"same-{pair}") == result(run)
    for pair in range(1, 4):                                       # the first free folder
        assert both(tmp_path, *[["--method", "backbone", *own]] * 2) == [0, 0]
        folders = [tmp_path / "runs" / f"toy-{number}" for number in (2 * pair - 1, 2 * pair)]
        assert all((folder / "backbone.pt").read_bytes() == (run / "backbone.pt").read_bytes() for folder in folders)
    for pair in range(1, 5):                                       # a method each for one run
        folder = tmp_path / "runs" / f"toy-{pair}"
        statuses = both(tmp_path, *(["--out", folder, "--method", method, *own[:4]] for method in ("head", "lora")))
        assert 0 in statuses
        assert set(load_run(folder).trained) == {"backbone", *(m for m, status in zip(("head", "lora"), statuses) if not status)}
        assert all(content == result(run)[name] for name, content in result(folder).items() if name.startswith("backbone"))
