"""What a prediction costs; figures for docs/predicting.md, no test.

python tests/benchmarks/predict.py RUN SET      a run of the prepared set

On the command line, beside importing torch alone; in Python in batches of 64, and what of that is decoding; and the peak
memory of eval.py --pairs for many and for ten times as many. CPU time is what a busy machine can't spoil.
"""
import csv
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import cycle, islice
from pathlib import Path

import ptm_mini
from ptm_mini.data.manifest import read_set

ROOT = Path(__file__).parent.parent.parent
REPEATS, BATCH, MANY = 7, 64, 1000
LAUNCH = """import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"""          # kB, of this one command alone


def command(*arguments):
    """Wall and CPU seconds of a Python process"""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([sys.executable, *map(str, arguments)], check=True, stdout=subprocess.DEVNULL, cwd=ROOT)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.perf_counter() - start, sum(getattr(after, name) - getattr(before, name) for name in ("ru_utime", "ru_stime"))


def call(function):
    """Wall and CPU milliseconds a pair of a batch"""
    start, cpu = time.perf_counter(), time.process_time()
    function()
    return 1000 / BATCH * (time.perf_counter() - start), 1000 / BATCH * (time.process_time() - cpu)


def medians(rounds):
    """rounds: a list, one a repeat, of {name: (wall, CPU)}; returns {name: (median wall, median CPU)}"""
    return {name: [statistics.median(one[name][i] for one in rounds) for i in range(2)] for name in rounds[0]}


def main(run, folder):
    rows, _ = read_set(folder)
    pairs = [(folder / row.audio, folder / row.image) for row in rows if row.audio and row.image][:BATCH]
    one = ("--audio", pairs[0][0], "--image", pairs[0][1])
    found = medians([{"eval.py --audio --image": command("eval.py", run, *one), "import torch": command("-c", "import torch")}
                     for _ in range(REPEATS)])
    for name, (wall, cpu) in found.items():
        print(f"{name:<24} {wall:.2f} s, CPU {cpu:.2f} s")

    model = ptm_mini.load(run)
    prepared = [model.prepare(*pair) for pair in pairs]
    audio, image = map(list, zip(*pairs))
    found = medians([{"predict": call(lambda: model.predict(audio, image)),
                      "decoding": call(lambda: [model.prepare(*pair) for pair in pairs]),
                      "the model": call(lambda: model.answer(prepared))} for _ in range(REPEATS)])
    for name, (wall, cpu) in found.items():
        print(f"{name:<24} {wall:.2f} ms a pair in batches of {BATCH}, CPU {cpu:.2f} ms")

    with tempfile.TemporaryDirectory() as scratch:
        for count in (MANY, 10 * MANY):
            many, out = Path(scratch, f"{count}.csv"), Path(scratch, f"{count}-answers.csv")
            with open(many, "w", newline="") as file:
                csv.writer(file).writerows([("audio", "image"), *islice(cycle(pairs), count)])
            start = time.perf_counter()
            asked = [sys.executable, "eval.py", run, "--pairs", many, "--out", out]
            peak = subprocess.run([sys.executable, "-c", LAUNCH, *asked], check=True, capture_output=True, text=True, cwd=ROOT)
            each = 1000 * (time.perf_counter() - start) / count
            print(f"--pairs of {count:<14} peak {int(peak.stdout) / 1000:.0f} MB, {each:.2f} ms a pair")


if __name__ == "__main__":
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve())
