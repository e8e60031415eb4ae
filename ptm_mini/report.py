"""What people look at: the table, results.json, and two pictures drawn with Pillow."""
import io
import json

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ptm_mini.config import Situation
from ptm_mini.evaluate import average
from ptm_mini.image import denormalise

COLOURS = {"backbone": "#9aa0a6", "situation": "#1a73e8", "concat": "#f29900"}
INK, FAINT, RIGHT, WRONG = "#202124", "#dadce0", "#188038", "#d93025"


def table(scores):
    """The main table as Markdown: a row for each situation and the average, a column for each strategy.

    scores  {Situation: {strategy: Score}}
    """
    strategies = list(scores[Situation.COMPLETE])
    rows = [["situation", *strategies, "samples"]]
    rows += [[situation.label, *(f"{row[name].accuracy:.3f}" for name in strategies), str(row[strategies[0]].samples)]
             for situation, row in scores.items()]
    rows.append(["average", *(f"{average(scores, name):.3f}" for name in strategies), ""])
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["| " + " | ".join([row[0].ljust(widths[0])] + [cell.rjust(w) for cell, w in zip(row[1:], widths[1:])]) + " |"
             for row in rows]
    rule = "|" + "|".join(["-" * (widths[0] + 2)] + ["-" * (w + 1) + ":" for w in widths[1:]]) + "|"
    return "\n".join([lines[0], rule, *lines[1:]])


def results_json(scores, facts):
    """results.json as bytes: `facts`, "scores": {situation: {strategy: {accuracy, loss, samples}}} and "average":
    {strategy: accuracy}."""
    content = {**facts,
               "scores": {situation.label: {name: score._asdict() for name, score in row.items()}
                          for situation, row in scores.items()},
               "average": {name: average(scores, name) for name in scores[Situation.COMPLETE]}}
    return (json.dumps(content, indent=1) + "\n").encode()


def as_png(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def font(size):
    return ImageFont.load_default(size)


def bar_chart(scores, title):
    """Accuracy as bars, situations x strategies and the average. returns PNG bytes"""
    strategies = list(scores[Situation.COMPLETE])
    groups = {situation.label: {name: score.accuracy for name, score in row.items()} for situation, row in scores.items()}
    groups["average"] = {name: average(scores, name) for name in strategies}
    bar, gap, left, top, height = 36, 34, 60, 80, 300
    group_width = bar * len(strategies) + gap
    picture = Image.new("RGB", (left + group_width * len(groups) + 20, top + height + 50), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((left, 12), title, INK, font(18))
    x = left
    for name in strategies:
        draw.rectangle((x, 46, x + 14, 60), COLOURS[name])
        draw.text((x + 20, 44), name, INK, font(14))
        x += 120
    for tenth in range(0, 11, 2):
        y = top + height - height * tenth / 10
        draw.line((left, y, picture.width - 20, y), FAINT)
        draw.text((left - 8, y), f"{tenth / 10:.1f}", INK, font(13), anchor="rm")
    for g, (label, row) in enumerate(groups.items()):
        x = left + gap / 2 + g * group_width
        for i, name in enumerate(strategies):
            y = top + height - height * row[name]
            draw.rectangle((x + i * bar, y, x + (i + 1) * bar - 3, top + height), COLOURS[name])
            draw.text((x + (i + 0.5) * bar, y - 3), f"{row[name]:.2f}", INK, font(12), anchor="mb")
        draw.text((x + bar * len(strategies) / 2, top + height + 10), label, INK, font(14), anchor="ma")
    return as_png(picture)


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
