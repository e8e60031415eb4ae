"""Cost: measure training steps and answers of every method, on a backbone of random weights.

python -m ptm_mini.lab.cost                                          tiny, a few minutes on a core
python -m ptm_mini.lab.cost --preset base --batch 2 --repeats 2 --serving 1       CAV-MAE's shape

All rows take turns, so that whatever else the machine does meets them alike; times are medians.

A training step: trainable parameters; operations (Gop, 1e9 multiplications and additions) in matrix
products and convolutions, counted on shapes; ms; step MB at the peak: weights, gradients, optimizer
state and what autograd saves for the backward pass (on CUDA the allocator's figure).

Shares of full fine-tuning's: equal is the time where all train on the same data, paper where all
but full fine-tuning train on 30% of it. Rows named "cached" start from cached tokens.

Answers: ms for a batch of each size in which all situations are mixed.
"""
import argparse
import json
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ptm_mini.checkpoint import trainable
from ptm_mini.config import PRESETS, Config, Situation, change, override
from ptm_mini.errors import InputError, run as run_command
from ptm_mini.evaluation import CaseModels
from ptm_mini.files import refuse_existing, write_file
from ptm_mini.lab.token_cache import BackboneTail
from ptm_mini.method.backbone import Backbone, freeze, initialise
from ptm_mini.method.prompts import PromptedBackbone
from ptm_mini.method.router import Router, pick_situations
from ptm_mini.report import Table, format_table
from ptm_mini.training import METHODS, assemble, pick_device

FULL, CACHED = "full fine-tuning", ", cached"
CLASSES, PAPER_SHARE, HALF_PRECISION = 10, 0.3, 2      # K; of the data; bytes of a cached number
TITLES = {"training": "A training step:", "shares": "In shares of full fine-tuning's:",
          "caching": "Caching the tokens of a batch, in half precision, and what a step saves:",
          "serving": "Answering a batch:"}
FORMATS = {"parameters": "{:,.0f}", "Gop": "{:,.2f}", "ms": "{:,.2f}", "step MB": "{:,.2f}"}
Answer = Callable[[Tensor, Tensor, Tensor], Tensor]    # (audio, image, situations) -> logits


class TrainingStep:
    """A training step of a model on one batch, which can be taken again and again."""

    def __init__(self, model: nn.Module, inputs: tuple[Tensor, Tensor], labels: Tensor):
        """inputs: audio [B, T, M] and image [B, 3, H, W], or the cached tokens of them"""
        self.model, self.inputs, self.labels = model, inputs, labels
        self.parameters = list(trainable(model).values())
        self.optimizer = torch.optim.AdamW(self.parameters)

    def backward(self) -> None:
        """Compute the gradients."""
        F.cross_entropy(self.model(*self.inputs), self.labels).backward()

    def __call__(self) -> None:
        self.optimizer.zero_grad(set_to_none=True)
        self.backward()
        self.optimizer.step()

    def count_operations(self) -> int:
        """Count those of forward and backward pass; shapes suffice, so the device can be "meta"."""
        with FlopCounterMode(display=False) as counter:
            self.backward()
        return counter.get_total_flops()

    def measure_memory(self) -> int:
        """Measure the bytes at the peak of a step, once the optimizer has its state."""
        self.optimizer.zero_grad(set_to_none=True)
        state = [value for values in self.optimizer.state.values() for value in values.values()]
        weights = list(self.model.parameters())
        held = sum(tensor.nbytes for tensor in (*weights, *state))
        device = self.labels.device
        if device.type == "cuda":                 # without what other steps hold there
            others = torch.cuda.memory_allocated(device) - held
            torch.cuda.reset_peak_memory_stats(device)
            self()
            return torch.cuda.max_memory_allocated(device) - others
        saved = {}                                # {address of a storage: its bytes}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            saved[storage.data_ptr()] = storage.nbytes()
            return tensor.detach()                # itself would be a cycle, and never be freed

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            self.backward()
        for weight in weights:
            saved.pop(weight.untyped_storage().data_ptr(), None)
        gradients = sum(p.grad.nbytes for p in self.parameters if p.grad is not None)
        return sum(saved.values()) + gradients + held


def prompt_levels(config: Config) -> dict[str, Config]:
    """{where prompts join: settings}"""
    depth = config.model.depth
    levels = {"input": (depth, False), "attention": (0, True), "both": (depth, True)}
    return {name: change(config, {"prompts.input_depth": input_depth, "prompts.attention": fusion})
            for name, (input_depth, fusion) in levels.items()}


def build_model(method: str, backbone: Backbone, config: Config) -> nn.Module:
    """Build a method's model for one situation, on the backbone's device."""
    model = METHODS[method].build(backbone, config, torch.Generator().manual_seed(0))
    return model.to(backbone.norm.weight.device)


def build_steps(config: Config, backbone: Backbone, audio: Tensor, image: Tensor,
                labels: Tensor) -> dict[str, TrainingStep]:
    """{row: training step} of every method; afterwards of those that train on cached tokens."""
    inputs, tail = (audio, image), BackboneTail(backbone)
    with torch.no_grad():
        tokens = backbone.encode(audio, image)
    steps = {FULL: TrainingStep(build_model("full_mixed", backbone, config), inputs, labels)}
    for method in ("lora", "adapter", "scale_shift", "head"):
        steps[method] = TrainingStep(build_model(method, backbone, config), inputs, labels)
    levels = prompt_levels(config)
    for name, settings in levels.items():
        model = build_model("prompt", backbone, settings)
        steps[f"prompts {name}"] = TrainingStep(model, inputs, labels)
    for row, method, settings in (("head", "head", config),
                                  ("prompts attention", "prompt", levels["attention"])):
        steps[row + CACHED] = TrainingStep(build_model(method, tail, settings), tokens, labels)
    for row, step in steps.items():
        if not any(p.numel() for p in step.parameters):
            raise InputError(f"--set: {row}: nothing is trainable; expected prompts.tune_head=true,"
                             f" or prompts.length above 0 and a fusion block")
    return steps


def time_in_turns(calls: dict[str, Callable[[], object]], repeats: int,
                  device: torch.device) -> dict[str, float]:
    """{row: median ms of its call}. The first turn, which warms up, does not count."""
    seconds: dict[str, list[float]] = {row: [] for row in calls}
    for _ in range(1 + repeats):
        for row, call in calls.items():
            start = time.perf_counter()
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            seconds[row].append(time.perf_counter() - start)
    return {row: 1000 * statistics.median(turns[1:]) for row, turns in seconds.items()}


def measure_training(config: Config, backbone: Backbone, audio: Tensor, image: Tensor,
                     repeats: int) -> dict[str, Table]:
    """Measure a training step of each row: its costs, their shares, and what caching takes."""
    labels = torch.arange(len(audio), device=audio.device) % CLASSES
    steps = build_steps(config, backbone, audio, image, labels)
    on_meta = build_steps(config, Backbone(config, CLASSES).to("meta"),
                          *(tensor.to("meta") for tensor in (audio, image, labels)))
    encode = torch.no_grad()(partial(backbone.encode, audio, image))
    ms = time_in_turns({**steps, CACHED: encode}, repeats, audio.device)
    training, shares, caching = {}, {}, {}
    for row, step in steps.items():
        costs = {"parameters": sum(p.numel() for p in step.parameters),
                 "Gop": on_meta[row].count_operations() / 1e9, "ms": ms[row],
                 "step MB": step.measure_memory() / 1e6}
        training[row] = costs
        share = {column: costs[column] / training[FULL][column] for column in costs}
        shares[row] = {"operations": share["Gop"], "equal": share["ms"],
                       "paper": share["ms"] * (1 if row == FULL else PAPER_SHARE),
                       "memory": share["step MB"]}
        if row.endswith(CACHED):
            saved = ms[row.removesuffix(CACHED)] - ms[row]
            size = sum(tokens[0].numel() for tokens in step.inputs) * HALF_PRECISION
            caching[row] = {"kB a sample": size / 1e3, "ms to make": ms[CACHED], "ms saved": saved}
    return {"training": training, "shares": shares, "caching": caching}


def build_answers(config: Config, backbone: Backbone) -> dict[str, Answer]:
    """{row: function that answers a batch}

    A router of random weights would pick one situation for all samples. So it does its work, and
    the samples' own situations are taken.
    """
    router = Router(config.model.width).to(backbone.norm.weight.device)

    def build_cases(method: str, settings: Config) -> nn.Module:
        return assemble([build_model(method, backbone, settings) for _ in Situation])

    def route(audio: Tensor, image: Tensor) -> tuple[Tensor, Tensor]:
        tokens = backbone.encode(audio, image)
        pick_situations(router(*tokens), audio, image)
        return tokens

    def add_router(answer: Answer) -> Answer:
        def answer_routed(audio: Tensor, image: Tensor, situations: Tensor) -> Tensor:
            route(audio, image)
            return answer(audio, image, situations)
        return answer_routed

    answers = {}
    models = {name: build_cases("prompt", settings)
              for name, settings in prompt_levels(config).items()}
    for name, model in models.items():
        answers[f"prompts {name} oracle"] = model.answer_each
        answers[f"prompts {name} routed"] = add_router(model.answer_each)
    tail = PromptedBackbone(BackboneTail(backbone), models["attention"].sets)
    answers["prompts attention routed"] = (       # the router's tokens serve these prompts too
        lambda audio, image, situations: tail.answer_each(*route(audio, image), situations))
    answers["prompts both concat"] = lambda audio, image, _: models["both"](audio, image)
    answers["lora routed"] = add_router(partial(answer_by_case, build_cases("lora", config)))
    mixed = build_model("full_mixed", backbone, config)
    answers["full_mixed"] = lambda audio, image, _: mixed(audio, image)
    return answers


def answer_by_case(models: CaseModels, audio: Tensor, image: Tensor, situations: Tensor) -> Tensor:
    """Answer each sample with the model of its situation, a pass for each that occurs."""
    logits = audio.new_zeros(len(audio), CLASSES)
    for case in situations.unique().tolist():
        mine = situations == case
        logits[mine] = models.answer(audio[mine], image[mine], case)
    return logits


@torch.no_grad()
def measure_serving(answers: dict[str, Answer], audio: Tensor, image: Tensor, sizes: list[int],
                    repeats: int) -> Table:
    """Time the answers to the first samples, in batches of these sizes."""
    situations = torch.arange(len(audio), device=audio.device) % len(Situation)
    table: Table = {row: {} for row in answers}
    for size in sizes:
        batch = audio[:size], image[:size], situations[:size]
        ms = time_in_turns({row: partial(answer, *batch) for row, answer in answers.items()},
                           repeats, audio.device)
        for row in answers:
            table[row][f"ms, {size}"] = ms[row]
    return table


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--preset", choices=PRESETS, default="tiny", help="sizes of the model; default: tiny")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="any other setting")
    add("--batch", type=int, default=64, metavar="N", help="samples of a step; default: 64")
    add("--serving", type=int, nargs="*", default=[1, 8, 64], metavar="SIZE",
        help="batches to answer; none: only training is measured; default: 1 8 64")
    add("--repeats", type=int, default=20, metavar="N", help="turns; default: 20")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto",
        help="default: a CUDA device if there is one")
    add("--out", type=Path, metavar="FILE", help="new JSON file for the figures")
    args = parser.parse_args(argv)
    if min(args.batch, args.repeats, *args.serving) < 1:
        raise InputError("--batch, --repeats and --serving: expected 1 or more")
    if args.out:
        refuse_existing(args.out)
    config, device = override(PRESETS[args.preset], *args.set), pick_device(args.device)
    generator = torch.Generator().manual_seed(0)
    backbone = Backbone(config, CLASSES)
    initialise(backbone, generator)
    freeze(backbone).to(device)
    # drawn apart from those to answer: memory is counted by storages, and a slice has that of all
    audio, image, answered_audio, answered_image = (
        torch.randn(size, *shape, generator=generator).to(device)
        for size in (args.batch, max(args.serving, default=1))
        for shape in (backbone.audio_shape, backbone.image_shape))
    tables = measure_training(config, backbone, audio, image, args.repeats)
    if args.serving:
        tables["serving"] = measure_serving(build_answers(config, backbone), answered_audio,
                                            answered_image, args.serving, args.repeats)
    machine = f"CPU, {torch.get_num_threads()} threads"
    if device.type == "cuda":
        machine = torch.cuda.get_device_name(device)
    facts = {"preset": args.preset, "set": args.set, "batch": args.batch, "repeats": args.repeats,
             "machine": machine, "torch": torch.__version__}
    print(", ".join(f"{name} {value}" for name, value in facts.items() if value))
    for name, table in tables.items():
        print(f"\n{TITLES[name]}\n\n{format_table([table], formats=FORMATS)}")
    if args.out:
        write_file(args.out, (json.dumps({**facts, **tables}, indent=1) + "\n").encode())


if __name__ == "__main__":
    run_command(main)
