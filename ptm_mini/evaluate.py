"""Accuracy of each strategy in each situation. The damage is drawn once and shown to every strategy alike."""
from typing import NamedTuple

import torch
from torch.nn import functional as F

from ptm_mini.config import Situation
from ptm_mini.data import in_batches
from ptm_mini.degrade import degrade_batch

BATCH_SIZE = 128                  # fixed, so that a run's figures do not depend on how it was trained
EVALUATION_EPOCH = 0              # training counts from 1: no training damage is met again


class Score(NamedTuple):
    accuracy: float               # share of samples whose highest score is the right class
    loss: float                   # mean cross-entropy, in nats
    samples: int


def strategies_of(model):
    """{name: scores(audio, image, situations) [B, K]} of a PromptedModel, in the order of the tables.

    A model without prompt sets has the first alone.
    """
    strategies = {"backbone": lambda audio, image, situations: model.backbone(audio, image)}
    if model.sets:
        strategies["situation"] = model.situation
        strategies["concat"] = lambda audio, image, situations: model.concat(audio, image)
    return strategies


def damaged(batch, situation, config):
    """A whole batch in one situation, as every strategy sees it. returns audio, image, situations [B]"""
    situations = torch.full_like(batch.missing, situation)
    return degrade_batch(batch, situations, config.damage, config.train.seed, EVALUATION_EPOCH)


@torch.no_grad()
def measure(strategies, data, split, situation, config, normalisation, device):
    """Score each strategy on a split, damaged by one situation.

    strategies  {name: function(audio [B, T, M], image [B, 3, H, W], situations [B]) -> scores [B, K]}
    returns     {name: Score}
    """
    indices = data.indices(split, situation)
    correct, loss = dict.fromkeys(strategies, 0), dict.fromkeys(strategies, 0.0)
    for some in in_batches(indices, BATCH_SIZE):
        batch = data.batch(some, normalisation)
        inputs, labels = [x.to(device) for x in damaged(batch, situation, config)], batch.labels.to(device)
        for name, scores_of in strategies.items():
            scores = scores_of(*inputs).float()
            correct[name] += int((scores.argmax(dim=1) == labels).sum())
            loss[name] += float(F.cross_entropy(scores, labels, reduction="sum"))
    n = len(indices)
    return {name: Score(correct[name] / n, loss[name] / n, n) for name in strategies}


def evaluate(strategies, data, split, config, normalisation, device):
    """returns {Situation: {strategy: Score}}"""
    return {situation: measure(strategies, data, split, situation, config, normalisation, device)
            for situation in Situation}


def average(scores, strategy):
    """Mean accuracy over the situations, each counting the same."""
    return sum(row[strategy].accuracy for row in scores.values()) / len(scores)


@torch.no_grad()
def examples(strategies, data, count, config, normalisation, device):
    """A few test samples, evenly spaced, before and after each damage, with each strategy's answer.

    returns  list of (class name, {Situation: (audio [T, M], image [3, H, W], {strategy: class name})})
    """
    complete = data.indices("test", Situation.COMPLETE)
    chosen = complete[torch.linspace(0, len(complete) - 1, min(count, len(complete))).round().long()]
    samples = []
    for index in chosen:
        batch, cells = data.batch(index[None], normalisation), {}
        for situation in Situation:
            inputs = damaged(batch, situation, config)
            answers = {name: data.classes[scores_of(*(x.to(device) for x in inputs)).argmax()]
                       for name, scores_of in strategies.items()}
            cells[situation] = (inputs[0][0], inputs[1][0], answers)
        samples.append((data.rows[index].label, cells))
    return samples
