"""Ablations: train variants of a run, which differ in one thing, and compare them.

python -m ptm_mini.lab.ablate runs/toy-1 length           trains what is missing, then the table
python -m ptm_mini.lab.ablate runs/av level --draws 2     of all seeds in runs/av

Variants are runs of their own in RUN/variants. Each situation is trained by itself, and each sample
answered with the prompts of its true situation: on the validation split for learning_rate, else on
the test split.
"""
import logging
import os
from collections import defaultdict
from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch

from ptm_mini import plots
from ptm_mini.checkpoint import Run, load_tensors, read_run, trainable
from ptm_mini.config import FUSION_KINDS, Config, Situation, change, flatten
from ptm_mini.errors import InputError, new_parser, run as run_command
from ptm_mini.evaluation import (EvalSplit, Score, Table, average, paired_differences,
                                 score_split)
from ptm_mini.files import locked
from ptm_mini.lab.lines import Panel, lines
from ptm_mini.lab.token_cache import BackboneTail, CachedSet
from ptm_mini.method.backbone import Backbone
from ptm_mini.report import OpenRun, add_run_arguments, format_table, open_runs, write
from ptm_mini.training import (METHODS, cases_of, fit_router, load_models, private_settings,
                               train_backbone, train_cases, train_together)

logger = logging.getLogger(__name__)
LENGTHS, VIEWS = (1, 8, 32), (0, 1, 2, 4)
SHARES, FEW = (0.03, 0.1, 0.3, 1.0), 0.1               # of the training data
LEARNERS = [method for method in METHODS if method != "full_per_situation"]    # takes the longest
CURVE = "prompt", "head", "lora", "full_mixed"         # one of each kind has all shares
SIZES = {"prompt": "prompts.length", "lora": "lora.rank", "adapter": "adapter.bottleneck"}
HEADS = {"": False, ", head": True}                          # part of a label: tune_head
ALONE = {"train.together.epochs": 0, "router.passes": 1}     # case by case, as in the paper


class Variant(NamedTuple):
    """A run with other settings: a row of an ablation's table."""
    label: str
    method: str
    changes: dict[str, Any]           # {dotted key: value}
    reference: str                    # label of the row that it is compared with
    line: str = ""                    # of the picture, and where on it; none: not on a line
    x: float = 0
    views: int = 0                    # of each training sample on cached tokens; 0: no cache


def level(config: Config) -> list[Variant]:
    """where prompts join: encoders, fusion, both; with and without a head"""
    deep = config.prompts.input_depth or config.model.depth
    places = {"input": (deep, False), "attention": (0, True), "both": (deep, True)}
    if not config.model.fusion_blocks:
        del places["attention"]                  # without them it would train the head or nothing
    keys = "prompts.input_depth", "prompts.attention", "prompts.tune_head"
    return [Variant(place + suffix, "prompt", dict(zip(keys, (*values, tuned))), "both, head")
            for suffix, tuned in HEADS.items() for place, values in places.items()]


def length(config: Config) -> list[Variant]:
    """the number of prompt tokens in each place, P"""
    current = config.prompts.length
    return [Variant(f"P = {n}", "prompt", {"prompts.length": n}, f"P = {current}", "prompt", n)
            for n in sorted({*LENGTHS, current})]


def depth(config: Config) -> list[Variant]:
    """how many encoder blocks have fresh prompts"""
    current, blocks = config.prompts.input_depth, config.model.depth
    return [Variant(f"input_depth = {n}", "prompt", {"prompts.input_depth": n},
                    f"input_depth = {current}", "prompt", n)
            for n in sorted({1, blocks // 2, blocks, current})]


def fusion(config: Config) -> list[Variant]:
    """who reads whom in the fusion blocks; each kind trains a backbone of its own"""
    return [Variant(kind, "prompt", {"model.fusion": kind}, config.model.fusion)
            for kind in FUSION_KINDS]


def budget(config: Config) -> list[Variant]:
    """prompts, LoRA and Adapter with as many parameters as the run's prompts, and as its LoRA"""
    variants = []
    for owner in "prompt", "lora":
        parameters = count_parameters(config, owner, flatten(config)[SIZES[owner]])
        sizes = {}
        for method in SIZES:
            one, two = (count_parameters(config, method, size) for size in (1, 2))
            sizes[method] = max(1, round(1 + (parameters - one) / (two - one)))
        labels = {method: f"{SIZES[method]} = {size}" for method, size in sizes.items()}
        variants += [Variant(labels[method], method, {SIZES[method]: size}, labels["prompt"])
                     for method, size in sizes.items()]
    return variants


def count_parameters(config: Config, method: str, size: int) -> int:
    """Count what a method trains for a situation: it is linear in the method's size."""
    config = change(config, {SIZES[method]: size})
    with torch.device("meta"):                    # shapes without weights
        backbone = Backbone(config, 1)
    model = METHODS[method](backbone, config, torch.Generator())
    return sum(p.numel() for p in trainable(model).values())


def take_share(config: Config, method: str, share: float) -> dict[str, Any]:
    """Train on a share of the data, in more epochs: as many samples pass as with all of it.

    Up to FEW at a third of the learning rate, which is no worse on AV-MNIST's validation split.
    """
    settings, epochs = flatten(config), f"train.{method}.epochs"
    changes = {"train.fraction": share, epochs: settings[epochs] * round(1 / share)}
    if share <= FEW:
        rate = f"train.{method}.learning_rate"
        changes[rate] = scale(settings[rate], 1 / 3)
    return changes


def scale(rate: float, factor: float) -> float:
    """Multiply a learning rate; the product has one significant digit."""
    return float(f"{rate * factor:.1g}")


def fraction(config: Config) -> list[Variant]:
    """methods on less data, in more epochs, and in the paper's 5 epochs on 30%"""
    variants = []
    for method in LEARNERS:
        for share in SHARES if method in CURVE else SHARES[:1]:
            variants.append(Variant(f"{method}, {share:.0%}", method,
                                    take_share(config, method, share), f"prompt, {share:.0%}",
                                    method, share))
        changes = {"train.fraction": 0.3, f"train.{method}.epochs": 5}
        variants.append(Variant(f"{method}, 30%, 5 epochs", method, changes,
                                "prompt, 30%, 5 epochs"))
    return variants


def learning_rate(config: Config) -> list[Variant]:
    """six methods at three rates on all data, four of them on a tenth of it"""
    variants = []
    for method in LEARNERS:
        key = f"train.{method}.learning_rate"
        for share in (FEW, 1.0) if method in CURVE else (1.0,):
            changes, line = take_share(config, method, share), f"{method}, {share:.0%}"
            current = changes.get(key, flatten(config)[key])
            for rate in scale(current, 1 / 3), current, scale(current, 3):
                variants.append(Variant(f"{line}, {rate:g}", method, {**changes, key: rate},
                                        f"{line}, {current:g}", line, rate))
    return variants


def views(config: Config) -> list[Variant]:
    """a head and attention-level prompts on cached tokens, with so many views of each sample"""
    attention = {"prompts.input_depth": 0, "prompts.joint": False}
    return [Variant(f"{place}, {n} views", method, changes, f"{place}, 0 views", place, n, n)
            for place, method, changes in (("head", "head", {}), ("attention", "prompt", attention))
            for n in VIEWS]


ABLATIONS = {function.__name__: function for function in (
    level, length, depth, fusion, budget, fraction, learning_rate, views)}


def train_variant(opened: OpenRun, variant: Variant) -> Run:
    """Train a variant of a run in RUN/variants, as far as it is not trained yet."""
    run, method, settings = opened.run, variant.method, flatten(opened.run.config)
    changes = {key: value for key, value in variant.changes.items() if value != settings[key]}
    parts = [method, *(f"{key}={value}" for key, value in changes.items())]
    if variant.views:
        parts.append(f"views={variant.views}")
    folder = run.folder / "variants" / ",".join(parts)
    config = change(run.config, {**changes, **ALONE})
    variant_run = replace(run, folder=folder, config=config, data=opened.split.data.folder,
                          methods=[method])
    data = copy(opened.split.data)
    data.config = config                  # of which a variant changes nothing that decoding reads
    same = [] if "model.fusion" in changes else ["backbone"]       # stages that the run has too
    if not (changes or variant.views):
        same += cases_of(method)
    with locked(folder):
        for stage in same:
            if run.path(stage).exists() and not variant_run.path(stage).exists():
                os.link(run.path(stage), variant_run.path(stage))           # one file, two names
        if not (folder / "config.json").exists():
            variant_run.write()
        stored = flatten(read_run(folder).config)
        for key, value in flatten(config).items():    # those of a method can change with train.py
            if key.startswith(private_settings(method)) and value != stored[key]:
                raise InputError(f"{folder}: was trained with {key}={stored[key]}; expected "
                                 f"{value} as {run.folder} has now: remove it")
        logger.info("variant %s", folder)
        backbone = tail = train_backbone(variant_run, data)
        if variant.views:
            tail, data = BackboneTail(backbone), CachedSet(data, backbone, variant.views)
        models = train_cases(variant_run, method, tail, data)
        if method == "prompt":
            train_together(variant_run, models, data)
            fit_router(variant_run, backbone, opened.split.data)
    return variant_run


def score_variants(opened: OpenRun, variants: Sequence[Variant],
                   split: EvalSplit) -> tuple[Table, dict[Situation, dict[str, Score]]]:
    """Train one seed's variants and score them; a backbone of their own has a row of its own."""
    table: Table = {}
    scores: dict[Situation, dict[str, Score]] = defaultdict(dict)
    for variant in variants:
        run, method = train_variant(opened, variant), variant.method
        models = load_models(run, split.data.device, [method])
        owner = f"{variant.label}, " if run.trained_on != opened.run.trained_on else ""
        rows = ((f"{owner}backbone", "backbone", models.backbone),
                (variant.label, next(iter(cases_of(method))), models.methods[method]))
        for label, stage, model in rows:
            if label in table:                                   # the backbone of all variants
                continue
            weights = load_tensors(run.path(stage))["weights"].values()
            for situation in split.situations():
                answer = model if isinstance(model, Backbone) else partial(model.answer,
                                                                           case=situation)
                scores[situation] |= score_split(
                    lambda batch: {label: answer(batch.audio, batch.image)}, split, situation)
            table[label] = {
                **{situation.label: own[label].accuracy for situation, own in scores.items()},
                "average": average(scores, label),
                "parameters": sum(weight.numel() for weight in weights)}
    return table, scores


def draw(kind: str, variants: Sequence[Variant], tables: Sequence[Table], title: str) -> bytes:
    """Draw the averages: lines over what is varied, or bars where that is no number. PNG"""
    panel: Panel = defaultdict(list)
    for variant in variants:
        if variant.line:
            averages = [table[variant.label]["average"] for table in tables]
            panel[variant.line].append((variant.x, averages))
    if not panel:
        return plots.bars([{row: {"average": cells["average"]} for row, cells in table.items()}
                           for table in tables], title)
    logarithmic = all(variant.x > 0 for variant in variants if variant.line)
    return lines([{"average": panel}], title, kind, logarithmic, fitted=["average"])


def main(argv: list[str] | None = None) -> None:
    kinds = "\n".join(f"  {kind:<14} {function.__doc__}" for kind, function in ABLATIONS.items())
    parser = new_parser(__doc__, f"kinds:\n{kinds}")
    add_run_arguments(parser)
    parser.add_argument("kind", choices=ABLATIONS, metavar="KIND", help="what is varied, see below")
    parser.add_argument("--draws", type=int, default=1, metavar="N",
                        help="draws of each damage; default: 1")
    args = parser.parse_args(argv)
    opened = open_runs(args, methods=[], draws=args.draws)
    kind, variants = args.kind, ABLATIONS[args.kind](opened[0].run.config)
    split = "val" if kind == "learning_rate" else "test"     # a choice must not see the test split
    for seed in opened:
        if seed.split.data.fingerprint() != seed.run.fingerprint:
            raise InputError(f"--data {args.data}: differs from the set that {seed.run.folder} was "
                             f"trained on; expected the same rows and files")
    tables, scores = zip(*(score_variants(seed, variants, seed.split._replace(split=split))
                           for seed in opened))
    differences: Table = {}
    for label, reference in ((variant.label, variant.reference) for variant in variants):
        if label != reference:
            found = paired_differences(scores, reference, opened[0].split.data.groups)
            differences[f"{label} minus {reference}"] = found[label]
    print(format_table(tables, kind))
    print(f"\nDifferences of averages; the standard error is over groups of samples, each compared "
          f"with itself:\n\n{format_table([differences])}")
    path = args.run / f"ablate-{kind}{opened[0].suffix}"
    write(path.with_suffix(".json"), {"rows": tables, "differences": differences})
    title = f"{split} accuracy by {kind}, {args.run.resolve().name}"
    write(path.with_suffix(".png"), draw(kind, variants, tables, title))


if __name__ == "__main__":
    run_command(main)
