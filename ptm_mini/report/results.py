"""From saved runs to what people read: evaluate, print the tables, write results.json and the pictures."""
import dataclasses
import logging
import re
from dataclasses import dataclass
from pathlib import Path

from ptm_mini.config import DAMAGES, Situation
from ptm_mini.data.storage import Storage
from ptm_mini.errors import InputError
from ptm_mini.files import write_file
from ptm_mini.method.router import STRATEGIES, plain, told
from ptm_mini.report import charts, paired, tables
from ptm_mini.report.gallery import examples, gallery
from ptm_mini.runs import folder as run_folder
from ptm_mini.runs.folder import open_set
from ptm_mini.runs.models import load_models
from ptm_mini.training.measure import View, measure_all, measure_present, places, routes
from ptm_mini.training.methods import BACKBONE, METHODS

logger = logging.getLogger(__name__)
EXAMPLES, IN_GALLERY = 5, 4       # test samples in the gallery, and rows of the table whose answers it shows
LISTED = 10                       # runs in a line
REFERENCE = "prompt situation"    # the row that others are compared with; without prompts it is the backbone


@dataclass(frozen=True)
class Selection:
    """What of a run is evaluated, and on what. None: all of it, or the run's own."""
    data: Path | None = None               # prepared set
    damage: str | None = None              # a name in DAMAGES
    methods: tuple | None = None
    strategies: tuple | None = None
    storage: Storage = Storage()           # of the set's features
    windows: int = 1                       # of long clips, whose answers are averaged
    draws: int = 1                         # of each test sample's damage

    def takes(self, row):
        """Whether a row was asked for; the backbone and what needs no strategy always stand beside the strategies."""
        method, _, strategy = row.partition(" ")
        return row == BACKBONE or ((not self.methods or method in self.methods)
                                   and (not self.strategies or strategy in ("", *self.strategies)))


def runs_in(folder):
    """The run folder itself, or the runs seed-* in it, by number. Raises InputError where it holds runs of other names."""
    if (folder / "config.json").exists():
        return [folder]
    runs = sorted(path.parent for path in folder.glob("*/config.json"))
    if seeds := [path for path in runs if path.name.startswith("seed-")]:
        return sorted(seeds, key=lambda path: int(re.sub(r"\D", "", path.name) or 0))
    if runs:
        more = f" and {len(runs) - LISTED} more" if len(runs) > LISTED else ""
        raise InputError(f"{folder}: is no run, but holds {', '.join(map(str, runs[:LISTED]))}{more}; name one of them")
    return [folder]


def rows_of(backbone, models, router):
    """What the tables have rows of: {row: function(audio, image, situations [B]) -> scores [B, K]}.

    models  {method: model}
    router  Router or None
    A row's name is the method's and, where the method has something for each situation, how that is chosen.
    """
    rows = {BACKBONE: plain(backbone)}
    for method, model in models.items():
        strategies = [name for name in METHODS[method].strategies if router is not None or name != "routed"]
        rows |= {f"{method} {name}": STRATEGIES[name](model, router) for name in strategies} or {method: plain(model)}
    return rows


class OpenRun:
    """A saved run with its models and set: what every evaluation needs."""

    def __init__(self, folder, device, selection):
        run = run_folder.load_run(folder)
        self.folder, self.whole = folder, not selection.methods and not selection.strategies
        config, self.suffix = run.config, ""
        if selection.damage and DAMAGES[selection.damage] != config.damage:
            config, self.suffix = dataclasses.replace(config, damage=DAMAGES[selection.damage]), f"-{selection.damage}"
        first, *later = (open_set(run, selection.data, selection.storage, place) for place in places(selection.windows))
        self.suffix += f"-windows-{selection.windows}" if later else ""
        self.suffix += f"-draws-{selection.draws}" if selection.draws > 1 else ""
        self.view = View(first, "test", config, run.normalisation, device, later=tuple(later), draws=selection.draws)
        for method in selection.methods or []:
            need(method in run.trained, f"--method {method}", folder, method)
        backbone, self.models, self.router = load_models(folder, run, device)
        rows = rows_of(backbone, self.models, self.router)
        for strategy in selection.strategies or []:
            need(any(row.endswith(f" {strategy}") for row in rows), f"--strategy {strategy}", folder, "prompt")
        self.rows = {row: scores_of for row, scores_of in rows.items() if selection.takes(row)}
        self.reference = REFERENCE if REFERENCE in self.rows else BACKBONE
        self.costs, self.sizes = run.costs, run_folder.sizes(folder, run)

    def main_table(self):
        """returns {Situation: {row: Score}}, {row: {column: number}}"""
        scores = measure_all(self.rows, self.view)
        return scores, tables.main_rows(scores, self.costs, self.sizes)


def need(there, flag, folder, method):
    if not there:
        raise InputError(f"{flag}: {folder} has not trained it; train it with  python train.py --out {folder} "
                         f"--method {method}")


def open_runs(folders, device, selection):
    """OpenRuns of the same rows, one a folder."""
    runs = [OpenRun(folder, device, selection) for folder in folders]
    for run in runs[1:]:
        differing = sorted(run.rows.keys() ^ runs[0].rows.keys())
        if differing:
            raise InputError(f"{run.folder}: differs from {runs[0].folder} in {', '.join(differing)}; expected the same "
                             f"methods: train what is missing")
    return runs


def evaluate_run(run):
    """Evaluate an OpenRun.

    returns  {Situation: {row: Score}}
             {name: {row: {column: number}}}: main; present, where samples lack a modality; of a whole run with prompts,
             sets and router
             {path: bytes}: its results.json and gallery, none where only a part of it was asked for
    """
    scores, main = run.main_table()
    found = {"main": main}
    if run.view.data.missing[run.view.data.indices(run.view.split)].any():
        found["present"] = tables.present_rows(measure_present(run.rows, run.view))
    if not run.whole:
        return scores, found, {}
    if run.router is not None:
        sets = measure_all({situation.label: told(run.models["prompt"], situation) for situation in Situation}, run.view)
        found["sets"] = {own.label: {situation.label: row[own.label].accuracy for situation, row in sets.items()}
                         for own in Situation}
        counts = routes(run.router, run.view)
        found["router"] = {situation.label: {picked.label: float(counts[situation, picked] / counts[situation].sum())
                                             for picked in Situation} for situation in scores}
    facts = {"data": str(run.view.data.folder), "split": run.view.split, "seed": run.view.config.train.seed,
             "damage": dataclasses.asdict(run.view.config.damage), "draws": run.view.draws}
    compared = paired.figures(paired.differences([scores], run.reference))
    files = {run.folder / f"results{run.suffix}.json": tables.results_json(scores, found, facts, compared)}
    if Situation.COMPLETE in scores:
        shown = dict(list(run.rows.items())[:IN_GALLERY])
        files[run.folder / f"gallery{run.suffix}.png"] = gallery(examples(shown, run.view, EXAMPLES))
    return scores, found, files


SHOWN = (("main", "Accuracy:", tables.ACCURACY),
         ("present", "Accuracy by what there is of a sample, undamaged:", None),
         ("main", "The worst situation's accuracy, macro-F1, and the cost:", ("worst", "macro-F1", *tables.COST)),
         ("sets", "Each prompt set (row) in each situation (column), accuracy:", None),
         ("router", "Share of each situation (row) that the router takes for another (column):", None))


def evaluate_runs(out, folders, device, selection=Selection()):
    """Evaluate one run, or one for each seed in folders of their own in `out`: print every table, as mean and standard
    deviation where there are several, with the differences between rows, draw the main one, and write all that into files.

    returns  list of evaluate_run's tables, one a run
    """
    runs = open_runs(folders, device, selection)
    scores, results, files = zip(*(evaluate_run(run) for run in runs))
    files = {path: content for own in files for path, content in own.items()}
    mains, suffix = [result["main"] for result in results], runs[0].suffix
    left_out = [situation.label for situation in Situation if situation not in runs[0].view.situations()]
    if left_out:
        logger.warning("note: %s left out of every table and average: each test sample lacks a modality that it needs; with "
                       "no complete one there is no gallery", ", ".join(left_out))
    for name, title, columns in SHOWN:
        if name in results[0]:
            print(f"{title}\n\n{tables.table('', [result[name] for result in results], columns)}\n")
    compared = paired.differences(scores, runs[0].reference, paired.same_samples([run.view for run in runs]))
    if compared:
        print(paired.comparison(compared, repr(runs[0].reference)))
    if runs[0].whole:
        if len(folders) > 1:
            files[out / f"results{suffix}.json"] = tables.seeds_json(results, paired.figures(compared))
        title = f"Test accuracy, {out.resolve().name}{suffix}"
        files[out / f"results{suffix}.png"] = charts.bars(mains, tables.those_there(tables.ACCURACY, mains[0]), title)
    for path, content in files.items():                    # last, so that a full disk costs no table
        write(path, content)
    return results


def write(path, content):
    said = "replaced" if path.exists() else "wrote"
    write_file(path, content)
    logger.info("%s %s", said, path)
