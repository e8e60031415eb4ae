"""Ablations: train variants of a run, which differ in one thing, and compare them.

python -m ptm_mini.lab.ablate runs/toy-1 length           trains what is missing, then the table
python -m ptm_mini.lab.ablate runs/av level --draws 2     of all seeds in runs/av

Variants are runs of their own in RUN/variants. Each situation is trained by itself, and each sample
answered with the prompts of its true situation: on the validation split for learning_rate, else on
the test split.
"""
import argparse
import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from typing import Any, NamedTuple

import torch

from ptm_mini import plots
from ptm_mini.checkpoint import Run, read_run, trainable
from ptm_mini.config import FUSION_KINDS, Config, Situation, change, flatten
from ptm_mini.errors import InputError, run as run_command
from ptm_mini.evaluation import Difference, Score, evaluate, paired_differences
from ptm_mini.files import locked
from ptm_mini.lab.lines import lines
from ptm_mini.lab.token_cache import train_cached
from ptm_mini.method.backbone import Backbone
from ptm_mini.report import (ACCURACY, OpenRun, Table, add_run_arguments, all_tables, format_table,
                             open_runs, summarise, write)
from ptm_mini.training import (METHODS, fit_router, load_models, pick_device, private_settings,
                               train_backbone, train_cases, train_together, trained_methods)

logger = logging.getLogger(__name__)
LENGTHS, RANKS, VIEWS = (1, 2, 4, 8, 16, 32), (1, 3, 5), (0, 1, 2, 4)
SHARES, FEW = (0.03, 0.1, 0.3, 1.0), 0.1               # of the training data
RATES_FOR_FEW = {"adapter": 3e-3, "scale_shift": 1e-2, "full_mixed": 3e-4}   # better up to FEW
LEARNERS = [method for method in METHODS if method != "full_per_situation"]
SIZES = {"prompt": ("prompts", "length"), "lora": ("lora", "rank"),
         "adapter": ("adapter", "bottleneck")}               # method: group and name of its size
ALONE = {"train.together.epochs": 0, "router.passes": 1}     # case by case, as in the paper


class Variant(NamedTuple):
    """A run with other settings: a row of an ablation's table."""
    label: str
    method: str
    changes: dict[str, Any]           # {dotted key: value}
    reference: str                    # label of the row that it is compared with
    x: float | None = None            # where it stands in the picture
    panel: str = "average"            # of the picture
    views: int = 0                    # of each training sample on cached tokens; 0: no cache


def level(config: Config) -> list[Variant]:
    """where prompts join: encoders, fusion, both, joint blocks too; with and without a head"""
    deep = config.prompts.input_depth or config.model.depth
    places = {"input": (deep, False, False), "attention": (0, True, False),
              "both": (deep, True, False), "both and joint": (deep, True, True)}
    keys = "prompts.input_depth", "prompts.attention", "prompts.joint", "prompts.tune_head"
    return [Variant(place + suffix, "prompt", dict(zip(keys, (*values, tuned))), "both, head")
            for suffix, tuned in (("", False), (", head", True))
            for place, values in places.items()]


def length(config: Config) -> list[Variant]:
    """the number of prompt tokens in each place, P"""
    current = config.prompts.length
    return [Variant(f"P = {n}", "prompt", {"prompts.length": n}, f"P = {current}", n)
            for n in sorted({*LENGTHS, current})]


def depth(config: Config) -> list[Variant]:
    """how many encoder blocks have fresh prompts"""
    current, blocks = config.prompts.input_depth, config.model.depth
    return [Variant(f"input_depth = {n}", "prompt", {"prompts.input_depth": n},
                    f"input_depth = {current}", n)
            for n in sorted({1, blocks // 2, blocks, current})]


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
                group, name = SIZES[method]
                variants.append(Variant(
                    f"{method}, {name} = {size}{suffix}", method,
                    {f"{group}.{name}": size, f"{group}.tune_head": tuned},
                    f"prompt, length = {sizes['prompt']}{suffix}", parameters,
                    "with a head" if tuned else "without a head"))
    return variants


def count_parameters(config: Config, method: str, size: int) -> int:
    """Count a method's trainable parameters at a size, without a head."""
    group, name = SIZES[method]
    config = change(config, {f"{group}.{name}": size, f"{group}.tune_head": False})
    with torch.device("meta"):                    # shapes without weights
        backbone = Backbone(config, 1)
    model = METHODS[method].build(backbone, config, torch.Generator())
    return sum(p.numel() for p in trainable(model).values())


def size_for(config: Config, method: str, parameters: int) -> int:
    """Find the size, 1 or more, with the nearest number of trainable parameters."""
    at_one, at_two = (count_parameters(config, method, size) for size in (1, 2))
    return max(1, 1 + round((parameters - at_one) / (at_two - at_one)))


def fraction(config: Config) -> list[Variant]:
    """every method on less data, in as many steps as on all; and the paper's 30% for 5 epochs"""
    variants = []
    for method in LEARNERS:
        for share in SHARES:
            changes = {"train.fraction": share, "train.full_length": share < 1}
            if share <= FEW and method in RATES_FOR_FEW:
                changes[f"train.{method}.learning_rate"] = RATES_FOR_FEW[method]
            variants.append(Variant(f"{method}, {share:.0%}", method, changes,
                                    f"prompt, {share:.0%}", share))
        changes = {"train.fraction": 0.3, f"train.{method}.epochs": 5}
        variants.append(Variant(f"{method}, 30%, 5 epochs", method, changes,
                                "prompt, 30%, 5 epochs"))
    return variants


def learning_rate(config: Config) -> list[Variant]:
    """every method at three rates, on all data and a tenth of it"""
    variants = []
    for method in LEARNERS:
        key = f"train.{method}.learning_rate"
        current = flatten(config)[key]
        for share in (FEW, 1.0):
            for rate in (float(f"{current / 3:.1g}"), current, float(f"{current * 3:.1g}")):
                changes = {"train.fraction": share, "train.full_length": share < 1, key: rate}
                variants.append(Variant(f"{method}, {share:.0%}, {rate:g}", method, changes,
                                        f"{method}, {share:.0%}, {current:g}", rate,
                                        f"{share:.0%} of the training data"))
    return variants


def views(config: Config) -> list[Variant]:
    """a head and attention-level prompts on cached tokens, with so many views of each sample"""
    attention = {"prompts.input_depth": 0, "prompts.joint": False}
    return [Variant(f"{place}, {n} views", method, changes, f"{place}, 0 views", n, views=n)
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
    same = settings_of(method, config) == settings_of(method, run.config)
    if same and method in trained_methods(run) and not variant.views:
        return run
    parts = [method, *(f"{key}={value}" for key, value in changes.items())]
    if variant.views:
        parts.append(f"views={variant.views}")
    folder = run.folder / "variants" / ",".join(parts)
    file = os.path.relpath(run.path("backbone"), folder)
    if "model.fusion" in changes:
        file = "backbone.pt"                            # trained anew
    variant_run = replace(run, folder=folder, config=config, data=opened.split.data.folder,
                          methods=[method], backbone=file)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder):
        if not (folder / "config.json").exists():
            variant_run.write()
        elif settings_of(method, read_run(folder).config) != settings_of(method, config):
            raise InputError(f"{folder}: was trained with other settings than {run.folder} has "
                             f"now; expected the same: remove it")
        if method in trained_methods(variant_run):
            return variant_run
        logger.info("training %s", folder)
        data = copy(opened.split.data)
        data.config = config              # of which a variant changes nothing that decoding reads
        backbone = train_backbone(variant_run, data)
        if variant.views:
            train_cached(variant_run, backbone, data, method, variant.views)
            return variant_run
        models = train_cases(variant_run, method, backbone, data)
        if method == "prompt":
            train_together(variant_run, models, data)
            fit_router(variant_run, backbone, data)
    return variant_run


def settings_of(method: str, config: Config) -> dict[str, Any]:
    """List the settings that a method's training reads: all except those of other methods."""
    others = private_settings(*(name for name in METHODS if name != method))
    return {key: value for key, value in flatten(config).items() if not key.startswith(others)}


def score_variants(opened: OpenRun, variants: Sequence[Variant]
                   ) -> tuple[Table, dict[Situation, dict[str, Score]]]:
    """Train and score one seed's variants; a backbone of their own has a row of its own."""
    table: Table = {}
    scores: dict[Situation, dict[str, Score]] = defaultdict(dict)
    for variant in variants:
        run = train_variant(opened, variant)
        models = load_models(run, opened.split.data.device, [variant.method])
        results = evaluate(models, opened.split, ["oracle"])
        tables = all_tables(opened._replace(run=run, models=models), results)
        for row, accuracies in tables["accuracy"].items():
            label = variant.label
            if row == "backbone":
                shared = run.path(row).samefile(opened.run.path(row))
                label = row if shared else f"{label}, backbone"
            table[label] = {**accuracies, "parameters": tables["detail"][row]["parameters"]}
            for situation, rows in results.scores.items():
                scores[situation][label] = rows[row]
    return table, scores


def compare(variants: Sequence[Variant], scores: Sequence[dict[Situation, dict[str, Score]]],
            same_samples: bool) -> dict[str, Difference]:
    """Compare each variant with its reference row. Arguments as of paired_differences."""
    references = {variant.reference for variant in variants}
    differences = {reference: paired_differences(scores, reference, same_samples)
                   for reference in references}
    return {f"{row.label} minus {row.reference}": differences[row.reference][row.label]
            for row in variants if row.label != row.reference}


def draw(kind: str, variants: Sequence[Variant], tables: Sequence[Table], title: str) -> bytes:
    """Draw each method's line over what is varied, or bars where that is no number. PNG"""
    if all(variant.x is None for variant in variants):
        return plots.bars([{label: {column: row[column] for column in ACCURACY if column in row}
                            for label, row in table.items()} for table in tables], title)
    panels: dict[str, dict[str, list]] = defaultdict(lambda: defaultdict(list))
    for variant in variants:
        if variant.x is not None:                 # the paper's protocol is no point of the curve
            point = variant.x, [table[variant.label]["average"] for table in tables]
            panels[variant.panel][variant.method].append(point)
    logarithmic = all(variant.x != 0 for variant in variants)
    return lines([panels], title, kind, logarithmic, fitted=panels)


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
    for seed in opened:
        if seed.split.data.fingerprint() != seed.run.fingerprint:
            raise InputError(f"--data {args.data}: differs from the set that {seed.run.folder} was "
                             f"trained on; expected the same rows and files")
    kind, variants = args.kind, ABLATIONS[args.kind](opened[0].run.config)
    split = "val" if kind == "learning_rate" else "test"     # a choice must not see the test split
    opened = [seed._replace(split=seed.split._replace(split=split)) for seed in opened]
    tables, scores = zip(*(score_variants(seed, variants) for seed in opened))
    same_samples = len({seed.run.fingerprint for seed in opened}) == 1
    differences = compare(variants, scores, same_samples)
    print(format_table(tables, kind))
    print(f"\nDifferences of averages; the standard error is over the samples, each compared with "
          f"itself:\n\n{format_table([summarise(differences)])}")
    path = args.run / f"ablate-{kind}{opened[0].suffix}"
    write(path.with_suffix(".json"), {"rows": tables, "differences": {
        row: difference._asdict() for row, difference in differences.items()}})
    title = f"{split} accuracy by {kind}, {args.run.resolve().name}"
    write(path.with_suffix(".png"), draw(kind, variants, tables, title))


if __name__ == "__main__":
    run_command(main)
