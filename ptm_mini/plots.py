"""Pictures, drawn with Pillow: bars of accuracies, and a grid of samples with lines of text."""
import io
import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ptm_mini.data.image import denormalise

INK, FAINT, RIGHT, WRONG = "#202124", "#dadce0", "#188038", "#d93025"
COLOURS = ("#9aa0a6", "#1a73e8", "#f29900", "#188038", "#a142f4", "#d93025", "#12b5cb", "#202124",
           "#f06292", "#7cb342", "#e37400", "#795548", "#3949ab", "#00897b", "#c0ca33", "#8d6e63")
font = ImageFont.load_default            # of a size in pixels
SIDE, GAP, LINE = 150, 6, 19             # pixels of a picture in a grid, of a gap, of a text line


class Cell(NamedTuple):
    pictures: list[Image.Image]          # side by side
    lines: list[tuple[str, str]]         # below: text and colour


def text_width(texts: Iterable[str], size: int) -> int:
    """Measure the longest of some lines of text, in pixels."""
    return max((round(font(size).getlength(text)) for text in texts), default=0)


def as_png(picture: Image.Image) -> bytes:
    """Encode a picture."""
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def draw_audio(audio: Tensor) -> Image.Image:
    """Draw a normalised log-mel [T, M]: time to the right, low notes at the bottom."""
    level = np.clip((audio.numpy().T[::-1] + 2) / 5, 0, 1)
    rgb = np.stack([level ** 0.7, level ** 1.5, 0.6 * np.sin(np.pi * level) + 0.1 * level], axis=-1)
    return Image.fromarray((255 * rgb).clip(0, 255).astype(np.uint8))


def draw_image(image: Tensor) -> Image.Image:
    """Draw a normalised image [3, H, W]."""
    return Image.fromarray(denormalise(image).permute(1, 2, 0).numpy())


def draw_legend(draw: ImageDraw.ImageDraw, left: int, top: int, names: Iterable[str]) -> None:
    """Draw a line of text for each name, after its colour."""
    for i, name in enumerate(names):
        y = top + LINE * i
        draw.rectangle((left, y, left + 14, y + 14), COLOURS[i % len(COLOURS)])
        draw.text((left + 22, y - 2), name, INK, font(14))


def mean_and_spread(values: Sequence[float]) -> tuple[float, float]:
    """Compute mean and standard deviation over seeds, 0 for one seed."""
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else 0.0


def grid(rows: Sequence[tuple[str, dict[str, Cell]]], title: str = "") -> bytes:
    """Draw rows (label, {column: cell}), all with the same columns, below a title of any number of
    lines. PNG"""
    columns, titles = list(rows[0][1]), title.splitlines()
    cells = [cell for _, row in rows for cell in row.values()]
    left = 16 + text_width([label for label, _ in rows], 16)
    width = 16 + max(max(len(cell.pictures) for cell in cells) * (SIDE + GAP),
                     text_width(columns, 16),
                     text_width([text for cell in cells for text, _ in cell.lines], 14))
    height = SIDE + 16 + LINE * max(len(cell.lines) for cell in cells)
    top = 44 + 22 * len(titles)
    total = max(left + width * len(columns), 16 + text_width(titles, 16))
    picture = Image.new("RGB", (total, top + height * len(rows)), "white")
    draw = ImageDraw.Draw(picture)
    for i, line in enumerate(titles):
        draw.text((8, 8 + 22 * i), line, INK, font(16))
    for c, name in enumerate(columns):
        draw.text((left + c * width, top - 28), name, INK, font(16))
    for r, (label, row) in enumerate(rows):
        y = top + r * height
        draw.text((8, y + SIDE / 2), label, INK, font(16), anchor="lm")
        for c, cell in enumerate(row.values()):
            x = left + c * width
            for i, one in enumerate(cell.pictures):
                resized = one.resize((SIDE, SIDE), Image.Resampling.NEAREST)
                picture.paste(resized, (x + i * (SIDE + GAP), y))
            for i, (text, colour) in enumerate(cell.lines):
                draw.text((x, y + SIDE + 3 + i * LINE), text, colour, font(14))
    return as_png(picture)


def bars(tables: Sequence[dict[str, dict[str, float]]], title: str) -> bytes:
    """Draw tables, one a seed, of numbers between 0 and 1: a group of bars for each column, a bar
    for each row, with the spread over seeds as a line. PNG"""
    rows, columns = list(tables[0]), list(next(iter(tables[0].values())))
    bar, left, top, height = max(9, min(36, 160 // len(rows))), 56, 60, 300
    group = max(bar * len(rows), text_width(columns, 14)) + 26
    right = left + group * len(columns)
    total = max(right + 56 + text_width(rows, 14), left + 16 + text_width([title], 18))
    picture = Image.new("RGB", (total, top + max(height + 40, LINE * len(rows) + 20)), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((left, 10), title, INK, font(18))
    draw_legend(draw, right + 20, top, rows)
    for tenth in range(11):
        y = top + height * (1 - tenth / 10)
        draw.line((left, y, right, y), FAINT)
        draw.text((left - 8, y), f"{tenth / 10:.1f}", INK, font(13), anchor="rm")
    for c, column in enumerate(columns):
        middle = left + (c + 0.5) * group
        draw.text((middle, top + height + 8), column, INK, font(14), anchor="ma")
        for i, row in enumerate(rows):
            mean, spread = mean_and_spread([table[row][column] for table in tables])
            y, low, high = (top + height * (1 - value) for value in
                            (mean, max(0, mean - spread), min(1, mean + spread)))
            x = left + c * group + (group - bar * len(rows)) // 2 + i * bar
            draw.rectangle((x, y, x + bar - 2, top + height), COLOURS[i % len(COLOURS)])
            draw.line((x + bar // 2 - 1, low, x + bar // 2 - 1, high), INK)
            if bar > 28:                                    # wide enough for its number
                draw.text((x + bar / 2, high - 3), f"{mean:.2f}", INK, font(12), anchor="mb")
    return as_png(picture)
