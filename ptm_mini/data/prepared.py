"""A prepared set as tensors: one sample's features, those of a whole set by index, and batches ahead of their reader."""
import hashlib
import json
import logging
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from ptm_mini.config import Situation
from ptm_mini.data.audio import fbank, read_waveform
from ptm_mini.data.cache import Cache
from ptm_mini.data.decoding import decoding
from ptm_mini.data.image import normalise, read_image
from ptm_mini.data.leaks import warn_of_leaks
from ptm_mini.data.manifest import read_set, root_of
from ptm_mini.data.storage import Storage, name_of, tidy
from ptm_mini.errors import InputError
from ptm_mini.method.damage import Sample

logger = logging.getLogger(__name__)
MOST_THREADS = 8                  # that prepare batches ahead of a GPU


class Normalisation(NamedTuple):
    """Mean and std of the training split's log-mel values."""
    mean: float
    std: float


class PreparedSet:
    """A set opened for one AudioConfig and ImageConfig. `rows`, `classes` (K names) and, by row, `labels`, `missing`."""

    def __init__(self, folder, config, storage=Storage(), place=0.0):
        """folder: of the set; config: Config; place: of what is used of long clips, as read_waveform takes it"""
        self.folder, self.root = Path(os.path.realpath(folder)), root_of(folder)
        self.rows, self.classes = read_set(folder)
        number = {name: i for i, name in enumerate(self.classes)}
        self.labels = torch.tensor([number[row.label] for row in self.rows])
        self.missing = torch.tensor([situation_of(row.audio, row.image) for row in self.rows])
        cache = storage.place(self.folder, name_of(config, place, self.rows, self.root))
        if not place:                             # else it has been done for the clips' beginning
            tidy(cache, storage.clean)
        shapes = (config.audio.frames, config.audio.mels), (3, config.image.size, config.image.size)
        decode = partial(features_of, config=config, place=place)
        self.cache = Cache(cache, self.rows, self.root, shapes, decode, storage.workers)
        warn_of_leaks(self.rows)

    def fingerprint(self):
        """SHA-256 over the classes, the rows and the sizes of their files: which set it is, wherever it lies"""
        sizes = [[(self.root / name).stat().st_size for name in (row.audio, row.image) if name] for row in self.rows]
        return hashlib.sha256(json.dumps([self.classes, [asdict(row) for row in self.rows], sizes]).encode()).hexdigest()

    def indices(self, split, situation=Situation.NOISY_BOTH):
        """Row numbers of the samples of a split that can be in a situation: those that lack nothing else. [n] long

        Raises InputError where there is none.
        """
        fits = torch.tensor([row.split == split for row in self.rows]) & (self.missing & ~int(situation) == 0)
        if not fits.any():
            raise InputError(f"split {split!r}: every sample lacks a modality that {situation.label} needs; expected "
                             f"some with it: fill their cells in manifest.csv")
        return fits.nonzero()[:, 0]

    def sample(self, index, normalisation):
        """Sample of the row `index`"""
        log_mel, pixels = map(torch.from_numpy, self.cache.read(index))
        missing = self.missing[index]
        audio, image = normalised(log_mel, pixels, missing, normalisation)
        return Sample(audio, image, missing, self.labels[index], self.rows[index].id)

    def normalisation(self):
        """Mean and std over the training clips that are there, summed in double precision clip by clip."""
        clips = [i for i in self.indices("train").tolist() if self.rows[i].audio]
        if not clips:
            raise InputError("split 'train': no sample has audio; expected some: fill their cells in manifest.csv")
        mean = float(np.mean([self.cache.read(i)[0].mean(dtype=np.float64) for i in clips]))
        variance = float(np.mean([np.square(self.cache.audio[i] - mean, dtype=np.float64).mean() for i in clips]))
        if not variance > 0:
            raise InputError("split 'train': all its audio is silent; expected some sound to normalise by")
        return Normalisation(mean, variance ** 0.5)


def normalised(log_mel, pixels, missing, normalisation):
    """A sample as the model takes it.

    log_mel [T, M] float32, pixels [3, H, W] uint8
    missing  the Situation that follows from what the sample lacks: that becomes all 0
    returns  audio [T, M], image [3, H, W], float32
    """
    audio, image = (log_mel - normalisation.mean).div_(normalisation.std), normalise(pixels)
    if missing & Situation.NOISY_AUDIO:
        audio.zero_()
    if missing & Situation.NOISY_IMAGE:
        image.zero_()
    return audio, image


def stack(samples, count):
    """`count` Samples as one batch. Each is put in its place when it comes, so that the next one can have its memory."""
    batch = None
    for i, sample in enumerate(samples):
        *tensors, name = sample
        if batch is None:
            batch = Sample(*(x.new_empty(count, *x.shape) for x in tensors), [])
        for whole, part in zip(batch, tensors):
            whole[i] = part
        batch.id.append(name)
    return batch


@decoding()
def features_of(audio, image, config, place=0.0):
    """Decode one sample.

    audio, image  what read_waveform and read_image take, or None; place: as read_waveform takes it
    returns       log-mel [T, M] float32, pixels [3, H, W] uint8; 0 for None
    """
    log_mel = torch.zeros(config.audio.frames, config.audio.mels)
    pixels = torch.zeros(3, config.image.size, config.image.size, dtype=torch.uint8)
    if audio:
        wave = read_waveform(audio, config.audio.sample_rate, config.audio.samples, place)
        log_mel = fbank(wave, config.audio.sample_rate, config.audio.mels)
    if image:
        pixels = read_image(image, config.image.size)
    return log_mel, pixels


def situation_of(audio, image):
    """The Situation that follows from what a sample lacks: from an empty audio or image."""
    lacks_audio = Situation.COMPLETE if audio else Situation.NOISY_AUDIO
    return Situation(lacks_audio | (Situation.COMPLETE if image else Situation.NOISY_IMAGE))


def threads_beside(device):
    """How many threads prepare batches: none beside a model on the CPU, which keeps the cores busy by itself."""
    return 0 if device.type == "cpu" else min(MOST_THREADS, os.cpu_count())


def worked_ahead(function, items, threads):
    """Yield function(item) for each item, in order; threads work on the next ones while the caller works on the last.

    With no threads each item is worked on when its turn comes.
    """
    if not threads:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads) as pool:
        waiting = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:                              # where the caller stops early
            for future in waiting:
                future.cancel()
