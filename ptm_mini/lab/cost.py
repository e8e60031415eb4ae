"""Cost: measure training steps and answers of the methods, on a backbone of random weights.

python -m ptm_mini.lab.cost                                          tiny, a few minutes on a core
python -m ptm_mini.lab.cost --preset base --batch 2 --repeats 2 --serving 1       CAV-MAE's shape

All rows take turns, so that whatever else the machine does meets them alike; times are medians.

A training step: trainable parameters; operations (Gop, 1e9 multiplications and additions) in matrix
products and convolutions; ms; step MB at the peak: weights, gradients, optimizer state and what
autograd saves for the backward pass. Shares of full fine-tuning's time: equal where all train on
the same data, paper where all others train on 30% of it. Rows named "cached" start from tokens.

Answers: ms for a batch of each size.
"""
import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ptm_mini.checkpoint import trainable
from ptm_mini.config import PRESETS, Config, Situation, override
from ptm_mini.errors import InputError, new_parser, run as run_command
from ptm_mini.lab.token_cache import BackboneTail
from ptm_mini.method.backbone import Backbone, freeze, initialise
from ptm_mini.method.prompts import PromptedBackbone, PromptSet
from ptm_mini.method.router import Router, pick_situations
from ptm_mini.evaluation import Table
from ptm_mini.report import format_table
from ptm_mini.training import METHODS, make_optimizer, pick_device

FULL, PAPER_SHARE, CLASSES = "full fine-tuning", 0.3, 10
Inputs = tuple[Tensor, Tensor]         # audio [B, T, M], image [B, 3, H, W], or the tokens of them


def compute_gradients(model: nn.Module, inputs: Inputs, bf16: bool = False) -> None:
    """Pass a batch forward, with bf16 in mixed precision, and backward; its labels are 0, 1, .."""
    with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=bf16):
        logits = model(*inputs)
    labels = torch.arange(len(logits), device=logits.device) % CLASSES
    F.cross_entropy(logits.float(), labels).backward()


def take_step(model: nn.Module, inputs: Inputs, optimizer: torch.optim.Optimizer,
              bf16: bool = False) -> None:
    """Take a training step."""
    optimizer.zero_grad()
    compute_gradients(model, inputs, bf16)
    optimizer.step()


def synchronise() -> None:
    """Wait until a CUDA device in use has done what it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def measure_memory(model: nn.Module, inputs: Inputs) -> int:
    """Measure the bytes at the peak of a step."""
    saved = {}                                # {address of a storage: its bytes}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage.data_ptr()] = storage.nbytes()
        return tensor.detach()                # itself would be a cycle, and never be freed

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        compute_gradients(model, inputs)
    for weight in model.parameters():
        saved.pop(weight.untyped_storage().data_ptr(), None)
    weights = sum(p.nbytes for p in model.parameters())
    trained = sum(p.nbytes for p in trainable(model).values())
    return weights + 3 * trained + sum(saved.values())         # a gradient, AdamW's two moments


def time_in_turns(calls: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """{row: median ms of its call}. The first turn, which warms up, does not count."""
    seconds: dict[str, list[float]] = {row: [] for row in calls}
    for _ in range(1 + repeats):
        for row, call in calls.items():
            start = time.perf_counter()
            call()
            synchronise()
            seconds[row].append(time.perf_counter() - start)
    return {row: 1000 * statistics.median(turns[1:]) for row, turns in seconds.items()}


def draw_inputs(backbone: Backbone, size: int) -> Inputs:
    """Draw a batch on the backbone's device."""
    device = backbone.norm.weight.device
    return (torch.randn(size, *backbone.audio_shape, device=device),
            torch.randn(size, *backbone.image_shape, device=device))


def measure_training(config: Config, backbone: Backbone, size: int,
                     repeats: int) -> tuple[Table, float]:
    """Measure a training step of each row. Returns the table, and ms to make a batch's tokens."""
    inputs, attention = draw_inputs(backbone, size), override(config, "prompts.input_depth=0")
    encode = torch.no_grad()(lambda: backbone.encode(*inputs))
    whole, cached = (backbone, inputs), (BackboneTail(backbone), encode())
    rows = {FULL: ("full_mixed", config, whole), "lora": ("lora", config, whole),
            "adapter": ("adapter", config, whole), "scale_shift": ("scale_shift", config, whole),
            "head": ("head", config, whole), "prompts both": ("prompt", config, whole),
            "prompts attention": ("prompt", attention, whole),
            "head, cached": ("head", config, cached),
            "prompts attention, cached": ("prompt", attention, cached)}
    models, calls = {}, {"tokens": encode}
    for row, (method, settings, (base, batch)) in rows.items():
        model = METHODS[method](base, settings, torch.Generator()).to(inputs[0].device)
        optimizer, _ = make_optimizer(trainable(model), getattr(settings.train, method), 1, {})
        models[row] = model, batch
        calls[row] = partial(take_step, model, batch, optimizer)
    ms = time_in_turns(calls, repeats)
    table = {}
    for row, (model, batch) in models.items():
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            compute_gradients(model, batch)       # attention by matrix products: it counts these
        share = ms[row] / ms[FULL]
        table[row] = {"parameters": sum(p.numel() for p in trainable(model).values()),
                      "Gop": counter.get_total_flops() / 1e9, "ms": ms[row],
                      "step MB": measure_memory(model, batch) / 1e6,
                      "equal": share, "paper": share if row == FULL else PAPER_SHARE * share}
    return table, ms["tokens"]


def build_answers(config: Config, backbone: Backbone,
                  inputs: Inputs) -> dict[str, Callable[[], Tensor]]:
    """{row: function that answers the batch}"""
    device, encode = inputs[0].device, partial(backbone.encode, *inputs)
    router = Router(config.model.width).to(device)
    situations = torch.arange(len(inputs[0]), device=device) % len(Situation)

    def build(base: Backbone, settings: Config) -> PromptedBackbone:
        sets = [PromptSet(settings, base.head, torch.Generator()) for _ in Situation]
        return PromptedBackbone(base, sets).to(device)

    def pick(tokens: Inputs) -> Tensor:
        return pick_situations(router(*tokens), *inputs)

    def answer_attention() -> Tensor:
        tokens = encode()                     # serve the router and these prompts
        return attention.answer_each(*tokens, pick(tokens))

    both = build(backbone, config)
    attention = build(BackboneTail(backbone), override(config, "prompts.input_depth=0"))
    return {"prompts both, oracle": lambda: both.answer_each(*inputs, situations),
            "prompts both, routed": lambda: both.answer_each(*inputs, pick(encode())),
            "prompts attention, oracle": lambda: attention.answer_each(*encode(), situations),
            "prompts attention, routed": answer_attention,
            "prompts both, concat": lambda: both(*inputs),
            "full_mixed": lambda: backbone(*inputs)}      # its model has the backbone's shape


def main(argv: list[str] | None = None) -> None:
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--preset", choices=PRESETS, default="tiny", help="sizes of the model; default: tiny")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="any other setting")
    add("--batch", type=int, default=32, metavar="N", help="samples of a step; default: 32")
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
    print(f"{' '.join([args.preset, *args.set])}, batch {args.batch}, {device}, "
          f"{torch.get_num_threads()} threads")
    table, ms = measure_training(config, backbone, args.batch, args.repeats)
    print(f"\nA training step:\n\n{format_table([table])}\n\n"
          f"Making the cached tokens of a batch: {ms:.3f} ms")
    table = {}
    for size in args.serving:
        answers = build_answers(config, backbone, draw_inputs(backbone, size))
        with torch.no_grad():
            for row, ms in time_in_turns(answers, args.repeats).items():
                table.setdefault(row, {})[f"ms, {size}"] = ms
    print(f"\nAnswering a batch:\n\n{format_table([table])}")


if __name__ == "__main__":
    run_command(main)
