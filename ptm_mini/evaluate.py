"""How good each method is in each situation. The damage is drawn once and shown to every method alike."""
from typing import NamedTuple

import torch
from torch.nn import functional as F

from ptm_mini.config import Situation
from ptm_mini.data import in_batches
from ptm_mini.degrade import ALL_KINDS, degrade_batch

BATCH_SIZE = 128                  # fixed, so that a run's figures do not depend on how it was trained
EVALUATION_EPOCH = 0              # training counts from 1: no training damage is met again


class Score(NamedTuple):
    accuracy: float               # share of samples whose highest score is the right class
    macro_f1: float               # mean over the classes of 2 precision recall / (precision + recall)
    loss: float                   # mean cross-entropy, in nats
    samples: int


def told(model, situation):
    """The model's answers as if every sample were in this one situation."""
    return lambda audio, image, situations: model.situation(audio, image, torch.full_like(situations, situation))


def routed(model, router):
    """The model's answers with the situations that the router picks."""
    return lambda audio, image, situations: model.situation(audio, image, router.pick(audio, image))


def lowest_entropy(model):
    """Of the answers for all four situations, each sample's surest one: a reference that needs no router."""
    def scores_of(audio, image, situations):
        scores = torch.stack([told(model, situation)(audio, image, situations) for situation in Situation])    # [S, B, K]
        log_p = scores.log_softmax(dim=-1)
        surest = (log_p.exp() * log_p).sum(dim=-1).argmax(dim=0)                                               # [B]
        return scores[surest, torch.arange(len(audio), device=surest.device)]

    return scores_of


def strategies_of(backbone, models, router):
    """What the tables have rows of: {row: function(audio, image, situations [B]) -> scores [B, K]}.

    models  {method: PromptedModel, CaseModels or, for full_mixed, one model that needs no situation}
    router  Router or None
    A row's name is the method's and, where the method has something for each situation, how that is chosen:
    "situation" knows the true one, the others know nothing.
    """
    rows = {"backbone": lambda audio, image, situations: backbone(audio, image)}
    for method, model in models.items():
        if method == "full_mixed":
            rows[method] = lambda audio, image, situations, model=model: model(audio, image)
            continue
        rows[f"{method} situation"] = model.situation
        if method == "prompt":
            rows["prompt concat"] = lambda audio, image, situations, model=model: model.concat(audio, image)
        if router is not None:
            rows[f"{method} routed"] = routed(model, router)
        if method == "prompt":
            rows["prompt lowest_entropy"] = lowest_entropy(model)
    return rows


def damaged(batch, situation, config, kinds=ALL_KINDS):
    """A Batch put into a situation: audio, image and situations, drawn as evaluation draws them"""
    situations = torch.full_like(batch.labels, situation)
    return degrade_batch(batch, situations, config.damage, config.train.seed, EVALUATION_EPOCH, kinds)


def damaged_batches(data, split, situation, config, normalisation, device, kinds=ALL_KINDS):
    """Yield audio, image, situations and labels of a whole split, on the device."""
    for some in in_batches(data.indices(split, situation), BATCH_SIZE):
        batch = data.batch(some, normalisation)
        yield [x.to(device) for x in (*damaged(batch, situation, config, kinds), batch.labels)]


def score_of(confusion, loss):
    """confusion [K, K] counts, true class by answer; loss: summed"""
    right, n = confusion.diag(), confusion.sum()
    f1 = 2 * right / (confusion.sum(dim=0) + confusion.sum(dim=1)).clamp(min=1)
    present = confusion.sum(dim=1) > 0                                     # a class without samples has no F1
    return Score(float(right.sum() / n), float(f1[present].mean()), loss / int(n), int(n))


@torch.no_grad()
def measure(strategies, data, split, situation, config, normalisation, device, kinds=ALL_KINDS):
    """Score each strategy on a split, damaged by one situation.

    strategies  {name: function(audio [B, T, M], image [B, 3, H, W], situations [B]) -> scores [B, K]}
    returns     {name: Score}
    """
    K = len(data.classes)
    confusion = {name: torch.zeros(K * K, dtype=torch.double) for name in strategies}
    loss = dict.fromkeys(strategies, 0.0)
    for *inputs, labels in damaged_batches(data, split, situation, config, normalisation, device, kinds):
        for name, scores_of in strategies.items():
            scores = scores_of(*inputs).float()
            confusion[name] += torch.bincount((labels * K + scores.argmax(dim=1)).cpu(), minlength=K * K)
            loss[name] += float(F.cross_entropy(scores, labels, reduction="sum"))
    return {name: score_of(confusion[name].view(K, K), loss[name]) for name in strategies}


def evaluate(strategies, data, split, config, normalisation, device):
    """returns {Situation: {strategy: Score}}"""
    return {situation: measure(strategies, data, split, situation, config, normalisation, device)
            for situation in Situation}


@torch.no_grad()
def routes(router, data, split, config, normalisation, device):
    """How often the router picks what, [S, S] counts: true situation by picked one."""
    S = len(Situation)
    counts = torch.zeros(S * S, dtype=torch.double)
    for situation in Situation:
        for audio, image, situations, _ in damaged_batches(data, split, situation, config, normalisation, device):
            counts += torch.bincount((situations * S + router.pick(audio, image)).cpu(), minlength=S * S)
    return counts.view(S, S)


def mean_score(scores):
    """Every figure averaged, each score counting the same; `samples` summed."""
    accuracy, macro_f1, loss, samples = zip(*scores)
    return Score(*(sum(figure) / len(figure) for figure in (accuracy, macro_f1, loss)), sum(samples))


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
