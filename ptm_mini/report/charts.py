"""Bars and lines, drawn with Pillow. Figures come as report.py's tables do: one {row: {column: number}} a seed."""
import io
import math
import statistics

from PIL import Image, ImageDraw, ImageFont

INK, FAINT = "#202124", "#dadce0"
COLOURS = ("#9aa0a6", "#1a73e8", "#f29900", "#188038", "#a142f4", "#d93025", "#12b5cb", "#e37400", "#5f6368", "#7cb342",
           "#f06292", "#795548", "#3949ab", "#00897b", "#c0ca33", "#8d6e63", "#ad1457")
LEFT, TOP, HEIGHT, LEGEND_WIDTH = 64, 44, 300, 220


def as_png(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def font(size):
    return ImageFont.load_default(size)


def spread(values):
    return statistics.stdev(values) if len(values) > 1 else 0


class Scale:
    """The vertical axis of a panel, from `low` to 1."""

    def __init__(self, values, top):
        self.low, self.top = math.floor(10 * max(0, min(values) - 0.02)) / 10, top

    def y(self, value):
        return self.top + HEIGHT * (1 - (value - self.low) / (1 - self.low))

    def draw(self, draw, left, right):
        for tenth in range(round(10 * self.low), 11):
            draw.line((left, self.y(tenth / 10), right, self.y(tenth / 10)), FAINT)
            draw.text((left - 8, self.y(tenth / 10)), f"{tenth / 10:.1f}", INK, font(13), anchor="rm")


def canvas(title, width, rows):
    """A picture with its title, and the legend of `rows` at the right. returns picture, ImageDraw"""
    picture = Image.new("RGB", (width + LEGEND_WIDTH, max(TOP + HEIGHT + 60, TOP + 22 * len(rows) + 20)), "white")
    draw = ImageDraw.Draw(picture)
    draw.text((LEFT, 10), title, INK, font(18))
    for i, row in enumerate(rows):
        draw.rectangle((width, TOP + 22 * i, width + 14, TOP + 22 * i + 14), COLOURS[i % len(COLOURS)])
        draw.text((width + 20, TOP + 22 * i - 2), row, INK, font(14))
    return picture, draw


def bars(tables, columns, title):
    """A group of bars for each column, a bar for each row, with the spread over seeds as a line. returns PNG bytes"""
    rows = list(tables[0])
    bar, gap = max(9, min(36, 160 // len(rows))), 26
    group_width = bar * len(rows) + gap
    picture, draw = canvas(title, LEFT + group_width * len(columns) + 20, rows)
    scale = Scale([0], TOP)
    scale.draw(draw, LEFT, LEFT + group_width * len(columns))
    for g, column in enumerate(columns):
        left = LEFT + gap / 2 + g * group_width
        for i, row in enumerate(rows):
            values = [one[row][column] for one in tables]
            mean, deviation, x = statistics.fmean(values), spread(values), left + i * bar
            draw.rectangle((x, scale.y(mean), x + bar - 2, scale.y(0)), COLOURS[i % len(COLOURS)])
            draw.line((x + bar / 2 - 1, scale.y(mean - deviation), x + bar / 2 - 1, scale.y(mean + deviation)), INK)
            if bar > 24:
                draw.text((x + bar / 2, scale.y(mean + deviation) - 3), f"{mean:.2f}", INK, font(12), anchor="mb")
        draw.text((left + bar * len(rows) / 2, scale.y(0) + 10), column, INK, font(14), anchor="ma")
    return as_png(picture)


def lines(panels, title, x_label, logarithmic=False):
    """A panel for each {name: {series: [(x, values, a number a seed)]}}; spread over seeds as bars. returns PNG bytes"""
    series = list(dict.fromkeys(name for panel in panels.values() for name in panel))
    points = [point for panel in panels.values() for own in panel.values() for point in own]
    place = math.log2 if logarithmic else float
    first, last = (place(pick(x for x, _ in points)) for pick in (min, max))
    width, gap = 330, 50
    picture, draw = canvas(title, LEFT + (width + gap) * len(panels), series)
    ticks = sorted({x for x, _ in points})
    for p, (name, panel) in enumerate(panels.items()):
        left = LEFT + p * (width + gap)
        scale = Scale([value for _, values in points for value in values], TOP + 16)
        scale.draw(draw, left, left + width)
        draw.text((left + width / 2, TOP - 6), name, INK, font(14), anchor="ma")

        def across(x):
            return left + 14 + (width - 28) * ((place(x) - first) / (last - first) if last > first else 0.5)

        end = -math.inf
        for x in ticks:                                               # labels that would touch the one before are left out
            label = f"{x:,.4g}" if x < 10000 else f"{x:,.0f}"
            half = font(12).getlength(label) / 2
            if across(x) - half > end + 4:
                draw.text((across(x), scale.y(scale.low) + 6), label, INK, font(12), anchor="ma")
                end = across(x) + half
        draw.text((left + width / 2, scale.y(scale.low) + 24), x_label, INK, font(13), anchor="ma")
        for name, own in panel.items():
            colour = COLOURS[series.index(name) % len(COLOURS)]
            path = [(across(x), scale.y(statistics.fmean(values))) for x, values in own]
            draw.line(path, colour, width=3)
            for (x, y), (_, values) in zip(path, own):
                draw.ellipse((x - 4, y - 4, x + 4, y + 4), colour)
                reach = HEIGHT / (1 - scale.low) * spread(values)
                draw.line((x, y - reach, x, y + reach), colour)
    return as_png(picture)
