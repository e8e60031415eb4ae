"""From trained runs to what people read: tables, results.json, and two pictures."""
import argparse
import json
import logging
import statistics
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ptm_mini import plots
from ptm_mini.checkpoint import Run, load_tensors, read_run, run_folders
from ptm_mini.config import DAMAGES, Situation
from ptm_mini.data.dataset import PreparedSet
from ptm_mini.errors import InputError
from ptm_mini.evaluation import (EvalSplit, Models, Results, Score, Table, answer_split, average,
                                 evaluate, paired_differences, window_places)
from ptm_mini.files import write_file
from ptm_mini.training import cases_of, load_models, pick_device, trained_methods

logger = logging.getLogger(__name__)
REFERENCE = "prompt oracle"       # the row that others are compared with; else the backbone
EXAMPLES, ROWS_SHOWN = 5, 4       # samples in the gallery, and rows whose answers it shows


class OpenRun(NamedTuple):
    """A run with its models and a split of its set: what an evaluation needs."""
    run: Run
    models: Models
    split: EvalSplit
    suffix: str = ""              # of its files' names, such as -paper


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of every command that opens a trained run."""
    add = parser.add_argument
    add("run", type=Path, help="run folder that train.py made, or the folder of several seeds")
    add("--data", type=Path, help="set to evaluate on; default: the run's own, where it was")
    add("--features", type=Path, metavar="DIR", help="cache for decoded files; default: in the set")
    add("--workers", type=int, default=2, help="processes that decode a large set; default: 2")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto",
        help="default: a CUDA device if there is one")


def open_runs(args: argparse.Namespace, methods: list[str] | None = None, damage: str | None = None,
              draws: int = 1, windows: int = 1) -> list[OpenRun]:
    """Open a run, or the runs of several seeds in a folder, for evaluation on the test split.

    args: of add_run_arguments; methods None: all that are trained; damage None: the run's own
    """
    if draws < 1:
        raise InputError(f"--draws {draws}: expected 1 or more")
    device, opened, fingerprints = pick_device(args.device), [], set()
    for path in run_folders(args.run) or [args.run]:
        run = read_run(path)
        config = replace(run.config, damage=DAMAGES[damage]) if damage else run.config
        sets = tuple(PreparedSet(args.data or run.data, config, run.normalisation, place,
                                 args.features, args.workers, device)
                     for place in window_places(windows))
        if sets[0].classes != run.classes:
            raise InputError(f"{sets[0].folder}: its classes differ from those of {path}; expected "
                             f"{', '.join(run.classes)}")
        fingerprint = sets[0].fingerprint()                       # asks each file for its size
        if fingerprint == run.fingerprint:
            if sets[0].folder != run.data:                    # moved: the run remembers where to
                run.data = sets[0].folder
                run.write()
        elif args.data is None:
            raise InputError(f"{run.data}: has changed since {path} was trained on it; restore it, "
                             f"or take it as it is with --data {run.data}")
        if lacking := [method for method in run.methods if method not in trained_methods(run)]:
            logger.warning("note: %s has not finished %s; python train.py --resume %s does", path,
                           ", ".join(lacking), path)
        suffix = f"-{sets[0].folder.name}" if fingerprint != run.fingerprint else ""
        suffix += f"-{damage}" if config != run.config else ""
        suffix += f"-windows-{windows}" * (windows > 1) + f"-draws-{draws}" * (draws > 1)
        suffix += "".join(f"-{method}" for method in methods or ())
        fingerprints.add(fingerprint)
        opened.append(OpenRun(run, load_models(run, device, methods),
                              EvalSplit(sets, "test", draws=draws), suffix))
        if (opened[-1].models.methods.keys() != opened[0].models.methods.keys()
                or len(fingerprints) > 1):
            raise InputError(f"{path}: has other methods or another set than "
                             f"{opened[0].run.folder}; expected the same: train what is missing")
    return opened


def report(out: Path, runs: Sequence[OpenRun], details: bool = False) -> None:
    """Evaluate runs, one a seed; print the table of accuracies, or with `details` all tables; write
    results.json and pictures."""
    results = [evaluate(run.models, run.split) for run in runs]
    tables = [all_tables(run, result) for run, result in zip(runs, results)]
    shown = {name: [own[name] for own in tables] for name in tables[0]}
    reference = REFERENCE if REFERENCE in tables[0]["accuracy"] else "backbone"
    groups = runs[0].split.data.groups
    shown["differences"] = [paired_differences([result.scores for result in results], reference,
                                               groups)]
    for name, table in shown.items():
        if table[0] and (details or name == "accuracy"):
            print(f"{TITLES[name]}\n\n{format_table(table)}\n")
    for run, result, own in zip(runs, results, tables):
        write(run.run.folder / f"results{run.suffix}.json", {
            "data": str(run.split.data.folder), "split": run.split.split,
            "seed": run.run.config.train.seed, "draws": run.split.draws,
            "damage": asdict(run.split.data.config.damage), **own,
            "differences": paired_differences([result.scores], reference, groups),
            "scores": {situation.label: {row: dict(zip(Score._fields[:-1], score))
                                         for row, score in rows.items()}
                       for situation, rows in result.scores.items()}})
        if Situation.COMPLETE in result.scores:
            write(run.run.folder / f"gallery{run.suffix}.png", gallery(run))
    if len(runs) > 1:
        write(out / f"results{runs[0].suffix}.json", shown)
    title = f"Test accuracy, {out.resolve().name}{runs[0].suffix}"
    write(out / f"results{runs[0].suffix}.png", plots.bars(shown["accuracy"], title))


TITLES = {"accuracy": "Accuracy:",
          "available": "Accuracy by available modalities, undamaged:",
          "detail": "The worst situation's accuracy, macro-F1, and the cost of one model:",
          "sets": "Each prompt set (row) in each situation (column), accuracy:",
          "router": "Share of each situation (row) that the router takes for another (column):",
          "differences": f"Average minus that of '{REFERENCE}' (else the backbone); the standard "
                         f"error is over the test set's groups of samples, each compared with "
                         f"itself:"}


def all_tables(run: OpenRun, results: Results) -> dict[str, Table]:
    """Build the tables of TITLES except differences; empty ones are left out."""
    accuracy, detail, log = {}, {}, run.run.read_log()
    for row in next(iter(results.scores.values())):
        scores = {situation.label: own[row] for situation, own in results.scores.items()}
        accuracy[row] = {label: score.accuracy for label, score in scores.items()}
        stages = ["backbone"] if row == "backbone" else list(cases_of(row.split()[0]))
        first = load_tensors(run.run.path(stages[0]))["weights"]         # all have as many
        seconds = [line["seconds"] for line in log if line["stage"] in stages]
        detail[row] = {"worst": min(accuracy[row].values()),
                       "macro-F1": statistics.fmean(s.macro_f1 for s in scores.values()),
                       "parameters": sum(weight.numel() for weight in first.values()),
                       "s/epoch": statistics.fmean(seconds) if seconds else 0.0}
        accuracy[row]["average"] = average(results.scores, row)
    tables = {"accuracy": accuracy, "available": results.available, "detail": detail,
              "sets": results.sets, "router": results.router}
    return {name: table for name, table in tables.items() if table}


# Of columns without a spread over seeds.
FORMATS = {"parameters": "{:,.0f}", "s/epoch": "{:.1f}", "difference": "{:+.3f}"}


def format_table(tables: Sequence[Table], corner: str = "") -> str:
    """A table as aligned Markdown; of several, one a seed, mean±standard deviation."""
    columns = list(next(iter(tables[0].values())))
    cells = [[corner, *columns]]
    for row in tables[0]:
        line = [row]
        for column in columns:
            values = [table[row][column] for table in tables]
            text = FORMATS.get(column, "{:.3f}").format(statistics.fmean(values))
            if len(values) > 1 and column not in FORMATS:
                text += f"±{statistics.stdev(values):.3f}"
            line.append(text)
        cells.append(line)
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ["| " + " | ".join([line[0].ljust(widths[0]), *(
        text.rjust(width) for text, width in zip(line[1:], widths[1:]))]) + " |" for line in cells]
    rule = ["-" * (widths[0] + 2), *("-" * (width + 1) + ":" for width in widths[1:])]
    return "\n".join([lines[0], f"|{'|'.join(rule)}|", *lines[1:]])


def pick_samples(split: EvalSplit, count: int) -> list[int]:
    """Pick samples with sound and image for a picture, spread over the split."""
    complete = split.data.indices(split.split, Situation.COMPLETE)
    return complete[torch.linspace(0, len(complete) - 1, min(count, len(complete))).round().long()
                    ].tolist()


@torch.no_grad()
def gallery(run: OpenRun) -> bytes:
    """Draw a few test samples before and after each damage, with the first rows' answers. PNG"""
    split, classes = run.split, run.run.classes
    samples = pick_samples(split, EXAMPLES)
    rows = [(split.data.rows[sample].label, {}) for sample in samples]
    for situation in Situation:
        items = [split.item(sample, situation) for sample in samples]
        batch, = split.data.loader(items, len(items))
        answers, _, _ = answer_split(lambda batch: run.models.answer(batch).rows,
                                     split._replace(draws=1), situation, torch.tensor(samples))
        for i, (label, cells) in enumerate(rows):
            lines = []
            for name in list(answers)[:ROWS_SHOWN]:
                answer = classes[int(answers[name][i].argmax())]
                wrong = "" if answer == label else "  (wrong)"
                lines.append((f"{name}: {answer}{wrong}", plots.WRONG if wrong else plots.RIGHT))
            when = "after" if situation else "before"
            cells[f"{situation.label} ({when})"] = plots.Cell(
                [plots.draw_image(batch.image[i]), plots.draw_audio(batch.audio[i])], lines)
    return plots.grid(rows)


def write(path: Path, content: dict[str, Any] | bytes) -> None:
    """Write JSON or a picture, and say so."""
    verb = "replaced" if path.exists() else "wrote"
    if isinstance(content, dict):
        content = (json.dumps(content, indent=1) + "\n").encode()
    write_file(path, content)
    logger.info("%s %s", verb, path)
