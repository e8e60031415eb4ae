"""How training went: loss and validation accuracy over the epochs, from the log.jsonl of a run or of several seeds' runs."""
import math

from ptm_mini.errors import InputError
from ptm_mini.report import charts
from ptm_mini.report.results import write
from ptm_mini.training.progress import LOG, read_log

FIGURES = {"loss": "training loss", "validation_loss": "validation loss", "accuracy": "validation accuracy"}    # by key


def figures_of(path):
    """{(stage, epoch): {key of FIGURES: number}} of a log.jsonl"""
    if not path.exists():
        raise InputError(f"{path}: no such file; expected the log of a run that train.py made, of version 0.4 or later")
    found = {}
    for n, line in enumerate(read_log(path), start=1):
        for key in FIGURES:
            if type(line.get(key)) not in (int, float):
                raise InputError(f"{path}:{n}: {key} is {line.get(key)!r}; expected a number, as train.py writes it: restore "
                                 f"the file")
        found[line["stage"], line["epoch"]] = {key: line[key] for key in FIGURES}
    if not found:
        raise InputError(f"{path}: is empty; expected a line for each epoch: train something first")
    return found


def rows_of(logs):
    """A row of panels for each method, a line in it for each of its stages, as charts.lines takes them.

    logs  what figures_of gives, one a seed
    """
    panels = {}
    for stage, epoch in sorted(dict.fromkeys(key for log in logs for key in log), key=lambda key: key[1]):
        method, _, case = stage.partition(" ")
        for key, title in FIGURES.items():
            values = [log[stage, epoch][key] for log in logs if (stage, epoch) in log]
            if all(map(math.isfinite, values)):
                line = panels.setdefault(method, {}).setdefault(f"{method}: {title}", {}).setdefault(case or stage, [])
                line.append((epoch, values))
    return list(panels.values())


def curves(out, folders):
    """Draw curves.png into `out`: a run folder, or one of several seeds' runs."""
    rows = rows_of([figures_of(folder / LOG) for folder in folders])
    if not rows:
        raise InputError(f"{out}: its log has no finite number; expected some: train it again")
    losses = [name for row in rows for name in row if name.endswith("loss")]
    write(out / "curves.png", charts.lines(rows, f"Training, {out.resolve().name}", "epoch", losses=losses))
