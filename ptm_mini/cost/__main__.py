"""python -m ptm_mini.cost"""
if __name__ == "__main__":
    from ptm_mini.errors import run_script
    run_script(__file__)

import logging
import math
from pathlib import Path

import torch

from ptm_mini import cost
from ptm_mini.config import PRESETS
from ptm_mini.cost import serving, steps
from ptm_mini.data.manifest import MOST_CLASSES
from ptm_mini.errors import InputError, Parser, whole_number
from ptm_mini.files import new_folder
from ptm_mini.limits import BATCH
from ptm_mini.method.backbone import Backbone, initialise
from ptm_mini.report import charts, tables
from ptm_mini.settings import with_assignments
from ptm_mini.training.cost import machine_of
from ptm_mini.training.stages import pick_device

logger = logging.getLogger("cost")
TITLES = {"training": "A training step:", "shares": "The same in shares of full fine-tuning's:",
          "protocols": "The steps of an epoch, in seconds and in shares of full fine-tuning's on all data (equal: all train on "
                       "all data; paper: all but full fine-tuning on 30%):",
          "keeping": "Tokens kept in half precision, for one view of each sample (ms for a batch, s for all data):",
          "serving": "Answering a batch of so many samples, all situations mixed, in ms, and the weights in memory:",
          "routing": "What routing adds to the time of such a batch, in shares of the time when the situations are told:"}
WHOLE, SHARES = ("learns", "stored kB"), ("shares", "routing")        # columns without decimals; tables with three
MOST = 16_384                     # samples of a batch, as in training


def parse_arguments(argv):
    parser = Parser(cost.__doc__, prog="python -m ptm_mini.cost")
    parser.add_argument("--preset", choices=PRESETS, default="tiny", help="sizes of model and inputs (default: %(default)s)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="any other setting; can be repeated")
    parser.add_argument("--classes", type=whole_number(1, MOST_CLASSES), default=10, help="K (default: %(default)s)")
    parser.add_argument("--batch", type=whole_number(1, MOST), default=64,
                        help="samples of a training step (default: %(default)s)")
    parser.add_argument("--samples", type=whole_number(1, 10**9), default=2400,
                        help="training samples of an epoch, as AV-MNIST has (default: %(default)s)")
    parser.add_argument("--serving", type=whole_number(1, MOST), nargs="*", default=[1, 8, 64], metavar="SIZE",
                        help="sizes of batches to answer; none: only training is measured (default: 1 8 64)")
    parser.add_argument("--repeats", type=whole_number(1), default=20,
                        help="turns, of which medians are taken (default: %(default)s)")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto",
                        help="auto takes a CUDA device if there is one (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="the new folder for cost.json and cost.png; default: runs/cost-PRESET")
    return parser.parse_args(argv)


def measured(options, config, device):
    """{name in TITLES: {row: {column: number}}}, {"training", "serving": seconds of every turn}"""
    random, most = torch.Generator().manual_seed(0), max([options.batch, *options.serving])
    backbone = Backbone(config, options.classes)
    sample = 4 * (math.prod(backbone.audio_shape) + math.prod(backbone.image_shape))
    if most * sample > BATCH:
        raise InputError(f"{'--batch' if most == options.batch else '--serving'} {most}: expected at most {BATCH // sample}: a "
                         f"sample has {sample / 1e6:.1f} MB, and a batch can have {BATCH / 1e9:.0f} GB")
    initialise(backbone, random)
    backbone.to(device)
    audio, image = (torch.randn(most, *shape, generator=random).to(device)
                    for shape in (backbone.audio_shape, backbone.image_shape))
    labels = torch.randint(options.classes, (options.batch,), generator=random).to(device)
    # cloned: memory is counted by storages, and a slice has that of all
    all_steps = steps.all_steps(config, backbone, audio[:options.batch].clone(), image[:options.batch].clone())
    found, times = steps.measure(all_steps, labels, options.samples, options.repeats, device)
    if not options.serving:
        return found, {"training": times}
    served, serving_times = serving.measure(serving.ways(config, backbone), audio, image, options.serving, options.repeats)
    return {**found, **served}, {"training": times, "serving": serving_times}


def picture(shares, title):
    """Time over operations of a training step, a point a row, and the line on which both are equal. returns PNG bytes"""
    rows = {row: [(own["operations"], [own["time"]])] for row, own in shares.items()}
    return charts.lines([{"": {"time = operations": [(0, [0]), (1, [1])], **rows}}], title,
                        "operations of a training step, share of full fine-tuning's", ticks=charts.round_numbers(0, 1))


def table(name, rows):
    """A table as Markdown, under its title"""
    formats = {column: "{:,.0f}" if column in WHOLE else "{:,.3f}" if name in SHARES or "share" in column else "{:,.2f}"
               for column in next(iter(rows.values()))}
    return f"{TITLES[name]}\n\n{tables.table('', [rows], formats=formats)}\n"


def main(argv=None):
    options = parse_arguments(argv)
    config, device = with_assignments(PRESETS[options.preset], options.set), pick_device(options.device)
    out = options.out or Path("runs", f"cost-{options.preset}")
    facts = {"preset": options.preset, "set": options.set, "classes": options.classes, "batch": options.batch,
             "samples": options.samples, "repeats": options.repeats, "machine": machine_of(device), "torch": torch.__version__}
    with new_folder(out) as folder:
        found, times = measured(options, config, device)
        # printed before it is written, so that a full disk costs no table
        said = {**facts, "set": " ".join(options.set)}
        print(", ".join(f"{name} {value}" for name, value in said.items() if value), end="\n\n")
        print(*(table(name, rows) for name, rows in found.items()), sep="\n")
        (folder / "cost.json").write_bytes(tables.as_json({**facts, **found, "seconds": times}))
        title = f"Time of a training step, share of full fine-tuning's, {options.preset}"
        (folder / "cost.png").write_bytes(picture(found["shares"], title))
    logger.info("wrote %s", out)
