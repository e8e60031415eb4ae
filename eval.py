"""Evaluate a run on the test split again, or ask it about files of your own.

python eval.py runs/toy-1                      the table that train.py printed
python eval.py runs/toy-1 --details            all tables: costs, prompt sets, router, ...
python eval.py runs/toy-1 --damage paper       another severity; writes results-paper.json and so on
python eval.py runs/toy-1 --draws 4            each test sample under four draws of its damage
python eval.py runs/toy-1 --audio clip.wav --image frame.jpg       the classes of your own pair
python eval.py runs/toy-1 --pairs pairs.csv --out answers.csv      and of many

Ablations, severities, attention maps, cost and more are commands of their own: ptm_mini/lab/.
"""
import argparse
import json
import logging
import sys
from pathlib import Path

from ptm_mini.config import DAMAGES
from ptm_mini.errors import InputError, new_parser, run as run_command
from ptm_mini.evaluation import STRATEGIES
from ptm_mini.files import refuse_existing, write_file
from ptm_mini.predict import Predictor, draw, explain, predict_csv
from ptm_mini.report import add_run_arguments, open_runs, report
from ptm_mini.training import METHODS


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    strategies = "\n".join(f"  {name:<16} {text}" for name, text in STRATEGIES.items())
    parser = new_parser(__doc__, f"strategies:\n{strategies}")
    add = parser.add_argument
    add_run_arguments(parser)
    add("--method", nargs="+", choices=METHODS, metavar="METHOD", help="default: all trained ones")
    add("--damage", choices=DAMAGES, help="severity; default: the run's own")
    add("--draws", type=int, default=1, metavar="N", help="draws of each damage; default: 1")
    add("--windows", type=int, default=1, metavar="N",
        help="average the answers to N parts of long sounds; default: their beginning alone")
    add("--details", action="store_true", help="print every table, not only the accuracies")
    own = parser.add_argument_group("files of your own, instead of an evaluation")
    own.add_argument("--audio", type=Path, metavar="FILE", help="a sound, with --image or alone")
    own.add_argument("--image", type=Path, metavar="FILE", help="an image, with --audio or alone")
    own.add_argument("--json", action="store_true", help="print the answer as one JSON object")
    own.add_argument("--picture", type=Path, metavar="FILE", help="draw the answer: a new PNG file")
    own.add_argument("--pairs", type=Path, metavar="FILE",
                     help="CSV with columns audio and image, whose cells may be empty")
    own.add_argument("--out", type=Path, metavar="FILE", help="new CSV file for the answers")
    args = parser.parse_args(argv)
    evaluation = args.data or args.method or args.damage or args.details or args.draws > 1
    if args.pairs or args.out:
        if not (args.pairs and args.out) or (
                args.audio or args.image or args.json or args.picture or evaluation):
            raise InputError("--pairs and --out: expected both, and no other flags than --windows "
                             "and --device")
    elif args.audio or args.image:
        if evaluation:
            raise InputError("--audio and --image: expected no flags of an evaluation")
    elif args.json or args.picture:
        raise InputError("--json and --picture: nothing to answer; expected --audio or --image")
    return args


def main(argv: list[str] | None = None) -> None:
    args = parse_arguments(argv)
    if args.json:                                # standard output is for the object alone
        logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr, force=True)
    if args.pairs:
        predict_csv(Predictor(args.run, args.device, args.windows), args.pairs, args.out)
        return
    if args.audio or args.image:
        if args.picture:
            refuse_existing(args.picture)
        model = Predictor(args.run, args.device, args.windows)
        pair = model.prepare(args.audio, args.image)
        answer = model.answer(pair)
        if args.json:
            router = {situation.label: p for situation, p in (answer.router or {}).items()}
            print(json.dumps({"answer": answer.label, "probabilities": answer.probabilities,
                              "situation": answer.situation.label, "router": router}, indent=1))
        else:
            width = max(map(len, answer.probabilities))
            for name, p in answer.probabilities.items():
                print(f"{name:<{width}}  {p:.3f}")
            print(explain(answer))
        if args.picture:
            write_file(args.picture, draw(answer, pair))
        return
    runs = open_runs(args, args.method, args.damage, args.draws, args.windows)
    report(args.run, runs, args.details)


if __name__ == "__main__":
    run_command(main)
