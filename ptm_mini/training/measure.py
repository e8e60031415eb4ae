"""How good models are in each situation. The damage is drawn once and shown to every model alike."""
from typing import NamedTuple

import torch
from torch.nn import functional as F

from ptm_mini.config import Config, Situation
from ptm_mini.data.prepared import Normalisation, PreparedSet, stack, threads_beside, worked_ahead
from ptm_mini.method.damage import ALL_KINDS, EVALUATION_EPOCH, damage_sample

BATCH_SIZE = 128                  # fixed, so that a run's figures do not depend on how it was trained


class Score(NamedTuple):
    accuracy: float               # share of samples whose highest score is the right class
    macro_f1: float               # mean over the classes of 2 precision recall / (precision + recall)
    loss: float                   # mean cross-entropy, in nats
    samples: int


class View(NamedTuple):
    """What is looked at: the samples of a split, as evaluation damages them, on the device."""
    data: PreparedSet
    split: str
    config: Config                # of which damage and seed count
    normalisation: Normalisation
    device: torch.device
    kinds: tuple = ALL_KINDS      # of damage, that can be drawn

    def sample(self, index, situation):
        """Sample of the row `index`, put into a situation"""
        sample = self.data.sample(index, self.normalisation)
        return damage_sample(sample, situation, self.config.damage, self.config.train.seed, EVALUATION_EPOCH, self.kinds)

    def batches(self, situation):
        """Yield audio, image, situations and labels of every sample that can be in a situation."""
        def prepare(indices):
            batch = stack((self.sample(index, situation) for index in indices.tolist()), len(indices))
            return [x.to(self.device) for x in batch[:4]]

        indices = self.data.indices(self.split, situation).split(BATCH_SIZE)
        yield from worked_ahead(prepare, indices, threads_beside(self.device))


def score_of(confusion, loss):
    """confusion [K, K] counts, true class by answer; loss: summed"""
    right, n = confusion.diag(), confusion.sum()
    f1 = 2 * right / (confusion.sum(dim=0) + confusion.sum(dim=1)).clamp(min=1)
    present = confusion.sum(dim=1) > 0                                     # a class without samples has no F1
    return Score(float(right.sum() / n), float(f1[present].mean()), loss / int(n), int(n))


@torch.no_grad()
def measure(strategies, view, situation):
    """Score each strategy on a View's samples, damaged by one situation.

    strategies  {name: function(audio [B, T, M], image [B, 3, H, W], situations [B]) -> scores [B, K]}
    returns     {name: Score}
    """
    K = len(view.data.classes)
    confusion = {name: torch.zeros(K * K, dtype=torch.double) for name in strategies}
    loss = dict.fromkeys(strategies, 0.0)
    for *inputs, labels in view.batches(situation):
        for name, scores_of in strategies.items():
            scores = scores_of(*inputs).float()
            confusion[name] += torch.bincount((labels * K + scores.argmax(dim=1)).cpu(), minlength=K * K)
            loss[name] += float(F.cross_entropy(scores, labels, reduction="sum"))
    return {name: score_of(confusion[name].view(K, K), loss[name]) for name in strategies}


def measure_all(strategies, view):
    """returns {Situation: {strategy: Score}}"""
    return {situation: measure(strategies, view, situation) for situation in Situation}


@torch.no_grad()
def routes(router, view):
    """How often the router picks what, [S, S] counts: true situation by picked one."""
    S = len(Situation)
    counts = torch.zeros(S * S, dtype=torch.double)
    for situation in Situation:
        for audio, image, situations, _ in view.batches(situation):
            counts += torch.bincount((situations * S + router.pick(audio, image)).cpu(), minlength=S * S)
    return counts.view(S, S)


def mean_score(scores):
    """Every figure averaged, each score counting the same; `samples` summed."""
    accuracy, macro_f1, loss, samples = zip(*scores)
    return Score(*(sum(figure) / len(figure) for figure in (accuracy, macro_f1, loss)), sum(samples))
