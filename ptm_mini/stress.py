"""Damage beyond what was trained on: other severities, and each kind of damage alone."""
from dataclasses import replace

from ptm_mini.config import DamageConfig, Situation, Strengths
from ptm_mini.degrade import ALL_KINDS, AUDIO_KINDS, IMAGE_KINDS, MISSING
from ptm_mini.evaluate import measure

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
    kinds = [kind for kind in ALL_KINDS if kind != MISSING]
    found = {situation: {row: {} for row in run.strategies} for situation in NOISY}
    for severity in SEVERITIES:
        damage = DamageConfig(scaled(run.config.damage.alone, severity), scaled(run.config.damage.both, severity))
        config = replace(run.config, damage=damage)
        for situation in NOISY:
            for row, score in accuracies(run, situation, config, kinds).items():
                found[situation][row][f"{severity:g}"] = score
    return found


def each_kind(run):
    """returns {row: {kind: accuracy}} of an OpenRun: one modality damaged, at the training strength, always by this kind"""
    found = {row: {} for row in run.strategies}
    for situation, functions in ((Situation.NOISY_AUDIO, AUDIO_KINDS), (Situation.NOISY_IMAGE, IMAGE_KINDS)):
        for kind in (*functions, MISSING):
            column = kind if kind != MISSING else f"{situation.label.removeprefix('noisy_')}_{MISSING}"
            for row, score in accuracies(run, situation, run.config, [kind]).items():
                found[row][column] = score
    return found


def accuracies(run, situation, config, kinds):
    scores = measure(run.strategies, run.data, "test", situation, config, run.normalisation, run.device, kinds)
    return {row: score.accuracy for row, score in scores.items()}
