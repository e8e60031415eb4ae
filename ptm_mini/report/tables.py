"""What people read: tables in Markdown, and the same figures as JSON."""
import json
import statistics

from ptm_mini.config import Situation
from ptm_mini.training.methods import ROUTER

ACCURACY = (*(situation.label for situation in Situation), "average")
COST = {"learns": "{:,.0f}", "stored kB": "{:,.0f}", "s/epoch": "{:.1f}", "step MB": "{:,.0f}"}     # shown without spread


def main_rows(scores, costs, sizes):
    """The main table as numbers: accuracy in each situation, their average and worst, macro-F1, and what it cost.

    scores   {Situation: {row: Score}}
    costs    {method: list of Cost}
    sizes    {method: bytes of its files}
    returns  {row: {column: number}}
    """
    rows = {}
    for row in next(iter(scores.values())):
        method, own = row.split()[0], [scores[situation][row] for situation in scores]
        accuracies = {situation.label: scores[situation][row].accuracy for situation in scores}
        rows[row] = {**accuracies, "average": statistics.fmean(accuracies.values()), "worst": min(accuracies.values()),
                     "macro-F1": statistics.fmean(score.macro_f1 for score in own),
                     **cost_columns(costs[method], sizes[method])}
    return rows


def cost_columns(costs, size):
    """Numbers that learn in one model, kB stored for each situation, seconds of training an epoch, MB a training step."""
    stages = [cost for cost in costs if cost.stage != ROUTER]
    epochs = sum(cost.epochs for cost in stages)
    return {"learns": stages[0].parameters, "stored kB": size / len(Situation) / 1e3,
            "s/epoch": sum(cost.seconds for cost in stages) / max(1, epochs),
            "step MB": max(cost.memory for cost in stages) / 1e6}


def present_rows(scores):
    """The table by what there is of a sample as numbers: accuracies, and below them how many samples.

    scores   {what is there: {row: Score}}
    returns  {row: {what is there: number}}
    """
    rows = {row: {name: own[row].accuracy for name, own in scores.items()} for row in next(iter(scores.values()))}
    return {**rows, "samples": {name: next(iter(own.values())).samples for name, own in scores.items()}}


def those_there(columns, rows):
    """The columns that a table has: situations that no sample can be in have none. rows: {row: {column: number}}"""
    return [column for column in columns if column in next(iter(rows.values()))]


def table(corner, tables, columns=None, formats=COST):
    """A table as Markdown; of several, one a seed, mean ± standard deviation.

    tables   list of {row: {column: number}}; counts, whole numbers, are the same in all
    columns  those to show where they are there; None: all
    formats  {column: how its numbers are written, without spread}, for others than shares
    """
    columns = those_there(columns or list(next(iter(tables[0].values()))), tables[0])
    cells = [[corner, *columns]]
    for row in tables[0]:
        cells.append([row, *(cell([one[row][column] for one in tables], formats.get(column)) for column in columns)])
    return aligned(cells)


def aligned(cells):
    """Markdown of a table's lines, lists of texts, whose first one is the head"""
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ["| " + " | ".join([line[0].ljust(widths[0])] + [text.rjust(w) for text, w in zip(line[1:], widths[1:])]) + " |"
             for line in cells]
    rule = "|" + "|".join(["-" * (widths[0] + 2)] + ["-" * (w + 1) + ":" for w in widths[1:]]) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def cell(values, without_spread):
    if without_spread:
        return without_spread.format(statistics.fmean(values))
    if isinstance(values[0], int):
        return str(values[0])
    return f"{statistics.fmean(values):.3f}" + (f"±{statistics.stdev(values):.3f}" if len(values) > 1 else "")


def results_json(scores, tables, facts, compared):
    """results.json as bytes: `facts`, "scores": {situation: {row: {accuracy, macro_f1, loss, samples}}}, "average":
    {row: accuracy}, "differences": `compared`, and the other tables as they are printed."""
    content = {**facts,
               "scores": {situation.label: {name: score.figures() for name, score in row.items()}
                          for situation, row in scores.items()},
               "average": {row: columns["average"] for row, columns in tables["main"].items()},
               "differences": compared,
               **{name: rows for name, rows in tables.items() if name != "main"}}
    return as_json(content)


def seeds_json(results, compared):
    """Several seeds' tables as bytes: {table: {row: {column: list, a number a seed}}}, without seconds, which never repeat; and
    "differences": `compared`"""
    tables = {name: {row: {column: [one[name][row][column] for one in results] for column in columns if column != "s/epoch"}
                     for row, columns in results[0][name].items()} for name in results[0]}
    return as_json({**tables, "differences": compared})


def as_json(content):
    return (json.dumps(content, indent=1) + "\n").encode()
