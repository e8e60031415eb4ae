"""What the feature cache costs to make, at size; figures for docs/results.md, no test. Takes minutes, and GB in --scratch.

python tests/benchmarks/feature_cache.py memory            the step's anonymous memory, 1,000 against 20,000 clips
python tests/benchmarks/feature_cache.py large             eight 30-minute sounds, and eight pictures of 12,000 x 9,000
python tests/benchmarks/feature_cache.py speed             two processes against one, 4 s clips at 44.1 kHz
python tests/benchmarks/feature_cache.py kills             killed at ten random moments, then finished; and ten pairs at once
python tests/benchmarks/feature_cache.py read_only         a set on a read-only mount (root, Linux)
"""
import argparse
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from ptm_mini.config import PRESETS
from ptm_mini.data.cache import FILES
from ptm_mini.data.manifest import SPLITS, Row, write_set
from ptm_mini.data.prepared import PreparedSet
from ptm_mini.data.storage import Storage
from ptm_mini.errors import run
from ptm_mini.settings import with_assignments

ROOT = Path(__file__).parents[2]
TINIEST = ["audio.seconds=0.175", "audio.mels=16", "image.size=8"]
CLIPS = 1_500
FOUR_SECONDS = ["audio.seconds=4.015", "audio.mels=128"]


def make_set(folder, count, sound, picture=None, suffix="jpg"):
    """A prepared set whose samples share a few files. sound, picture: function(path, number)"""
    folder.mkdir(parents=True)
    different = min(count, 50)
    for i in range(different):
        sound(folder / f"{i}.wav", i)
        if picture:
            picture(folder / f"{i}.{suffix}", i)
    rows = [Row(f"s{i}", f"{i % different}.wav", f"{i % different}.{suffix}" if picture else "", "ab"[i % 2],
                SPLITS[i % 3]) for i in range(count)]
    write_set(folder, rows, ["a", "b"])


def noise(seconds, rate, channels):
    def write(path, number):
        block = np.random.default_rng(number).integers(-9000, 9000, (rate, channels), dtype=np.int16)
        with soundfile.SoundFile(path, "w", rate, channels) as file:
            for _ in range(max(1, round(seconds))):
                file.write(block[:round(seconds * rate)])
    return write


def photograph(width, height):
    def write(path, number):
        small = np.random.default_rng(number).integers(0, 256, (height // 100, width // 100, 3), dtype=np.uint8)
        Image.fromarray(small).resize((width, height)).save(path, compress_level=1)
    return write


def started(folder, place, workers, settings, **options):
    """A process of its own that opens a set, and so makes its cache."""
    return subprocess.Popen([sys.executable, __file__, "open", folder, place, str(workers), *settings],
                            env={**os.environ, "PYTHONPATH": str(ROOT)}, text=True, **options)


def anonymous(pid):
    """Anonymous bytes of a process and its children, each page of several shared among them"""
    found = 0
    try:
        for process in (pid, *Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            found += 1024 * int(re.search(r"Pss_Anon: +(\d+)", Path(f"/proc/{process}/smaps_rollup").read_text())[1])
    except (OSError, TypeError):                                             # one has ended meanwhile
        pass
    return found


def peak_of(process):
    """The largest anonymous memory that a process and its children have, seen every 50 ms until it ends"""
    peak = 0
    while process.poll() is None:
        peak = max(peak, anonymous(process.pid))
        time.sleep(0.05)
    return peak


def cost(folder, place, workers, settings=(), watched=True):
    """Make a cache. returns seconds, the peak of the anonymous bytes if watched, the logged rate, CPU seconds of all processes"""
    shutil.rmtree(place, ignore_errors=True)
    start = time.monotonic()
    process = started(folder, place, workers, settings, stdout=subprocess.PIPE)
    peak = peak_of(process) if watched else None
    said = process.communicate()[0]
    assert process.returncode == 0, (process.returncode, said)
    rate, cpu = (float(re.search(pattern, said)[1]) for pattern in (r"decoded \d+ samples, (\d+) a second", r"CPU ([\d.]+)"))
    return time.monotonic() - start, peak, rate, cpu


def memory(scratch):
    for count in (1_000, 20_000):
        make_set(scratch / str(count), count, noise(0.2, 16000, 1), photograph(100, 100))
    for workers in (1, 2):
        small, large = (cost(scratch / str(count), scratch / "cache", workers, TINIEST) for count in (1_000, 20_000))
        print(f"memory, --workers {workers}: {small[1] / 1e6:.0f} MB for 1,000 clips, {large[1] / 1e6:.0f} MB for 20,000, "
              f"ratio {large[1] / small[1]:.2f}")


def large(scratch):
    make_set(scratch / "sounds", 8, noise(1800, 44100, 2))
    for suffix in ("jpg", "png"):
        make_set(scratch / suffix, 8, noise(1800, 44100, 2), photograph(12_000, 9_000), suffix)
    for name in ("sounds", "jpg", "png"):
        for preset in ([], ["audio.seconds=10.255", "audio.mels=128", "image.size=224"]):
            seconds, peak, *_ = cost(scratch / name, scratch / "cache", os.cpu_count(), preset)
            print(f"large, {name}, {preset or 'tiny'}: {peak / 1e6:.0f} MB, {seconds:.1f} s with the start")


def speed(scratch):
    make_set(scratch / "clips", CLIPS, noise(4, 44100, 2))
    found = [[cost(scratch / "clips", scratch / "cache", workers, FOUR_SECONDS, watched=False)[2:] for workers in (1, 2)]
             for _ in range(5)]
    (one, cpu_one), (two, cpu_two) = ([statistics.median(column) for column in zip(*rows)] for rows in zip(*found))
    print(f"speed: {one:.0f} clips a second by one process, {two:.0f} by two, ratio "
          f"{statistics.median(b[0] / a[0] for a, b in found):.2f}; CPU time with the start {1000 * cpu_one / CLIPS:.1f} and "
          f"{1000 * cpu_two / CLIPS:.1f} ms a clip")


def noted(place):
    """How many rows of the unfinished cache in `place` are noted down"""
    found = list(place.glob("*/.features*.unfinished/" + FILES[-1]))
    return int((np.load(found[0], mmap_mode="r") != 0).sum()) if found else 0


def content(place):
    folder, = place.glob("*/features-*")
    return [(folder / name).read_bytes() for name in FILES]


def kills(scratch):
    make_set(scratch / "clips", 1_000, noise(4, 44100, 2))
    seconds, *_ = cost(scratch / "clips", scratch / "whole", 2, FOUR_SECONDS)
    random, done = np.random.default_rng(0), 0
    for _ in range(10):
        process = started(scratch / "clips", scratch / "killed", 2, FOUR_SECONDS, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        time.sleep(random.uniform(0, seconds / 4))
        process.send_signal(signal.SIGKILL)
        there = re.search(r"; (\d+) are there", process.communicate()[0])
        assert there is None or int(there[1]) == done, (there, done)
        done = noted(scratch / "killed")
        print(f"killed with {done} of 1000 samples noted down")
    assert started(scratch / "clips", scratch / "killed", 2, FOUR_SECONDS).wait() == 0
    print("kills: the same bytes:", content(scratch / "killed") == content(scratch / "whole"))
    for pair in range(10):
        shutil.rmtree(scratch / "pair", ignore_errors=True)
        both = [started(scratch / "clips", scratch / "pair", 2, TINIEST, stdout=subprocess.PIPE) for _ in range(2)]
        said = [process.communicate()[0] for process in both]
        decoded = [int(n) for text in said for n in re.findall(r"decoded (\d+) samples,", text)]
        print(f"pair {pair + 1}: status {[process.returncode for process in both]}, decoded {decoded}, "
              f"waited {sum('waiting for it' in text for text in said)}, left over {[*(scratch / 'pair').glob('*/.*')]}")


def read_only(scratch):
    make_set(scratch / "set", 10, noise(0.2, 16000, 1))
    subprocess.run(["mount", "--bind", scratch / "set", scratch / "set"], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", scratch / "set"], check=True)
        os.environ["XDG_CACHE_HOME"] = str(scratch / "home")
        config = with_assignments(PRESETS["tiny"], TINIEST)
        print("read-only, default:", PreparedSet(scratch / "set", config).cache.folder)
        print("read-only, --features:", PreparedSet(scratch / "set", config, Storage(scratch / "asked")).cache.folder)
    finally:
        subprocess.run(["umount", scratch / "set"], check=True)


def main():
    if sys.argv[1:2] == ["open"]:
        folder, place, workers, *settings = sys.argv[2:]
        PreparedSet(Path(folder), with_assignments(PRESETS["tiny"], settings), Storage(Path(place), int(workers)))
        print("CPU", sum(os.times()[:4]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    measures = {measure.__name__: measure for measure in (memory, large, speed, kills, read_only)}
    parser.add_argument("what", nargs="+", choices=measures)
    parser.add_argument("--scratch", type=Path, default=Path("/tmp/feature_cache"), help="folder that is made and removed")
    options = parser.parse_args()
    for name in options.what:
        options.scratch.mkdir()
        try:
            measures[name](options.scratch)
        finally:
            shutil.rmtree(options.scratch)


if __name__ == "__main__":
    run(main)
