"""Damage beyond what was trained on: other severities, and each kind of damage alone.

python -m ptm_mini.lab.stress runs/toy-1            prints the tables, draws stress.png
"""
from collections.abc import Collection
from itertools import chain, count

from ptm_mini.config import DamageConfig, Situation, Strengths
from ptm_mini.data.dataset import PreparedSet
from ptm_mini.errors import new_parser, run as run_command
from ptm_mini.evaluation import EvalSplit, Table, score_split
from ptm_mini.lab.lines import lines
from ptm_mini.method.damage import FURTHER_DRAWS, KINDS, Sample, damage_sample, draw_damage
from ptm_mini.report import OpenRun, add_run_arguments, format_table, open_runs, write

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


class StressedSet(PreparedSet):
    """A prepared set with damage of another severity, and of some kinds alone."""

    def __init__(self, data: PreparedSet, severity: float, kinds: Collection[str]):
        vars(self).update(vars(data))         # what is decoded is shared
        alone, both = (scale_strengths(strengths, severity)
                       for strengths in (data.config.damage.alone, data.config.damage.both))
        self.damage, self.kinds = DamageConfig(alone, both), set(kinds)

    def __getitem__(self, item: tuple[int, int, Situation]) -> Sample:
        """Return a sample damaged as in the first draw that has no other kind."""
        row, first, situation = item
        sample, seed = self.sample(row), self.config.train.seed
        for epoch in chain([first], count(FURTHER_DRAWS + 1)):
            drawn = draw_damage(sample, situation, self.damage, seed, epoch)
            if {kind for kind, _ in drawn.values()} <= self.kinds:
                return damage_sample(sample, situation, self.damage, seed, epoch)


def score(run: OpenRun, situation: Situation, sets: dict[str, StressedSet]) -> Table:
    """Compute the accuracies of all rows, with a column for each set."""
    table: Table = {}
    for column, data in sets.items():
        scores = score_split(lambda batch: run.models.answer(batch).rows,
                             EvalSplit((data,), "test"), situation)
        for row, own in scores.items():
            table.setdefault(row, {})[column] = own.accuracy
    return table


def main(argv: list[str] | None = None) -> None:
    parser = new_parser(__doc__)
    add_run_arguments(parser)
    args = parser.parse_args(argv)
    runs = open_runs(args)
    content, panels, strong = {}, {}, KINDS.keys() - {"missing"}      # that have a strength
    for situation in NOISY:
        tables = [score(run, situation, {
            f"{severity:g}": StressedSet(run.split.data, severity, strong)
            for severity in SEVERITIES}) for run in runs]
        content[f"{situation.label}, severity"] = tables
        panels[situation.label] = {                        # of the tables' rows: few enough to read
            row: [(float(severity), [table[row][severity] for table in tables])
                  for severity in columns] for row, columns in tables[0].items()
            if not row.endswith(("routed", "lowest_entropy"))}
    for modality, situation in zip(("audio", "image"), NOISY):
        kinds = [kind for kind in KINDS if kind.startswith((modality, "missing"))]
        content[f"{modality}, one kind alone"] = [
            score(run, situation, {kind: StressedSet(run.split.data, 1.0, [kind])
                                   for kind in kinds}) for run in runs]
    for title, tables in content.items():
        print(f"{format_table(tables, title)}\n")
    name = f"stress{runs[0].suffix}"
    write(args.run / f"{name}.json", content)
    title = f"Test accuracy by severity, {args.run.resolve().name}"
    write(args.run / f"{name}.png", lines([panels], title, "times the training strength"))


if __name__ == "__main__":
    run_command(main)
