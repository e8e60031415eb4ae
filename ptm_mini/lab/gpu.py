"""GPU: training steps on a CUDA device, and how long it waits for data; a few minutes.

python -m ptm_mini.lab.gpu

For each method, in float32 and as with --bf16: samples a second and peak memory of steps on one
batch; with 0, 4, 8 DataLoader workers the share of the time that the device waits for batches.
"""
import gc
import itertools
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch.utils.data import DataLoader

from ptm_mini.checkpoint import trainable
from ptm_mini.config import PRESETS, Config, Situation, override
from ptm_mini.data.dataset import Normalisation, PreparedSet, collate
from ptm_mini.data.manifest import Row
from ptm_mini.evaluation import Table
from ptm_mini.errors import InputError, new_parser, run as run_command
from ptm_mini.lab.cost import CLASSES, Inputs, synchronise, take_step
from ptm_mini.method.backbone import Backbone
from ptm_mini.report import format_table
from ptm_mini.training import METHODS, make_optimizer, pick_device

WORKERS, SECONDS, WARM_UP = (0, 4, 8), 4.0, 3    # SECONDS of a measurement after WARM_UP steps


class NoiseSet(PreparedSet):
    """A set of one sample of noise, which is augmented and damaged as in training."""

    def __init__(self, config: Config, device: torch.device):
        self.config, self.device, size = config, device, config.image.size
        self.audio = [torch.randn(config.audio.frames, config.audio.mels)]
        self.image = [torch.randint(256, (3, size, size), dtype=torch.uint8)]
        self.missing = self.labels = torch.tensor([0])
        self.rows, self.normalisation = [Row("noise", "", "", "", "train")], Normalisation(0, 1)

    def batches(self, size: int, workers: int) -> Iterator[Inputs]:
        """Yield training batches of all situations on the device, without end."""
        items = ((0, epoch, situation) for epoch in itertools.count(1) for situation in Situation)
        for batch in DataLoader(self, size, sampler=items, collate_fn=collate, num_workers=workers,
                                pin_memory=self.device.type == "cuda"):
            yield batch.to(self.device)[:2]


def time_steps(step: Callable[[Inputs], None], batches: Iterator[Inputs]) -> float:
    """Measure the seconds of a step."""
    for batch in itertools.islice(batches, WARM_UP):
        step(batch)
    synchronise()
    start, steps = time.perf_counter(), 0
    while time.perf_counter() < start + SECONDS:
        step(next(batches))
        steps += 1
    synchronise()
    return (time.perf_counter() - start) / steps


def measure_method(method: str, data: NoiseSet, size: int) -> Table:
    """Measure a method's steps in both precisions, their memory on a CUDA device alone."""
    gc.collect()                      # LoRA's model is a cycle, and would count with the next one
    config, on_gpu, table = data.config, data.device.type == "cuda", {}
    model = METHODS[method](Backbone(config, CLASSES), config, torch.Generator()).to(data.device)
    optimizer, _ = make_optimizer(trainable(model), getattr(config.train, method), 1, {})
    for row, bf16 in ((method, False), (f"{method}, bf16", True)):
        step = partial(take_step, model, optimizer=optimizer, bf16=bf16)
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        seconds = time_steps(step, itertools.repeat(next(data.batches(size, workers=0))))
        memory = {"peak GB": torch.cuda.max_memory_allocated() / 1e9} if on_gpu else {}
        waits = {f"waits, {workers} workers": 1 - seconds / time_steps(
            step, data.batches(size, workers)) for workers in WORKERS}
        table[row] = {"samples/s": size / seconds} | memory | waits
    return table


def main(argv: list[str] | None = None) -> None:
    parser = new_parser(__doc__)
    add = parser.add_argument
    add("--preset", choices=PRESETS, default="base", help="sizes of the model; default: base")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="any other setting")
    add("--batch", type=int, default=32, metavar="N", help="samples of a step; default: 32")
    add("--device", choices=["cpu", "cuda"], default="cuda", help="default: cuda")
    args = parser.parse_args(argv)
    if args.batch < 1:
        raise InputError(f"--batch {args.batch}: expected 1 or more")
    config, device = override(PRESETS[args.preset], *args.set), pick_device(args.device)
    data, table = NoiseSet(config, device), {}
    name = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    print(f"{' '.join([args.preset, *args.set])}, batch {args.batch}, {name}\n")
    for method in METHODS:
        table |= measure_method(method, data, args.batch)
    print(format_table([table]))


if __name__ == "__main__":
    run_command(main)
