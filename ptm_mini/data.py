"""A prepared set as tensors: features decoded once into a memory-mapped cache, then batches by index."""
import hashlib
import json
import logging
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from typing import NamedTuple

import numpy as np
import torch

from ptm_mini.audio import fbank, read_waveform
from ptm_mini.config import InputError, Situation
from ptm_mini.degrade import seeded_generator
from ptm_mini.files import new_folder
from ptm_mini.image import normalise, read_image
from ptm_mini.manifest import read_set

logger = logging.getLogger(__name__)
CACHE_VERSION = 1                 # goes up when the front end computes something else
CHUNK = 64                        # clips decoded and transformed at once


class Normalisation(NamedTuple):
    """Mean and std of the training split's log-mel values."""
    mean: float
    std: float


class Batch(NamedTuple):
    audio: torch.Tensor           # [B, T, M] float32, mean 0 and std 1 over the training split; all 0 where missing
    image: torch.Tensor           # [B, 3, H, W] float32, ImageNet's mean and std; all 0 where missing
    labels: torch.Tensor          # [B] long
    missing: torch.Tensor         # [B] long, the Situation that follows from what the sample lacks
    ids: list


class PreparedSet:
    """A set opened for one AudioConfig and ImageConfig. `rows`, `classes` (K names) and, by row, `labels`, `missing`."""

    def __init__(self, folder, config):
        self.folder = folder.resolve()
        self.rows, self.classes = read_set(folder)
        self.labels = torch.tensor([self.classes.index(row.label) for row in self.rows])
        self.missing = torch.tensor([(not row.audio) * Situation.NOISY_AUDIO | (not row.image) * Situation.NOISY_IMAGE
                                     for row in self.rows])
        cache = cached_features(folder, self.rows, config)
        try:
            self.audio = np.load(cache / "audio.npy", mmap_mode="r")      # [rows, T, M] float32, log-mel as it is
            self.image = np.load(cache / "image.npy", mmap_mode="r")      # [rows, 3, H, W] uint8
        except (OSError, ValueError) as error:
            raise InputError(f"{cache}: the feature cache is not whole; remove it, and it will be made anew") from error
        warn_of_shared_groups(self.rows)

    def indices(self, split, situation=Situation.NOISY_BOTH):
        """Row numbers of the samples of a split that can be in a situation: those that lack nothing else. [n] long

        Raises InputError where there is none.
        """
        fits = torch.tensor([row.split == split for row in self.rows]) & (self.missing & ~int(situation) == 0)
        if not fits.any():
            raise InputError(f"split {split!r}: every sample lacks a modality that {situation.label} needs; expected "
                             f"some with it: fill their cells in manifest.csv")
        return fits.nonzero()[:, 0]

    def batch(self, indices, normalisation):
        """Batch of the rows `indices` [B] long"""
        missing = self.missing[indices]
        audio = (torch.from_numpy(self.audio[indices.numpy()]) - normalisation.mean) / normalisation.std
        image = normalise(torch.from_numpy(self.image[indices.numpy()]))
        audio[missing & Situation.NOISY_AUDIO > 0] = 0
        image[missing & Situation.NOISY_IMAGE > 0] = 0
        return Batch(audio, image, self.labels[indices], missing, [self.rows[i].id for i in indices])

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


def warn_of_shared_groups(rows):
    """A group on both sides of a split flatters every number; say so."""
    splits = defaultdict(set)
    for row in rows:
        if row.group:
            splits[row.group].add(row.split)
    shared = sum(len(sides) > 1 for sides in splits.values())
    if shared:
        logger.warning("%d of %d groups stand in more than one split: the figures will flatter", shared, len(splits))


def cached_features(folder, rows, config):
    """The folder with audio.npy and image.npy for these rows and settings; made where it is not there yet.

    It is named after the settings and every file's path, size and time, so a changed file is decoded anew, and it
    appears only when it is whole.
    """
    stamps = [[stamp(folder / name) if name else None for name in (row.audio, row.image)] for row in rows]
    key = [CACHE_VERSION, asdict(config.audio), asdict(config.image), [[row.audio, row.image] for row in rows], stamps]
    cache = folder / ("features-" + hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16])
    if cache.exists():
        return cache
    logger.info("decoding %d samples into %s", len(rows), cache)
    try:
        with new_folder(cache) as unfinished:
            decode(folder, rows, config, unfinished)
    except InputError:
        if not cache.exists():                # else another process has made the same one meanwhile
            raise
    return cache


def stamp(path):
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def decode(folder, rows, config, target):
    """Write audio.npy and image.npy into `target`, a few samples at a time; rows without a file stay 0."""
    audio = np.lib.format.open_memmap(target / "audio.npy", "w+", np.float32,
                                      (len(rows), config.audio.frames, config.audio.mels))
    image = np.lib.format.open_memmap(target / "image.npy", "w+", np.uint8,
                                      (len(rows), 3, config.image.size, config.image.size))
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(rows), CHUNK):
            chunk = range(start, min(start + CHUNK, len(rows)))
            clips, pictures = [i for i in chunk if rows[i].audio], [i for i in chunk if rows[i].image]
            if clips:
                waves = list(pool.map(lambda i: read_waveform(folder / rows[i].audio, config.audio), clips))
                audio[clips] = fbank(torch.stack(waves), config.audio.sample_rate, config.audio.mels).numpy()
            if pictures:
                image[pictures] = torch.stack(list(pool.map(
                    lambda i: read_image(folder / rows[i].image, config.image), pictures))).numpy()
    audio.flush()
    image.flush()


def fraction_of(indices, labels, share, seed):
    """The given share of each class, at least one sample, the same for one seed. [n] long -> [m] long"""
    generator = np.random.default_rng(seed)
    kept = []
    for label in labels[indices].unique():
        own = indices[labels[indices] == label]
        kept.append(own[torch.from_numpy(generator.permutation(len(own)))[:max(1, round(share * len(own)))]])
    return torch.cat(kept).sort().values


def in_batches(indices, size, generator=None):
    """Yield indices [size] long (the last may be fewer), in a random order where a numpy generator is given."""
    if generator is not None:
        indices = indices[torch.from_numpy(generator.permutation(len(indices)))]
    yield from indices.split(size)


def shifted(batch, audio_share, image_share, seed, epoch):
    """Augmentation: roll each sound along time and each picture along height and width, by up to a share of the side."""
    def roll(x, dims, share, generator):
        most = [round(share * x.shape[dim]) for dim in dims]
        return x.roll([int(generator.integers(-n, n, endpoint=True)) for n in most], dims)

    generators = [seeded_generator(seed, epoch, "shift " + sample_id) for sample_id in batch.ids]
    audio = torch.stack([roll(x, (0,), audio_share, generator) for x, generator in zip(batch.audio, generators)])
    image = torch.stack([roll(x, (1, 2), image_share, generator) for x, generator in zip(batch.image, generators)])
    return batch._replace(audio=audio, image=image)
