"""Pictures, drawn with Pillow: bars of accuracies, and a grid of samples with lines of text."""
import io
import statistics
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ptm_mini.data.image import denormalise

INK, FAINT, RIGHT, WRONG = "#202124", "#dadce0", "#188038", "#d93025"
COLOURS = ("#9aa0a6", "#1a73e8", "#f29900", "#188038", "#a142f4", "#d93025", "#12b5cb", "#202124",
           "#f06292", "#7cb342", "#e37400", "#795548", "#3949ab", "#00897b", "#c0ca33", "#8d6e63")
SIDE, GAP, LINE = 150, 6, 19             # pixels of a picture in a grid, of a gap, of a text line


class Cell(NamedTuple):
    """A cell of a grid."""
    pictures: list[Image.Image]          # side by side
    lines: list[tuple[str, str]]         # below: text and colour


def font(size: int) -> ImageFont.FreeTypeFont:
    """Load Pillow's own font, in pixels."""
    return ImageFont.load_default(size)


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


def grid(rows: Sequence[tuple[str, dict[str, Cell]]], title: str = "") -> bytes:
    """Draw cells in rows with a label at the left, and columns with a name above. PNG

    title   of any number of lines
    """
    columns = list(dict.fromkeys(name for _, cells in rows for name in cells))
    cells = [cell for _, row in rows for cell in row.values()]
    left = 16 + round(max(font(16).getlength(label) for label, _ in rows))
    width = 16 + round(max(
        max(len(cell.pictures) for cell in cells) * (SIDE + GAP),
        *(font(16).getlength(name) for name in columns),
        *(font(14).getlength(text) for cell in cells for text, _ in cell.lines)))
    height = SIDE + 16 + LINE * max(len(cell.lines) for cell in cells)
    title_lines = title.splitlines()
    top = 44 + 22 * len(title_lines)
    total = max(left + width * len(columns),
                *(16 + round(font(16).getlength(line)) for line in title_lines), 0)
    picture = Image.new("RGB", (total, top + height * len(rows)), "white")
    draw = ImageDraw.Draw(picture)
    for i, line in enumerate(title_lines):
        draw.text((8, 8 + 22 * i), line, INK, font(16))
    for c, name in enumerate(columns):
        draw.text((left + c * width, top - 28), name, INK, font(16))
    for r, (label, row) in enumerate(rows):
        y = top + r * height
        draw.text((8, y + SIDE / 2), label, INK, font(16), anchor="lm")
        for name, cell in row.items():
            x = left + columns.index(name) * width
            for i, one in enumerate(cell.pictures):
                resized = one.resize((SIDE, SIDE), Image.Resampling.NEAREST)
                picture.paste(resized, (x + i * (SIDE + GAP), y))
            for i, (text, colour) in enumerate(cell.lines):
                draw.text((x, y + SIDE + 3 + i * LINE), text, colour, font(14))
    return as_png(picture)


def bars(tables: Sequence[dict[str, dict[str, float]]], title: str) -> bytes:
    """Draw a group of bars for each column and a bar for each row, spread over seeds as a line. PNG

    tables   one a seed: {row: {column: number between 0 and 1}}
    """
    rows, columns = list(tables[0]), list(next(iter(tables[0].values())))
    bar, left, top, height = max(9, min(36, 160 // len(rows))), 56, 60, 300
    group = max(bar * len(rows), *(round(font(14).getlength(name)) for name in columns)) + 26
    right = left + group * len(columns)
    legend = 56 + round(max(font(14).getlength(row) for row in rows))
    total = max(right + legend, left + 16 + round(font(18).getlength(title)))
    picture = Image.new("RGB", (total, top + max(height + 40, LINE * len(rows) + 20)), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((left, 10), title, INK, font(18))
    for tenth in range(11):
        y = top + height * (1 - tenth / 10)
        draw.line((left, y, right, y), FAINT)
        draw.text((left - 8, y), f"{tenth / 10:.1f}", INK, font(13), anchor="rm")
    for i, row in enumerate(rows):
        colour, y = COLOURS[i % len(COLOURS)], top + LINE * i
        draw.rectangle((right + 20, y, right + 34, y + 14), colour)
        draw.text((right + 42, y - 2), row, INK, font(14))
        for c, column in enumerate(columns):
            values = [table[row][column] for table in tables]
            mean = statistics.fmean(values)
            spread = statistics.stdev(values) if len(values) > 1 else 0
            y, low, high = (top + height * (1 - value) for value in
                            (mean, max(0, mean - spread), min(1, mean + spread)))
            x = left + c * group + (group - bar * len(rows)) // 2 + i * bar
            draw.rectangle((x, y, x + bar - 2, top + height), colour)
            draw.line((x + bar // 2 - 1, low, x + bar // 2 - 1, high), INK)
            if bar > 28:                                    # wide enough for its number
                draw.text((x + bar / 2, high - 3), f"{mean:.2f}", INK, font(12), anchor="mb")
    for c, column in enumerate(columns):
        draw.text((left + (c + 0.5) * group, top + height + 8), column, INK, font(14), anchor="ma")
    return as_png(picture)
