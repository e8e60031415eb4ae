"""How training went: loss and validation accuracy over the epochs, from log.jsonl.

python -m ptm_mini.lab.curves runs/toy-1            draws curves.png
"""
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ptm_mini.checkpoint import read_run, run_folders
from ptm_mini.errors import InputError, new_parser, run as run_command
from ptm_mini.lab.lines import Panel, lines
from ptm_mini.report import write

FIGURES = {"loss": "training loss", "validation_loss": "validation loss",
           "accuracy": "validation accuracy"}          # {key of a log's line: its name}


def collect_curves(logs: Sequence[list[dict[str, Any]]]) -> list[dict[str, Panel]]:
    """Collect a row of panels for each method, and in them a line for each of its stages.

    logs: lines of log.jsonl, one list a seed
    """
    lines_of: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for line in sum(logs, []):
        lines_of.setdefault((line["stage"], line["epoch"]), []).append(line)
    rows: dict[str, dict[str, Panel]] = {}
    for (stage, epoch), own in lines_of.items():
        method, _, case = stage.partition(" ")
        for key, name in FIGURES.items():
            panel = rows.setdefault(method, {}).setdefault(f"{method}: {name}", {})
            panel.setdefault(case or stage, []).append((epoch, [line[key] for line in own]))
    return list(rows.values())


def main(argv: list[str] | None = None) -> None:
    parser = new_parser(__doc__)
    parser.add_argument("run", type=Path, help="run folder, or the folder of several seeds")
    args = parser.parse_args(argv)
    logs = [read_run(folder).read_log() for folder in run_folders(args.run) or [args.run]]
    if not any(logs):
        raise InputError(f"{args.run}: no epoch is logged; expected a run that has trained: "
                         f"python train.py --resume {args.run}")
    rows = collect_curves(logs)
    losses = [name for row in rows for name in row if name.endswith("loss")]
    title = f"Training, {args.run.resolve().name}"
    write(args.run / "curves.png", lines(rows, title, "epoch", fitted=losses))


if __name__ == "__main__":
    run_command(main)
