"""Train a backbone on complete data, then prompts, or what they are compared with, on the frozen backbone; evaluate.

python train.py                                       the toy set, made if it is not there; minutes on two cores
python train.py --data sets/av_mnist --seed 1         another prepared set
python train.py --method all --seeds 3 --out runs/x   every method, three times
python train.py --method lora --out runs/toy-1        one more method for a run that is there
python train.py --preset base --init cav-mae.pth      from CAV-MAE's own weights, see docs/cav-mae.md; for a GPU
python train.py --settings                            every setting, its default, what it means and who reads it
"""
if __name__ == "__main__":
    from ptm_mini.errors import run_script
    run_script(__file__)

import dataclasses
import itertools
import logging
from pathlib import Path

from data_prep import toy
from ptm_mini import config as configs
from ptm_mini.config import DAMAGES, PRESETS, Situation
from ptm_mini.data import storage
from ptm_mini.data.manifest import read_classes
from ptm_mini.data.prepared import PreparedSet
from ptm_mini.data.used import warn_of_what_is_cut
from ptm_mini.errors import InputError, Parser, listing, whole_number
from ptm_mini.files import refuse_existing
from ptm_mini.report.results import Selection, evaluate_runs, open_set, runs_in
from ptm_mini.runs import cav_mae, checkpoint
from ptm_mini.runs.folder import Origin, Run, load_run, normalisation_of
from ptm_mini.runs.models import train_and_save
from ptm_mini.settings import get, keys, leaves, with_assignments, with_settings
from ptm_mini.training import methods
from ptm_mini.training.methods import BACKBONE, METHODS, reads, stages_of
from ptm_mini.training.stages import Task, pick_device

logger = logging.getLogger("train")
TOY = Path("sets/toy")


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
    options.storage = storage.from_options(options)
    options.method = [method for method in METHODS if method in options.method or "all" in options.method]
    return options


def print_settings(config):
    """Every setting: its key, its value in `config`, who reads it, and what it means."""
    every = (BACKBONE, *METHODS)
    for key, value, field in leaves(config):
        readers = [method for method in every if reads(method, key)]
        who = {every: "all", every[1:]: f"all but {BACKBONE}"}.get(tuple(readers), ", ".join(readers))
        print(f"{key:<38} {value!s:<6} {who:<18} {field.metadata['remark']}")


def settings(options, config, seed, lacking):
    """`config` with what the command line changes; --set comes last. lacking: the methods that are to be trained"""
    if options.damage:
        config = dataclasses.replace(config, damage=DAMAGES[options.damage])
    stages = {f"train.{stage}.epochs" for method in lacking for stage in stages_of(method)} & set(keys(config))
    changes = {"train.seed": seed, "train.fraction": options.fraction, **dict.fromkeys(stages, options.epochs)}
    changes = {key: value for key, value in changes.items() if value is not None}
    if options.freeze_backbone:
        changes |= cav_mae.AS_IT_IS
    return with_assignments(with_settings(config, changes), options.set)


def new_run(options, folder, seed):
    """A run that is to be trained from the start, checked before any work. returns Run, PreparedSet"""
    refuse_existing(folder)
    config = settings(options, PRESETS[options.preset or "tiny"], seed, [BACKBONE, *options.method])
    if options.freeze_backbone and not options.init:
        raise InputError("--freeze-backbone: there is nothing to freeze yet; expected --init FILE with it")
    if options.freeze_backbone and config.train.backbone.epochs:
        raise InputError(f"setting train.backbone.epochs={config.train.backbone.epochs}: does not go with --freeze-backbone; "
                         f"leave one of them out")
    found = checkpoint.read(options.init) if options.init else None
    if options.data is None and not TOY.exists():
        logger.info("making the toy set in %s", TOY)
        toy.make(TOY, toy.RECORDINGS, "grouped", seed=0)
    folder = options.data or TOY
    init = origin(found, config, folder, options.freeze_backbone) if found else None
    data = PreparedSet(folder, config, options.storage)
    warn_of_what_is_cut(data, config)
    return Run(config, data.classes, normalisation_of(data, config.train), str(data.folder), init=init), data


def origin(found, config, folder, frozen):
    """The Origin of a backbone that starts from a Checkpoint, tried on the settings and the classes of the set in `folder`.

    The run reads the file again when its time has come, rather than keep what it holds.
    """
    start = cav_mae.as_ours(found, config, len(read_classes(folder / "classes.json")))
    if frozen and start.no_head:
        raise InputError(f"--freeze-backbone: {found.path}: {start.no_head}; expected a model fine-tuned on the set's "
                         f"classes: leave out --freeze-backbone, and it will be")
    return Origin(str(found.path.resolve()), found.sha256)


def extended_run(options, folder, seed):
    """A run that is there, with the settings of the methods that it lacks. returns Run, PreparedSet"""
    run = load_run(folder)
    for flag in ("preset", "init", "freeze_backbone"):
        if getattr(options, flag):
            raise InputError(f"--{flag.replace('_', '-')}: belongs to the backbone in {folder}; leave it out")
    config = settings(options, run.config, seed, [method for method in options.method if method not in run.trained])
    for key in keys(config):
        if get(config, key) != get(run.config, key) and any(reads(method, key) for method in run.trained):
            raise InputError(f"setting {key}={get(config, key)}: {folder} was trained with {get(run.config, key)}; leave it "
                             f"out, or choose another --out for a new run")
    data = open_set(run, options.data, options.storage)
    return dataclasses.replace(run, config=config, data=str(data.folder)), data


def run_folders(options):
    """Where the runs go. returns --out or the first free runs/SET-NUMBER, and {run folder: seed, None for the run's own}"""
    numbered = (Path("runs", f"{(options.data or TOY).resolve().name}-{n}") for n in itertools.count(1))
    out = options.out or next(path for path in numbered if not path.exists())
    if options.seeds == 1:
        if runs_in(out) != [out]:
            raise InputError(f"--out {out}: holds the runs of several seeds; name one of them, or say --seeds N")
        return out, {out: options.seed}
    if (out / "config.json").exists():
        raise InputError(f"--out {out}: is one run; expected a folder for --seeds {options.seeds} runs: choose another")
    first = options.seed or 0
    return out, {out / f"seed-{seed}": seed for seed in range(first, first + options.seeds)}


def main(argv=None):
    options = parse_arguments(argv)
    if options.settings:
        print_settings(settings(options, PRESETS[options.preset or "tiny"], options.seed, [BACKBONE, *options.method]))
        return
    device = pick_device(options.device)
    if options.bf16 and device.type != "cuda":
        raise InputError(f"--bf16: needs a CUDA device, this is {device.type}; leave it out")
    out, runs = run_folders(options)
    for folder, seed in runs.items():
        run, data = (extended_run if (folder / "config.json").exists() else new_run)(options, folder, seed)
        for split in ("train", "val"):
            data.indices(split, Situation.COMPLETE)             # refuses a split without: no stage could do its work
        task = Task(run.config, data, run.normalisation, device, options.bf16)
        # The stages in order, as training/stages.py has them: the backbone, on complete data, frozen from then on; then on
        # it, for prompt, each situation's prompts, all sets together, the router; and for the others what METHODS says.
        # Each is a call of the one loop, training/fit.py.
        for method in (BACKBONE, *options.method):
            run = train_and_save(folder, run, task, method)
    evaluate_runs(out, list(runs), device, Selection(storage=options.storage))
