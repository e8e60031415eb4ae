"""Train a backbone on complete data, then methods on the frozen backbone, and evaluate.

python train.py                                       the toy set, made if it is missing
python train.py --data sets/av_mnist --seed 1         another prepared set
python train.py --method all --seeds 3 --out runs/x   every method, three times
python train.py --method lora --out runs/toy-1        one more method for an existing run
python train.py --preset base --init cav-mae.pth      from CAV-MAE's weights (docs/cav-mae.md)
python train.py --resume runs/x                       what was interrupted, to the same result
python train.py --settings                            every setting, its default, its meaning
"""
import argparse
import itertools
import logging
import shlex
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from data_prep import toy
from ptm_mini import cav_mae
from ptm_mini.checkpoint import Run, read_run, run_folders
from ptm_mini.config import DAMAGES, PRESETS, Config, Situation, change, flatten, leaves, override
from ptm_mini.data.dataset import PreparedSet, log_notes
from ptm_mini.data.manifest import read_classes
from ptm_mini.errors import InputError, new_parser, run as run_command
from ptm_mini.evaluation import EvalSplit
from ptm_mini.files import locked
from ptm_mini.report import OpenRun, report
from ptm_mini.training import (METHODS, fit_router, load_models, pick_device, private_settings,
                               stages_of, train_backbone, train_cases, train_together)

logger = logging.getLogger("train")
TOY = Path("sets/toy")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    methods = "\n".join(f"  {name:<20} {build.__doc__}" for name, build in METHODS.items())
    parser = new_parser(__doc__, f"methods:\n{methods}")
    add = parser.add_argument
    add("--method", nargs="+", choices=[*METHODS, "all"], metavar="METHOD",
        help="what to train on the backbone, see below; default: prompt")
    add("--data", type=Path, help="prepared set; default: sets/toy, or the run's own")
    folder = parser.add_mutually_exclusive_group()
    folder.add_argument("--out", type=Path, help="run folder, new or to get more methods; default: "
                                                 "the first free runs/SET-NUMBER")
    folder.add_argument("--resume", type=Path, metavar="RUN",
                        help="finish what was interrupted in this folder")
    add("--preset", choices=PRESETS, help="sizes of model and inputs; default: tiny")
    add("--init", type=Path, metavar="FILE", help="CAV-MAE checkpoint to start the backbone from")
    add("--freeze-backbone", action="store_true",
        help="take the backbone of --init as it is, with its head, and train only the methods")
    add("--damage", choices=DAMAGES, help="severity; default: strong, the same in all situations")
    add("--epochs", type=int, help="of every stage that runs; default: each stage's own")
    add("--seed", type=int, help="of weights, order, augmentation and damage; default: 0")
    add("--seeds", type=int, default=1, metavar="N",
        help="train N runs, with this seed and the next ones, in folders seed-* of --out")
    add("--fraction", type=float, help="of the training data, for all but the backbone; default: 1")
    add("--bf16", action="store_true", help="train in mixed bfloat16 precision: for a GPU or a CPU "
                        "with AVX512-BF16; others take many times longer")
    add("--deterministic", action="store_true", help="train to the same bytes on a GPU too")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="any other setting")
    add("--settings", action="store_true", help="print every setting and stop")
    add("--features", type=Path, metavar="DIR", help="cache for decoded files; default: in the set")
    add("--workers", type=int, default=2, help="processes that decode a large set; default: 2")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto",
        help="default: a CUDA device if there is one")
    args = parser.parse_args(argv)
    chosen = args.method or []
    args.method = [name for name in METHODS if name in chosen or "all" in chosen]
    return args


def make_config(args: argparse.Namespace, config: Config, stages: list[str],
                seed: int | None) -> Config:
    """Change settings as the flags say, epochs for "backbone" or methods; --set comes last."""
    stages = [*stages, "together"] if "prompt" in stages else stages
    changes = {f"train.{stage}.epochs": args.epochs for stage in stages}
    changes |= {"train.seed": seed, "train.fraction": args.fraction,
                "train.bf16": args.bf16 or None, "train.deterministic": args.deterministic or None}
    changes = {key: value for key, value in changes.items() if value is not None}
    if args.freeze_backbone:
        changes |= cav_mae.AS_IT_IS
    if args.damage:
        config = replace(config, damage=DAMAGES[args.damage])
    return override(change(config, changes), *args.set)


def new_run(args: argparse.Namespace, folder: Path, seed: int | None) -> tuple[Run, PreparedSet]:
    """Open the set: what can be wrong is known before training."""
    if args.freeze_backbone and not args.init:
        raise InputError("--freeze-backbone: there is no backbone yet; expected --init too")
    methods = args.method or ["prompt"]
    config = make_config(args, PRESETS[args.preset or "tiny"], ["backbone", *methods], seed)
    if args.data is None and not TOY.exists():
        logger.info("making the toy set in %s", TOY)
        toy.make(TOY)
    path = args.data or TOY
    if args.init:
        classes = len(read_classes(path / "classes.json"))
        cav_mae.read_start(args.init, config, classes, args.freeze_backbone)
    data = PreparedSet(path, config, features=args.features, workers=args.workers,
                       device=pick_device(args.device))
    for split in ("train", "val"):
        data.indices(split, Situation.COMPLETE)         # without complete pairs no stage can train
    log_notes(data)
    return Run(folder, config, data.classes, data.normalisation, data.folder, data.fingerprint(),
               methods, args.init and str(args.init.resolve())), data


def extend_run(args: argparse.Namespace, folder: Path,
               seed: int | None) -> tuple[Run, PreparedSet]:
    """Open a run to finish it and to add methods, on the set and the settings it was trained on."""
    run = read_run(folder)
    for flag in ("preset", "init", "freeze_backbone"):
        if getattr(args, flag):
            raise InputError(f"--{flag.replace('_', '-')}: belongs to the backbone, which {folder} "
                             f"has; leave it out, or choose another --out")
    added = [method for method in args.method     # without a file: new, or its loss diverged
             if not any(run.path(stage, suffix).exists()
                        for stage in stages_of(method) for suffix in (".pt", ".state"))]
    config = make_config(args, run.config, args.method or run.methods, seed)
    old = flatten(run.config)
    for key, value in flatten(config).items():
        if value != old[key] and not key.startswith(private_settings(*added)):
            raise InputError(f"setting {key}={value}: {folder} was trained with {old[key]}; leave "
                             f"it out, or choose another --out")
    path = args.data or run.data
    data = PreparedSet(path, config, run.normalisation, features=args.features,
                       workers=args.workers, device=pick_device(args.device))
    if data.fingerprint() != run.fingerprint:
        raise InputError(f"--data {path}: is not the set that {folder} was trained on, or has "
                         f"changed since; expected the same rows and files: restore them, or "
                         f"choose another --out")
    run.config, run.data = config, data.folder
    run.methods = list(dict.fromkeys([*run.methods, *args.method]))
    return run, data


def train_run(run: Run, data: PreparedSet) -> None:
    """Train what the run lacks. Every stage is a call of the one loop, training.fit."""
    backbone = train_backbone(run, data)                    # 1. on complete data, then frozen
    for method in run.methods:
        models = train_cases(run, method, backbone, data)   # 2. for each situation, on its own
        if method == "prompt":
            train_together(run, models, data)               # 3. the prompt sets meet each other
            fit_router(run, backbone, data)                 # 4. which situation is a sample in?


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    if args.settings:
        stages = ["backbone", *METHODS]
        config = make_config(args, PRESETS[args.preset or "tiny"], stages, args.seed)
        for key, value, item in leaves(config):
            print(f"{key:<38} {value!s:<6} {item.metadata['help']}")
        return
    name = (args.data or TOY).resolve().name
    numbered = (Path("runs", f"{name}-{number}") for number in itertools.count(1))
    out = args.resume or args.out or next(path for path in numbered if not path.exists())
    folders = plan_folders(args, out)
    with ExitStack() as stack:
        for folder in folders:
            stack.enter_context(locked(folder))
        try:
            opened = [extend_run(args, folder, seed) if run_folders(folder)
                      else new_run(args, folder, seed) for folder, seed in folders.items()]
            compare_runs([run for run, _ in opened])
            for run, _ in opened:                   # all are written before the first is trained
                run.write()
            for run, data in opened:
                train_run(run, data)
            report(out, [OpenRun(run, load_models(run, data.device), EvalSplit((data,), "test"))
                         for run, data in opened])
        except KeyboardInterrupt as error:
            if not run_folders(out):
                raise
            raise KeyboardInterrupt(f"interrupted; resume with  python train.py --resume "
                                    f"{shlex.quote(str(out))}") from error


def compare_runs(runs: list[Run]) -> None:
    """Raise InputError where runs, one a seed, differ in more than that."""
    def describe(run: Run) -> tuple:
        return change(run.config, {"train.seed": 0}), set(run.methods), run.fingerprint, run.init

    for run in runs[1:]:
        if describe(run) != describe(runs[0]):
            raise InputError(f"{run.folder}: has other settings, methods or another set than "
                             f"{runs[0].folder}; expected the same: give the flags of the first "
                             f"seeds again")


def plan_folders(args: argparse.Namespace, out: Path) -> dict[Path, int | None]:
    """{run folder: its seed}: `out` itself, or with --seeds a folder in it for each seed."""
    existing = run_folders(out)
    if args.seeds < 1:
        raise InputError(f"--seeds {args.seeds}: expected 1 or more")
    if args.resume and not existing:
        raise InputError(f"--resume {out}: holds no run; expected a folder that train.py made")
    if existing == [out] and args.seeds > 1:
        raise InputError(f"--seeds {args.seeds}: {out} is one run; expected another folder")
    if args.seeds > 1 and any(text.startswith("train.seed=") for text in args.set):
        raise InputError("--set train.seed: would be every run's; expected --seed with --seeds")
    if not existing and any(path.is_file() and path.name != "lock" for path in out.rglob("*")):
        raise InputError(f"--out {out}: exists already and holds no run; expected a new name")
    if args.seeds > 1:
        first = args.seed or 0
        return {out / f"seed-{seed}": seed for seed in range(first, first + args.seeds)}
    return dict.fromkeys(existing or [out], args.seed)


if __name__ == "__main__":
    run_command(main)
