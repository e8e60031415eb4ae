"""How training went, from the log.jsonl of a run or of several seeds' runs: loss and validation accuracy over the epochs, and
what each method's seconds brought."""
import itertools
import logging
import statistics

from ptm_mini.errors import InputError
from ptm_mini.report import charts, tables
from ptm_mini.report.results import write
from ptm_mini.report.variants import LEARNERS
from ptm_mini.training.methods import METHODS
from ptm_mini.training.progress import LOG, read_log

logger = logging.getLogger(__name__)
FIGURES = {"loss": "training loss", "validation_loss": "validation loss", "accuracy": "validation accuracy"}    # by key
POSITIVE, LARGEST = ("epoch", "seconds"), 1e30       # keys too, of numbers above 0; what is larger can't be drawn
CLOSE = 0.005                                        # of the best accuracy: as good as there
WIDE = 10                                            # times the first x, from which on an axis of seconds is logarithmic


def figures_of(path):
    """{(stage, epoch): {key of FIGURES, or "seconds": number}} of a log.jsonl"""
    if not path.exists():
        raise InputError(f"{path}: no such file; expected the log of a run that train.py made, of version 0.4 or later")
    found = {}
    for n, line in enumerate(read_log(path), start=1):
        for key in (*FIGURES, *POSITIVE):
            if type(line.get(key)) not in (int, float) or key in POSITIVE and not 0 < line[key] < LARGEST:
                raise InputError(f"{path}:{n}: {key} is {line.get(key)!r}; expected a number{' above 0' * (key in POSITIVE)}, "
                                 f"as train.py writes it: restore the file")
        found[line["stage"], line["epoch"]] = {key: line[key] for key in (*FIGURES, "seconds")}
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
            if all(abs(value) < LARGEST for value in values):                  # which a number that is none is not
                line = panels.setdefault(method, {}).setdefault(f"{method}: {title}", {}).setdefault(case or stage, [])
                line.append((epoch, values))
    return list(panels.values())


def course_of(log, method):
    """[(seconds, accuracy)], one for each epoch that all the method's cases have behind them.

    The cases train one after the other, so that at any moment some have not begun. So epoch k of all is taken together: the
    seconds are those of their first k epochs, summed, without validation; the accuracy is the mean over the cases, each
    validated in its own situation. What comes behind the cases, prompts together and the router, is no part of it.
    """
    names, course, seconds = METHODS[method].model_names(method), [], 0.0
    for epoch in itertools.count(1):
        lines = [log.get((name, epoch)) for name in names]
        if not all(line and 0 <= line["accuracy"] <= 1 for line in lines):
            return course
        seconds += sum(line["seconds"] for line in lines)
        course.append((seconds, statistics.fmean(line["accuracy"] for line in lines)))


def courses_of(logs):
    """{method: its course in each log}, of the methods that have one in all, in the ablations' order"""
    order = dict.fromkeys((*LEARNERS, *METHODS))
    found = {method: [course_of(log, method) for log in logs] for method in order}
    return {method: courses for method, courses in found.items() if all(courses)}


def columns_of(course):
    """The numbers of a row of the table"""
    best = max(accuracy for _, accuracy in course)
    return {"s/epoch, all situations": course[-1][0] / len(course),
            "s to best": next(seconds for seconds, accuracy in course if accuracy >= best - CLOSE), "best": best}


def against_seconds(courses, title):
    """A line a method: the accuracy of an epoch over the seconds until then, both the mean over seeds. returns PNG bytes"""
    series = {method: [(statistics.fmean(seconds for seconds, _ in points), [accuracy for _, accuracy in points])
                       for points in zip(*own)] for method, own in courses.items()}
    xs = [x for own in series.values() for x, _ in own]
    first, last = min(xs), max(xs)
    wide = last >= WIDE * first
    return charts.lines([{"": series}], title, "seconds of training, over all situations", logarithmic=wide,
                        fitted=[""], ticks=charts.round_numbers(first, last, wide))


def curves(out, folders):
    """Draw curves.png and seconds.png into `out`, a run folder or one of several seeds' runs; print the table of seconds, and
    write it and the courses into seconds.json."""
    logs, name = [figures_of(folder / LOG) for folder in folders], out.resolve().name
    rows, courses = rows_of(logs), courses_of(logs)
    if not rows:
        raise InputError(f"{out}: its log has no finite number; expected some: train it again")
    losses = [panel for row in rows for panel in row if panel.endswith("loss")]
    files = {"curves.png": charts.lines(rows, f"Training, {name}", "epoch", fitted=losses)}
    if courses:
        seeds = [{method: columns_of(own[seed]) for method, own in courses.items()} for seed in range(len(logs))]
        print(f"Seconds of training, over all situations, and until the validation accuracy is within {CLOSE} of the best "
              f"epoch's:\n\n{tables.table('', seeds, formats={})}\n")
        files["seconds.png"] = against_seconds(courses, f"Validation accuracy, {name}")
        files["seconds.json"] = tables.as_json({"table": seeds, "courses": courses})
    else:
        logger.info("%s: no method but the backbone has trained an epoch in each situation; no seconds.png", out)
    for path, content in files.items():
        write(out / path, content)
