"""Train a backbone on complete data, then prompts, or what they are compared with, on the frozen backbone; evaluate.

python train.py                                       the toy set, made if it is not there; minutes on two cores
python train.py --data sets/av_mnist --seed 1         another prepared set
python train.py --method all --seeds 3 --out runs/x   every method, three times
python train.py --method lora --out runs/toy-1        one more method for a run that is there
python train.py --preset base --init cav-mae.pth      from CAV-MAE's own weights, see docs/cav-mae.md; for a GPU
python train.py --resume runs/x                       what was broken off goes on, to the same result
python train.py --settings                            every setting, its default, what it means and who reads it
"""
if __name__ == "__main__":
    from ptm_mini.errors import run_script
    run_script(__file__)

import argparse
import itertools
import logging
import os
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path

from data_prep import toy
from ptm_mini import config as configs
from ptm_mini.config import DAMAGES, PRESETS
from ptm_mini.data import storage
from ptm_mini.errors import InputError, NonFiniteLoss, Parser, listing, whole_number
from ptm_mini.files import locked
from ptm_mini.report.results import Selection, evaluate_runs, runs_in
from ptm_mini.runs.claim import claimed, forget, how_to_go_on, is_unfinished, refuse_unfinished, remember, remembered
from ptm_mini.runs.models import train_and_save
from ptm_mini.runs.planned import extended_run, new_run, settings
from ptm_mini.settings import leaves, shown
from ptm_mini.training import methods
from ptm_mini.training.kept import forget_kept
from ptm_mini.training.methods import BACKBONE, METHODS, reads
from ptm_mini.training.samples import Task
from ptm_mini.training.stages import pick_device

logger = logging.getLogger("train")
TOY = Path("sets/toy")
PATHS = "data", "init", "features"          # flags whose value is one


def parse_arguments(argv):
    choices = [listing("methods, besides all", methods.REMARKS),
               listing("presets", {name: configs.REMARKS[name] for name in PRESETS}),
               listing("severities", {name: configs.REMARKS[name] for name in DAMAGES})]
    parser = Parser(__doc__, epilog="\n\n".join(choices))
    parser.add_argument("--method", nargs="+", choices=[*methods.REMARKS, "all"], default=["prompt"], metavar="METHOD",
                        help="what to train, besides the backbone where the run has none (default: prompt)")
    parser.add_argument("--data", type=Path, help="prepared set; default: sets/toy, made if it is not there")
    parser.add_argument("--out", type=Path, help="run folder, new or one that lacks some method; default: the first free "
                                                 "runs/SET-NUMBER")
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with what was broken off in this folder, to the same "
                                                                   "result as if it had not been")
    parser.add_argument("--preset", choices=PRESETS, help="sizes of model and inputs; default: tiny")
    parser.add_argument("--init", type=Path, metavar="FILE", help="CAV-MAE checkpoint that the backbone starts from")
    parser.add_argument("--freeze-backbone", action="store_true",
                        help="take the backbone of --init as it is, with its head, and train only the methods on it")
    parser.add_argument("--damage", choices=DAMAGES, help="severity to train and evaluate with; default: strong")
    parser.add_argument("--epochs", type=whole_number(0), help="epochs of every stage that runs; default: each stage's own")
    parser.add_argument("--seed", type=whole_number(0), help="of weights, order, augmentation and damage; default: 0")
    parser.add_argument("--seeds", type=whole_number(1), default=1, metavar="N",
                        help="train N runs, with this seed and the next ones, in folders of their own in --out")
    parser.add_argument("--fraction", type=float, help="share of the training split for all but the backbone; default: 1")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="any other setting, such as prompts.length=4; can be repeated")
    parser.add_argument("--settings", action="store_true", help="print every setting and stop")
    storage.add_arguments(parser)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto",
                        help="auto takes a CUDA device if there is one (default: %(default)s)")
    parser.add_argument("--bf16", action="store_true", help="train in mixed bfloat16 precision; needs CUDA")
    options = parser.parse_args(argv)
    if options.resume:
        options = resumed(options, parser)
    options.storage = storage.from_options(options)
    options.method = [method for method in METHODS if method in options.method or "all" in options.method]
    return options


def resumed(options, parser):
    """The options of the command that was broken off, with the few that can be given anew."""
    anew = {flag: value for flag, value in vars(options).items() if value != parser.get_default(flag)}
    for flag in anew.keys() - {"resume", "features", "workers", "clean_features", "device"}:
        raise InputError(f"--{flag.replace('_', '-')}: does not go with --resume, which goes on with what was asked for; leave "
                         f"it out")
    command = remembered(options.resume)
    for method in (method for method in command["method"] if method not in (BACKBONE, *METHODS, "all")):
        raise InputError(f"--resume {options.resume}: was asked for the method {shown(method)}, of another ptm_mini; expected "
                         f"some of {', '.join(METHODS)}: use the version that began it")
    paths = {flag: command[flag] and Path(command[flag]) for flag in PATHS}
    return argparse.Namespace(**{**vars(options), **command, **paths, **anew, "out": options.resume})


def command_of(options):
    """What a resumed run has to know of the options, as JSON can hold it."""
    command = {flag: value for flag, value in vars(options).items() if flag not in ("out", "resume", "settings", "storage")}
    return {**command, **{flag: command[flag] and os.path.realpath(command[flag]) for flag in PATHS}}


def print_settings(config):
    """Every setting: its key, its value in `config`, who reads it, and what it means."""
    every = (BACKBONE, *METHODS)
    for key, value, field in leaves(config):
        readers = [method for method in every if reads(method, key)]
        who = {every: "all", every[1:]: f"all but {BACKBONE}"}.get(tuple(readers), ", ".join(readers))
        print(f"{key:<38} {value!s:<6} {who:<26} {field.metadata['remark']}")


def claim(options, stack):
    """Hold --out or the first free runs/SET-NUMBER, until `stack` ends. returns the folder"""
    if options.out:
        stack.enter_context(claimed(options.out))
        if not options.resume:
            refuse_unfinished(options.out)
        return options.out
    for number in itertools.count(1):
        out = Path("runs", f"{os.path.basename(os.path.realpath(options.data or TOY))}-{number}")
        with suppress(FileExistsError):
            stack.enter_context(claimed(out, fresh=True))
            return out


def run_folders(options, out):
    """The runs that go into `out`. returns {run folder: seed, None for the run's own}"""
    if options.seeds == 1:
        if runs_in(out) != [out]:
            raise InputError(f"--out {out}: holds the runs of several seeds; name one of them, or say --seeds N")
        return {out: options.seed}
    if (out / "config.json").exists():
        raise InputError(f"--out {out}: is one run; expected a folder for --seeds {options.seeds} runs: choose another")
    first = options.seed or 0
    return {out / f"seed-{seed}": seed for seed in range(first, first + options.seeds)}


def make_toy_set():
    """Make it where it is not there; one process does, others wait for it."""
    TOY.parent.mkdir(parents=True, exist_ok=True)
    with locked(TOY.with_suffix(".lock")):
        if not TOY.exists():
            logger.info("making the toy set in %s", TOY)
            toy.make(TOY, toy.RECORDINGS, "grouped", seed=0)


def train_all(options, out, device):
    """Train what is asked for and not there yet, evaluate everything."""
    folders = run_folders(options, out)
    if options.data is None and not all((folder / "config.json").exists() for folder in folders):
        make_toy_set()
        options.data = TOY
    runs = {folder: extended_run(options, folder, seed) if (folder / "config.json").exists() else
            new_run(options, options.data, seed) for folder, seed in folders.items()}
    remember(out, command_of(options))
    for folder, (run, data) in runs.items():
        task = Task(run.config, data, run.normalisation, device, options.bf16)
        with nullcontext() if folder == out else claimed(folder):
            # The stages in order, as training/stages.py has them: the backbone, on complete data, frozen from then on; then
            # on it, for prompt, each situation's prompts, all sets together, the router; and for the others what METHODS
            # says. Each is a call of the one loop, training/fit.py.
            for method in (BACKBONE, *options.method):
                run = train_and_save(folder, run, task, method)
            forget_kept(folder)
    evaluate_runs(out, list(folders), device, Selection(storage=options.storage))
    forget(out)


def main(argv=None):
    options = parse_arguments(argv)
    if options.settings:
        print_settings(settings(options, PRESETS[options.preset or "tiny"], options.seed, [BACKBONE, *options.method]))
        return
    device = pick_device(options.device)
    if options.bf16 and device.type != "cuda":
        raise InputError(f"--bf16: needs a CUDA device, this is {device.type}; leave it out")
    with ExitStack() as stack:
        out = claim(options, stack)
        try:
            train_all(options, out, device)
        except KeyboardInterrupt as interruption:
            if is_unfinished(out):
                interruption.args = f"{str(interruption) or 'interrupted'}; go on with  {how_to_go_on(out)}",
            raise
        except NonFiniteLoss:
            forget(out)                                  # going on would end there again
            raise
