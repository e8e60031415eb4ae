"""The stages of training and their samples. Each is a call of `fit`, the one loop; the router has a closed form."""
import logging
import time

import torch

from ptm_mini.config import Situation
from ptm_mini.errors import InputError
from ptm_mini.method.backbone import Backbone, initialise
from ptm_mini.method.damage import weights_generator
from ptm_mini.method.router import Router, plain
from ptm_mini.settings import get
from ptm_mini.training.cost import Cost, machine_of
from ptm_mini.training.fit import fit
from ptm_mini.training.kept import Kept, Late
from ptm_mini.training.measure import routes
from ptm_mini.training.methods import BACKBONE, METHODS, ROUTER, assembled
from ptm_mini.training.samples import Samples

logger = logging.getLogger(__name__)
EVERY = tuple(Situation)


def fit_one(task, source, name, model, stage, situations, fraction, shares=None):
    """Train one model with cross-entropy, each sample put into one of the situations, drawn anew each epoch: with one of
    them this is the paper's case-wise training, with all four a mix.

    source   of what the model is called with: the Task, or Kept
    shares   as in `fit`
    returns  Cost
    """
    def loss_of(batch):
        with task.autocast():
            return task.loss(model(batch.audio, batch.image), batch.label)

    def validate():
        return task.validate({name: plain(model)}, source.validation(), situations)

    return fit(name, model, stage, source.samples(situations, fraction), loss_of, validate, task.progress, shares)


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
        accuracy = task.validate({BACKBONE: plain(backbone)}, task.validation(), (Situation.COMPLETE,)).accuracy
        logger.info("%s: taken as it was loaded   validation %.4f", BACKBONE, accuracy)
        return backbone, [Cost(BACKBONE, 0, 0, 0.0, 0, accuracy, machine_of(task.device))]
    if loaded:
        logger.info("%s: what was loaded learns at %g of the learning rate", BACKBONE, train.loaded_rate)
    return backbone, [fit_one(task, task, BACKBONE, backbone, train.backbone, (Situation.COMPLETE,), 1.0,
                              dict.fromkeys(loaded, train.loaded_rate))]


def train_method(task, backbone, method):
    """The stages of a method, on the frozen backbone: a model for each of its cases, then what METHODS says comes behind.

    returns  models in the order of the method's cases, then the router where it has one; list of Cost
    """
    row, train, models, costs = METHODS[method], task.config.train, [], []
    stage, *later = row.stages
    source, start = task, backbone
    if train.views and row.first(task.config):
        source, start = Kept(task, backbone, row.first(task.config)), Late(backbone, row.first(task.config))
    for name, situations in zip(row.model_names(method), row.cases):
        model = row.build(start, task.config, weights_generator(train.seed, situations[0])).to(task.device)
        costs.append(fit_one(task, source, name, model, get(train, stage), situations, train.fraction))
        models.append(model)
    for stage in later:
        new, cost = LATER_STAGES[stage](task, source, backbone, models)
        models, costs = [*models, *new], [*costs, cost]
    return models, costs


def train_together(task, source, backbone, models):
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
        return task.validate({"situation": model.by_situation, "concat": plain(model)}, source.validation(), EVERY)

    samples = source.samples(EVERY, train.fraction)
    return [], fit("prompt together", model, train.together, samples, loss_of, validate, task.progress)


def train_router(task, source, backbone, models):
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
