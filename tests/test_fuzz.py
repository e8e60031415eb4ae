"""Whatever is damaged, in whatever way: an answer or one line, and neither a crash, a hang, gigabytes nor another word."""
import json
import os
import select
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

BUDGET = 300.0                    # seconds for all readers together
LONGEST = 10.0                    # seconds that a case may take
MEMORY = 2 << 30                  # bytes more than at the beginning
WORKER = Path(__file__).with_name("fuzz.py")


class Worker:
    """A process that reads damaged files, and can be lost."""

    def __init__(self, folder):
        self.said = open(folder / "said", "ab")
        root, pipe = WORKER.parent.parent, subprocess.PIPE
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen([sys.executable, WORKER], stdin=pipe, stdout=pipe, stderr=self.said, cwd=root,
                                        env=environment)
        self.readers = json.loads(self.process.stdout.readline())
        self.memory = self.ask(self.readers[0], 0)[1]

    def ask(self, reader, number):
        """The outcome of a case and the memory; None where there is none: it hung, or died"""
        self.process.stdin.write(f"{reader} {number}\n".encode())
        self.process.stdin.flush()
        if not select.select([self.process.stdout], [], [], LONGEST)[0]:
            return f"hung for {LONGEST} s", None
        line = self.process.stdout.readline()
        return json.loads(line) if line else (f"died with status {self.process.wait()}", None)

    def stop(self):
        self.process.kill()
        self.process.communicate()
        self.said.close()


def fuzz(folder, budget, only=None, first=1):
    """Read damaged files for so many seconds. returns {reader: Counter of outcomes}, [what went wrong], {reader: slowest}"""
    worker = Worker(folder)
    readers, counts, wrong, slowest = only or worker.readers, {}, [], {}
    for reader in readers:
        counts[reader], number, end = Counter(), first, time.monotonic() + budget / len(readers)
        while time.monotonic() < end:
            start = time.monotonic()
            found, memory = worker.ask(reader, number)
            slowest[reader] = max(slowest.get(reader, 0), time.monotonic() - start)
            if memory is not None and memory - worker.memory > MEMORY:
                found = f"took {(memory - worker.memory) / 1e9:.1f} GB; {found}"
            if found not in ("whole", "refused"):
                wrong.append(f"python tests/fuzz.py {reader} {number}: {found}")
                found = "wrong"
            if memory is None or found == "wrong" and memory - worker.memory > MEMORY:
                worker.stop()
                worker = Worker(folder)
            counts[reader][found] += 1
            number += 1
    worker.stop()
    return counts, wrong, slowest


@pytest.mark.slow
def test_damaged_files_are_answered_or_refused_in_one_line(tmp_path):
    counts, wrong, slowest = fuzz(tmp_path, BUDGET)
    for reader, count in counts.items():
        print(f"{reader:<24} {count.total():6d} cases: {count['refused']:6d} refused, {count['whole']:6d} read, "
              f"{count['wrong']:3d} wrong; slowest {slowest[reader]:.2f} s")
    assert not wrong, "\n\n".join(wrong[:20])
    assert all(count.total() > 30 for count in counts.values())
    assert {reader for reader, count in counts.items() if not count["refused"]} <= {"audio.npy", "image.npy", "checksums.npy"}
