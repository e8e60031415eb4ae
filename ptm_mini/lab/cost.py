"""Cost: measure training steps and answers of the methods, on a backbone of random weights.

python -m ptm_mini.lab.cost                                          tiny, a few minutes on a core
python -m ptm_mini.lab.cost --preset base --batch 2 --repeats 2 --serving 1       CAV-MAE's shape

All rows take turns, so that whatever else the machine does meets them alike; times are medians.

A training step: trainable parameters; operations (Gop, 1e9 multiplications and additions) in matrix
products and convolutions, counted on shapes; ms; step MB at the peak: weights, gradients, optimizer
state and what autograd saves for the backward pass. Shares of full fine-tuning's time: equal where
all train on the same data, paper where all others train on 30% of it. Rows named "cached" start
from cached tokens.

Answers: ms for a batch of each size. The router's weights are random too, its time is not.
"""
import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from ptm_mini.checkpoint import trainable
from ptm_mini.config import PRESETS, Config, Situation, change, override
from ptm_mini.errors import InputError, run as run_command
from ptm_mini.lab.token_cache import BackboneTail
from ptm_mini.method.backbone import Backbone, freeze, initialise
from ptm_mini.method.prompts import PromptedBackbone
from ptm_mini.method.router import Router, pick_situations
from ptm_mini.report import Table, format_table
from ptm_mini.training import METHODS, assemble, pick_device

FULL, CACHED = "full fine-tuning", ", cached"
CLASSES, PAPER_SHARE = 10, 0.3                         # K; of the training data
FORMATS = {"parameters": "{:,.0f}", "Gop": "{:,.2f}", "ms": "{:,.2f}", "step MB": "{:,.2f}"}
Inputs = tuple[Tensor, Tensor]         # audio [B, T, M], image [B, 3, H, W], or the tokens of them
Answer = Callable[[Tensor, Tensor], Tensor]            # audio, image -> logits [B, K]


class TrainingStep:
    """A training step of a model on one batch, which can be taken again and again."""

    def __init__(self, model: nn.Module, inputs: Inputs):
        self.model, self.inputs = model, inputs
        batch = inputs[0]
        self.labels = torch.arange(len(batch), device=batch.device) % CLASSES
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
        saved = {}                                # {address of a storage: its bytes}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            saved[storage.data_ptr()] = storage.nbytes()
            return tensor.detach()                # itself would be a cycle, and never be freed

        self.optimizer.zero_grad(set_to_none=True)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            self.backward()
        weights = list(self.model.parameters())
        for weight in weights:
            saved.pop(weight.untyped_storage().data_ptr(), None)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        state = [value for values in self.optimizer.state.values() for value in values.values()]
        return sum(saved.values()) + sum(x.nbytes for x in (*weights, *gradients, *state))


def draw_inputs(backbone: Backbone, size: int) -> Inputs:
    """Draw a batch on the backbone's device."""
    device = backbone.norm.weight.device
    audio, image = (torch.randn(size, *shape, device=device)
                    for shape in (backbone.audio_shape, backbone.image_shape))
    return audio, image


def build_model(method: str, backbone: Backbone, config: Config) -> nn.Module:
    """Build a method's model for one situation, on the backbone's device."""
    model = METHODS[method].build(backbone, config, torch.Generator().manual_seed(0))
    return model.to(backbone.norm.weight.device)


def build_steps(config: Config, backbone: Backbone, inputs: Inputs) -> dict[str, TrainingStep]:
    """{row: training step} of the methods, and of those that can train on cached tokens."""
    rows = {FULL: ("full_mixed", config), "lora": ("lora", config), "adapter": ("adapter", config),
            "scale_shift": ("scale_shift", config), "head": ("head", config),
            "prompts both": ("prompt", config),
            "prompts attention": ("prompt", change(config, {"prompts.input_depth": 0}))}
    steps = {row: TrainingStep(build_model(method, backbone, settings), inputs)
             for row, (method, settings) in rows.items()}
    with torch.no_grad():
        tokens = backbone.encode(*inputs)
    for row in ("head", "prompts attention"):
        method, settings = rows[row]
        model = build_model(method, BackboneTail(backbone), settings)
        steps[row + CACHED] = TrainingStep(model, tokens)
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


def measure_training(config: Config, backbone: Backbone, batch: int,
                     repeats: int) -> tuple[Table, float]:
    """Measure a training step of each row. Returns the table, and ms to make a batch's tokens."""
    inputs, on_meta = draw_inputs(backbone, batch), Backbone(config, CLASSES).to("meta")
    steps = build_steps(config, backbone, inputs)
    counted = build_steps(config, on_meta, draw_inputs(on_meta, batch))
    calls = {**steps, CACHED: torch.no_grad()(lambda: backbone.encode(*inputs))}
    ms = time_in_turns(calls, repeats, inputs[0].device)
    table = {}
    for row, step in steps.items():
        share = ms[row] / ms[FULL]
        table[row] = {"parameters": sum(p.numel() for p in step.parameters),
                      "Gop": counted[row].count_operations() / 1e9, "ms": ms[row],
                      "step MB": step.measure_memory() / 1e6,
                      "equal": share, "paper": share if row == FULL else PAPER_SHARE * share}
    return table, ms[CACHED]


def build_answers(config: Config, backbone: Backbone) -> dict[str, Answer]:
    """{row: function that answers a batch}"""
    router = Router(config.model.width).to(backbone.norm.weight.device)
    both, attention = (assemble([build_model("prompt", backbone, settings) for _ in Situation])
                       for settings in (config, change(config, {"prompts.input_depth": 0})))
    tail = PromptedBackbone(BackboneTail(backbone), attention.sets)

    def oracle(model: PromptedBackbone, audio: Tensor, image: Tensor) -> Tensor:
        situations = torch.arange(len(audio), device=audio.device) % len(Situation)
        return model.answer_each(audio, image, situations)

    def answer_both(audio: Tensor, image: Tensor) -> Tensor:
        picks = pick_situations(router(*backbone.encode(audio, image)), audio, image)
        return both.answer_each(audio, image, picks)

    def answer_attention(audio: Tensor, image: Tensor) -> Tensor:
        tokens = backbone.encode(audio, image)          # serve the router and these prompts
        return tail.answer_each(*tokens, pick_situations(router(*tokens), audio, image))

    return {"prompts both, oracle": partial(oracle, both), "prompts both, routed": answer_both,
            "prompts attention, oracle": partial(oracle, attention),
            "prompts attention, routed": answer_attention, "prompts both, concat": both,
            "full_mixed": build_model("full_mixed", backbone, config)}


@torch.no_grad()
def measure_serving(config: Config, backbone: Backbone, sizes: list[int], repeats: int) -> Table:
    """Time the answers to batches of these sizes."""
    answers = build_answers(config, backbone)
    table: Table = {row: {} for row in answers}
    for size in sizes:
        batch = draw_inputs(backbone, size)
        calls = {row: partial(answer, *batch) for row, answer in answers.items()}
        for row, ms in time_in_turns(calls, repeats, batch[0].device).items():
            table[row][f"ms, {size}"] = ms
    return table


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--preset", choices=PRESETS, default="tiny", help="sizes of the model; default: tiny")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="any other setting")
    add("--batch", type=int, default=64, metavar="N", help="samples of a step; default: 64")
    add("--serving", type=int, nargs="+", default=[1, 8, 64], metavar="SIZE",
        help="batches to answer; default: 1 8 64")
    add("--repeats", type=int, default=20, metavar="N", help="turns; default: 20")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto",
        help="default: a CUDA device if there is one")
    args = parser.parse_args(argv)
    if min(args.batch, args.repeats, *args.serving) < 1:
        raise InputError("--batch, --repeats and --serving: expected 1 or more")
    config, device = override(PRESETS[args.preset], *args.set), pick_device(args.device)
    backbone = Backbone(config, CLASSES)
    initialise(backbone, torch.Generator().manual_seed(0))
    freeze(backbone).to(device)
    print(f"{args.preset} {' '.join(args.set)}, batch {args.batch}, {device}, "
          f"{torch.get_num_threads()} threads")
    table, ms = measure_training(config, backbone, args.batch, args.repeats)
    print(f"\nA training step:\n\n{format_table([table], formats=FORMATS)}\n\n"
          f"Making the cached tokens of a batch: {ms:,.2f} ms")
    table = measure_serving(config, backbone, args.serving, args.repeats)
    print(f"\nAnswering a batch:\n\n{format_table([table])}")


if __name__ == "__main__":
    run_command(main)
