"""How fast the data path is at the `base` sizes; figures for docs/results.md, no test.

python tests/benchmarks/data_path.py                           damage, and batches made while a stand-in for a GPU works
python tests/benchmarks/data_path.py --kaldi kaldi.py          the filterbank too, against torchaudio's compliance/kaldi.py

kaldi.py is taken out of torchaudio's wheel; it needs torch alone.
"""
import argparse
import importlib.util
import statistics
import sys
import time
import types
from pathlib import Path

import numpy as np
import torch

from ptm_mini.config import DAMAGES, PRESETS, Situation
from ptm_mini.data.audio import fbank
from ptm_mini.data.manifest import Row
from ptm_mini.data.prepared import Normalisation, PreparedSet, worked_ahead
from ptm_mini.method.damage import AUDIO_KINDS, IMAGE_KINDS, Sample, damage_sample
from ptm_mini.training.samples import Samples, Task
from ptm_mini.training.stages import EVERY

BASE = PRESETS["base"]
BATCH, STEP = 64, 0.05            # samples, and the seconds that a GPU would take for them


def milliseconds(function, repeats):
    """CPU time of one call, the median of several"""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        times.append(time.process_time() - start)
    return 1000 * statistics.median(times)


def damage():
    """Mean over all pairs of kinds of the time that a sample of noisy_both costs, on one thread."""
    torch.set_num_threads(1)
    sample = Sample(torch.randn(BASE.audio.frames, BASE.audio.mels), torch.randn(3, BASE.image.size, BASE.image.size),
                    torch.tensor(0), torch.tensor(0), "sample")
    times = [milliseconds(lambda: damage_sample(sample, Situation.NOISY_BOTH, DAMAGES["strong"], 0, 1, kinds), 15)
             for kinds in ([a, i] for a in AUDIO_KINDS for i in IMAGE_KINDS)]
    print(f"damage of noisy_both: {statistics.fmean(times):.2f} ms a sample, {max(times):.2f} for the slowest pair of kinds")


def filterbank(kaldi):
    """Clips a CPU second against torchaudio, interleaved, on one thread: 4 s at 16 kHz, 128 bins."""
    torch.set_num_threads(1)
    sys.modules["torchaudio"] = types.ModuleType("torchaudio")              # kaldi.py imports it for MFCC alone
    spec = importlib.util.spec_from_file_location("kaldi", kaldi)
    theirs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(theirs)
    waves = 0.1 * torch.randn(64, 64000, generator=torch.Generator().manual_seed(0))
    options = dict(htk_compat=True, use_energy=False, window_type="hanning", num_mel_bins=128, dither=0.0, frame_shift=10)
    pairs = []
    for _ in range(9):
        mine = milliseconds(lambda: [fbank(wave, 16000, 128) for wave in waves], 1) / 64
        pairs.append((mine, milliseconds(lambda: [theirs.fbank(wave[None], **options) for wave in waves], 1) / 64))
    ours, other = (statistics.median(times) for times in zip(*pairs))
    print(f"filterbank: {ours:.2f} ms a clip, torchaudio {other:.2f} ms, "
          f"ratio {statistics.median(b / a for a, b in pairs):.2f}")


class FakeSet(PreparedSet):
    """Random features in the shape of a decoded set, with no files."""

    def __init__(self, count):
        random = np.random.default_rng(0)
        self.rows = [Row(f"s{i}", "a", "b", "c", "train") for i in range(count)]
        self.labels = self.missing = torch.zeros(count, dtype=torch.long)
        audio = random.standard_normal((count, BASE.audio.frames, BASE.audio.mels), dtype=np.float32)
        image = random.integers(0, 256, (count, 3, BASE.image.size, BASE.image.size), dtype=np.uint8)
        self.cache = types.SimpleNamespace(read=lambda index: (audio[index].copy(), image[index].copy()))


def ahead(situations, name):
    """An epoch whose model only waits, as many milliseconds as a GPU step would take, against the waits alone."""
    task = Task(BASE, FakeSet(16 * BATCH), Normalisation(0.0, 1.0), torch.device("cpu"), bf16=False)
    samples = Samples(task, situations, 1.0)
    pieces = samples.indices.split(BATCH)
    start = time.process_time()
    samples.batch(pieces[0], torch.ones_like(pieces[0]))
    one = time.process_time() - start
    ratios = []
    for epoch in range(1, 4):
        start = time.monotonic()
        for _ in worked_ahead(lambda some: samples.batch(some, torch.full_like(some, epoch)), pieces, threads=2):
            time.sleep(STEP)
        ratios.append((time.monotonic() - start) / (STEP * len(pieces)))
    print(f"batches ahead, {name}: an epoch takes {statistics.median(ratios):.2f}x its waits; a batch takes {1000 * one:.0f} "
          f"ms of one core, {1000 * one / BATCH:.2f} a sample")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kaldi", type=Path, help="torchaudio's compliance/kaldi.py")
    options = parser.parse_args()
    damage()
    if options.kaldi:
        filterbank(options.kaldi)
    for situation in Situation:
        ahead((situation,), situation.label)
    ahead(EVERY, "a mix of the four")
