"""Charts of lines over x, with the spread over seeds shaded."""
import math
import statistics
from collections.abc import Collection, Sequence

from PIL import Image, ImageDraw

from ptm_mini.plots import COLOURS, FAINT, INK, LINE, as_png, font

Panel = dict[str, list[tuple[float, list[float]]]]    # {line: points}: x and values, one a seed
WIDTH, HEIGHT, BELOW = 330, 300, 92           # pixels of a panel; from it to the next one below
LEFT, TOP, INSET = 64, 66, 14                 # INSET: from a panel's side to its first point
SHADE = "24"                                  # opacity of the spread, of ff
MARKED = 30                                   # points of a line up to which each is marked


def lines(rows: Sequence[dict[str, Panel]], title: str, x_label: str, logarithmic: bool = False,
          fitted: Collection[str] = ()) -> bytes:
    """Draw rows of panels; the panels of a row share their x axis. PNG

    rows     list of {panel's name: Panel}
    fitted   names of panels whose y axis is fitted to their values; others end at 1
    """
    names = list(dict.fromkeys(name for row in rows for panel in row.values() for name in panel))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    step = LEFT + max([WIDTH, *(round(font(14).getlength(name)) for row in rows for name in row)])
    right = step * max(map(len, rows)) + 24
    total = max(right + 40 + round(max(font(14).getlength(name) for name in names)),
                LEFT + 16 + round(font(18).getlength(title)))
    bottom = TOP + max((HEIGHT + BELOW) * len(rows) - 24, LINE * len(names) + 20)
    picture = Image.new("RGB", (total, bottom), "white")
    draw = ImageDraw.Draw(picture, "RGBA")                   # colours may be see-through
    draw.text((LEFT, 10), title, INK, font(18))
    for i, (name, colour) in enumerate(colours.items()):
        y = TOP + LINE * i
        draw.rectangle((right, y, right + 14, y + 14), colour)
        draw.text((right + 22, y - 2), name, INK, font(14))
    for r, row in enumerate(rows):
        places = place_xs(row.values(), logarithmic)
        for p, (name, panel) in enumerate(row.items()):
            left, top = LEFT + p * step, TOP + r * (HEIGHT + BELOW)
            draw.text((left, top - 12), name, INK, font(14), anchor="ls")
            draw.text((left + WIDTH / 2, top + HEIGHT + 26), x_label, INK, font(13), anchor="ma")
            draw_panel(draw, left, top, panel, places, name in fitted, colours)
    return as_png(picture)


def place_xs(panels: Collection[Panel], logarithmic: bool) -> dict[float, float]:
    """Place each x of a row of panels, in pixels from a panel's left."""
    xs = sorted({x for panel in panels for points in panel.values() for x, _ in points})
    scaled = [math.log2(x) if logarithmic else x for x in xs]
    span = scaled[-1] - scaled[0]
    return {x: INSET + (WIDTH - 2 * INSET) * ((place - scaled[0]) / span if span else 0.5)
            for x, place in zip(xs, scaled)}


def draw_panel(draw: ImageDraw.ImageDraw, left: int, top: int, panel: Panel,
               places: dict[float, float], fitted: bool, colours: dict[str, str]) -> None:
    """Draw the axes and the lines of a panel."""
    reaches = {name: [(left + places[x], *find_reach(values)) for x, values in points]
               for name, points in panel.items()}
    ticks = choose_ticks([y for path in reaches.values() for _, *ys in path for y in ys], fitted)
    low, high = ticks[0], ticks[-1]
    digits = max(0, -math.floor(math.log10(ticks[1] - low) + 1e-9))

    def place_y(value: float) -> float:
        return top + HEIGHT * (high - max(low, min(value, high))) / (high - low)

    for tick in ticks:
        draw.line((left, place_y(tick), left + WIDTH, place_y(tick)), FAINT)
        draw.text((left - 8, place_y(tick)), f"{tick:.{digits}f}", INK, font(13), anchor="rm")
    end = -math.inf
    for x, place in places.items():               # labels that would touch the last are left out
        label = f"{x:,.4g}" if x < 10000 else f"{x:,.0f}"
        half = font(12).getlength(label) / 2
        if place - half > end + 4:
            draw.text((left + place, top + HEIGHT + 6), label, INK, font(12), anchor="ma")
            end = place + half
    for name, path in reaches.items():
        mean, above, below = ([(x, place_y(ys[i])) for x, *ys in path] for i in range(3))
        if len(path) > 1:
            draw.polygon(above + below[::-1], colours[name] + SHADE)
            draw.line(mean, colours[name], width=3)
        else:
            draw.line(above + below, colours[name])
        for x, y in mean if len(mean) <= MARKED else ():
            draw.ellipse((x - 4, y - 4, x + 4, y + 4), colours[name])


def find_reach(values: list[float]) -> tuple[float, float, float]:
    """Compute the mean over seeds, and the ends of the spread above and below it."""
    mean = statistics.fmean(values)
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return mean, mean + spread, mean - spread


def choose_ticks(values: list[float], fitted: bool) -> list[float]:
    """Choose round numbers around the values: a step is 1, 2 or 5 times a power of ten."""
    if not fitted:
        return [tenth / 10 for tenth in range(math.floor(10 * max(0.0, min(values) - 0.02)), 11)]
    least = max((max(values) - min(values)) / 6, 1e-3)
    power = 10.0 ** math.floor(math.log10(least))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least)
    first, last = math.floor(min(values) / step), math.floor(max(values) / step) + 1
    return [n * step for n in range(first, last + 1)]
