"""Ablations: variants of a run, trained where they are not there yet, their table and their picture."""
import dataclasses
import logging
from typing import NamedTuple

import torch

from ptm_mini.config import FUSION_KINDS
from ptm_mini.errors import InputError
from ptm_mini.files import locked
from ptm_mini.method.backbone import Backbone
from ptm_mini.report import charts, paired, tables
from ptm_mini.report.results import OpenRun, Selection, write
from ptm_mini.runs.folder import load_run, new_variant, open_set
from ptm_mini.runs.models import train_and_save
from ptm_mini.settings import get, keys, with_settings
from ptm_mini.training.kept import forget_kept
from ptm_mini.training.methods import BACKBONE, METHODS, reads
from ptm_mini.training.samples import Task

logger = logging.getLogger(__name__)
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
    """where prompts join: input, attention, both, joint blocks too; with and without a head"""
    places = {"input": {"prompts.attention": False, "prompts.joint": False},
              "attention": {"prompts.input_depth": 0, "prompts.joint": False},
              "both": {"prompts.joint": False}, "both and joint": {"prompts.joint": True}}
    return [Variant(f"{place}{suffix}", None, "prompt", {**changes, "prompts.tune_head": head})
            for head, suffix in ((False, ""), (True, ", head")) for place, changes in places.items()]


def length(config):
    """the number of prompt tokens, P"""
    return [Variant(f"P = {n}", n, "prompt", {"prompts.length": n}) for n in LENGTHS]


def depth(config):
    """how many encoder blocks have prompts of their own"""
    depths = sorted({1, config.model.depth // 2, config.model.depth} - {0})
    return [Variant(f"input_depth = {n}", n, "prompt", {"prompts.input_depth": n}) for n in depths]


def fusion(config):
    """who reads whom in the fusion blocks; each kind trains a backbone of its own"""
    return [Variant(kind, None, "prompt", {"model.fusion": kind}) for kind in FUSION_KINDS]


def fraction(config):
    """the share of the training data"""
    return [Variant(f"{share:.0%}", share, "prompt", {"train.fraction": share}) for share in FRACTIONS]


def budget(config):
    """prompts, LoRA and Adapter with equally many numbers to learn (LoRA's at each rank), with and without a head"""
    found = []
    for rank in RANKS:
        numbers = count(config, "lora", rank)
        for head, suffix in ((False, ""), (True, ", head")):
            for method in SIZE_OF:
                at_one, at_two = count(config, method, 1), count(config, method, 2)
                size = max(1, 1 + round((numbers - at_one) / (at_two - at_one)))
                found.append(Variant(f"{method} {SIZE_OF[method].split('.')[1]} = {size}{suffix}", None, method,
                                     {SIZE_OF[method]: size, HEAD_OF[method]: head}))
    return found


def count(config, method, size):
    """How many numbers a method learns at a size, without a head."""
    config = with_settings(config, {SIZE_OF[method]: size, HEAD_OF[method]: False})
    model = METHODS[method].build(Backbone(config, 1), config, torch.Generator())
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


ABLATIONS = {function.__name__: function for function in (level, length, depth, fusion, fraction, budget)}


def train_variant(folder, variant, device, storage):
    """The folder of a variant of the run in `folder`, trained as far as it is not. It uses the run's backbone, unless
    its settings make for another one. Another process that trains it is waited for."""
    run = load_run(folder)
    changes = {key: value for key, value in variant.changes.items() if value != get(run.config, key)}
    config = with_settings(run.config, {**changes, **ALONE})
    target = folder / "variants" / ",".join([variant.method, *(f"{key}={value}" for key, value in changes.items())])
    target.parent.mkdir(exist_ok=True)
    with locked(target.with_name(f".{target.name}.lock")):
        if (target / "config.json").exists():
            found = load_run(target)
            refuse_other_settings(target, found.config, config, (BACKBONE, variant.method))
        elif any(reads(BACKBONE, key) for key in changes):
            found = dataclasses.replace(run, config=config, costs={})
        else:
            found = new_variant(folder, run, target, config)
        lacking = [method for method in (BACKBONE, variant.method) if method not in found.trained]
        if lacking:
            logger.info("training %s", target)
            task = Task(config, open_set(found, storage=storage), found.normalisation, device, bf16=False)
            for method in lacking:
                found = train_and_save(target, found, task, method)
            forget_kept(target)
    return target


def refuse_other_settings(target, there, config, methods):
    """Raise InputError where the variant in `target` was trained with other settings than `config`, of those that its
    methods read: the run may have got more methods meanwhile, and their settings."""
    for key in keys(config):
        if get(there, key) != get(config, key) and any(reads(method, key) for method in methods):
            raise InputError(f"{target}: was trained with {key}={get(there, key)}; expected {get(config, key)}, as the run has "
                             f"it now: remove that folder")


def ablate(out, folders, kind, device, storage, draws=1):
    """Train what is missing, print the table of an ablation and draw it. draws: as Selection has them"""
    found, scores, views, variants = [], [], [], ABLATIONS[kind](load_run(folders[0]).config)
    for folder in folders:
        rows, measured = {}, {}
        for variant in variants:
            run = OpenRun(train_variant(folder, variant, device, storage), device,
                          Selection(strategies=("situation",), storage=storage, draws=draws))
            own, main = run.main_table()
            for row, columns in main.items():
                if row != BACKBONE or kind == "fusion":
                    label = f"{variant.label}, backbone" if row == BACKBONE else variant.label
                    rows[label] = columns
                    for situation in own:
                        measured.setdefault(situation, {})[label] = own[situation][row]
        found.append(rows)
        scores.append(measured)
        views.append(run.view)
    print(tables.table(kind, found, (*tables.ACCURACY, "learns")))
    best, name = tables.best_row(found), f"ablate-{kind}{run.suffix}"
    compared = paired.differences(scores, best, paired.same_samples(views))
    if len(found) > 1 and compared:
        print("\n" + paired.comparison(compared, best))
    write(out / f"{name}.json", tables.as_json(found))
    write(out / f"{name}.png", picture(kind, variants, found, f"Test accuracy by {kind}, {out.resolve().name}"))


def picture(kind, variants, found, title):
    """Lines over what is varied where that is a number, else bars. found: a seed's {row: {column: number}} each"""
    if kind == "budget":
        panels = {"without head": {}, "with head": {}}
        for variant in variants:
            panel = panels["with head" if variant.changes[HEAD_OF[variant.method]] else "without head"]
            panel.setdefault(variant.method, []).append((found[0][variant.label]["learns"],
                                                         [rows[variant.label]["average"] for rows in found]))
        return charts.lines([panels], title, "numbers that learn for a situation", logarithmic=True)
    if variants[0].x is None:
        return charts.bars(found, tables.those_there(tables.ACCURACY, found[0]), title)
    series = {column: [(variant.x, [rows[variant.label][column] for rows in found]) for variant in variants]
              for column in tables.those_there(tables.ACCURACY, found[0])}
    return charts.lines([{"": series}], title, kind, logarithmic=kind != "depth")
