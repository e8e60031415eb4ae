"""What an answer costs where nobody says what is wrong with a sample: milliseconds and bytes of each way to answer."""
import statistics

import torch

from ptm_mini.config import Situation
from ptm_mini.cost.clock import seconds
from ptm_mini.cost.steps import levels
from ptm_mini.method.baselines import merge
from ptm_mini.method.prompts import Prompted, PromptSet
from ptm_mini.method.router import Router, concat, plain, routed, situation
from ptm_mini.settings import with_settings
from ptm_mini.training.methods import METHODS, CaseModels

TOLD, ROUTED = ", told", ", routed"        # what stands behind the name of a row


class MixedRouter(Router):
    """Does a router's work and then picks the situations in turn: one of random weights would pick the same for all."""

    def pick(self, audio, image, logits=None):
        super().pick(audio, image, logits)
        return in_turn(len(audio), audio.device)


def in_turn(count, device):
    """situations [count], one after the other"""
    return torch.arange(count, device=device) % len(Situation)


def ways(config, backbone):
    """{row: (function(audio, image, situations) -> scores, modules that must be in memory)}"""
    device, random = backbone.norm.weight.device, torch.Generator().manual_seed(0)

    def four(method):
        return [METHODS[method].build(backbone, config, random).to(device) for _ in Situation]

    found, router = {}, MixedRouter(backbone).to(device)
    for name, changes in levels(config).items():
        own = with_settings(config, changes)
        model = Prompted(backbone, [PromptSet(own, backbone.head, random) for _ in Situation]).to(device)
        found[f"prompts {name}{TOLD}"] = situation(model, router), (model,)
        found[f"prompts {name}{ROUTED}"] = routed(model, router), (model, router)
        if name == "both":
            found["prompts both, concat"] = concat(model, router), (model,)
    for row, models in (("lora merged", map(merge, four("lora"))), ("lora", four("lora"))):
        model = CaseModels(models)
        found[row + ROUTED] = routed(model, router), (model, router)
    model = METHODS["full_mixed"].build(backbone, config, random)
    return {**found, "full_mixed": (plain(model), (model,))}


def in_memory(modules):
    """Bytes of all weights, each counted once"""
    return sum({id(p): p.nbytes for module in modules for p in module.parameters()}.values())


@torch.no_grad()
def measure(ways, audio, image, sizes, repeats):
    """Answer the first samples in batches of these sizes, in which the situations take turns, and so do the ways.

    returns  {name of a table: {row: {column: number}}}, {row: {size: seconds of each turn}}
    """
    times = {row: {size: [] for size in sizes} for row in ways}
    for _ in range(1 + repeats):
        for size in sizes:
            batch = audio[:size], image[:size], in_turn(size, audio.device)
            next(iter(ways.values()))[0](*batch)                       # caches are cold for the first batch of a new size
            for row, (answer, _) in ways.items():
                times[row][size].append(seconds(lambda: answer(*batch), audio.device))
    rows = {row: {**{f"ms, {size}": 1000 * statistics.median(own[1:]) for size, own in times[row].items()},
                  "memory MB": in_memory(modules) / 1e6} for row, (_, modules) in ways.items()}
    return {"serving": rows, "routing": added(times)}, times


def added(times):
    """{row with a router: {size: median share of the time of being told that it takes more}}. times: {row: {size: seconds}}"""
    found = {}
    for row, own in times.items():
        told = times.get(row.removesuffix(ROUTED) + TOLD)
        if told:
            found[row] = {str(size): statistics.median(mine / known for mine, known in zip(own[size][1:], told[size][1:])) - 1
                          for size in own}
    return found
