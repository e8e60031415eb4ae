"""Repeat the evaluation of a run folder on the test split: print the table, write results.json and two pictures.

python eval.py runs/toy-1                     the numbers that train.py printed
python eval.py runs/toy-1 --damage paper      another severity; its files are named results-paper.json and so on
"""
import argparse
import dataclasses
import logging
from pathlib import Path

import torch

from ptm_mini import checkpoint, report
from ptm_mini.command import run as run_command
from ptm_mini.config import DAMAGES, InputError
from ptm_mini.data import PreparedSet
from ptm_mini.evaluate import evaluate, examples, strategies_of
from ptm_mini.files import write_file

logger = logging.getLogger("eval")
EXAMPLES = 5                      # test samples in the gallery


def pick_device(name):
    """torch.device for "auto", "cpu" or "cuda"."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: no CUDA device is available; expected one, or --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def open_set(run, folder=None):
    """The PreparedSet of a run, or the one in `folder`, which must have the same classes."""
    folder = folder or Path(run.data)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected the run's set: say with --data where it is now")
    data = PreparedSet(folder, run.config)
    if data.classes != run.classes:
        raise InputError(f"{folder}: its classes differ from the run's; expected {', '.join(run.classes)}")
    return data


def evaluate_run(folder, device, data_folder=None, damage=None):
    """Evaluate a saved run on the test split, print the table and write the report into the run folder.

    data_folder  prepared set to use in place of the one that the run was trained on
    damage       a name in DAMAGES; None: what the run was trained with
    returns      {Situation: {strategy: Score}}
    """
    run = checkpoint.load_run(folder)
    config, suffix = run.config, ""
    if damage and DAMAGES[damage] != config.damage:
        config, suffix = dataclasses.replace(config, damage=DAMAGES[damage]), f"-{damage}"
    data = open_set(run, data_folder)
    strategies = strategies_of(checkpoint.load_model(folder, run).to(device))
    scores = evaluate(strategies, data, "test", config, run.normalisation, device)
    print(report.table(scores))
    facts = {"data": str(data.folder), "split": "test", "seed": config.train.seed,
             "damage": dataclasses.asdict(config.damage)}
    samples = examples(strategies, data, EXAMPLES, config, run.normalisation, device)
    for name, content in ((f"results{suffix}.json", report.results_json(scores, facts)),
                          (f"results{suffix}.png", report.bar_chart(scores, f"Test accuracy, {folder.resolve().name}{suffix}")),
                          (f"gallery{suffix}.png", report.gallery(samples))):
        logger.info("%s %s", "replaced" if (folder / name).exists() else "wrote", folder / name)
        write_file(folder / name, content)
    return scores


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder that train.py made")
    parser.add_argument("--data", type=Path, help="prepared set to evaluate on; default: the run's own")
    parser.add_argument("--damage", choices=DAMAGES, help="severity; default: the run's own")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto",
                        help="auto takes a CUDA device if there is one (default: %(default)s)")
    options = parser.parse_args(argv)
    evaluate_run(options.run, pick_device(options.device), options.data, options.damage)


if __name__ == "__main__":
    run_command(main)
