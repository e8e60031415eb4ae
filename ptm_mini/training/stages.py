"""The stages of training and their samples. Each is a call of `fit`, the one loop; the router has a closed form."""
import logging
import time
from functools import reduce
from operator import or_
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from ptm_mini.config import Config, Situation
from ptm_mini.data.prepared import Normalisation, PreparedSet, stack, threads_beside, worked_ahead
from ptm_mini.errors import InputError
from ptm_mini.method.backbone import Backbone, initialise
from ptm_mini.method.damage import SHIFT, SITUATION, Sample, damage_sample, seeded_generator, weights_generator
from ptm_mini.method.router import Router, plain
from ptm_mini.settings import get
from ptm_mini.training.cost import Cost, machine_of
from ptm_mini.training.fit import fit
from ptm_mini.training.measure import View, mean_score, measure, routes
from ptm_mini.training.methods import BACKBONE, METHODS, ROUTER, assembled
from ptm_mini.training.progress import Progress

logger = logging.getLogger(__name__)
EVERY = tuple(Situation)


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

    def validate(self, strategies, situations):
        """One Score: the mean over strategies {name: scores_of} and situations."""
        with self.autocast():
            return mean_score([score for situation in situations
                               for score in measure(strategies, self.validation(), situation).values()])


class Samples:
    """Training samples of a Task: a share of each class of those that can be in one of these situations."""

    def __init__(self, task, situations, fraction):
        self.task, self.situations, self.threads = task, situations, threads_beside(task.device)
        able = task.data.indices("train", Situation(reduce(or_, situations)))
        self.indices = fraction_of(able, task.data.labels, fraction, task.config.train.seed)       # [n] long

    def __len__(self):
        return len(self.indices)

    def batches(self, size, epoch, name=None, skip=0):
        """Yield the epoch's batches behind the first `skip`, Samples of B; in the name's order, without one in the set's"""
        indices = self.indices
        if name is not None:
            generator = seeded_generator(self.task.config.train.seed, epoch, name)
            indices = indices[torch.from_numpy(generator.permutation(len(indices)))]
        yield from worked_ahead(lambda some: self.batch(some, epoch), indices.split(size)[skip:], self.threads)

    def batch(self, indices, epoch):
        """These samples on the device, [B] long -> Sample of B"""
        *tensors, ids = stack((self.sample(index, epoch) for index in indices.tolist()), len(indices))
        return Sample(*(x.to(self.task.device) for x in tensors), ids)

    def sample(self, index, epoch):
        """Sample of the row `index`, moved a little and put into one of the situations, drawn anew each epoch."""
        data, normalisation, train = self.task.data, self.task.normalisation, self.task.config.train
        sample = moved(data.sample(index, normalisation), train, epoch)
        drawn = seeded_generator(train.seed, epoch, SITUATION.format(sample.id)).integers(len(self.situations))
        return damage_sample(sample, self.situations[drawn], self.task.config.damage, train.seed, epoch)


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


def fit_one(task, name, model, stage, situations, fraction, shares=None):
    """Train one model with cross-entropy, each sample put into one of the situations, drawn anew each epoch: with one of
    them this is the paper's case-wise training, with all four a mix. shares: as in `fit`. returns Cost"""
    def loss_of(batch):
        with task.autocast():
            return task.loss(model(batch.audio, batch.image), batch.label)

    def validate():
        return task.validate({name: plain(model)}, situations)

    return fit(name, model, stage, Samples(task, situations, fraction), loss_of, validate, task.progress, shares)


def train_backbone(task, loaded=None):
    """First stage: everything learns, on complete data only; weights that were loaded at train.loaded_rate of the learning
    rate, or not at all where the stage has no epochs.

    loaded   {name: tensor} to start from, what is not among them starts afresh; None: everything does
    returns  Backbone, list of Cost
    """
    train, loaded = task.config.train, loaded or {}
    backbone = Backbone(task.config, len(task.data.classes))
    initialise(backbone, weights_generator(train.seed))
    with torch.no_grad():
        for name, tensor in loaded.items():
            backbone.get_parameter(name).copy_(tensor)
    backbone.to(task.device)
    if loaded and not train.backbone.epochs:
        accuracy = task.validate({BACKBONE: plain(backbone)}, (Situation.COMPLETE,)).accuracy
        logger.info("%s: taken as it was loaded   validation %.4f", BACKBONE, accuracy)
        return backbone, [Cost(BACKBONE, 0, 0, 0.0, 0, accuracy, machine_of(task.device))]
    if loaded:
        logger.info("%s: what was loaded learns at %g of the learning rate", BACKBONE, train.loaded_rate)
    return backbone, [fit_one(task, BACKBONE, backbone, train.backbone, (Situation.COMPLETE,), 1.0,
                              dict.fromkeys(loaded, train.loaded_rate))]


def train_method(task, backbone, method):
    """The stages of a method, on the frozen backbone: a model for each of its cases, then what METHODS says comes behind.

    returns  models in the order of the method's cases, then the router where it has one; list of Cost
    """
    row, train, models, costs = METHODS[method], task.config.train, [], []
    first, *later = row.stages
    for name, situations in zip(row.model_names(method), row.cases):
        model = row.build(backbone, task.config, weights_generator(train.seed, situations[0])).to(task.device)
        costs.append(fit_one(task, name, model, get(train, first), situations, train.fraction))
        models.append(model)
    for stage in later:
        new, cost = LATER_STAGES[stage](task, backbone, models)
        models, costs = [*models, *new], [*costs, cost]
    return models, costs


def train_together(task, backbone, models):
    """All prompt sets at once: each sample is put in a situation of its own and answered twice, with the set of that
    situation and with all sets side by side. Both losses reach the sets, so they learn to agree as well as to stand alone.

    returns  nothing new, Cost
    """
    train, model = task.config.train, assembled(models)

    def loss_of(batch):
        with task.autocast():
            alone = task.loss(model.by_situation(batch.audio, batch.image, batch.situation), batch.label)
            return (alone + task.loss(model(batch.audio, batch.image), batch.label)) / 2

    def validate():
        return task.validate({"situation": model.by_situation, "concat": plain(model)}, EVERY)

    samples = Samples(task, EVERY, train.fraction)
    return [], fit("prompt together", model, train.together, samples, loss_of, validate, task.progress)


def train_router(task, backbone, models):
    """The router learns to name the situation that each sample was put in, without labels. returns [Router], Cost"""
    train, settings, start = task.config.train, task.config.router, time.monotonic()
    router, samples = Router(backbone).to(task.device), Samples(task, EVERY, train.fraction)
    router.fit((batch[:3] for epoch in range(1, settings.passes + 1)
                for batch in samples.batches(train.prompts.batch_size, epoch)), settings.shrinkage)
    counts = routes(router, task.validation())
    seconds, accuracy = time.monotonic() - start, float(counts.trace() / counts.sum())
    logger.info("%-20s %d passes   validation %.4f   %5.1f s", ROUTER, settings.passes, accuracy, seconds)
    return [router], Cost(ROUTER, router.weight.numel() + router.bias.numel(), settings.passes, seconds, 0, accuracy,
                          machine_of(task.device))


LATER_STAGES = {"together": train_together, ROUTER: train_router}


def pick_device(name):
    """torch.device for "auto", "cpu" or "cuda"."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: no CUDA device is available; expected one, or --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
