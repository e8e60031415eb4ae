"""The training steps that are compared, and what each costs: numbers, bytes, operations, seconds."""
import copy
import statistics
from functools import partial
from typing import Callable, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ptm_mini.cost.clock import growth, seconds, system_tells
from ptm_mini.cost.shares import FULL, keeping_of, protocols, shares_of
from ptm_mini.errors import InputError
from ptm_mini.method.prompts import prompted
from ptm_mini.settings import with_settings
from ptm_mini.training.cost import StepMemory
from ptm_mini.training.kept import Late
from ptm_mini.training.methods import METHODS

KEPT, MAKING = ", kept", "making "                 # what stands behind the name of a row, and before it


class Step(NamedTuple):
    """A training step of a method."""
    model: nn.Module
    inputs: tuple                 # what it is called with: audio [B, T, M] and image [B, 3, H, W], or the tokens kept of them
    before: Callable | None       # the part, as `operations` takes it, that comes before all that learns; None: of kept tokens


def levels(config):
    """{where prompts join: settings}; late is the second half of the encoders' blocks, and the fusion blocks"""
    depth = config.model.depth
    both = {"prompts.first_block": 0, "prompts.input_depth": depth, "prompts.attention": True}
    return {"input": {**both, "prompts.attention": False}, "attention": {**both, "prompts.input_depth": 0}, "both": both,
            "late": {**both, "prompts.first_block": depth - depth // 2, "prompts.input_depth": depth // 2}}


def all_steps(config, backbone, audio, image):
    """{row: Step} of full fine-tuning and of every method that learns less; behind them those that can on kept tokens"""
    inputs, depth = (audio, image), config.model.depth

    def built(build, on, settings=config):
        return build(on, settings, torch.Generator().manual_seed(0)).to(audio.device)

    @torch.no_grad()
    def kept(first):
        return backbone.early(audio, image, first)

    steps = {FULL: Step(built(METHODS["full_mixed"].build, backbone), inputs, lambda model, inputs, labels: None)}
    for method in ("lora", "adapter", "scale_shift"):
        steps[method] = Step(built(METHODS[method].build, backbone, with_settings(config, levels(config)["both"])), inputs,
                             lambda model, inputs, labels: backbone_of(model).early(*inputs, first=0))
    steps["head"] = Step(built(METHODS["head"].build, backbone), inputs, lambda model, inputs, labels: model.features(*inputs))
    on_kept = {"head" + KEPT: Step(built(METHODS["head"].build, Late(backbone, depth)), kept(depth), None)}
    for name, changes in levels(config).items():
        own = with_settings(config, changes)
        step = Step(built(prompted, backbone, own), inputs,
                    lambda model, inputs, labels: model.backbone.early(*inputs, model.first))
        first = step.model.first
        steps[f"prompts {name}"] = step
        if first > 0:
            on_kept[f"prompts {name}{KEPT}"] = Step(built(prompted, Late(backbone, first), own), kept(first), None)
    return {**steps, **on_kept}


def backbone_of(model):
    """Prompts have one, the models of other methods are one"""
    return getattr(model, "backbone", model)


@torch.no_grad()
def make(whole, kept):
    """The tokens that a Step on kept ones is called with, from the inputs of the Step that it stands for"""
    return backbone_of(whole.model).early(*whole.inputs, kept.model.first)


def operations(step, labels, part):
    """Multiplications and additions of a part of a step in matrix products and convolutions, counted on shapes alone.

    part  function(model, inputs, labels)
    """
    shapes = {id(p): nn.Parameter(p.detach().to("meta"), p.requires_grad) for p in step.model.parameters()}
    with FlopCounterMode(display=False) as counter:
        part(copy.deepcopy(step.model, shapes), [x.to("meta") for x in step.inputs], labels.to("meta"))
    return counter.get_total_flops()


def backward(model, inputs, labels):
    """All of a step but the optimiser's part"""
    F.cross_entropy(model(*inputs), labels).backward()


class Run:
    """A Step that can be taken again and again."""

    def __init__(self, step, labels):
        self.step, self.labels = step, labels
        learned = [p for p in step.model.parameters() if p.requires_grad]
        self.numbers = sum(p.numel() for p in learned)
        if not self.numbers:
            raise InputError("prompts at some level: nothing can learn; expected prompts.tune_head=true, or prompts.length "
                             "above 0 with encoder and fusion blocks that take them")
        self.optimiser = torch.optim.AdamW(learned, lr=1e-5)

    def __call__(self):
        self.optimiser.zero_grad(set_to_none=True)
        backward(self.step.model, self.step.inputs, self.labels)
        self.optimiser.step()

    def held(self):
        """Bytes of weights and optimiser state"""
        state = [value for values in self.optimiser.state.values() for value in values.values()]
        return sum(tensor.nbytes for tensor in (*self.step.model.parameters(), *state))

    def memory(self, device):
        """Bytes at the peak of a step, as training counts them; on CUDA without what the other steps hold there"""
        self.optimiser.zero_grad(set_to_none=True)
        others = torch.cuda.memory_allocated(device) - self.held() if device.type == "cuda" else 0
        counter = StepMemory(self.step.model, self.optimiser, device)
        with counter.counted():
            self()
        return counter.peak() - others

    def resident(self):
        """Bytes at the peak of a step as the system sees them: what the process grows by, and what was there before"""
        self.optimiser.zero_grad(set_to_none=True)
        return growth(self) + self.held()


def measure(steps, labels, samples, repeats, device):
    """The costs of each Step, which take turns, so that whatever else the machine does meets all alike.

    samples  of an epoch
    returns  {name of a table: {row: {column: number}}}, {row: seconds of each turn}
    """
    runs = {row: Run(step, labels) for row, step in steps.items()}
    making = {MAKING + row: partial(make, steps[row.removesuffix(KEPT)], steps[row]) for row in steps if row.endswith(KEPT)}
    times = {row: [] for row in (*runs, *making)}
    for _ in range(1 + repeats):                                       # the first turn makes the optimisers' state
        for row, call in {**runs, **making}.items():
            times[row].append(seconds(call, device))
    ms, rows = {row: 1000 * statistics.median(own[1:]) for row, own in times.items()}, {}
    for row, run in runs.items():
        rows[row] = {"learns": run.numbers, "stored kB": 4 * run.numbers / 1e3,
                     "Gop": operations(run.step, labels, backward) / 1e9, "ms": ms[row],
                     "step MB": run.memory(device) / 1e6}
        if system_tells(device):
            rows[row]["process MB"] = run.resident() / 1e6
    needed = {row: rows[row]["Gop"] - operations(step, labels, step.before) / 1e9 for row, step in steps.items() if step.before}
    shares = {row: shares_of(own, rows[FULL], needed[row.removesuffix(KEPT)]) for row, own in rows.items()}
    epoch = samples / len(labels)
    keeping = {row: keeping_of(steps[row].inputs, ms[MAKING + row], ms[row.removesuffix(KEPT)] - ms[row], epoch)
               for row in steps if row.endswith(KEPT)}
    return {"training": rows, "shares": shares, "protocols": protocols(rows, epoch), "keeping": keeping}, times
