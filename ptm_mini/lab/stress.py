"""Damage beyond what was trained on: other severities, and each kind of damage alone.

python -m ptm_mini.lab.stress runs/toy-1            prints the tables, draws stress.png
"""
import argparse
from collections.abc import Collection
from copy import copy
from dataclasses import replace
from pathlib import Path

from ptm_mini.config import DAMAGES, DamageConfig, Situation, Strengths
from ptm_mini.errors import run as run_command
from ptm_mini.evaluation import EvalSplit, score_split
from ptm_mini.lab.lines import Panel, lines
from ptm_mini.lab.token_cache import add_run_arguments
from ptm_mini.method.damage import KINDS
from ptm_mini.report import OpenRun, Table, format_table, open_runs, write
from ptm_mini.training import pick_device

SEVERITIES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)      # times the training strength
MODALITIES = {"audio": Situation.NOISY_AUDIO, "image": Situation.NOISY_IMAGE}


def scale_strengths(strengths: Strengths, severity: float) -> Strengths:
    """Scale strengths: 0 is no damage, 1 changes nothing.

    Standard deviations and shares are multiplied, a share up to the whole. Pixelation to the share
    x of the side shrinks it by the factor 1 / x, and what exceeds 1 of that is multiplied.
    """
    scaled = {name: value * severity if "gaussian" in name else min(1.0, value * severity)
              for name, value in vars(strengths).items()}
    x = strengths.image_pixelate
    scaled["image_pixelate"] = x / (x + severity * (1 - x)) if severity else 1.0
    return Strengths(**scaled)


def score(run: OpenRun, split: EvalSplit, situation: Situation) -> dict[str, float]:
    """{row: accuracy} of all methods and strategies"""
    scores = score_split(lambda batch: run.models.answer(batch).rows, split, situation)
    return {row: score.accuracy for row, score in scores.items()}


def sweep_severities(run: OpenRun) -> dict[Situation, Table]:
    """{situation: {row: {severity: accuracy}}}; a missing modality has no strength, and is none."""
    tables: dict[Situation, Table] = {}
    for severity in SEVERITIES:
        data = copy(run.split.data)
        damage = DamageConfig(*(scale_strengths(strengths, severity) for strengths in
                                (data.config.damage.alone, data.config.damage.both)))
        data.config = replace(data.config, damage=damage)
        split = run.split._replace(windows=(data,), kinds=KINDS.keys() - {"missing"})
        for situation in find_damaged(run):
            for row, accuracy in score(run, split, situation).items():
                table = tables.setdefault(situation, {}).setdefault(row, {})
                table[f"{severity:g}"] = accuracy
    return tables


def find_damaged(run: OpenRun) -> list[Situation]:
    """List the situations with damage that some sample can be in."""
    return [situation for situation in run.split.situations() if situation]


def score_kinds(run: OpenRun, modality: str) -> Table:
    """{row: {kind: accuracy}}: one modality damaged, at the training strength, by this kind alone."""
    table: Table = {}
    for kind in KINDS:
        if kind.startswith(modality) or kind == "missing":
            split = run.split._replace(kinds=[kind])
            for row, accuracy in score(run, split, MODALITIES[modality]).items():
                table.setdefault(row, {})[kind] = accuracy
    return table


def collect_lines(tables: Collection[Table]) -> Panel:
    """Turn tables of severities, one a seed, into lines."""
    first = next(iter(tables))
    return {row: [(float(severity), [table[row][severity] for table in tables])
                  for severity in first[row]] for row in first}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder, or the folder of several seeds")
    parser.add_argument("--damage", choices=DAMAGES, help="severity 1; default: the run's own")
    add_run_arguments(parser)
    args = parser.parse_args(argv)
    runs = open_runs(args.run, args.data, args.damage, features=args.features,
                     workers=args.workers, device=pick_device(args.device))
    sweeps, panels = [sweep_severities(run) for run in runs], {}
    for situation in sweeps[0]:
        tables = [sweep[situation] for sweep in sweeps]
        print(f"{format_table(tables, f'{situation.label}, severity')}\n")
        panels[situation.label] = collect_lines(tables)
    kinds = {}
    for modality, situation in MODALITIES.items():
        if situation in sweeps[0]:
            kinds[modality] = [score_kinds(run, modality) for run in runs]
            print(f"{format_table(kinds[modality], f'{modality}, one kind alone')}\n")
    content = {"severity": [{situation.label: table for situation, table in sweep.items()}
                            for sweep in sweeps], "kind": kinds}
    write(args.run / f"stress{runs[0].suffix}.json", content)
    title = f"Test accuracy by severity, {args.run.resolve().name}{runs[0].suffix}"
    write(args.run / f"stress{runs[0].suffix}.png",
          lines([panels], title, "times the training strength"))


if __name__ == "__main__":
    run_command(main)
