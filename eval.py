"""Repeat the evaluation of a run on the test split: print the tables, write results.json and the pictures.

python eval.py runs/toy-1                      the numbers that train.py printed
python eval.py runs/toy-1 --damage paper       another severity; its files are named results-paper.json and so on
python eval.py runs/toy-1 --strategy routed    what needs no situation label
python eval.py runs/toy-1 --stress             other severities, and each kind of damage alone
python eval.py runs/toy-1 --ablate length      train variants of the run where they are not there yet, and compare
"""
import argparse
import dataclasses
import logging
from pathlib import Path
from typing import NamedTuple

import torch

from ptm_mini import charts, checkpoint, report, stress
from ptm_mini.baselines import MODELS
from ptm_mini.command import run as run_command
from ptm_mini.config import DAMAGES, FUSION_KINDS, METHODS, InputError, Situation, get
from ptm_mini.model import Backbone
from ptm_mini.overrides import reads, replace
from ptm_mini.results import OpenRun, evaluate_runs, open_runs, open_set, runs_in, write
from ptm_mini.task import pick_device
from train import complete_run

logger = logging.getLogger("eval")
STRATEGIES = ("situation", "concat", "routed", "lowest_entropy")
ALONE = {"train.together.epochs": 0, "router.passes": 1}            # variants are trained case by case, as in the paper
LENGTHS, FRACTIONS, RANKS = (1, 2, 4, 8, 16, 32), (0.1, 0.3, 1.0), (1, 3, 5)
SIZE_OF = {"prompt": "prompts.length", "lora": "lora.rank", "adapter": "adapter.bottleneck"}
HEAD_OF = {"prompt": "prompts.tune_head", "lora": "lora.tune_head", "adapter": "adapter.tune_head"}


class Variant(NamedTuple):
    """A run with other settings: a row of an ablation's table."""
    label: str
    x: float                      # where it stands in the picture; None where the picture has bars
    method: str
    changes: dict                 # {dotted key: value}


def level(config):
    places = {"input": {"prompts.attention": False, "prompts.joint": False},
              "attention": {"prompts.input_depth": 0, "prompts.joint": False},
              "both": {"prompts.joint": False}, "both and joint": {"prompts.joint": True}}
    return [Variant(f"{place}{', head' * head}", None, "prompt", {**changes, "prompts.tune_head": head})
            for head in (False, True) for place, changes in places.items()]


def length(config):
    return [Variant(f"P = {n}", n, "prompt", {"prompts.length": n}) for n in LENGTHS]


def depth(config):
    depths = sorted({1, config.model.depth // 2, config.model.depth} - {0})
    return [Variant(f"input_depth = {n}", n, "prompt", {"prompts.input_depth": n}) for n in depths]


def fusion(config):
    return [Variant(kind, None, "prompt", {"model.fusion": kind}) for kind in FUSION_KINDS]


def fraction(config):
    return [Variant(f"{share:.0%}", share, "prompt", {"train.fraction": share}) for share in FRACTIONS]


def budget(config):
    """Prompts, LoRA and Adapter with as many numbers to learn as LoRA has at each rank, with and without a head."""
    found = []
    for rank in RANKS:
        numbers = count(config, "lora", rank)
        for head in (False, True):
            for method in SIZE_OF:
                at_one, at_two = count(config, method, 1), count(config, method, 2)
                size = max(1, 1 + round((numbers - at_one) / (at_two - at_one)))
                found.append(Variant(f"{method} {SIZE_OF[method].split('.')[1]} = {size}{', head' * head}", None, method,
                                     {SIZE_OF[method]: size, HEAD_OF[method]: head}))
    return found


def count(config, method, size):
    """How many numbers a method learns at a size, without a head."""
    config = replace(config, {SIZE_OF[method]: size, HEAD_OF[method]: False})
    model = MODELS[method](Backbone(config, 1), config, torch.Generator())
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


ABLATIONS = {function.__name__: function for function in (level, length, depth, fusion, fraction, budget)}


def train_variant(folder, variant, device):
    """The folder of a variant of the run in `folder`, trained as far as it is not. It uses the run's backbone, unless
    its settings make for another one."""
    run = checkpoint.load_run(folder)
    changes = {key: value for key, value in variant.changes.items() if value != get(run.config, key)}
    config = replace(run.config, {**changes, **ALONE})
    target = folder / "variants" / ",".join([variant.method, *(f"{key}={value}" for key, value in changes.items())])
    if (target / "config.json").exists():
        found = checkpoint.load_run(target)
        if found.config != config:
            raise InputError(f"{target}: was trained with other settings; expected those of {folder}: remove it")
    elif any(reads("backbone", key) for key in changes):
        found = dataclasses.replace(run, config=config, trained=())
    else:
        found = checkpoint.new_variant(folder, run, target, config)
    if variant.method not in found.trained:
        logger.info("training %s", target)
        complete_run(target, found, open_set(found), [variant.method], device)
    return target


def ablate(out, folders, kind, device):
    """Train what is missing, print the table of an ablation and draw it."""
    tables, variants = [], ABLATIONS[kind](checkpoint.load_run(folders[0]).config)
    for folder in folders:
        rows = {}
        for variant in variants:
            run = OpenRun(train_variant(folder, variant, device), device, strategies=["situation"])
            scores = run.evaluate(run.strategies)
            for row, columns in report.main_rows(scores, run.costs, run.sizes).items():
                if row != "backbone" or kind == "fusion":
                    rows[f"{variant.label}, backbone" if row == "backbone" else variant.label] = columns
        tables.append(rows)
    print(report.table(kind, tables))
    if len(tables) > 1:
        print(report.comparison(tables, report.best_row(tables)))
    write(out / f"ablate-{kind}.json", report.as_json(tables))
    write(out / f"ablate-{kind}.png", picture(kind, variants, tables, f"Test accuracy by {kind}, {out.resolve().name}"))


def picture(kind, variants, tables, title):
    """Lines over what is varied where that is a number, else bars. tables: a seed's {row: {column: number}} each"""
    columns = [*(situation.label for situation in Situation), "average"]
    if kind == "budget":
        panels = {"without head": {}, "with head": {}}
        for variant in variants:
            panel = panels["with head" if variant.changes[HEAD_OF[variant.method]] else "without head"]
            panel.setdefault(variant.method, []).append((tables[0][variant.label]["learns"],
                                                         [rows[variant.label]["average"] for rows in tables]))
        return charts.lines(panels, title, "numbers that learn for a situation", logarithmic=True)
    if variants[0].x is None:
        return charts.bars(tables, columns, title)
    series = {column: [(variant.x, [rows[variant.label][column] for rows in tables]) for variant in variants]
              for column in columns}
    return charts.lines({"": series}, title, kind, logarithmic=kind != "depth")


def stress_test(out, folders, device, methods, strategies):
    """Print and draw what every method makes of other severities and of each kind of damage alone."""
    runs = open_runs(folders, device, methods=methods, strategies=strategies)
    sweeps, kinds = [stress.severities(run) for run in runs], [stress.each_kind(run) for run in runs]
    panels = {}
    for situation in stress.NOISY:
        tables = [sweep[situation] for sweep in sweeps]
        print(report.table(f"{situation.label}, severity", tables) + "\n")
        panels[situation.label] = {row: [(float(severity), [one[row][severity] for one in tables]) for severity in columns]
                                   for row, columns in tables[0].items()}
    print(report.table("one kind alone", kinds))
    content = {"severity": [{situation.label: rows for situation, rows in sweep.items()} for sweep in sweeps], "kind": kinds}
    write(out / "stress.json", report.as_json(content))
    write(out / "stress.png", charts.lines(panels, f"Test accuracy by severity, {out.resolve().name}",
                                           "times the training strength"))


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder that train.py made, or a folder of several seeds' runs")
    parser.add_argument("--method", nargs="+", choices=METHODS, help="methods to evaluate; default: all that are trained")
    parser.add_argument("--strategy", nargs="+", choices=STRATEGIES, help="strategies to evaluate; default: all")
    parser.add_argument("--data", type=Path, help="prepared set to evaluate on; default: the run's own")
    parser.add_argument("--damage", choices=DAMAGES, help="severity; default: the run's own")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--stress", action="store_true", help="sweep severities, and each kind of damage alone, instead")
    other.add_argument("--ablate", choices=ABLATIONS, help="compare variants of the run instead; they are kept in its folder")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto",
                        help="auto takes a CUDA device if there is one (default: %(default)s)")
    options = parser.parse_args(argv)
    folders, device = runs_in(options.run), pick_device(options.device)
    if options.ablate or options.stress:
        for flag in ("data", "damage", *(("method", "strategy") if options.ablate else ())):
            if getattr(options, flag):
                raise InputError(f"--{flag}: does not go with --{'ablate' if options.ablate else 'stress'}; leave it out")
    if options.ablate:
        ablate(options.run, folders, options.ablate, device)
    elif options.stress:
        stress_test(options.run, folders, device, options.method, options.strategy)
    else:
        evaluate_runs(options.run, folders, device, options.data, options.damage, options.method, options.strategy)


if __name__ == "__main__":
    run_command(main)
