"""Bars and lines, drawn with Pillow. Figures come as report.py's tables do: one {row: {column: number}} a seed."""
import io
import math
import statistics

from PIL import Image, ImageDraw, ImageFont

INK, FAINT = "#202124", "#dadce0"
COLOURS = ("#9aa0a6", "#1a73e8", "#f29900", "#188038", "#a142f4", "#d93025", "#12b5cb", "#202124", "#f06292", "#7cb342",
           "#e37400", "#795548", "#3949ab", "#00897b", "#c0ca33", "#8d6e63", "#ad1457")
LEFT, TOP, HEIGHT, LEGEND_WIDTH = 64, 44, 300, 220
PANEL, BESIDE, BELOW = 330, 50, 76           # width of a panel of lines, and the room to the next ones
DOTS = 30                                    # points of a line up to which each is marked
SHADE = "24"                                 # how far a spread covers what is behind it, of ff


def as_png(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def font(size):
    return ImageFont.load_default(size)


def spread(values):
    return statistics.stdev(values) if len(values) > 1 else 0


def round_step(span):
    """1, 2 or 5 times a power of ten, which fits into the span six times at most"""
    rough = max(span / 6, 1e-3)
    power = 10.0 ** math.floor(math.log10(rough))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)


def round_numbers(first, last, logarithmic=False):
    """Numbers from `first` to `last` for the ticks of an axis; logarithmic: 1, 2 and 5 times each power of ten"""
    if logarithmic:
        powers = [10.0 ** n for n in range(math.floor(math.log10(first)), math.floor(math.log10(last)) + 1)]
        return [x for x in (power * factor for power in powers for factor in (1, 2, 5)) if first <= x <= last]
    step = round_step(last - first)
    return [n * step for n in range(math.ceil(first / step), math.floor(last / step) + 1)]


class Scale:
    """The vertical axis of a panel, with a line at each `step`: up to 1, as of shares, or fitted, between round numbers."""

    def __init__(self, values, top, fitted=False):
        self.top, self.step, self.low, self.high = top, 0.1, math.floor(10 * max(0, min(values) - 0.02)) / 10, 1.0
        if fitted:
            self.step = round_step(max(values) - min(values))
            self.low = self.step * math.floor(min(values) / self.step)
            self.high = self.step * (math.floor(max(values) / self.step) + 1)

    def y(self, value):
        return self.top + HEIGHT * (1 - (value - self.low) / (self.high - self.low))

    def draw(self, draw, left, right):
        digits = max(0, -math.floor(math.log10(self.step)))
        for n in range(round((self.high - self.low) / self.step) + 1):
            value = self.low + n * self.step
            draw.line((left, self.y(value), right, self.y(value)), FAINT)
            draw.text((left - 8, self.y(value)), f"{value:.{digits}f}", INK, font(13), anchor="rm")


def canvas(title, width, rows, height=HEIGHT + 60):
    """A picture with its title, and the legend of `rows` at the right. returns picture, ImageDraw"""
    picture = Image.new("RGB", (width + LEGEND_WIDTH, max(TOP + height, TOP + 22 * len(rows) + 20)), "white")
    draw = ImageDraw.Draw(picture, "RGBA")                 # colours can be see-through
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


def lines(rows, title, x_label, logarithmic=False, fitted=(), ticks=()):
    """Rows of panels, PNG bytes. In a panel are lines over x, with the spread over seeds shaded; a row shares its x axis.

    rows    list of {panel's name: {series: [(x, values, a number a seed)]}}
    fitted  names of panels whose axis is fitted to what they hold
    ticks   the x that are written below; none: those of the points
    """
    series = list(dict.fromkeys(name for row in rows for panel in row.values() for name in panel))
    width, down = PANEL + BESIDE, HEIGHT + BELOW
    picture, draw = canvas(title, LEFT + width * max(map(len, rows)), series, down * len(rows))
    for r, row in enumerate(rows):
        across, labels = horizontal([x for panel in row.values() for own in panel.values() for x, _ in own], logarithmic, ticks)
        for p, (name, panel) in enumerate(row.items()):
            left, values = LEFT + p * width, [value for own in panel.values() for _, values in own for value in values]
            scale = Scale(values, TOP + 16 + r * down, name in fitted)
            scale.draw(draw, left, left + PANEL)
            draw.text((left + PANEL / 2, scale.top - 22), name, INK, font(14), anchor="ma")
            for x, label in labels:
                draw.text((left + across(x), scale.top + HEIGHT + 6), label, INK, font(12), anchor="ma")
            draw.text((left + PANEL / 2, scale.top + HEIGHT + 24), x_label, INK, font(13), anchor="ma")
            for one, own in panel.items():
                points = [(left + across(x), values) for x, values in own]
                draw_line(draw, points, scale, COLOURS[series.index(one) % len(COLOURS)])
    return as_png(picture)


def horizontal(xs, logarithmic, ticks):
    """The horizontal axis of a row. returns function(x) -> pixels in a panel, [(x, label)] without those that would touch"""
    place = math.log2 if logarithmic else float
    first, last = place(min(xs)), place(max(xs))

    def across(x):
        return 14 + (PANEL - 28) * ((place(x) - first) / (last - first) if last > first else 0.5)

    end, shown = -math.inf, []
    for x in sorted(ticks or set(xs)):
        label = f"{x:,.4g}" if x < 10000 else f"{x:,.0f}"
        half = font(12).getlength(label) / 2
        if across(x) - half > end + 4:
            shown.append((x, label))
            end = across(x) + half
    return across, shown


def draw_line(draw, points, scale, colour):
    """points: list of (pixels from the left, values, a number a seed)"""
    path = [(x, scale.y(statistics.fmean(values))) for x, values in points]
    reaches = [spread(values) * HEIGHT / (scale.high - scale.low) for _, values in points]
    above = [(x, y - reach) for (x, y), reach in zip(path, reaches)]
    below = [(x, y + reach) for (x, y), reach in zip(path, reaches)]
    if len(path) > 1:
        draw.polygon(above + below[::-1], colour + SHADE)
        draw.line(path, colour, width=3)
    else:
        draw.line(above + below, colour)
    for x, y in path if len(path) <= DOTS else ():
        draw.ellipse((x - 4, y - 4, x + 4, y + 4), colour)
