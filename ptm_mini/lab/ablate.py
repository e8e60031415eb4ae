"""Ablations: train variants of a run, which differ in one thing, and compare them.

python -m ptm_mini.lab.ablate runs/toy-1 length           trains what is missing, then the table
python -m ptm_mini.lab.ablate runs/av level --draws 2     of all seeds in runs/av

Variants are runs of their own in RUN/variants. Each situation is trained by itself, and each test
sample answered with the prompts of its true situation.
"""
import argparse
import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from statistics import fmean
from typing import Any, NamedTuple

import torch

from ptm_mini.checkpoint import Run, read_run, trainable
from ptm_mini.config import FUSION_KINDS, Config, Situation, change, flatten
from ptm_mini.errors import InputError, run as run_command
from ptm_mini.evaluation import Difference, Score, evaluate, paired_differences
from ptm_mini.files import locked
from ptm_mini.lab.lines import lines
from ptm_mini.lab.token_cache import train_cached
from ptm_mini.method.backbone import Backbone
from ptm_mini.report import (ACCURACY, OpenRun, Table, add_run_arguments, all_tables, costs,
                             format_table, open_runs, summarise, write)
from ptm_mini.training import (METHODS, fit_router, load_models, pick_device, private_settings,
                               train_backbone, train_cases, train_together, trained_methods)

logger = logging.getLogger(__name__)
LENGTHS, RANKS, VIEWS = (1, 2, 4, 8, 16, 32), (1, 3, 5), (0, 1, 2, 4)
SHARES, FEW = (0.03, 0.1, 0.3, 1.0), 0.1               # of the training data
PAPER_SHARE, PAPER_EPOCHS = 0.3, 5
RATES_FOR_FEW = {"adapter": 3e-3, "scale_shift": 1e-2, "full_mixed": 3e-4}   # better up to FEW
LEARNERS = [method for method in METHODS if method != "full_per_situation"]
SIZES = {"prompt": "prompts.length", "lora": "lora.rank", "adapter": "adapter.bottleneck"}
HEADS = {"prompt": "prompts.tune_head", "lora": "lora.tune_head", "adapter": "adapter.tune_head"}
ALONE = {"train.together.epochs": 0, "router.passes": 1}     # case by case, as in the paper
REFERENCES = {"fraction": "prompts with as much training data", "views": "the same without a cache",
              "budget": "prompts with as many trainable parameters"}      # where there are several


class Variant(NamedTuple):
    """A run with other settings: a row of an ablation's table."""
    label: str
    method: str
    changes: dict[str, Any]           # {dotted key: value}
    reference: str = ""               # label of the row that it is compared with
    x: float | None = None            # where it stands in the picture
    panel: str = ""                   # of the picture; none: the average's, and a situation's
    views: int = 0                    # of each training sample on cached tokens; 0: no cache


def level(config: Config) -> list[Variant]:
    """where prompts join: encoders, fusion, both, joint blocks too; with and without a head"""
    deep = config.prompts.input_depth or config.model.depth
    places = {"input": (deep, False, False), "attention": (0, True, False),
              "both": (deep, True, False), "both and joint": (deep, True, True)}
    keys = "prompts.input_depth", "prompts.attention", "prompts.joint"
    return [Variant(place + suffix, "prompt",
                    {**dict(zip(keys, values)), "prompts.tune_head": tuned}, "both, head")
            for suffix, tuned in (("", False), (", head", True))
            for place, values in places.items()]


def length(config: Config) -> list[Variant]:
    """the number of prompt tokens in each place, P"""
    return vary_prompts("P", "prompts.length", LENGTHS, config)


def depth(config: Config) -> list[Variant]:
    """how many encoder blocks have fresh prompts"""
    half, whole = config.model.depth // 2, config.model.depth
    return vary_prompts("input_depth", "prompts.input_depth", (1, half, whole), config)


def vary_prompts(name: str, key: str, values: Sequence[int], config: Config) -> list[Variant]:
    """Vary a setting of prompts, around the run's value or, where that is 0, the largest."""
    current = flatten(config)[key]
    values = sorted({*values, current} - {0})
    reference = f"{name} = {current or values[-1]}"
    return [Variant(f"{name} = {n}", "prompt", {key: n}, reference, n) for n in values]


def fusion(config: Config) -> list[Variant]:
    """who reads whom in the fusion blocks; each kind trains a backbone of its own"""
    return [Variant(kind, "prompt", {"model.fusion": kind}, config.model.fusion)
            for kind in FUSION_KINDS]


def budget(config: Config) -> list[Variant]:
    """prompts, LoRA and Adapter with as many trainable parameters, with and without a head"""
    variants = []
    for rank in RANKS:
        parameters = count_parameters(config, "lora", rank)
        sizes = {method: size_for(config, method, parameters) for method in SIZES}
        for suffix, tuned in (("", False), (", head", True)):
            for method, size in sizes.items():
                variants.append(Variant(
                    f"{method}, {SIZES[method].split('.')[1]} = {size}{suffix}", method,
                    {SIZES[method]: size, HEADS[method]: tuned},
                    f"prompt, length = {sizes['prompt']}{suffix}",
                    panel="with a head" if tuned else "without a head"))
    return variants


def count_parameters(config: Config, method: str, size: int) -> int:
    """Count a method's trainable parameters at a size, without a head."""
    config = change(config, {SIZES[method]: size, HEADS[method]: False})
    with torch.device("meta"):                    # shapes without weights
        backbone = Backbone(config, 1)
    model = METHODS[method].build(backbone, config, torch.Generator())
    return sum(p.numel() for p in trainable(model).values())


def size_for(config: Config, method: str, parameters: int) -> int:
    """Find the size, 1 or more, with the nearest number of trainable parameters."""
    at_one, at_two = (count_parameters(config, method, size) for size in (1, 2))
    if at_two == at_one:
        raise InputError("setting prompts.input_depth=0: prompts have no place whose parameters "
                         "could be counted; expected 1 or more")
    return max(1, 1 + round((parameters - at_one) / (at_two - at_one)))


def fraction(config: Config) -> list[Variant]:
    """every method on less data, in as many steps as on all; and the paper's 30% for 5 epochs"""
    variants = []
    for method in LEARNERS:
        for share in SHARES:
            changes = take_share(share)
            if share <= FEW and method in RATES_FOR_FEW:
                changes[f"train.{method}.learning_rate"] = RATES_FOR_FEW[method]
            variants.append(Variant(f"{method}, {share:.0%}", method, changes,
                                    f"prompt, {share:.0%}", share))
        paper = f"{PAPER_SHARE:.0%}, {PAPER_EPOCHS} epochs"
        variants.append(Variant(f"{method}, {paper}", method, {
            "train.fraction": PAPER_SHARE, f"train.{method}.epochs": PAPER_EPOCHS},
            f"prompt, {paper}"))
    return variants


def learning_rate(config: Config) -> list[Variant]:
    """every method at three rates, on all data and a tenth: accuracy on the validation split"""
    variants = []
    for method in LEARNERS:
        key = f"train.{method}.learning_rate"
        current = flatten(config)[key]
        for share in (FEW, 1.0):
            for rate in (float(f"{current / 3:.1g}"), current, float(f"{current * 3:.1g}")):
                variants.append(Variant(
                    f"{method}, {share:.0%}, {rate:g}", method, {**take_share(share), key: rate},
                    x=rate, panel=f"{share:.0%} of the training data"))
    return variants


def take_share(share: float) -> dict[str, Any]:
    """Settings for a share of the training data, in as many steps as on all of it"""
    return {"train.fraction": share, "train.full_length": share < 1}


def views(config: Config) -> list[Variant]:
    """a head and attention-level prompts on cached tokens, with so many views of each sample"""
    attention = {"prompts.input_depth": 0, "prompts.joint": False}
    return [Variant(f"{place}, {n} views", method, changes, f"{place}, 0 views", views=n)
            for place, method, changes in (("head", "head", {}), ("attention", "prompt", attention))
            for n in VIEWS]


ABLATIONS = {function.__name__: function for function in (
    level, length, depth, fusion, budget, fraction, learning_rate, views)}


def train_variant(opened: OpenRun, variant: Variant) -> Run:
    """Train a variant of a run, as far as it is not trained yet, in RUN/variants.

    Returns its Run; the run itself, where that has trained the same.
    """
    run, method = opened.run, variant.method
    changes = {key: value for key, value in variant.changes.items()
               if value != flatten(run.config)[key]}
    config = change(run.config, {**changes, **ALONE})
    wanted = settings_of(method, config)
    if (method in trained_methods(run) and wanted == settings_of(method, run.config)
            and not variant.views):
        return run
    name = ",".join([method, *(f"{key}={value}" for key, value in changes.items()),
                     *[f"views={variant.views}"] * bool(variant.views)])
    folder, file = run.folder / "variants" / name, "backbone.pt"
    if "model.fusion" not in changes:
        file = os.path.relpath(run.path("backbone"), folder)
    variant_run = replace(run, folder=folder, config=config, data=opened.split.data.folder,
                          methods=[method], backbone=file)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if (folder / "config.json").exists():
            trained = settings_of(method, read_run(folder).config)
            for key, value in wanted.items():
                if trained[key] != value:
                    raise InputError(f"{folder}: was trained with {key}={trained[key]}; expected "
                                     f"{value}, as the run has it now: remove that folder")
        else:
            variant_run.write()
        if method not in trained_methods(variant_run):
            logger.info("training %s", folder)
        data = copy(opened.split.data)
        data.config = config              # of which a variant changes nothing that decoding reads
        backbone = opened.models.backbone
        if "model.fusion" in changes:
            backbone = train_backbone(variant_run, data)
        if variant.views:
            train_cached(variant_run, backbone, data, method, variant.views)
        else:
            models = train_cases(variant_run, method, backbone, data)
            if method == "prompt":
                train_together(variant_run, models, data)
                fit_router(variant_run, backbone, data)
    return variant_run


def settings_of(method: str, config: Config) -> dict[str, Any]:
    """List the settings that a method's training reads: all except those of other methods."""
    others = private_settings(*(name for name in METHODS if name != method))
    return {key: value for key, value in flatten(config).items() if not key.startswith(others)}


def evaluate_variants(opened: OpenRun, variants: Sequence[Variant], runs: Sequence[Run]
                      ) -> tuple[Table, dict[Situation, dict[str, Score]]]:
    """Score one seed's variants on the test split; a backbone of their own has a row of its own.

    runs  of the variants, as train_variant returns them
    """
    table: Table = {}
    scores: dict[Situation, dict[str, Score]] = defaultdict(dict)
    for variant, run in zip(variants, runs):
        models = load_models(run, opened.split.data.device, [variant.method])
        variant_opened = opened._replace(run=run, models=models)
        results = evaluate(models, opened.split, ["oracle"])
        for row, accuracies in all_tables(variant_opened, results)["accuracy"].items():
            label, source = variant.label, variant_opened
            if row == "backbone" and run.path(row).samefile(opened.run.path(row)):
                label, source = row, opened
            elif row == "backbone":
                label = f"{variant.label}, backbone"
            cost = costs(source, row.split()[0])
            table[label] = {**accuracies, "parameters": cost["parameters"],
                            "s/epoch": cost["s/epoch"]}
            for situation, rows in results.scores.items():
                scores[situation][label] = rows[row]
    return table, scores


def compare(variants: Sequence[Variant], scores: Sequence[dict[Situation, dict[str, Score]]],
            same_samples: bool) -> dict[str, Difference]:
    """Compare each variant with its reference row. Arguments as of paired_differences."""
    differences = {}
    for reference in dict.fromkeys(variant.reference for variant in variants):
        labels = [variant.label for variant in variants if variant.reference == reference]
        differences |= paired_differences([
            {situation: {label: rows[label] for label in labels}
             for situation, rows in seed.items()} for seed in scores], reference, same_samples)
    return differences


def validate(variants: Sequence[Variant], runs: Sequence[Run]) -> Table:
    """Average the validation accuracy of each variant's best epochs over its cases."""
    table = {}
    for variant, run in zip(variants, runs):
        best: dict[str, float] = defaultdict(float)
        for line in run.read_log():
            best[line["stage"]] = max(best[line["stage"]], line["accuracy"])
        stages = METHODS[variant.method].stages(variant.method)
        table[variant.label] = {"validation": fmean(best[stage] for stage in stages)}
    return table


def average_by_share(variants: Sequence[Variant], rows: Table) -> Table:
    """Shorten the table of `fraction` to averages: {method: {share of the data: average}}."""
    table: Table = {"backbone": {}}
    for variant in variants:
        share = variant.label.removeprefix(f"{variant.method}, ")
        table["backbone"][share] = rows["backbone"]["average"]         # trained on all data
        table.setdefault(variant.method, {})[share] = rows[variant.label]["average"]
    return table


def draw(kind: str, variants: Sequence[Variant], tables: Sequence[Table], title: str) -> bytes:
    """Draw a line for each method over what is varied, or a point for each row. Returns a PNG."""
    columns = [column for column in ("validation", *ACCURACY)
               if column in tables[0][variants[0].label]]
    columns = columns[-1:] + columns[-2:-1]       # the average, and the hardest situation
    labels = {"fraction": "share of the training data, in as many steps",
              "budget": "trainable parameters for a situation"}
    panels: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    if not any(variant.x or variant.panel for variant in variants):
        for column in columns:
            for number, row in enumerate(tables[0], start=1):
                panels[column][row].append((number, [table[row][column] for table in tables]))
        return lines([panels], title, "row of the table", fitted=panels)
    for variant in variants:
        rows = [table[variant.label] for table in tables]
        x = rows[0]["parameters"] if kind == "budget" else variant.x
        for column in columns[:1] if variant.panel else columns:
            if x is not None:                     # the paper's protocol is no point of the curve
                point = x, [row[column] for row in rows]
                panels[variant.panel or column][variant.method].append(point)
    return lines([panels], title, labels.get(kind, kind), kind != "depth", fitted=panels)


def main(argv: list[str] | None = None) -> None:
    kinds = "\n".join(f"  {kind:<14} {function.__doc__}" for kind, function in ABLATIONS.items())
    parser = argparse.ArgumentParser(description=__doc__, epilog=f"kinds:\n{kinds}",
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add_run_arguments(parser)
    add("kind", choices=ABLATIONS, metavar="KIND", help="what is varied, see below")
    add("--draws", type=int, default=1, metavar="N", help="draws of each damage; default: 1")
    args = parser.parse_args(argv)
    opened = open_runs(args.run, args.data, draws=args.draws, methods=[], features=args.features,
                       workers=args.workers, device=pick_device(args.device))
    for run, _, split, _ in opened:
        if split.data.fingerprint() != run.fingerprint:
            raise InputError(f"--data {args.data}: is not the set that {run.folder} was trained "
                             f"on, or has changed since; expected the same rows and files")
    kind, variants = args.kind, ABLATIONS[args.kind](opened[0].run.config)
    runs = [[train_variant(seed, variant) for variant in variants] for seed in opened]
    if kind == "learning_rate":                   # a choice, which must not see the test split
        tables = [validate(variants, seed_runs) for seed_runs in runs]
        differences, split = {}, "Validation"
    else:
        tables, scores = zip(*(evaluate_variants(seed, variants, seed_runs)
                               for seed, seed_runs in zip(opened, runs)))
        same_samples = len({seed.run.fingerprint for seed in opened}) == 1
        differences, split = compare(variants, scores, same_samples), "Test"
    print(format_table(tables, kind))
    if kind == "fraction":
        averages = [average_by_share(variants, table) for table in tables]
        print(f"\n{format_table(averages, 'average')}")
    if differences:
        reference = REFERENCES.get(kind, f"'{variants[0].reference}'")
        print(f"\nAverage minus that of {reference}; the standard error is over the test samples, "
              f"each compared with itself:\n\n{format_table([summarise(differences)])}")
    path = args.run / f"ablate-{kind}{opened[0].suffix}"
    write(path.with_suffix(".json"), {"rows": tables, "differences": {
        row: difference._asdict() for row, difference in differences.items()}})
    title = f"{split} accuracy by {kind}, {args.run.resolve().name}"
    write(path.with_suffix(".png"), draw(kind, variants, tables, title))


if __name__ == "__main__":
    run_command(main)
