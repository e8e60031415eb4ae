"""How fast the backbone is beside a plain reading of CAV-MAE's formulas, and the memory of a step; figures, no test. Linux.

python tests/benchmarks/backbone.py                                tiny and base, batches of 1, 8 and 32
python tests/benchmarks/backbone.py --preset base --batch 4        one of them; 32 at base needs some 30 GB

Both have the same weights and no fusion blocks, and take turns; medians of wall-clock times, and of each turn's ratio in
wall-clock and in CPU time, which on a machine with other work tells more.
"""
import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))
from plain_cav_mae import multimodal  # noqa: E402

from ptm_mini.config import PRESETS  # noqa: E402
from ptm_mini.method.backbone import Backbone, initialise  # noqa: E402
from ptm_mini.runs.cav_mae import common, official_name  # noqa: E402
from ptm_mini.settings import with_settings  # noqa: E402

CLASSES = 10


def make(preset):
    """The same model twice, {name: (function(audio, image) -> logits, parameters)}, and its Config"""
    config = with_settings(PRESETS[preset], {"model.fusion": "none"})
    backbone = Backbone(config, CLASSES)
    initialise(backbone, torch.Generator().manual_seed(0))
    weights = {official_name(name): tensor.clone().requires_grad_() for name, tensor in common(backbone).items()}

    def plain(audio, image):
        return multimodal(weights, audio, image, config.model.heads)

    return {"ours": (backbone, list(backbone.parameters())), "plain": (plain, list(weights.values()))}, config


def inputs(config, batch):
    random = torch.Generator().manual_seed(0)
    return (torch.randn(batch, config.audio.frames, config.audio.mels, generator=random),
            torch.randn(batch, 3, config.image.size, config.image.size, generator=random))


def seconds(call):
    """Wall-clock and CPU seconds"""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def step(model, parameters, batch):
    """Seconds of a forward pass without gradients, then of a forward and backward pass"""
    with torch.no_grad():
        forward = seconds(lambda: model(*batch))
    for p in parameters:
        p.grad = None
    return forward, seconds(lambda: model(*batch).square().mean().backward())


def status(field):
    """Bytes of a field of this process's status, such as VmRSS"""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])


def peak(name, preset, batch):
    """Bytes that a forward and backward pass takes at its peak, weights and inputs not counted, in this new process."""
    models, config = make(preset)
    model, _ = models[name]
    batch = inputs(config, batch)
    Path("/proc/self/clear_refs").write_text("5")                                  # VmHWM starts anew
    before = status("VmRSS")
    model(*batch).square().mean().backward()
    return status("VmHWM") - before


def compare(preset, batch, turns):
    models, config = make(preset)
    data = inputs(config, batch)
    with torch.no_grad():
        assert torch.allclose(*(model(*data) for model, _ in models.values()), atol=1e-4), "the two are not the same model"
    turns = [{name: step(*model, data) for name, model in models.items()} for _ in range(turns)][1:]
    for i, what in enumerate(("forward", "forward + backward")):
        ours, plain = ([turn[name][i] for turn in turns] for name in ("ours", "plain"))
        wall, cpu = (statistics.median(b[clock] / a[clock] for a, b in zip(ours, plain)) for clock in (0, 1))
        ours, plain = (1000 * statistics.median(time for time, _ in times) for times in (ours, plain))
        print(f"{preset} batch {batch:<3} {what:<19} ours {ours:8.1f} ms   plain {plain:8.1f} ms   "
              f"plain / ours {wall:.2f}, CPU time {cpu:.2f}", flush=True)
    bytes_of = {}
    for name in models:
        child = [sys.executable, __file__, "--preset", preset, "--batch", str(batch), "--peak", name]
        bytes_of[name] = int(subprocess.run(child, capture_output=True, text=True, check=True).stdout)
    print(f"{preset} batch {batch:<3} {'memory of a step':<19} ours {bytes_of['ours'] / 1e6:8.0f} MB   "
          f"plain {bytes_of['plain'] / 1e6:8.0f} MB   plain / ours {bytes_of['plain'] / bytes_of['ours']:.2f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", nargs="+", choices=PRESETS, default=list(PRESETS))
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 8, 32])
    parser.add_argument("--turns", type=int, default=8, help="of which the first is not counted")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--peak", choices=["ours", "plain"], help="print the bytes of one step of one of the two, and no more")
    options = parser.parse_args()
    if options.peak:
        print(peak(options.peak, options.preset[0], options.batch[0]))
    else:
        torch.set_num_threads(options.threads)
        print(f"torch {torch.__version__}, {options.threads} threads", flush=True)
        for preset in options.preset:
            for batch in options.batch:
                compare(preset, batch, options.turns)
