"""Damage beyond what was trained on: other severities, and each kind of damage alone.

python -m ptm_mini.lab.stress runs/toy-1            prints the tables, draws stress.png
"""
import argparse
from copy import copy
from dataclasses import replace

from ptm_mini.config import DAMAGES, DamageConfig, Situation, Strengths
from ptm_mini.errors import run as run_command
from ptm_mini.evaluation import EvalSplit, score_split
from ptm_mini.lab.lines import lines
from ptm_mini.method.damage import KINDS
from ptm_mini.report import OpenRun, Table, add_run_arguments, format_table, open_runs, write
from ptm_mini.training import pick_device

SEVERITIES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)      # times the training strength
NOISY = (Situation.NOISY_AUDIO, Situation.NOISY_IMAGE, Situation.NOISY_BOTH)


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


def sweep_severities(run: OpenRun) -> dict[str, Table]:
    """{situation: {row: {severity: accuracy}}}, without the kind "missing": it has no strength"""
    tables: dict[str, Table] = {}
    for severity in SEVERITIES:
        data = copy(run.split.data)
        damage = DamageConfig(*(scale_strengths(strengths, severity) for strengths in
                                (data.config.damage.alone, data.config.damage.both)))
        data.config = replace(data.config, damage=damage)
        split = run.split._replace(windows=(data,), kinds=KINDS.keys() - {"missing"})
        for situation in NOISY:
            table = tables.setdefault(situation.label, {})
            for row, accuracy in score(run, split, situation).items():
                table.setdefault(row, {})[f"{severity:g}"] = accuracy
    return tables


def score_kinds(run: OpenRun) -> dict[str, Table]:
    """{modality: {row: {kind: accuracy}}}: it alone is damaged, always by this kind"""
    tables: dict[str, Table] = {"audio": {}, "image": {}}
    for (modality, table), situation in zip(tables.items(), NOISY):
        for kind in [kind for kind in KINDS if kind.startswith(modality)] + ["missing"]:
            split = run.split._replace(kinds=[kind])
            for row, accuracy in score(run, split, situation).items():
                table.setdefault(row, {})[kind] = accuracy
    return tables


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser)
    parser.add_argument("--damage", choices=DAMAGES, help="what severity 1 is; default: the run's")
    args = parser.parse_args(argv)
    runs = open_runs(args.run, args.data, args.damage, features=args.features,
                     workers=args.workers, device=pick_device(args.device))
    sweeps, kinds = [sweep_severities(run) for run in runs], [score_kinds(run) for run in runs]
    panels = {}
    for situation, rows in sweeps[0].items():
        tables = [sweep[situation] for sweep in sweeps]
        print(f"{format_table(tables, f'{situation}, severity')}\n")
        panels[situation] = {row: [(float(severity), [table[row][severity] for table in tables])
                                   for severity in columns] for row, columns in rows.items()}
    for modality in kinds[0]:
        print(f"{format_table([own[modality] for own in kinds], f'{modality}, one kind alone')}\n")
    suffix = runs[0].suffix
    write(args.run / f"stress{suffix}.json", {"severity": sweeps, "kind": kinds})
    title = f"Test accuracy by severity, {args.run.resolve().name}{suffix}"
    write(args.run / f"stress{suffix}.png", lines([panels], title, "times the training strength"))


if __name__ == "__main__":
    run_command(main)
