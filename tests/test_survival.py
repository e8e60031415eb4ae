"""Runs that are killed, interrupted, short of disk or started twice: nothing is lost, and what goes on ends with the same bits."""
import os
import random
import re
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import SMALL

from ptm_mini.runs.folder import load_run

ROOT = Path(__file__).parent.parent
TWO_EPOCHS = ["train.backbone.epochs=2", "train.prompts.epochs=2", "train.together.epochs=2"]
SETTINGS = [word for setting in [*SMALL, *TWO_EPOCHS] for word in ("--set", setting)]


def start(folder, *arguments, limit=None):
    """train.py with these arguments in `folder`, as a process. limit: of the bytes in a file that it writes"""
    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    return subprocess.Popen([sys.executable, ROOT / "train.py", "--device", "cpu", *map(str, arguments)], cwd=folder,
                            env={**os.environ, "OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                            preexec_fn=limited if limit else None)


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


@pytest.mark.slow
def test_a_disk_that_fills_at_ten_moments_loses_nothing(whole, tmp_path):
    """No file can grow beyond a limit, so that with each limit another one is the first that fails."""
    run, arguments, _, out = whole
    failed = set()
    for step in range(10):
        folder, limit = tmp_path / str(step), int(500 * 2.1 ** step)
        folder.mkdir()
        _, error, status = finish(start(folder, *arguments, limit=limit))
        assert status == 2 and "File too large" in error, (limit, error)
        assert not list(folder.rglob("*.unfinished")) and not list(folder.rglob("*.lock")), limit
        failed.add(error.split(":")[1])
        saved = result(folder / "run") if (folder / "run" / "config.json").exists() else {}
        assert all(result(run)[name] == content for name, content in saved.items())
        again, error, status = go_on(folder, arguments)
        assert (status, error) == (0, ""), (limit, error)
        assert result(folder / "run") == result(run) and tables(again) == tables(out) and no_leftovers(folder)
    print(failed)
