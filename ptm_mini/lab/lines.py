"""Charts of lines over x, with the spread over seeds shaded."""
import math
from collections.abc import Collection, Sequence

from PIL import Image, ImageDraw

from ptm_mini.plots import (COLOURS, FAINT, INK, LINE, as_png, draw_legend, font, mean_and_spread,
                            text_width)

Panel = dict[str, list[tuple[float, list[float]]]]    # {line: points}: x and values, one a seed
WIDTH, HEIGHT, BELOW = 330, 300, 92           # pixels of a panel; from it to the next one below
LEFT, TOP, INSET = 64, 66, 14                 # INSET: from a panel's side to its first point
SHADE = "24"                                  # opacity of the spread, of ff


def lines(rows: Sequence[dict[str, Panel]], title: str, x_label: str, logarithmic: bool = False,
          fitted: Collection[str] = ()) -> bytes:
    """Draw rows of panels by their names; the panels of a row share their x axis. PNG

    fitted   names of panels whose y axis is fitted to their values; others reach 1
    """
    names = list(dict.fromkeys(name for row in rows for panel in row.values() for name in panel))
    colours = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(names)}
    step = LEFT + max(WIDTH, text_width([name for row in rows for name in row], 14))
    right = step * max(map(len, rows)) + 24
    total = max(right + 40 + text_width(names, 14), LEFT + 16 + text_width([title], 18))
    bottom = TOP + max((HEIGHT + BELOW) * len(rows) - 24, LINE * len(names) + 20)
    picture = Image.new("RGB", (total, bottom), "white")
    draw = ImageDraw.Draw(picture, "RGBA")                   # colours may be see-through
    draw.text((LEFT, 10), title, INK, font(18))
    draw_legend(draw, right, TOP, names)
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
    paths = {name: [(left + places[x], *mean_and_spread(values)) for x, values in points]
             for name, points in panel.items()}
    ends = [mean + sign * spread for path in paths.values() for _, mean, spread in path
            for sign in (-1, 1)]
    ticks = choose_ticks(ends if fitted else [*ends, 1.0])

    def place_y(value: float) -> float:
        return top + HEIGHT * (ticks[-1] - value) / (ticks[-1] - ticks[0])

    for tick in ticks:
        draw.line((left, place_y(tick), left + WIDTH, place_y(tick)), FAINT)
        draw.text((left - 8, place_y(tick)), f"{tick:g}", INK, font(13), anchor="rm")
    end = -math.inf
    for x, place in places.items():               # labels that would touch the last are left out
        half = text_width([f"{x:,}"], 12) / 2
        if place - half > end + 4:
            draw.text((left + place, top + HEIGHT + 6), f"{x:,}", INK, font(12), anchor="ma")
            end = place + half
    for name, path in paths.items():
        above = [(x, place_y(mean + spread)) for x, mean, spread in path]
        below = [(x, place_y(mean - spread)) for x, mean, spread in path]
        draw.polygon(above + below[::-1], colours[name] + SHADE)
        draw.line([(x, place_y(mean)) for x, mean, _ in path], colours[name], width=3)
        for x, mean, _ in path:
            draw.circle((x, place_y(mean)), 3, colours[name])


def choose_ticks(values: Collection[float]) -> list[float]:
    """Choose round numbers around the values: a step is 1, 2 or 5 times a power of ten."""
    least = max((max(values) - min(values)) / 6, 1e-3)
    power = 10.0 ** math.floor(math.log10(least))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= least)
    first, last = math.floor(min(values) / step + 1e-9), math.ceil(max(values) / step - 1e-9)
    return [n * step for n in range(first, max(last, first + 1) + 1)]
