"""A prepared set as tensors: features decoded once into a memory-mapped cache, then batches by index."""
import hashlib
import json
import logging
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import torch

from ptm_mini.config import Situation
from ptm_mini.data.audio import fbank, read_waveform
from ptm_mini.data.image import normalise, read_image
from ptm_mini.data.leaks import warn_of_leaks
from ptm_mini.data.manifest import read_set, root_of
from ptm_mini.errors import InputError
from ptm_mini.files import new_folder
from ptm_mini.method.damage import Sample

logger = logging.getLogger(__name__)
CACHE_VERSION = 3                 # goes up when the front end computes something else
MOST_THREADS = 8                  # that prepare batches ahead of a GPU


class Normalisation(NamedTuple):
    """Mean and std of the training split's log-mel values."""
    mean: float
    std: float


class PreparedSet:
    """A set opened for one AudioConfig and ImageConfig. `rows`, `classes` (K names) and, by row, `labels`, `missing`."""

    def __init__(self, folder, config):
        self.folder, self.root = folder.resolve(), root_of(folder)
        self.rows, self.classes = read_set(folder)
        self.labels = torch.tensor([self.classes.index(row.label) for row in self.rows])
        self.missing = torch.tensor([situation_of(row.audio, row.image) for row in self.rows])
        cache = cached_features(folder, self.rows, config)
        try:
            self.audio = np.load(cache / "audio.npy", mmap_mode="r")      # [rows, T, M] float32, log-mel as it is
            self.image = np.load(cache / "image.npy", mmap_mode="r")      # [rows, 3, H, W] uint8
        except (OSError, ValueError) as error:
            raise InputError(f"{cache}: the feature cache is not whole; remove it, and it will be made anew") from error
        warn_of_leaks(self.rows)

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
        log_mel, pixels = torch.from_numpy(self.audio[index].copy()), torch.from_numpy(self.image[index].copy())
        missing = self.missing[index]
        audio, image = normalised(log_mel, pixels, missing, normalisation)
        return Sample(audio, image, missing, self.labels[index], self.rows[index].id)

    def normalisation(self):
        """Mean and std over the training clips that are there, summed in double precision clip by clip."""
        clips = [i for i in self.indices("train") if not self.missing[i] & Situation.NOISY_AUDIO]
        if not clips:
            raise InputError("split 'train': no sample has audio; expected some: fill their cells in manifest.csv")
        mean = float(np.mean([self.audio[i].mean(dtype=np.float64) for i in clips]))
        variance = float(np.mean([np.square(self.audio[i] - mean, dtype=np.float64).mean() for i in clips]))
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


def features_of(audio, image, config):
    """Decode one sample. audio, image: paths, or None; returns log-mel [T, M] float32, pixels [3, H, W] uint8, 0 for None"""
    log_mel = torch.zeros(config.audio.frames, config.audio.mels)
    pixels = torch.zeros(3, config.image.size, config.image.size, dtype=torch.uint8)
    if audio:
        wave = read_waveform(audio, config.audio.sample_rate, config.audio.samples)
        log_mel = fbank(wave, config.audio.sample_rate, config.audio.mels)
    if image:
        pixels = read_image(image, config.image.size)
    return log_mel, pixels


def situation_of(audio, image):
    """The Situation that follows from what a sample lacks: from an empty audio or image."""
    lacks_audio = Situation.COMPLETE if audio else Situation.NOISY_AUDIO
    return Situation(lacks_audio | (Situation.COMPLETE if image else Situation.NOISY_IMAGE))


def cached_features(folder, rows, config):
    """The folder with audio.npy and image.npy for these rows and settings; made where it is not there yet.

    It is named after the settings and every file's path, size and time, so a changed file is decoded anew, and it
    appears only when it is whole.
    """
    root = root_of(folder)
    stamps = [[stamp(root / name) if name else None for name in (row.audio, row.image)] for row in rows]
    key = [CACHE_VERSION, asdict(config.audio), asdict(config.image), [[row.audio, row.image] for row in rows], stamps]
    cache = folder / ("features-" + hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16])
    if cache.exists():
        return cache
    logger.info("decoding %d samples into %s", len(rows), cache)
    try:
        with new_folder(cache) as unfinished:
            decode(root, rows, config, unfinished)
    except InputError:
        if not cache.exists():                # else another process has made the same one meanwhile
            raise
    return cache


def stamp(path):
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def decode(root, rows, config, target):
    """Write audio.npy and image.npy into `target`, sample by sample. root: of the rows' paths"""
    audio = np.lib.format.open_memmap(target / "audio.npy", "w+", np.float32,
                                      (len(rows), config.audio.frames, config.audio.mels))
    image = np.lib.format.open_memmap(target / "image.npy", "w+", np.uint8,
                                      (len(rows), 3, config.image.size, config.image.size))
    files = [[name and root / name for name in (row.audio, row.image)] for row in rows]
    features = worked_ahead(lambda pair: features_of(*pair, config), files, threads=os.cpu_count())
    for i, (log_mel, pixels) in enumerate(features):
        audio[i], image[i] = log_mel.numpy(), pixels.numpy()
    audio.flush()
    image.flush()


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
