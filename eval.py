"""Repeat the evaluation of a run on the test split: print the tables, write results.json and the pictures.

python eval.py runs/toy-1                      the numbers that train.py printed
python eval.py runs/toy-1 --damage paper       another severity; its files are named results-paper.json and so on
python eval.py runs/toy-1 --strategy routed    what needs no situation label
python eval.py runs/toy-1 --stress             other severities, and each kind of damage alone
python eval.py runs/toy-1 --attention          where the fusion block looks, drawn, and how much at the prompts
python eval.py runs/toy-1 --ablate length      train variants of the run where they are not there yet, and compare
"""
import argparse
from pathlib import Path

from ptm_mini import config
from ptm_mini.errors import InputError, listing
from ptm_mini.errors import run as run_command
from ptm_mini.method.router import STRATEGIES
from ptm_mini.report.ablations import ABLATIONS, ablate
from ptm_mini.report.attention import attention
from ptm_mini.report.results import Selection, evaluate_runs, runs_in
from ptm_mini.report.stress import stress
from ptm_mini.training import methods
from ptm_mini.training.stages import pick_device


def parse_arguments(argv):
    choices = [listing("methods", methods.REMARKS),
               listing("strategies, how the model is chosen for a sample", {n: f.__doc__ for n, f in STRATEGIES.items()}),
               listing("severities", {name: config.REMARKS[name] for name in config.DAMAGES}),
               listing("ablations", {n: f.__doc__ for n, f in ABLATIONS.items()})]
    parser = argparse.ArgumentParser(description=__doc__, epilog="\n\n".join(choices),
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder that train.py made, or a folder of several seeds' runs")
    parser.add_argument("--method", nargs="+", choices=methods.REMARKS, metavar="METHOD",
                        help="methods to evaluate; default: all that are trained")
    parser.add_argument("--strategy", nargs="+", choices=STRATEGIES, metavar="STRATEGY",
                        help="strategies to evaluate; default: all")
    parser.add_argument("--data", type=Path, help="prepared set to evaluate on; default: the run's own")
    parser.add_argument("--damage", choices=config.DAMAGES, help="severity; default: the run's own")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--stress", action="store_true", help="sweep severities, and each kind of damage alone, instead")
    other.add_argument("--attention", action="store_true",
                       help="draw where the fusion block looks, for a few samples, and print how much at the prompts, instead")
    other.add_argument("--ablate", choices=ABLATIONS, metavar="ABLATION",
                       help="compare variants of the run instead; they are kept in its folder")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto",
                        help="auto takes a CUDA device if there is one (default: %(default)s)")
    return parser.parse_args(argv)


def main(argv=None):
    options = parse_arguments(argv)
    folders, device = runs_in(options.run), pick_device(options.device)
    for other, flags in (("ablate", ("data", "damage", "method", "strategy")), ("stress", ("data", "damage")),
                         ("attention", ("method", "strategy"))):
        for flag in flags:
            if getattr(options, other) and getattr(options, flag):
                raise InputError(f"--{flag}: does not go with --{other}; leave it out")
    selection = Selection(options.data, options.damage, options.method, options.strategy)
    if options.ablate:
        ablate(options.run, folders, options.ablate, device)
    elif options.stress:
        stress(options.run, folders, device, selection)
    elif options.attention:
        attention(folders, device, selection)
    else:
        evaluate_runs(options.run, folders, device, selection)


if __name__ == "__main__":
    run_command(main)
