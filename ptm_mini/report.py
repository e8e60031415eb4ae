"""What people read and look at: tables in Markdown, results.json, and the gallery of damaged samples."""
import json
import statistics

import numpy as np
from PIL import Image, ImageDraw

from ptm_mini.charts import INK, as_png, font
from ptm_mini.config import Situation
from ptm_mini.image import denormalise

RIGHT, WRONG = "#188038", "#d93025"
NO_SPREAD = {"learns": "{:,.0f}", "stored kB": "{:,.0f}", "s/epoch": "{:.1f}", "step MB": "{:,.0f}"}     # not accuracies


def main_rows(scores, costs, sizes):
    """The main table as numbers: accuracy in each situation, their average and worst, macro-F1, and what it cost.

    scores   {Situation: {row: Score}}
    costs    {method: list of Cost}
    sizes    {method: bytes of its files}
    returns  {row: {column: number}}
    """
    rows = {}
    for row in scores[Situation.COMPLETE]:
        method, own = row.split()[0], [scores[situation][row] for situation in scores]
        accuracies = {situation.label: scores[situation][row].accuracy for situation in scores}
        rows[row] = {**accuracies, "average": statistics.fmean(accuracies.values()), "worst": min(accuracies.values()),
                     "macro-F1": statistics.fmean(score.macro_f1 for score in own), **cost_columns(costs[method], sizes[method])}
    return rows


def cost_columns(costs, size):
    """Numbers that learn in one model, kB stored for each situation, seconds of training an epoch, MB a training step."""
    stages = [cost for cost in costs if cost.stage != "router"]
    epochs = sum(cost.epochs for cost in stages)
    return {"learns": stages[0].parameters, "stored kB": size / len(Situation) / 1e3,
            "s/epoch": sum(cost.seconds for cost in stages) / max(1, epochs),
            "step MB": max(cost.memory for cost in stages) / 1e6}


def table(corner, tables):
    """A table as Markdown; of several, one a seed, mean ± standard deviation. tables: list of {row: {column: number}}"""
    columns = list(next(iter(tables[0].values())))
    cells = [[corner, *columns]]
    for row in tables[0]:
        cells.append([row, *(cell([one[row][column] for one in tables], NO_SPREAD.get(column)) for column in columns)])
    widths = [max(map(len, column)) for column in zip(*cells)]
    lines = ["| " + " | ".join([line[0].ljust(widths[0])] + [text.rjust(w) for text, w in zip(line[1:], widths[1:])]) + " |"
             for line in cells]
    rule = "|" + "|".join(["-" * (widths[0] + 2)] + ["-" * (w + 1) + ":" for w in widths[1:]]) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def cell(values, without_spread):
    if without_spread:
        return without_spread.format(statistics.fmean(values))
    return f"{statistics.fmean(values):.3f}" + (f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else "")


def comparison(tables, reference):
    """Whether a row's average differs from that of the row `reference` by more than it does from seed to seed."""
    lines = [f"Average minus that of {reference!r}, seed by seed; larger where its mean exceeds its standard deviation:", "",
             "| | difference | larger than the spread |", "|---|---:|---|"]
    for row in (row for row in tables[0] if row != reference):
        differences = [one[row]["average"] - one[reference]["average"] for one in tables]
        mean, spread = statistics.fmean(differences), statistics.stdev(differences)
        lines.append(f"| {row} | {mean:+.3f} ± {spread:.3f} | {'yes' if abs(mean) > spread else 'no'} |")
    return "\n".join(lines)


def best_row(tables):
    """The row of the highest average."""
    return max(tables[0], key=lambda row: sum(one[row]["average"] for one in tables))


def results_json(scores, tables, facts):
    """results.json as bytes: `facts`, "scores": {situation: {row: {accuracy, macro_f1, loss, samples}}}, "average":
    {row: accuracy} and the other tables as they are printed."""
    content = {**facts,
               "scores": {situation.label: {name: score._asdict() for name, score in row.items()}
                          for situation, row in scores.items()},
               "average": {row: columns["average"] for row, columns in tables["main"].items()},
               **{name: rows for name, rows in tables.items() if name != "main"}}
    return as_json(content)


def seeds_json(results):
    """Several seeds' tables as bytes: {table: {row: {column: list, a number a seed}}}"""
    return as_json({name: {row: {column: [one[name][row][column] for one in results] for column in columns}
                           for row, columns in results[0][name].items()} for name in results[0]})


def as_json(content):
    return (json.dumps(content, indent=1) + "\n").encode()


def heat(spectrogram):
    """[T, M] in standard deviations to a picture [M, T], time to the right and low notes at the bottom, black to yellow."""
    level = np.clip((spectrogram.numpy().T[::-1] + 2) / 5, 0, 1)
    return Image.fromarray((255 * np.stack([level ** 0.7, level ** 1.5, 0.6 * np.sin(np.pi * level) + 0.1 * level], axis=-1))
                           .clip(0, 255).astype(np.uint8))


def gallery(samples):
    """Samples before and after each situation's damage, with the answers.

    samples  list of (class name, {Situation: (audio [T, M], image [3, H, W], {strategy: answer})}), COMPLETE being
             the sample before the damage
    returns  PNG bytes
    """
    side, gap, left, line = 150, 16, 130, 19
    strategies = list(samples[0][1][Situation.COMPLETE][2])
    cell_width, cell_height = 2 * side + gap, side + line * len(strategies) + 26
    picture = Image.new("RGB", (left + len(Situation) * (cell_width + gap), 70 + len(samples) * cell_height), "white")
    draw = ImageDraw.Draw(picture)
    for column, situation in enumerate(Situation):
        x = left + column * (cell_width + gap)
        when = "before" if situation == Situation.COMPLETE else "after"
        draw.text((x, 12), f"{situation.label} ({when})", INK, font(18))
        draw.text((x, 38), "image", INK, font(13))
        draw.text((x + side + 6, 38), "spectrogram", INK, font(13))
    for row, (truth, cells) in enumerate(samples):
        y = 62 + row * cell_height
        draw.text((8, y + side / 2), truth.replace("_", "\n"), INK, font(16), anchor="lm")
        for column, (audio, image, answers) in enumerate(cells.values()):
            x = left + column * (cell_width + gap)
            seen = Image.fromarray(denormalise(image).permute(1, 2, 0).numpy())
            picture.paste(seen.resize((side, side), Image.Resampling.NEAREST), (x, y))
            picture.paste(heat(audio).resize((side, side), Image.Resampling.NEAREST), (x + side + 6, y))
            for i, name in enumerate(strategies):
                right = answers[name] == truth
                draw.text((x, y + side + 4 + i * line), f"{name}: {answers[name]}" + ("" if right else "  (wrong)"),
                          RIGHT if right else WRONG, font(14))
    return as_png(picture)
