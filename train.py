"""Train the backbone on complete data, then prompts for each situation on the frozen backbone, and evaluate.

python train.py                                   the toy set, made if it is not there; about two minutes on two cores
python train.py --data sets/av_mnist --seed 1     another prepared set
python train.py --stage prompts --out RUN         prompts for a run that has a backbone
"""
import argparse
import logging
import math
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import functional as F

from ptm_mini import checkpoint
from ptm_mini.config import DAMAGES, PRESETS, Config, InputError, NonFiniteLoss, Situation
from ptm_mini.command import run as run_command
from ptm_mini.data import Normalisation, PreparedSet, fraction_of, in_batches, shifted
from ptm_mini.degrade import degrade_batch, seeded_generator
from ptm_mini.evaluate import Score, evaluate, measure, strategies_of
from ptm_mini.model import Backbone, PromptedModel, initialise
from ptm_mini.overrides import override, replace
from ptm_mini.prompts import PromptSet

logger = logging.getLogger("train")


class Task(NamedTuple):
    """What every stage trains on."""
    config: Config
    data: PreparedSet
    normalisation: Normalisation
    device: torch.device
    bf16: bool

    def indices(self, situation, fraction=1.0):
        """Training samples that can be in this situation, or a share of each class of them."""
        indices = self.data.indices("train", situation)
        return fraction_of(indices, self.data.labels, fraction, self.config.train.seed)

    def damaged(self, indices, situations, epoch):
        """A training batch, shifted and damaged: audio, image, situations and labels, on the device."""
        train = self.config.train
        batch = shifted(self.data.batch(indices, self.normalisation), train.shift, train.seed, epoch)
        inputs = degrade_batch(batch, situations, self.config.damage, train.seed, epoch)
        return [x.to(self.device) for x in (*inputs, batch.labels)]

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def loss(self, scores, labels):
        return F.cross_entropy(scores, labels, label_smoothing=self.config.train.label_smoothing)

    def validate(self, strategies, situation):
        with self.autocast():
            return measure(strategies, self.data, "val", situation, self.config, self.normalisation, self.device)


def train_backbone(task):
    """Stage 1: everything learns, on complete data only."""
    backbone = Backbone(task.config, len(task.data.classes))
    initialise(backbone, torch.Generator().manual_seed(task.config.train.seed))
    backbone.to(task.device)

    def loss_of(indices, epoch):
        audio, image, _, labels = task.damaged(indices, torch.full_like(indices, Situation.COMPLETE), epoch)
        with task.autocast():
            return task.loss(backbone(audio, image), labels)

    def validate():
        plain = {"backbone": lambda audio, image, situations: backbone(audio, image)}
        return task.validate(plain, Situation.COMPLETE)["backbone"]

    fit("backbone", backbone, task.config.train.backbone, task.indices(Situation.COMPLETE), task.config.train.seed,
        loss_of, validate)
    return backbone


def train_case(task, backbone, situation):
    """Stage 2, case by case: fresh prompts for one situation, which every training sample is put in."""
    generator = torch.Generator().manual_seed(task.config.train.seed * len(Situation) + situation)
    prompt_set = PromptSet(task.config, backbone.head, generator).to(task.device)
    model = PromptedModel(backbone, [prompt_set])

    def scores_of(audio, image, situations):
        return model.situation(audio, image, torch.zeros_like(situations))        # the one set there is

    def loss_of(indices, epoch):
        audio, image, situations, labels = task.damaged(indices, torch.full_like(indices, situation), epoch)
        with task.autocast():
            return task.loss(scores_of(audio, image, situations), labels)

    def validate():
        return task.validate({"situation": scores_of}, situation)["situation"]

    train = task.config.train
    fit(f"prompts {situation.label}", model, train.prompts, task.indices(situation, train.fraction), train.seed, loss_of,
        validate)
    return prompt_set


def train_together(task, backbone, sets):
    """Stage 3, all cases at once: each sample is put in a situation of its own and answered twice, with the set of that
    situation and with all sets side by side. Both losses reach the sets, so they learn to agree as well as to stand alone.
    """
    model = PromptedModel(backbone, sets)

    def loss_of(indices, epoch):
        drawn = seeded_generator(task.config.train.seed, epoch, f"situations {indices.tolist()}")
        situations = torch.from_numpy(drawn.integers(len(Situation), size=len(indices)))
        audio, image, situations, labels = task.damaged(indices, situations, epoch)
        with task.autocast():
            alone = task.loss(model.situation(audio, image, situations), labels)
            return (alone + task.loss(model.concat(audio, image), labels)) / 2

    def validate():
        strategies = {name: strategies_of(model)[name] for name in ("situation", "concat")}
        scores = [score for situation in Situation for score in task.validate(strategies, situation).values()]
        return Score(*(sum(values) / len(scores) for values in zip(*scores)))

    train = task.config.train
    fit("prompts together", model, train.concat, task.indices(Situation.NOISY_BOTH, train.fraction), train.seed, loss_of,
        validate)


def fit(name, module, settings, indices, seed, loss_of, validate):
    """Train the parameters of `module` and leave it at its best epoch on the validation split.

    settings  StageConfig
    indices   [n] long, the training samples
    loss_of   function(indices [B], epoch) -> loss
    validate  function() -> Score; the best epoch has the highest accuracy, of equal ones the lowest loss
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    batches = math.ceil(len(indices) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate,
                                                   total_steps=max(1, batches * settings.epochs))
    best, best_weights, start = None, None, time.monotonic()
    for epoch in range(1, settings.epochs + 1):
        total, epoch_start = 0.0, time.monotonic()
        module.train()
        for some in in_batches(indices, settings.batch_size, seeded_generator(seed, epoch, name)):
            loss = loss_of(some, epoch)
            if not torch.isfinite(loss):
                raise NonFiniteLoss(f"{name}: the loss became {loss.item()} in epoch {epoch}; lower the learning rate "
                                    f"({settings.learning_rate}) or check the data")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(some)
        module.eval()
        score = validate()
        if best is None or (score.accuracy, -score.loss) > (best.accuracy, -best.loss):
            best, best_weights = score, {key: value.clone() for key, value in module.state_dict().items()}
        now = time.monotonic()
        logger.info("%-22s epoch %3d/%d   loss %.4f   validation %.4f   %5.1f s   left %s", name, epoch, settings.epochs,
                    total / len(indices), score.accuracy, now - epoch_start,
                    minutes((now - start) / epoch * (settings.epochs - epoch)))
    if best_weights is not None:
        module.load_state_dict(best_weights)


def minutes(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
