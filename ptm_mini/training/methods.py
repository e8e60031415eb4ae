"""The table of methods: what is trained on the frozen backbone, how it is built, in what stages, and how it answers."""
from typing import Callable, NamedTuple

import torch
from torch import nn

from ptm_mini.config import Situation
from ptm_mini.errors import InputError
from ptm_mini.method.baselines import adapter, full, head, lora, merge, scale_shift
from ptm_mini.method.prompts import Prompted, PromptSet, blocks_before_prompts, prompted

BACKBONE, ROUTER = "backbone", "router"        # what is trained first, and the stage that makes a router
EACH = tuple((situation,) for situation in Situation)
MIXED = (tuple(Situation),)


class Method(NamedTuple):
    """A method of the tables."""
    remark: str                           # what learns
    build: Callable                       # (backbone, Config, generator) -> a model that learns, called like the backbone
    stages: tuple                         # fields of TrainConfig, and ROUTER, in the order in which they are trained
    cases: tuple = EACH                   # a model for each: the situations that it is trained in
    strategies: tuple = ("situation", "routed")       # names in STRATEGIES; none where one model serves all
    settings: tuple = ()                  # groups of settings that no other method reads
    first: Callable = lambda config: 0    # of Config: how many blocks of each encoder come before all that learns

    def model_names(self, method):
        """The method's name, and where it has a model for each situation the situation's"""
        return [f"{method} {case[0].label}" if self.strategies else method for case in self.cases]


METHODS = {
    "prompt": Method("prompts and a head, for each situation", prompted, ("prompts", "together", ROUTER),
                     strategies=("situation", "concat", "routed", "lowest_entropy"), settings=("prompts", "router"),
                     first=blocks_before_prompts),
    "head": Method("a copy of the head, for each situation", head, ("head",), first=lambda config: config.model.depth),
    "lora": Method("low-rank updates of the attentions' projections, for each situation", lora, ("lora",),
                   settings=("lora",)),
    "adapter": Method("bottlenecks behind attentions and MLPs, for each situation", adapter, ("adapter",),
                      settings=("adapter",)),
    "scale_shift": Method("a scale and a shift behind every norm of a block, for each situation", scale_shift,
                          ("scale_shift",)),
    "full_per_situation": Method("a copy of everything, for each situation", full, ("full_per_situation",)),
    "full_mixed": Method("one copy of everything, on all situations mixed", full, ("full_mixed",), MIXED, strategies=()),
}


REMARKS = {BACKBONE: "everything learns, on complete data; every run has it",
           **{name: method.remark for name, method in METHODS.items()}}


def stages_of(method):
    """The stages of BACKBONE or a member of METHODS."""
    return (BACKBONE,) if method == BACKBONE else METHODS[method].stages


def reads(method, key):
    """Whether what BACKBONE or a member of METHODS learns depends on a setting, named by its dotted key."""
    group, _, rest = key.partition(".")
    if group == "damage" or key in ("train.fraction", "train.full_length"):
        return method != BACKBONE
    if key == "train.loaded_rate":
        return method == BACKBONE
    if key == "train.views":
        return method in ("prompt", "head")
    stage = rest.split(".")[0]
    if group == "train" and any(stage in stages_of(other) for other in (BACKBONE, *METHODS)):
        return stage in stages_of(method)
    owners = [other for other, row in METHODS.items() if group in row.settings]
    return method in owners or not owners


def refuse_nothing_to_learn(config):
    """Raise InputError where prompt sets would have neither prompts nor a head."""
    if not config.prompts.tune_head and not any(p.numel() for p in PromptSet(config, None, torch.Generator()).parameters()):
        raise InputError("prompt: nothing can learn; expected prompts.length above 0 and a place for them, or "
                         "prompts.tune_head=true")


class CaseModels(nn.Module):
    """One model for each situation, of whatever method."""

    def __init__(self, models):
        """models: functions of audio and image to scores [n, K], in the order of Situation"""
        super().__init__()
        self.models = nn.ModuleList(models)

    def by_situation(self, audio, image, situations):
        """Each sample goes through the model of its own situation. situations [B] long; returns scores [B, K]"""
        out = None
        for situation, model in enumerate(self.models):
            mine = (situations == situation).nonzero()[:, 0]
            if len(mine):
                scores = model(audio[mine], image[mine])
                out = scores.new_empty(len(audio), scores.shape[1]) if out is None else out
                out[mine] = scores
        return out

    def routed(self, audio, image, router):
        """Each sample goes through the model of the situation that a Router picks. returns scores, situations [B], the router's
        logits [B, S]"""
        logits = router(audio, image)
        situations = router.pick(audio, image, logits)
        return self.by_situation(audio, image, situations), situations, logits


def assembled(models):
    """A method's models, one a case as they were trained, as what answers for all its samples."""
    if len(models) == 1:
        return models[0]
    if all(isinstance(model, Prompted) and model.backbone is models[0].backbone for model in models):
        return Prompted(models[0].backbone, [model.sets[0] for model in models])
    return CaseModels(map(merge, models))
