"""A prepared set as tensors: features in a cache on disk, samples, and their batches."""
import hashlib
import json
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property, partial, reduce
from operator import or_
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from ptm_mini.config import AudioConfig, Config, Situation, TrainConfig
from ptm_mini.data.audio import Sound, fbank, measure_seconds, read_waveform
from ptm_mini.data.image import normalise, read_image
from ptm_mini.data.manifest import read_set
from ptm_mini.errors import InputError
from ptm_mini.files import whole_file
from ptm_mini.method.damage import (EVALUATION_EPOCH, FURTHER_DRAWS, Sample, damage_sample,
                                    seeded_generator)

logger = logging.getLogger(__name__)
FRONT_END = 2            # goes up when files are decoded in another way
POOLED = 2000            # files from which on a pool of processes pays: its start takes seconds


class Normalisation(NamedTuple):
    """Mean and std of the training split's log-mel values, or those that the settings fix."""
    mean: float
    std: float


class PreparedSet(Dataset):
    """A set opened for a Config: rows, K classes and, by row, labels, missing and groups [n].

    Its items are (row, epoch, situation): epoch and the sample's id seed the draws, the situation
    says what is damaged.
    """

    def __init__(self, folder: Path, config: Config, normalisation: Normalisation | None = None,
                 place: float = 0.0, features: Path | None = None, workers: int = 1,
                 device: torch.device = torch.device("cpu")):
        """
        normalisation  a trained run's; None: what the settings fix, or the training split's
        place          of the used part of long sounds, as read_waveform takes it
        features       folder for the cache; None: in the set
        """
        self.folder, self.device = folder.resolve(), device
        self.root, self.rows, self.classes = read_set(folder)
        self.labels = torch.tensor([self.classes.index(row.label) for row in self.rows])
        self.missing = torch.tensor([Situation.NOISY_AUDIO * (not row.audio)
                                     | Situation.NOISY_IMAGE * (not row.image)
                                     for row in self.rows])
        groups = [row.group or number for number, row in enumerate(self.rows)]   # alone: its own
        numbers = {group: number for number, group in enumerate(dict.fromkeys(groups))}
        self.groups = torch.tensor([numbers[group] for group in groups])
        cache = features or self.folder / "features"
        self.audio = Features(cache, "audio", [row.audio for row in self.rows], self.root,
                              partial(read_log_mel, config=config.audio, place=place),
                              [asdict(config.audio), place], workers)
        self.image = Features(cache, "image", [row.image for row in self.rows], self.root,
                              partial(read_image, size=config.image.size),
                              asdict(config.image), workers)
        self.config = config
        self.normalisation = normalisation or self.compute_normalisation(config.train)

    def fingerprint(self) -> str:
        """SHA-256 of the classes, the rows and the sizes of their files, wherever the set lies."""
        sizes = [[(self.root / name).stat().st_size for name in (row.audio, row.image) if name]
                 for row in self.rows]
        content = json.dumps([self.classes, [asdict(row) for row in self.rows], sizes])
        return hashlib.sha256(content.encode()).hexdigest()

    def indices(self, split: str, situation: Situation = Situation.NOISY_BOTH) -> Tensor:
        """Find the samples of a split that can be in a situation, one or more: nothing else is
        missing. [n] long"""
        fits = torch.tensor([row.split == split for row in self.rows])
        fits &= self.missing & ~int(situation) == 0
        if not fits.any():
            raise InputError(f"split {split!r}: every sample lacks a modality that "
                             f"{situation.label} needs; expected some that have it: fill their "
                             f"cells in manifest.csv")
        return fits.nonzero()[:, 0]

    def sample(self, row: int) -> Sample:
        """Return a sample undamaged; its situation follows from what is missing."""
        audio, image = model_inputs(self.audio[row], self.image[row], self.config,
                                    self.normalisation)
        return Sample(audio, image, self.missing[row], self.labels[row], self.rows[row].id)

    def __getitem__(self, item: tuple[int, int, Situation]) -> Sample:
        """Return a damaged sample; in training it is augmented first."""
        row, epoch, situation = item
        sample, config = self.sample(row), self.config
        if EVALUATION_EPOCH < epoch < FURTHER_DRAWS:
            sample = augment(sample, config.train, epoch)
        return damage_sample(sample, situation, config.damage, config.train.seed, epoch)

    def compute_normalisation(self, train: TrainConfig) -> Normalisation:
        """The settings' where they fix it, else mean and std of the training sounds, in double."""
        if train.audio_std:
            return Normalisation(train.audio_mean, train.audio_std)
        rows = [row for row in self.indices("train").tolist() if self.rows[row].audio]
        if not rows:
            raise InputError("split 'train': no sample has audio; expected some: fill their cells "
                             "in manifest.csv")
        mean = float(np.mean([self.audio[row].numpy().mean(dtype=np.float64) for row in rows]))
        variance = float(np.mean([np.square(self.audio[row].numpy() - mean, dtype=np.float64).mean()
                                  for row in rows]))
        if not variance > 0:
            raise InputError("split 'train': all its audio is silent; expected some sound")
        return Normalisation(mean, variance ** 0.5)

    def loader(self, items: Sequence[tuple[int, int, Situation]], batch_size: int) -> DataLoader:
        """Make the batches of items, in their order; each is a Sample."""
        on_gpu = self.device.type == "cuda"
        return DataLoader(self, batch_size, sampler=items, collate_fn=collate, pin_memory=on_gpu,
                          num_workers=min(8, os.cpu_count() or 1) if on_gpu else 0)


class Features:
    """One modality of a set, decoded once: a .npy file with a row for each different file.

    Its name holds a digest of the settings and of each file's path, size and time.
    """

    def __init__(self, folder: Path, modality: str, names: list[str], root: Path,
                 decode: Callable[[Path], Tensor], settings: object, workers: int):
        """names: of the samples' files, empty where one is missing; decode: one of them"""
        files = {name: number for number, name in enumerate(dict.fromkeys(filter(None, names)))}
        self.rows = [files.get(name) for name in names]          # one sound may serve six images
        if not files:
            return
        stats = [(root / name).stat() for name in files]
        content = json.dumps([FRONT_END, settings, str(root), list(files),
                              [(stat.st_size, stat.st_mtime_ns) for stat in stats]])
        digest = hashlib.sha256(content.encode()).hexdigest()[:16]
        self.path = folder / f"{modality}-{digest}.npy"
        if not self.path.exists():
            write_features(self.path, [root / name for name in files], decode, workers)

    @cached_property
    def array(self) -> np.ndarray:
        return np.load(self.path, mmap_mode="r")

    def __getstate__(self) -> dict[str, Any]:
        """Leave the array out: a DataLoader's worker, where it is started afresh, maps the file."""
        return {name: value for name, value in vars(self).items() if name != "array"}

    def __getitem__(self, sample: int) -> Tensor | None:
        """Copy a sample's features; None where the modality is missing."""
        row = self.rows[sample]
        return None if row is None else torch.from_numpy(self.array[row].copy())


def write_features(path: Path, files: list[Path], decode: Callable[[Path], Tensor],
                   workers: int) -> None:
    """Decode files into the rows of a .npy file, which appears when it is whole."""
    with whole_file(path, "make room, or name another folder with --features") as out:
        for count, features in enumerate(decode_all(files, decode, workers), start=1):
            array = features.numpy()
            if count == 1:         # written plainly: in a memory map a full disk is no error
                np.lib.format.write_array_header_1_0(out, {
                    "descr": array.dtype.str, "fortran_order": False,
                    "shape": (len(files), *array.shape)})
            out.write(array.tobytes())
            if count % 1000 == 0 or count == len(files):
                logger.info("decoded %d of %d files for %s", count, len(files), path)


def decode_all(files: list[Path], decode: Callable[[Path], Tensor],
               workers: int) -> Iterator[Tensor]:
    """Decode files in order, on one of torch's threads: their number decides about last bits."""
    if workers > 1 and len(files) >= POOLED:
        # Started afresh, not forked: a forked process has torch's threads in a broken state.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, start_worker) as pool:
            yield from pool.map(decode, files, chunksize=16)
        return
    with one_thread():
        yield from map(decode, files)


def start_worker() -> None:
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)    # on Ctrl-C the main process ends the others


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def read_log_mel(source: Sound, config: AudioConfig, place: float = 0.0) -> Tensor:
    """Decode a sound and compute its log-mel spectrogram [T, M]."""
    log_mel = fbank(read_waveform(source, config, place), config)
    return F.pad(log_mel, (0, 0, 0, config.frames - len(log_mel)))      # where pad_log_mel is set


def log_notes(data: PreparedSet) -> None:
    """Say so where a class has no training sample, or most sounds are longer than the used part."""
    present = {row.label for row in data.rows if row.split == "train"}
    if lacking := [label for label in data.classes if label not in present]:
        logger.warning("note: no training sample of %s", ", ".join(lacking))
    limit, names = data.config.audio.seconds, sorted({row.audio for row in data.rows} - {""})
    seconds = [measure_seconds(data.root / name) for name in names[::1 + len(names) // 200]]
    if sum(s > limit for s in seconds) > len(seconds) / 2:
        logger.warning("note: most sounds are longer than the %g s that are used of each; --set "
                       "audio.seconds=... takes more: data_prep's report says how much", limit)


def model_inputs(log_mel: Tensor | None, pixels: Tensor | None, config: Config,
                 normalisation: Normalisation) -> tuple[Tensor, Tensor]:
    """Normalise log_mel [T, M] float32 and pixels [3, H, W] uint8; None becomes all 0, float32."""
    audio = torch.zeros(config.audio.frames, config.audio.mels)
    image = torch.zeros(3, config.image.size, config.image.size)
    if log_mel is not None:
        audio = (log_mel - normalisation.mean) / normalisation.std
    return audio, image if pixels is None else normalise(pixels)


def collate(samples: list[Sample]) -> Sample:
    """Stack samples to a batch."""
    *tensors, ids = zip(*samples)
    return Sample(*map(torch.stack, tensors), list(ids))


def augment(sample: Sample, train: TrainConfig, epoch: int) -> Sample:
    """Roll the audio along time and the image along height and width, up to a share of the side."""
    generator = seeded_generator(train.seed, epoch, f"shift {sample.id}")
    (T, _), (_, H, W) = sample.audio.shape, sample.image.shape
    limits = [round(share * side) for share, side in
              ((train.audio_shift, T), (train.image_shift, H), (train.image_shift, W))]
    later, down, right = (int(generator.integers(-n, n, endpoint=True)) for n in limits)
    return sample._replace(audio=sample.audio.roll(later, 0),
                           image=sample.image.roll((down, right), (1, 2)))


class TrainingSamples:
    """The training samples that can be in some situations, or a fraction of each class, in epochs
    that each have an order and damage of their own."""

    def __init__(self, data: PreparedSet, situations: Sequence[Situation], fraction: float = 1.0):
        possible = data.indices("train", Situation(reduce(or_, situations)))
        self.data, self.situations = data, situations
        self.rows = take_fraction(possible, data.labels, fraction, data.config.train.seed)

    def __len__(self) -> int:
        return len(self.rows)

    def items(self, epoch: int, order: str | None = None) -> list[tuple[int, int, Situation]]:
        """List (row, epoch, situation), each situation drawn; order None: the set's."""
        seed, rows, items = self.data.config.train.seed, self.rows, []
        if order is not None:
            rows = rows[seeded_generator(seed, epoch, order).permutation(len(rows))]
        for row in rows.tolist():
            situation = self.situations[0]
            if len(self.situations) > 1:
                generator = seeded_generator(seed, epoch, f"situation {self.data.rows[row].id}")
                situation = self.situations[generator.integers(len(self.situations))]
            items.append((row, epoch, situation))
        return items


def take_fraction(rows: Tensor, labels: Tensor, share: float, seed: int) -> Tensor:
    """Take a share of each class, one sample or more, the same for one seed: [n] -> [m] long."""
    generator, taken = np.random.default_rng(seed), []
    for label in labels[rows].unique():
        members = rows[labels[rows] == label]
        order = torch.from_numpy(generator.permutation(len(members)))
        taken.append(members[order[:max(1, round(share * len(members)))]])
    return torch.cat(taken).sort().values
