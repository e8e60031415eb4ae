"""What every stage trains on: a set's batches, shifted and damaged, and the validation split."""
from typing import NamedTuple

import torch
from torch.nn import functional as F

from ptm_mini.config import Config, InputError, Situation
from ptm_mini.data import Normalisation, PreparedSet, fraction_of, shifted
from ptm_mini.degrade import degrade_batch, seeded_generator
from ptm_mini.evaluate import mean_score, measure


def pick_device(name):
    """torch.device for "auto", "cpu" or "cuda"."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: no CUDA device is available; expected one, or --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


class Task(NamedTuple):
    config: Config
    data: PreparedSet
    normalisation: Normalisation
    device: torch.device
    bf16: bool

    def indices(self, situations, fraction):
        """A share of each class of the training samples that can be in one of these situations. [n] long"""
        suffering = Situation(max(situations))                    # of all four: NOISY_BOTH, which any sample can be in
        return fraction_of(self.data.indices("train", suffering), self.data.labels, fraction, self.config.train.seed)

    def drawn(self, indices, situations, epoch):
        """One of these situations for each sample, anew each epoch. [B] long"""
        names = [f"situation {self.data.rows[i].id}" for i in indices]
        generators = [seeded_generator(self.config.train.seed, epoch, name) for name in names]
        return torch.tensor([int(situations[generator.integers(len(situations))]) for generator in generators])

    def damaged(self, indices, situations, epoch):
        """A training batch, shifted and damaged: audio, image, situations and labels, on the device."""
        train = self.config.train
        batch = self.data.batch(indices, self.normalisation)
        batch = shifted(batch, train.audio_shift, train.image_shift, train.seed, epoch)
        inputs = degrade_batch(batch, situations, self.config.damage, train.seed, epoch)
        return [x.to(self.device) for x in (*inputs, batch.labels)]

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def loss(self, scores, labels):
        return F.cross_entropy(scores, labels, label_smoothing=self.config.train.label_smoothing)

    def validate(self, strategies, situations):
        """One Score: the mean over strategies {name: scores_of} and situations."""
        with self.autocast():
            return mean_score([score for situation in situations for score in measure(
                strategies, self.data, "val", situation, self.config, self.normalisation, self.device).values()])
