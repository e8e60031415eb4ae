"""From saved runs to what people read: evaluate, print the tables, write results.json and the pictures."""
import dataclasses
import logging
import re
from pathlib import Path

from ptm_mini import charts, checkpoint, report
from ptm_mini.config import DAMAGES, InputError, Situation
from ptm_mini.data import PreparedSet
from ptm_mini.evaluate import evaluate, examples, routes, strategies_of, told
from ptm_mini.files import write_file

logger = logging.getLogger(__name__)
EXAMPLES, IN_GALLERY = 5, 4       # test samples in the gallery, and rows of the table whose answers it shows


def open_set(run, folder=None):
    """The PreparedSet of a run, or the one in `folder`, which must have the same classes."""
    folder = folder or Path(run.data)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected the run's set: say with --data where it is now")
    data = PreparedSet(folder, run.config)
    if data.classes != run.classes:
        raise InputError(f"{folder}: its classes differ from the run's; expected {', '.join(run.classes)}")
    return data


def runs_in(folder):
    """The run folder itself, or the runs seed-* in it, by number."""
    seeds = [path for path in folder.glob("seed-*") if (path / "config.json").exists()]
    if seeds and not (folder / "config.json").exists():
        return sorted(seeds, key=lambda path: int(re.sub(r"\D", "", path.name) or 0))
    return [folder]


class OpenRun:
    """A saved run with its models and set: what every evaluation needs."""

    def __init__(self, folder, device, data_folder=None, damage=None, methods=None, strategies=None):
        """
        data_folder  prepared set to use in place of the one that the run was trained on
        damage       a name in DAMAGES; None: what the run was trained with
        methods      those to evaluate; None: all that are trained
        strategies   those to evaluate; None: all
        """
        run = checkpoint.load_run(folder)
        self.folder, self.device, self.normalisation = folder, device, run.normalisation
        self.config, self.suffix = run.config, ""
        if damage and DAMAGES[damage] != run.config.damage:
            self.config, self.suffix = dataclasses.replace(run.config, damage=DAMAGES[damage]), f"-{damage}"
        self.data = open_set(run, data_folder)
        for method in methods or []:
            need(method in run.trained, f"--method {method}", folder, method)
        backbone, self.models, self.router = checkpoint.load_models(folder, run)
        for module in (backbone, *self.models.values(), *([self.router] if self.router else [])):
            module.to(device)
        self.costs = checkpoint.load_costs(folder, run.trained)
        self.sizes = checkpoint.sizes(folder, run)
        rows = strategies_of(backbone, self.models, self.router)
        self.whole = not methods and not strategies
        for strategy in strategies or []:
            need(any(row.endswith(f" {strategy}") for row in rows), f"--strategy {strategy}", folder, "prompt")
        self.strategies = {row: scores_of for row, scores_of in rows.items() if wanted(row, methods, strategies)}

    def evaluate(self, strategies, split="test"):
        return evaluate(strategies, self.data, split, self.config, self.normalisation, self.device)


def open_runs(folders, *arguments, **keywords):
    """OpenRuns of the same rows, one a folder; the other arguments are those of OpenRun."""
    runs = [OpenRun(folder, *arguments, **keywords) for folder in folders]
    for run in runs[1:]:
        differing = sorted(run.strategies.keys() ^ runs[0].strategies.keys())
        if differing:
            raise InputError(f"{run.folder}: differs from {runs[0].folder} in {', '.join(differing)}; expected the same "
                             f"methods: train what is missing")
    return runs


def need(there, flag, folder, method):
    if not there:
        raise InputError(f"{flag}: {folder} has not trained it; train it with  python train.py --out {folder} "
                         f"--method {method}")


def wanted(row, methods, strategies):
    """Whether a row was asked for; the backbone and what needs no strategy always stand beside the strategies."""
    method, _, strategy = row.partition(" ")
    return row == "backbone" or ((not methods or method in methods) and (not strategies or strategy in ("", *strategies)))


def evaluate_run(run):
    """Evaluate an OpenRun on the test split and write its results.json and gallery, unless only a part of it was asked for.

    returns  tables {name: {row: {column: number}}}: main and, of a whole run with prompts, sets and router
    """
    scores = run.evaluate(run.strategies)
    tables = {"main": report.main_rows(scores, run.costs, run.sizes)}
    if not run.whole:
        return tables
    if "prompt" in run.models:
        sets = run.evaluate({situation.label: told(run.models["prompt"], situation) for situation in Situation})
        tables["sets"] = {name: {situation.label: row[name].accuracy for situation, row in sets.items()}
                          for name in sets[Situation.COMPLETE]}
        counts = routes(run.router, run.data, "test", run.config, run.normalisation, run.device)
        tables["router"] = {situation.label: {picked.label: float(counts[situation, picked] / counts[situation].sum())
                                              for picked in Situation} for situation in Situation}
    facts = {"data": str(run.data.folder), "split": "test", "seed": run.config.train.seed,
             "damage": dataclasses.asdict(run.config.damage)}
    shown = dict(list(run.strategies.items())[:IN_GALLERY])
    samples = examples(shown, run.data, EXAMPLES, run.config, run.normalisation, run.device)
    write(run.folder / f"results{run.suffix}.json", report.results_json(scores, tables, facts))
    write(run.folder / f"gallery{run.suffix}.png", report.gallery(samples))
    return tables


TITLES = {"main": "", "sets": "Each prompt set (row) in each situation (column), accuracy:",
          "router": "Share of each situation (row) that the router takes for another (column):"}


def evaluate_runs(out, folders, device, data_folder=None, damage=None, methods=None, strategies=None):
    """Evaluate one run, or one for each seed in folders of their own in `out`: print every table, as mean and standard
    deviation where there are several, and draw the main one. The other arguments are those of OpenRun.

    returns  list of tables, one dict a run, as evaluate_run gives it
    """
    runs = open_runs(folders, device, data_folder, damage, methods, strategies)
    results = [evaluate_run(run) for run in runs]
    mains, suffix = [result["main"] for result in results], runs[0].suffix
    for name in results[0]:
        print("\n".join(filter(None, [TITLES[name], report.table("", [result[name] for result in results])])) + "\n")
    if len(folders) > 1:
        print(report.comparison(mains, "prompt situation" if "prompt situation" in mains[0] else "backbone"))
    if runs[0].whole:
        if len(folders) > 1:
            write(out / f"results{suffix}.json", report.seeds_json(results))
        columns = [*(situation.label for situation in Situation), "average"]
        write(out / f"results{suffix}.png", charts.bars(mains, columns, f"Test accuracy, {out.resolve().name}{suffix}"))
    return results


def write(path, content):
    logger.info("%s %s", "replaced" if path.exists() else "wrote", path)
    write_file(path, content)
