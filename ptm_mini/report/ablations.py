"""Ablations: variants of a run, trained where they are not there yet, their table and their picture."""
import dataclasses
import logging
import statistics

from ptm_mini.errors import InputError
from ptm_mini.files import locked
from ptm_mini.report import charts, paired, tables
from ptm_mini.report.results import OpenRun, Selection, write
from ptm_mini.report.variants import ABLATIONS, FEW, HEAD_OF
from ptm_mini.runs.folder import load_run, new_variant, open_set
from ptm_mini.runs.models import train_and_save
from ptm_mini.settings import get, keys, with_settings
from ptm_mini.training.kept import forget_kept
from ptm_mini.training.methods import BACKBONE, METHODS, reads
from ptm_mini.training.samples import Task

logger = logging.getLogger(__name__)
ALONE = {"train.together.epochs": 0, "router.passes": 1}            # variants are trained case by case, as in the paper
COMPARED_WITH = {"fraction": "prompts with as much training data", "budget": "prompts with as many numbers to learn",
                 "views": "the same without kept tokens"}           # of ablations that compare with more than one row
VALIDATED = "learning_rate"                                         # the ablation that chooses, so that it sees no test data


def train_variant(folder, variant, device, storage):
    """The folder of a variant of the run in `folder`, trained as far as it is not; the run's own where it has trained just
    that. It uses the run's backbone, unless its settings make for another one. Another process that trains it is waited for."""
    run = load_run(folder)
    changes = {key: value for key, value in variant.changes.items() if value != get(run.config, key)}
    config, needed = with_settings(run.config, {**changes, **ALONE}), (BACKBONE, variant.method)
    if variant.method in run.trained and not differing(run.config, config, needed):
        return folder
    target = folder / "variants" / ",".join([variant.method, *(f"{key}={value}" for key, value in changes.items())])
    target.parent.mkdir(exist_ok=True)
    with locked(target.with_name(f".{target.name}.lock")):
        if (target / "config.json").exists():
            found = load_run(target)
            refuse_other_settings(target, found.config, config, needed)
        elif any(reads(BACKBONE, key) for key in changes):
            found = dataclasses.replace(run, config=config, costs={})
        else:
            found = new_variant(folder, run, target, config)
        lacking = [method for method in needed if method not in found.trained]
        if lacking:
            logger.info("training %s", target)
            task = Task(config, open_set(found, storage=storage), found.normalisation, device, bf16=False)
            for method in lacking:
                found = train_and_save(target, found, task, method)
            forget_kept(target)
    return target


def differing(there, config, methods):
    """The keys in which two configs differ, of those that one of the methods reads"""
    return [key for key in keys(config)
            if get(there, key) != get(config, key) and any(reads(method, key) for method in methods)]


def refuse_other_settings(target, there, config, methods):
    """Raise InputError where the variant in `target` was trained with other settings than `config`, of those that its
    methods read: the run may have got more methods meanwhile, and their settings."""
    for key in differing(there, config, methods):
        raise InputError(f"{target}: was trained with {key}={get(there, key)}; expected {get(config, key)}, as the run has "
                         f"it now: remove that folder")


def ablate(out, folders, kind, device, storage, draws=1):
    """Train what is missing, print the table of an ablation and draw it. draws: as Selection has them"""
    variants = ABLATIONS[kind](load_run(folders[0]).config)
    trained = [[train_variant(folder, variant, device, storage) for variant in variants] for folder in folders]
    name, columns = f"ablate-{kind}", (*tables.ACCURACY, "learns", "s/epoch", "step MB")
    if kind == VALIDATED:
        found = [validated(variants, own) for own in trained]
        print(tables.table(kind, found))
    else:
        selection = Selection(strategies=("situation",), storage=storage, draws=draws)
        found, scores, runs = zip(*(tested(kind, variants, own, device, selection) for own in trained))
        print(tables.table(kind, found, columns))
        if kind == "fraction":
            print("\n" + tables.table("average", [by_share(rows) for rows in found]))
        compared = compare(variants, scores, paired.same_samples([run.view for run in runs]))
        if compared:
            print("\n" + paired.comparison(compared, COMPARED_WITH.get(kind) or repr(variants[0].against)))
        name += runs[0].suffix
    write(out / f"{name}.json", tables.as_json(found))
    write(out / f"{name}.png", picture(kind, variants, found, out.resolve().name))


def tested(kind, variants, trained, device, selection):
    """Of one seed's variants, whose folders are `trained`: {row: {column: number}}, {Situation: {row: Score}} and the last
    OpenRun. A backbone that they share is a row of its own."""
    rows, scores = {}, {}
    for variant, folder in zip(variants, trained):
        told = selection.strategies if METHODS[variant.method].strategies else None      # one model serves all situations
        run = OpenRun(folder, device, dataclasses.replace(selection, methods=(variant.method,), strategies=told))
        names = {row: variant.label for row in run.rows}
        names[BACKBONE] = f"{variant.label}, {BACKBONE}" if kind == "fusion" else BACKBONE
        run.rows = {row: scores_of for row, scores_of in run.rows.items() if names[row] not in rows}
        own, main = run.main_table()
        rows |= {names[row]: columns for row, columns in main.items()}
        for situation in own:
            scores.setdefault(situation, {}).update({names[row]: score for row, score in own[situation].items()})
    return rows, scores, run


def by_share(rows):
    """The averages of `fraction` in short. rows: {row: {column: number}}; returns {method: {share of the data: average}}"""
    found = {BACKBONE: {}}
    for row, columns in rows.items():
        method, _, share = row.partition(", ")
        if share:
            found[BACKBONE][share] = rows[BACKBONE]["average"]             # which learned from all
            found.setdefault(method, {})[share] = columns["average"]
    return found


def compare(variants, scores, same_samples):
    """{row: Difference} of each variant from that which it is compared with. scores, same_samples: as for paired.differences"""
    compared = {}
    for reference in dict.fromkeys(variant.against for variant in variants):
        rows = [variant.label for variant in variants if variant.against == reference]
        alike = [{situation: {row: own[row] for row in rows} for situation, own in one.items()} for one in scores]
        compared |= paired.differences(alike, reference, same_samples)
    return compared


def validated(variants, trained):
    """Of one seed's variants: {row: {"validation": mean accuracy over the variant's cases, each at its best epoch}}"""
    rows = {}
    for variant, folder in zip(variants, trained):
        cases = METHODS[variant.method].model_names(variant.method)
        costs = [cost for cost in load_run(folder).costs[variant.method] if cost.stage in cases]
        rows[variant.label] = {"validation": statistics.fmean(cost.validation for cost in costs)}
    return rows


def picture(kind, variants, found, name):
    """Averages, and the hardest situation beside them, over what is varied; where that is no number, a point for each row of the
    table. Of budgets averages alone, over the numbers that learn; of learning rates what was validated.

    found    a seed's {row: {column: number}} each
    returns  PNG bytes
    """
    title = f"Test accuracy by {kind}, {name}"

    def line(chosen, column, x=lambda variant: variant.x):
        """{method: [(x, values, a number a seed)]}"""
        series = {}
        for variant in chosen:
            series.setdefault(variant.method, []).append((x(variant), [rows[variant.label][column] for rows in found]))
        return series

    if kind == "budget":
        panels = {f"{word} head": line([variant for variant in variants if variant.changes[HEAD_OF[variant.method]] == tuned],
                                       "average", lambda variant: found[0][variant.label]["learns"])
                  for word, tuned in (("without", False), ("with", True))}
        return charts.lines([panels], title, "numbers that learn for a situation", logarithmic=True, fitted=panels)
    if kind == VALIDATED:
        panels = {f"{share:.0%} of the training data": line(
            [variant for variant in variants if variant.changes["train.fraction"] == share], "validation")
            for share in (FEW, 1.0)}
        return charts.lines([panels], f"Validation accuracy by {kind}, {name}", kind, logarithmic=True, fitted=panels)
    shown = ("average", tables.those_there(tables.ACCURACY, found[0])[-2])           # the last situation is the hardest
    if variants[0].x is None:
        panels = {column: {row: [(n, [rows[row][column] for rows in found])] for n, row in enumerate(found[0], start=1)}
                  for column in shown}
        return charts.lines([panels], title, "row of the table", fitted=panels)
    panels = {column: line([variant for variant in variants if variant.x], column) for column in shown}
    x_label = "share of the training data, in as many steps" if kind == "fraction" else kind
    return charts.lines([panels], title, x_label, logarithmic=kind != "depth", fitted=panels)
