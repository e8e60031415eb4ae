"""Damage beyond what was trained on: other severities, and each kind of damage alone."""
from dataclasses import replace

from ptm_mini.config import DamageConfig, Situation, Strengths
from ptm_mini.method.damage import AUDIO_KINDS, IMAGE_KINDS, MISSING
from ptm_mini.report import charts, tables
from ptm_mini.report.results import open_runs, write
from ptm_mini.training.measure import measure

SEVERITIES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)      # times the training strength
NOISY = (Situation.NOISY_AUDIO, Situation.NOISY_IMAGE, Situation.NOISY_BOTH)


def scaled(strengths, severity):
    """Strengths that hit `severity` times as hard: 0 is no damage, 1 changes nothing.

    Stds and shares are multiplied, a share up to the whole. Pixelation leaves the share x of the side, shrinking it by
    the factor 1 / x: of that, what exceeds 1 is multiplied.
    """
    def one(name, value):
        if severity == 0 and name == "image_pixelate":
            return 1.0                                     # also of a share of 0, which leaves one pixel
        if name == "image_pixelate":
            return value / (value + severity * (1 - value))
        return value * severity if "gaussian" in name else min(1.0, value * severity)

    return Strengths(**{name: one(name, value) for name, value in vars(strengths).items()})


def severities(run):
    """returns {Situation: {row: {severity: accuracy}}} of an OpenRun; kinds without a strength (missing) are left out"""
    found = {situation: {row: {} for row in run.rows} for situation in NOISY}
    config = run.view.config
    for severity in SEVERITIES:
        damage = DamageConfig(scaled(config.damage.alone, severity), scaled(config.damage.both, severity))
        view = run.view._replace(config=replace(config, damage=damage), kinds=(*AUDIO_KINDS, *IMAGE_KINDS))
        for situation in NOISY:
            for row, score in measure(run.rows, view, situation).items():
                found[situation][row][f"{severity:g}"] = score.accuracy
    return found


def each_kind(run):
    """returns {row: {kind: accuracy}} of an OpenRun: one modality damaged, at the training strength, always by this kind"""
    found = {row: {} for row in run.rows}
    for situation, functions in ((Situation.NOISY_AUDIO, AUDIO_KINDS), (Situation.NOISY_IMAGE, IMAGE_KINDS)):
        for kind in (*functions, MISSING):
            column = kind if kind != MISSING else f"{situation.label.removeprefix('noisy_')}_{MISSING}"
            for row, score in measure(run.rows, run.view._replace(kinds=(kind,)), situation).items():
                found[row][column] = score.accuracy
    return found


def stress(out, folders, device, selection):
    """Print and draw what every method makes of other severities and of each kind of damage alone."""
    runs = open_runs(folders, device, selection)
    sweeps, kinds = [severities(run) for run in runs], [each_kind(run) for run in runs]
    panels = {}
    for situation in NOISY:
        found = [sweep[situation] for sweep in sweeps]
        print(tables.table(f"{situation.label}, severity", found) + "\n")
        panels[situation.label] = {row: [(float(severity), [one[row][severity] for one in found]) for severity in columns]
                                   for row, columns in found[0].items()}
    for functions in (AUDIO_KINDS, IMAGE_KINDS):
        modality = next(iter(functions)).split("_")[0]
        print(tables.table("one kind alone", kinds, [*functions, f"{modality}_{MISSING}"]) + "\n")
    content = {"severity": [{situation.label: rows for situation, rows in sweep.items()} for sweep in sweeps], "kind": kinds}
    write(out / "stress.json", tables.as_json(content))
    write(out / "stress.png", charts.lines([panels], f"Test accuracy by severity, {out.resolve().name}",
                                           "times the training strength"))
