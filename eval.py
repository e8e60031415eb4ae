"""Repeat the evaluation of a run on the test split: print the tables, write results.json and the pictures.

python eval.py runs/toy-1                      the numbers that train.py printed
python eval.py runs/toy-1 --damage paper       another severity; its files are named results-paper.json and so on
python eval.py runs/toy-1 --draws 4            each test sample under four draws of its damage, for finer figures
python eval.py runs/toy-1 --strategy routed    what needs no situation label
python eval.py runs/toy-1 --stress             other severities, and each kind of damage alone
python eval.py runs/toy-1 --attention          where the fusion block looks, drawn, and how much at the prompts
python eval.py runs/toy-1 --curves             no evaluation: how training went, by epochs and by seconds, from the run's log
python eval.py runs/toy-1 --ablate length      train variants of the run where they are not there yet, and compare
python eval.py runs/x --export-cav-mae x.pth   no evaluation: the backbone as a checkpoint for CAV-MAE's own code
python eval.py runs/toy-1 --audio clip.wav --image frame.jpg      no evaluation: the classes of your own pair
python eval.py runs/toy-1 --pairs pairs.csv --out answers.csv     and of many
"""
if __name__ == "__main__":
    from ptm_mini.errors import run_script
    run_script(__file__)

import logging
import sys
from pathlib import Path

from ptm_mini import config
from ptm_mini.data import storage
from ptm_mini.errors import InputError, Parser, listing, whole_number
from ptm_mini.method.router import STRATEGIES
from ptm_mini.report.ablations import ablate
from ptm_mini.report.answers import ask, ask_many
from ptm_mini.report.attention import attention
from ptm_mini.report.curves import curves
from ptm_mini.report.results import Selection, evaluate_runs, runs_in
from ptm_mini.report.stress import stress
from ptm_mini.report.variants import ABLATIONS
from ptm_mini.runs.claim import how_to_go_on, is_unfinished
from ptm_mini.runs.models import export
from ptm_mini.training import methods
from ptm_mini.training.stages import pick_device


def parse_arguments(argv):
    choices = [listing("methods", methods.REMARKS),
               listing("strategies, how the model is chosen for a sample", {n: f.__doc__ for n, f in STRATEGIES.items()}),
               listing("severities", {name: config.REMARKS[name] for name in config.DAMAGES}),
               listing("ablations", {n: f.__doc__ for n, f in ABLATIONS.items()})]
    parser = Parser(__doc__, epilog="\n\n".join(choices))
    parser.add_argument("run", type=Path, help="run folder that train.py made, or a folder of several seeds' runs")
    parser.add_argument("--method", nargs="+", choices=methods.REMARKS, metavar="METHOD",
                        help="methods to evaluate; default: all that are trained")
    parser.add_argument("--strategy", nargs="+", choices=STRATEGIES, metavar="STRATEGY",
                        help="strategies to evaluate; default: all")
    parser.add_argument("--data", type=Path, help="prepared set to evaluate on; default: the run's own")
    parser.add_argument("--damage", choices=config.DAMAGES, help="severity; default: the run's own")
    parser.add_argument("--windows", type=whole_number(1, 1000), metavar="N",
                        help="answer long clips by the mean over N windows, evenly spread; default: the beginning alone")
    parser.add_argument("--draws", type=whole_number(1, 1000), metavar="N",
                        help="look at each test sample under N draws of its damage; default: one")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--stress", action="store_true", help="sweep severities, and each kind of damage alone, instead")
    other.add_argument("--attention", action="store_true",
                       help="draw where the fusion block looks, for a few samples, and print how much at the prompts, instead")
    other.add_argument("--curves", action="store_true",
                       help="draw loss and validation accuracy over the epochs of training, and each method's accuracy over "
                            "its seconds, from log.jsonl, instead")
    other.add_argument("--ablate", choices=ABLATIONS, metavar="ABLATION",
                       help="compare variants of the run instead; they are kept in its folder")
    other.add_argument("--export-cav-mae", type=Path, metavar="FILE",
                       help="write the backbone under CAV-MAE's own names instead")
    own = parser.add_argument_group("files of your own, in place of an evaluation")
    own.add_argument("--audio", type=Path, metavar="FILE", help="a sound to classify, with --image or alone")
    own.add_argument("--image", type=Path, metavar="FILE", help="a picture to classify, with --audio or alone")
    own.add_argument("--json", action="store_true", help="the answer as one JSON object on standard output")
    own.add_argument("--picture", type=Path, metavar="FILE", help="draw the pair and the answer into this new PNG file")
    own.add_argument("--pairs", type=Path, metavar="FILE",
                     help="CSV file with columns audio and image, whose cells can be empty; paths are relative to it")
    own.add_argument("--out", type=Path, metavar="FILE", help="new CSV file for the answers to --pairs")
    storage.add_arguments(parser)
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto",
                        help="auto takes a CUDA device if there is one (default: %(default)s)")
    options = parser.parse_args(argv)
    options.storage = storage.from_options(options)
    return options


# What is done in place of an evaluation, by the flag that asks for it, and the flags that go with that.
OF_SET = ("features", "clean_features")
GO_WITH = {"pairs": ("out", "windows"), "audio": ("image", "json", "picture", "windows"), "image": ("json", "picture"),
           "export_cav_mae": (), "curves": (), "ablate": ("draws", *OF_SET), "attention": ("data", "damage", *OF_SET),
           "stress": ("method", "strategy", *OF_SET),
           None: ("data", "damage", "method", "strategy", "windows", "draws", *OF_SET)}


def check_flags(options):
    """Raise InputError for the first flag that does not go with what is asked for."""
    free = ("run", "device", "workers", "storage")
    given = [flag for flag, value in vars(options).items() if flag not in free and value not in (None, False)]
    asked = next((flag for flag in GO_WITH if flag in given), None)
    for flag in given:
        if flag not in (asked, *GO_WITH[asked]):
            needed = [other for other, flags in GO_WITH.items() if other and flag in flags]
            said = (f"--{flag}: does not go with --{asked}; leave it out" if asked else
                    f"--{flag}: goes with --{' or --'.join(needed)} alone; leave it out or add that")
            raise InputError(said.replace("_", "-"))
    if options.picture and options.picture.suffix.lower() != ".png":
        raise InputError(f"--picture {options.picture}: expected a name that ends in .png, which is what is written")
    if options.pairs and not options.out:
        raise InputError(f"--pairs {options.pairs}: expected --out with it, a new CSV file for the answers")


def main(argv=None):
    options = parse_arguments(argv)
    check_flags(options)
    device, windows, draws = pick_device(options.device), options.windows or 1, options.draws or 1
    if options.json:                                     # standard output is for the object alone
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    if options.pairs:
        ask_many(options.run, device, options.pairs, options.out, windows)
        return
    if options.audio or options.image:
        ask(options.run, device, options.audio, options.image, options.json, options.picture, windows)
        return
    if is_unfinished(options.run):
        logging.warning("note: in %s something is left to do; where no process is at it, go on with  %s", options.run,
                        how_to_go_on(options.run))
    folders = runs_in(options.run)
    if options.export_cav_mae and folders != [options.run]:
        raise InputError(f"{options.run}: holds the runs of several seeds; name one of them to export")
    selection = Selection(options.data, options.damage, options.method, options.strategy, options.storage, windows, draws)
    if options.curves:
        curves(options.run, folders)
    elif options.export_cav_mae:
        export(options.run, options.export_cav_mae)
    elif options.ablate:
        ablate(options.run, folders, options.ablate, device, selection.storage, draws)
    elif options.stress:
        stress(options.run, folders, device, selection)
    elif options.attention:
        attention(folders, device, selection)
    else:
        evaluate_runs(options.run, folders, device, selection)
