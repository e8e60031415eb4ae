"""What the stages of a run have in common, and the samples that they train on."""
from functools import reduce
from operator import or_
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from ptm_mini.config import Config, Situation
from ptm_mini.data.prepared import Normalisation, PreparedSet, stack, threads_beside, worked_ahead
from ptm_mini.method.damage import SHIFT, SITUATION, Sample, damage_sample, seeded_generator
from ptm_mini.training.measure import View, mean_score, measure
from ptm_mini.training.progress import Progress


class Task(NamedTuple):
    """What a run's stages have in common."""
    config: Config
    data: PreparedSet
    normalisation: Normalisation
    device: torch.device
    bf16: bool
    progress: Progress = Progress()       # where its stages' states are kept

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def loss(self, scores, labels):
        return F.cross_entropy(scores, labels, label_smoothing=self.config.train.label_smoothing)

    def validation(self):
        """View of the validation split"""
        return View(self.data, "val", self.config, self.normalisation, self.device)

    def samples(self, situations, fraction):
        """Samples of the training split"""
        return Samples(self, situations, fraction)

    def validate(self, strategies, view, situations):
        """One Score: the mean over strategies {name: scores_of} and situations of a View of the validation split."""
        with self.autocast():
            return mean_score([score for situation in situations for score in measure(strategies, view, situation).values()])


class Samples:
    """Training samples of a Task: a share of each class of those that can be in one of these situations.

    They come round in passes, each in an order and with damage of its own. An epoch is a pass; with train.full_length it has
    as many samples as without the fraction, so that it takes several passes, and ends within one.
    """

    def __init__(self, task, situations, fraction):
        self.task, self.situations, self.threads = task, situations, threads_beside(task.device)
        able = task.data.indices("train", Situation(reduce(or_, situations)))
        self.indices = fraction_of(able, task.data.labels, fraction, task.config.train.seed)       # [n] long
        self.length = len(able if task.config.train.full_length else self.indices)

    def __len__(self):
        """How many samples an epoch has"""
        return self.length

    def batches(self, size, epoch, name=None, skip=0):
        """Yield the epoch's batches behind the first `skip`, Samples of B; in the name's order, without one in the set's"""
        n, first, rows = len(self.indices), (epoch - 1) * len(self), []
        passes = torch.arange(first, first + len(self)) // n + 1                                   # of each sample
        for number in passes.unique().tolist():
            order = np.arange(n) if name is None else seeded_generator(self.task.config.train.seed, number, name).permutation(n)
            rows.append(self.indices[torch.from_numpy(order)])
        rows = torch.cat(rows)[first % n:][:len(self)]
        turns = list(zip(rows.split(size), passes.split(size)))
        yield from worked_ahead(lambda turn: self.batch(*turn), turns[skip:], self.threads)

    def batch(self, indices, passes):
        """These samples as they come in these passes, both [B] long -> Sample of B, on the device"""
        *tensors, ids = stack(map(self.sample, indices.tolist(), passes.tolist()), len(indices))
        return Sample(*(x.to(self.task.device) for x in tensors), ids)

    def sample(self, index, number):
        """Sample of the row `index`, moved a little and put into one of the situations, drawn anew for each pass, by its
        number."""
        data, normalisation, train = self.task.data, self.task.normalisation, self.task.config.train
        sample = moved(data.sample(index, normalisation), train, number)
        drawn = seeded_generator(train.seed, number, SITUATION.format(sample.id)).integers(len(self.situations))
        return damage_sample(sample, self.situations[drawn], self.task.config.damage, train.seed, number)


def fraction_of(indices, labels, share, seed):
    """The given share of each class, at least one sample, the same for one seed. [n] long -> [m] long"""
    generator = np.random.default_rng(seed)
    kept = []
    for label in labels[indices].unique():
        own = indices[labels[indices] == label]
        kept.append(own[torch.from_numpy(generator.permutation(len(own)))[:max(1, round(share * len(own)))]])
    return torch.cat(kept).sort().values


def moved(sample, train, epoch):
    """Augmentation: roll the sound along time and the picture along height and width, by up to a share of the side."""
    generator = seeded_generator(train.seed, epoch, SHIFT.format(sample.id))
    (T, _), (_, H, W) = sample.audio.shape, sample.image.shape
    most = [round(share * side) for share, side in ((train.audio_shift, T), (train.image_shift, H), (train.image_shift, W))]
    later, down, right = (int(generator.integers(-n, n, endpoint=True)) for n in most)
    return sample._replace(audio=sample.audio.roll(later, 0), image=sample.image.roll((down, right), (1, 2)))
