"""Variants of a run: what each ablation varies."""
from typing import NamedTuple

import torch

from ptm_mini.config import FUSION_KINDS
from ptm_mini.method.backbone import Backbone
from ptm_mini.settings import expect, get, with_settings
from ptm_mini.training.methods import METHODS

LENGTHS, RANKS, VIEWS = (1, 2, 4, 8, 16, 32), (1, 3, 5), (0, 1, 2, 4)
SHARES, FEW, PAPER = (0.03, 0.1, 0.3, 1.0), 0.1, (0.3, 5)          # of the training data; the paper's, and its epochs
RATES_FOR_FEW = {"adapter": 3e-3, "scale_shift": 1e-2, "full_mixed": 3e-4}     # better up to FEW: docs/evidence.md, validation
LEARNERS = ("full_mixed", *(method for method in METHODS if not method.startswith("full")))        # it stands for both
SIZE_OF = {"prompt": "prompts.length", "lora": "lora.rank", "adapter": "adapter.bottleneck"}
HEAD_OF = {"prompt": "prompts.tune_head", "lora": "lora.tune_head", "adapter": "adapter.tune_head"}


class Variant(NamedTuple):
    """A run with other settings: a row of an ablation's table."""
    label: str
    x: float                      # where it stands in a picture; None: nowhere, or, where no row has one, where the table has it
    method: str
    changes: dict                 # {dotted key: value}
    against: str | None = None    # the label of the row that it is compared with, its own where others are with it


def level(config):
    """where prompts join: input, attention, both, joint blocks too; with and without a head"""
    deep = {"prompts.input_depth": config.prompts.input_depth or config.model.depth - config.prompts.first_block}
    attention, alone = {"prompts.attention": True}, {"prompts.joint": False}
    places = {"input": {**deep, "prompts.attention": False, **alone},
              "attention": {"prompts.input_depth": 0, **attention, **alone},
              "both": {**deep, **attention, **alone}, "both and joint": {**deep, **attention, "prompts.joint": True}}
    return [Variant(f"{place}{suffix}", None, "prompt", {**changes, "prompts.tune_head": head}, "both, head")
            for head, suffix in ((False, ""), (True, ", head")) for place, changes in places.items()]


def length(config):
    """the number of prompt tokens, P"""
    return of_prompts("P", "prompts.length", LENGTHS, config)


def depth(config):
    """how many encoder blocks have prompts of their own"""
    return of_prompts("input_depth", "prompts.input_depth", (1, config.model.depth // 2, config.model.depth), config)


def of_prompts(name, key, numbers, config):
    """Variants of a setting of prompts, the run's own number among them, with which the others are compared; where that is 0,
    with the largest"""
    own = get(config, key)
    numbers = sorted({*numbers, own} - {0})
    return [Variant(f"{name} = {n}", n, "prompt", {key: n}, f"{name} = {own or numbers[-1]}") for n in numbers]


def fusion(config):
    """who reads whom in the fusion blocks; each kind trains a backbone of its own"""
    return [Variant(kind, None, "prompt", {"model.fusion": kind}, config.model.fusion) for kind in FUSION_KINDS]


def fraction(config):
    """every method with less training data: in as many steps as with all of it, and as the paper does, 30% for 5 epochs"""
    found = []
    for method in LEARNERS:
        for share in SHARES:
            rate = {rate_of(method): RATES_FOR_FEW[method]} if share <= FEW and method in RATES_FOR_FEW else {}
            found.append(Variant(f"{method}, {share:.0%}", share, method, {**share_of_data(share), **rate},
                                 f"prompt, {share:.0%}"))
        paper = f"{PAPER[0]:.0%}, {PAPER[1]} epochs"
        found.append(Variant(f"{method}, {paper}", None, method, {
            "train.fraction": PAPER[0], f"train.{METHODS[method].stages[0]}.epochs": PAPER[1]}, f"prompt, {paper}"))
    return found


def learning_rate(config):
    """every method at three learning rates, with all the training data and with a tenth: accuracy on the validation split"""
    found = []
    for method in LEARNERS:
        own, epochs = get(config, rate_of(method)), rate_of(method).replace("learning_rate", "epochs")
        expect(get(config, epochs) > 0, config, epochs, "1 or more, for learning rates to differ")
        for share in (FEW, 1.0):
            for rate in (float(f"{own / 3:.1g}"), own, float(f"{own * 3:.1g}")):
                found.append(Variant(f"{method}, {share:.0%}, {rate:g}", rate, method,
                                     {**share_of_data(share), rate_of(method): rate}))
    return found


def views(config):
    """what can start from kept tokens, head and attention-level prompts, with this many damaged copies of each sample"""
    attention = {"prompts.input_depth": 0, "prompts.joint": False}
    return [Variant(f"{place}, {n} views", None, method, {**changes, "train.views": n}, f"{place}, {VIEWS[0]} views")
            for place, method, changes in (("head", "head", {}), ("attention", "prompt", attention)) for n in VIEWS]


def share_of_data(share):
    """Settings for a share of the training data in as many steps as with all of it"""
    return {"train.fraction": share, "train.full_length": share < 1}


def rate_of(method):
    """The setting that is the learning rate of a method's first stage"""
    return f"train.{METHODS[method].stages[0]}.learning_rate"


def budget(config):
    """prompts, LoRA and Adapter with equally many numbers to learn (LoRA's at each rank), with and without a head"""
    found = []
    for rank in RANKS:
        sizes = {method: size_for(config, method, count(config, "lora", rank)) for method in SIZE_OF}
        for head, suffix in ((False, ""), (True, ", head")):
            labels = {method: f"{method} {SIZE_OF[method].split('.')[1]} = {size}{suffix}" for method, size in sizes.items()}
            found += [Variant(labels[method], None, method, {SIZE_OF[method]: size, HEAD_OF[method]: head}, labels["prompt"])
                      for method, size in sizes.items()]
    return found


def size_for(config, method, numbers):
    """The size, 1 or more, at which a method learns nearest to so many numbers, without a head."""
    at_one, at_two = count(config, method, 1), count(config, method, 2)
    expect(at_two > at_one, config, "prompts.input_depth", "a place for prompts, whose numbers grow with their length")
    return max(1, 1 + round((numbers - at_one) / (at_two - at_one)))


def count(config, method, size):
    """How many numbers a method learns at a size, without a head."""
    config = with_settings(config, {SIZE_OF[method]: size, HEAD_OF[method]: False})
    model = METHODS[method].build(Backbone(config, 1), config, torch.Generator())
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


ABLATIONS = {function.__name__: function for function in (level, length, depth, fusion, budget, fraction, learning_rate,
                                                        views)}
