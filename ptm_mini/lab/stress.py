"""Damage beyond what was trained on: other severities, and each kind of damage alone.

python -m ptm_mini.lab.stress runs/toy-1            prints the tables, draws stress.png
"""
import argparse
from copy import copy
from dataclasses import replace

from ptm_mini.config import DamageConfig, Situation, Strengths
from ptm_mini.errors import run as run_command
from ptm_mini.evaluation import EvalSplit, score_split
from ptm_mini.lab.lines import lines
from ptm_mini.method.damage import KINDS
from ptm_mini.report import OpenRun, Table, add_run_arguments, format_table, open_runs, write
from ptm_mini.training import pick_device

SEVERITIES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)      # times the training strength
NOISY = (Situation.NOISY_AUDIO, Situation.NOISY_IMAGE, Situation.NOISY_BOTH)


def scale_strengths(strengths: Strengths, severity: float) -> Strengths:
    """Multiply strengths, shares up to the whole: 0 is no damage, 1 changes nothing.

    Pixelation to the share x of the side shrinks it 1 / x times; what exceeds 1 is multiplied.
    """
    scaled = {name: value * severity if "gaussian" in name else min(1.0, value * severity)
              for name, value in vars(strengths).items()}
    x = strengths.image_pixelate
    scaled["image_pixelate"] = x / (x + severity * (1 - x)) if severity else 1.0
    return Strengths(**scaled)


def at_severity(split: EvalSplit, severity: float) -> EvalSplit:
    """Scale the strengths of a split's damage; the kind "missing" has none and is left out."""
    data, damage = copy(split.data), split.data.config.damage
    scaled = DamageConfig(*(scale_strengths(own, severity) for own in (damage.alone, damage.both)))
    data.config = replace(data.config, damage=scaled)
    return split._replace(windows=(data,), kinds=KINDS.keys() - {"missing"})


def score(run: OpenRun, situation: Situation, splits: dict[str, EvalSplit]) -> Table:
    """Compute the accuracies of all rows, with a column for each split."""
    table: Table = {}
    for column, split in splits.items():
        scores = score_split(lambda batch: run.models.answer(batch).rows, split, situation)
        for row, own in scores.items():
            table.setdefault(row, {})[column] = own.accuracy
    return table


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser)
    args = parser.parse_args(argv)
    runs = open_runs(args.run, args.data, features=args.features, workers=args.workers,
                     device=pick_device(args.device))
    content, panels = {}, {}
    for situation in NOISY:
        tables = [score(run, situation, {f"{severity:g}": at_severity(run.split, severity)
                                         for severity in SEVERITIES}) for run in runs]
        content[f"{situation.label}, severity"] = tables
        panels[situation.label] = {
            row: [(float(severity), [table[row][severity] for table in tables])
                  for severity in columns] for row, columns in tables[0].items()}
    for modality, situation in zip(("audio", "image"), NOISY):
        kinds = [kind for kind in KINDS if kind.startswith((modality, "missing"))]
        content[f"{modality}, one kind alone"] = [
            score(run, situation, {kind: run.split._replace(kinds=[kind]) for kind in kinds})
            for run in runs]
    for title, tables in content.items():
        print(f"{format_table(tables, title)}\n")
    write(args.run / "stress.json", content)
    title = f"Test accuracy by severity, {args.run.resolve().name}"
    write(args.run / "stress.png", lines([panels], title, "times the training strength"))


if __name__ == "__main__":
    run_command(main)
