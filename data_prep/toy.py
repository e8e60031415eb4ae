"""The toy set: ten UrbanSound8K-like classes, each a recipe for its sound and one for its picture.

python -m data_prep.toy --out sets/toy

Everything varies: pitch, rate, level, onset, background noise and a second faint source of the
sound; position, size, colour, stroke and background clutter of the picture. Two slices are cut from
each recording, so `group` has a meaning. The same seed gives the same bytes.
"""
import colorsys
from collections.abc import Callable
from io import BytesIO
from itertools import product
from pathlib import Path

import numpy as np
import soundfile
from numpy.random import Generator
from PIL import Image, ImageDraw

from data_prep.shared import choose_splits, make_parser, new_folder, write_set
from ptm_mini.data.manifest import Row
from ptm_mini.errors import run

Array = np.ndarray
SLICES = 2                # of each recording
SECONDS = (0.8, 1.3)      # a clip's length
SIDE = 64                 # of a picture, in pixels
# Sample rate in Hz, depth, channels. No float: the header of such a file holds the time of day.
FORMATS = [(8000, "PCM_16", 1), (11025, "PCM_U8", 1), (16000, "PCM_16", 1), (22050, "PCM_24", 2),
           (32000, "PCM_32", 1)]


def make(out: Path, recordings: int = 50, split: str = "grouped", seed: int = 0) -> None:
    """Write the set, of `recordings` of each class, into the new folder `out`."""
    rows = []
    with new_folder(out) as folder:
        (folder / "audio").mkdir()
        (folder / "image").mkdir()
        slices = product(enumerate(RECIPES), range(recordings), range(SLICES))
        for (label, name), recording, part in slices:
            source = np.random.default_rng([seed, label, recording])
            generator = np.random.default_rng([seed, label, recording, 1 + part])
            rate, depth, channels = FORMATS[source.integers(len(FORMATS))]
            wave = make_sound(name, rate, source, generator)
            wave = np.repeat(wave[:, None], channels, axis=1)
            group = f"{name}-{recording:03d}"
            audio, image = f"audio/{group}-{part}.wav", f"image/{group}-{part}.png"
            content = BytesIO()          # soundfile would wait for the disk after every file
            soundfile.write(content, wave, rate, subtype=depth, format="WAV")
            (folder / audio).write_bytes(content.getvalue())
            draw_picture(name, generator).save(folder / image)
            rows.append(Row(f"{group}-{part}", audio, image, name, split="", group=group))
        write_set(folder, choose_splits(rows, split, seed), list(RECIPES))


# Sounds. A recipe draws what belongs to the recording (pitch, rate, timbre) from `source` and what
# differs between its slices (onset, jitter, noise) from `generator`. It takes t [samples] in
# seconds and returns a wave [samples] of any level.

def make_sound(name: str, rate: int, source: Generator, generator: Generator) -> Array:
    """Mix a clip of a class: its recipe, a second source 4 to 16 dB fainter, noise: [samples]."""
    t = np.arange(round(rate * generator.uniform(*SECONDS)), dtype=np.float32) / rate
    other = generator.choice([other for other in RECIPES if other != name])
    wave = scale_to_unit(RECIPES[name][0](t, source, generator))
    level = 10 ** (generator.uniform(-16, -4) / 20)
    wave += level * scale_to_unit(RECIPES[other][0](t, generator, generator))
    level = 10 ** (generator.uniform(-20, 0) / 20)
    wave += level * scale_to_unit(make_noise(t, 20, generator.uniform(500, rate / 2), generator))
    return np.clip(scale_to_unit(wave) * 0.15 * 10 ** (generator.uniform(-20, 0) / 20), -1, 1)


def scale_to_unit(wave: Array) -> Array:
    """Scale to root-mean-square 1."""
    return wave / (np.sqrt(np.mean(wave ** 2)) + 1e-9)


def make_noise(t: Array, low: float, high: float, generator: Generator) -> Array:
    """Make white noise between two frequencies in Hz, peak 1."""
    samples = -(-len(t) // 1024) * 1024                   # a length at which the FFT is fast
    hertz = np.fft.rfftfreq(samples, t[1])
    spectrum = generator.standard_normal(2 * len(hertz), dtype=np.float32).view(np.complex64)
    spectrum[(hertz < low) | (hertz > high)] = 0
    wave = np.fft.irfft(spectrum)[:len(t)].astype(np.float32)
    return wave / (np.abs(wave).max() + 1e-9)


def make_tone(phase: Array, slope: float, count: int) -> Array:
    """Sum overtones n^-slope sin(n phase), n to `count`, by Clenshaw's recurrence; in radians."""
    phase = phase.astype(np.float32)
    double_cosine, wave, last = 2 * np.cos(phase), np.zeros_like(phase), np.zeros_like(phase)
    for n in range(count, 0, -1):
        wave, last = np.float32(n ** -slope) + double_cosine * wave - last, wave
    return np.sin(phase) * wave


def integrate(t: Array, hertz: Array) -> Array:
    """Compute the phase of a tone whose frequency [samples] changes over time."""
    return 2 * np.pi * np.cumsum(hertz) * t[1]


def make_burst(t: Array, start: float, attack: float, decay: float) -> Array:
    """Make an envelope that rises for `attack` s and falls off with time constant `decay` s."""
    since = t - start
    return np.clip(since / attack, 0, 1) * np.exp(-np.clip(since, 0, None) / decay) * (since > 0)


def sound_air_conditioner(t: Array, source: Generator, generator: Generator) -> Array:
    hum = make_tone(2 * np.pi * source.uniform(90, 130) * t, 1.2, 5)
    return make_noise(t, 60, source.uniform(700, 1600), generator) + source.uniform(0.1, 0.3) * hum


def sound_car_horn(t: Array, source: Generator, generator: Generator) -> Array:
    low, ratio = source.uniform(330, 480), source.uniform(1.2, 1.3)
    tone = make_tone(2 * np.pi * low * t, 0.7, 8) + make_tone(2 * np.pi * low * ratio * t, 0.7, 8)
    start, length = generator.uniform(0, 0.3), generator.uniform(0.25, 0.6)
    return tone * ((t > start) & (t < start + length))


def sound_children_playing(t: Array, source: Generator, generator: Generator) -> Array:
    wave = np.zeros_like(t)
    for _ in range(generator.integers(4, 8)):
        start, length = generator.uniform(0, t[-1]), generator.uniform(0.12, 0.3)
        vibrato = 1 + 0.25 * np.sin(2 * np.pi * (t - start) / length)
        pitch = source.uniform(350, 600) * generator.uniform(0.8, 1.6) * vibrato
        wave += make_tone(integrate(t, pitch), 1.0, 5) * make_burst(t, start, 0.04, length / 2)
    return wave


def sound_dog_bark(t: Array, source: Generator, generator: Generator) -> Array:
    pitch, gap = source.uniform(350, 700), source.uniform(0.22, 0.4)
    wave = np.zeros_like(t)
    for start in np.arange(generator.uniform(0, 0.25), t[-1], gap):
        falling = pitch * (1 + 0.6 * np.exp(-np.clip(t - start, 0, None) / 0.05))
        voice = make_tone(integrate(t, falling), 0.8, 6)
        wave += make_burst(t, start, 0.02, 0.06) * (voice + make_noise(t, 500, 3000, generator))
    return wave


def sound_drilling(t: Array, source: Generator, generator: Generator) -> Array:
    pitch, wobble = source.uniform(150, 260), source.uniform(0.5, 2)
    pitch = pitch * (1 + 0.1 * np.sin(2 * np.pi * wobble * t + generator.uniform(0, 6)))
    grinding = source.uniform(1, 2) * make_noise(t, 1500, 6000, generator)
    return make_tone(integrate(t, pitch), 0.5, 12) + grinding


def sound_engine_idling(t: Array, source: Generator, generator: Generator) -> Array:
    rate = source.uniform(22, 38)
    pulses = np.exp(-((rate * t + generator.uniform()) % 1) * 5)
    rumble = make_noise(t, 40, 400, generator)
    return pulses * (rumble + make_tone(2 * np.pi * 3 * rate * t, 1.0, 4) * 0.5)


def sound_gun_shot(t: Array, source: Generator, generator: Generator) -> Array:
    start = generator.uniform(0, 0.5)
    crack = make_burst(t, start, 0.002, source.uniform(0.04, 0.12))
    crack = crack * make_noise(t, 100, 6000, generator)
    echo = 0.4 * make_burst(t, start, 0.005, source.uniform(0.15, 0.3))
    return crack + echo * make_noise(t, 60, 800, generator)


def sound_jackhammer(t: Array, source: Generator, generator: Generator) -> Array:
    rate = source.uniform(9, 16)
    blows = np.exp(-((rate * t + generator.uniform()) % 1) * 6)
    noise = make_noise(t, 200, source.uniform(3000, 6000), generator)
    return blows * (noise + 0.5 * np.sin(2 * np.pi * source.uniform(500, 900) * t))


def sound_siren(t: Array, source: Generator, generator: Generator) -> Array:
    sweep = np.sin(2 * np.pi * source.uniform(0.7, 3) * t + generator.uniform(0, 6))
    return make_tone(integrate(t, source.uniform(700, 1100) * (1 + 0.35 * sweep)), 1.3, 4)


def sound_street_music(t: Array, source: Generator, generator: Generator) -> Array:
    root, beat = source.uniform(180, 330), source.uniform(0.14, 0.24)
    wave = np.zeros_like(t)
    for start in np.arange(generator.uniform(0, beat), t[-1], beat):
        for note in generator.choice([0, 2, 4, 7, 9, 12], size=2, replace=False):
            tone = make_tone(2 * np.pi * root * 2 ** (note / 12) * (t - start), 1.1, 5)
            wave += tone * make_burst(t, start, 0.01, 0.15)
    return wave


# Pictures. A recipe draws lines and shapes with a Pen.

class Pen:
    """Draws in a square of side 2 around (0, 0), y downwards, placed, scaled and turned."""

    def __init__(self, picture: Image.Image, generator: Generator):
        self.draw = ImageDraw.Draw(picture)
        self.centre = generator.uniform(0.44, 0.56, 2) * SIDE
        self.scale = generator.uniform(0.32, 0.42) * SIDE
        angle = generator.uniform(-0.15, 0.15)
        self.turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self.stroke = int(generator.integers(3, 6))
        self.colour, self.second = draw_colour(generator, 0.7), draw_colour(generator, 0.5)

    def place(self, points: tuple) -> list[tuple]:
        return [tuple(self.centre + self.scale * self.turn @ np.array(point)) for point in points]

    def line(self, *points: tuple) -> None:
        self.draw.line(self.place(points), fill=self.colour, width=self.stroke, joint="curve")

    def shape(self, *points: tuple, second: bool = False) -> None:
        self.draw.polygon(self.place(points), fill=self.second if second else self.colour)

    def disc(self, x: float, y: float, radius: float, second: bool = False) -> None:
        self.shape(*arc(x, y, radius), second=second)

    def box(self, left: float, top: float, right: float, bottom: float,
            second: bool = False) -> None:
        self.shape((left, top), (right, top), (right, bottom), (left, bottom), second=second)


def arc(x: float, y: float, radius: float) -> list[tuple]:
    """Points on a circle."""
    angles = np.linspace(0, 2 * np.pi, 24)
    return list(zip(x + radius * np.cos(angles), y + radius * np.sin(angles)))


def draw_colour(generator: Generator, low: float = 0.35, high: float = 1.0) -> tuple:
    """Draw a random RGB colour whose brightness is between `low` and `high`."""
    hue, saturation = generator.uniform(), generator.uniform(0.3, 1)
    rgb = colorsys.hsv_to_rgb(hue, saturation, generator.uniform(low, high))
    return tuple(round(255 * channel) for channel in rgb)


def draw_picture(name: str, generator: Generator) -> Image.Image:
    """Draw one picture of a class, SIDE x SIDE RGB, among clutter and noise."""
    picture = Image.new("RGB", (SIDE, SIDE), draw_colour(generator, 0, 0.35))
    draw = ImageDraw.Draw(picture)
    for _ in range(generator.integers(2, 7)):                       # clutter in the background
        x, y, length = generator.uniform(0, SIDE, 3)
        shape = draw.ellipse if generator.uniform() < 0.5 else draw.rectangle
        corner = x + length / 3, y + generator.uniform(1, SIDE / 3)
        shape((x, y, *corner), fill=draw_colour(generator, 0, 0.5))
    RECIPES[name][1](Pen(picture, generator))
    for _ in range(generator.integers(0, 4)):                       # and a little in front
        ends = [tuple(point) for point in generator.uniform(0, SIDE, (2, 2))]
        draw.line(ends, fill=draw_colour(generator), width=1)
    noise = generator.normal(0, generator.uniform(2, 14), (SIDE, SIDE, 3))
    return Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))


def draw_air_conditioner(pen: Pen) -> None:
    pen.box(-1, -0.7, 1, 0.7)
    pen.disc(0, 0, 0.55, second=True)
    pen.line((-0.4, -0.4), (0.4, 0.4))
    pen.line((-0.4, 0.4), (0.4, -0.4))


def draw_car_horn(pen: Pen) -> None:
    pen.box(-1, -0.1, 1, 0.4)
    pen.shape((-0.6, -0.1), (-0.35, -0.6), (0.35, -0.6), (0.6, -0.1))
    pen.disc(-0.55, 0.45, 0.25, second=True)
    pen.disc(0.55, 0.45, 0.25, second=True)


def draw_children_playing(pen: Pen) -> None:
    for x in (-0.55, 0.55):
        pen.disc(x, -0.65, 0.25)
        pen.line((x, -0.4), (x, 0.3))
        pen.line((x - 0.35, -0.3), (x, 0), (x + 0.35, -0.3))
        pen.line((x - 0.3, 0.9), (x, 0.3), (x + 0.3, 0.9))


def draw_dog_bark(pen: Pen) -> None:
    pen.box(-0.7, -0.2, 0.5, 0.3)
    pen.box(0.3, -0.7, 0.95, -0.1)
    pen.shape((0.3, -0.7), (0.45, -1), (0.6, -0.7), second=True)
    pen.line((-0.7, -0.2), (-1, -0.6))
    for x in (-0.6, -0.3, 0.1, 0.4):
        pen.line((x, 0.3), (x, 0.9))


def draw_drilling(pen: Pen) -> None:
    pen.box(-0.9, -0.5, 0.3, 0)
    pen.shape((-0.8, 0), (-0.3, 0), (-0.4, 0.8), (-0.9, 0.8), second=True)
    pen.shape((0.3, -0.4), (0.6, -0.25), (0.3, -0.1), second=True)
    pen.line((0.5, -0.25), (1, -0.25))


def draw_engine_idling(pen: Pen) -> None:
    pen.line(*arc(0, 0, 0.6))
    pen.disc(0, 0, 0.25, second=True)
    for angle in np.arange(8) * np.pi / 4:
        x, y = np.cos(angle), np.sin(angle)
        pen.line((0.6 * x, 0.6 * y), (x, y))


def draw_gun_shot(pen: Pen) -> None:
    pen.box(-0.7, -0.5, 1, -0.15)
    pen.shape((-0.7, -0.5), (-0.25, -0.5), (-0.45, 0.7), (-0.95, 0.7))
    pen.line(*arc(0, 0.05, 0.2))


def draw_jackhammer(pen: Pen) -> None:
    pen.line((-0.6, -0.85), (0.6, -0.85))
    pen.box(-0.25, -0.8, 0.25, 0.3)
    pen.box(-0.12, 0.3, 0.12, 0.6, second=True)
    pen.shape((-0.12, 0.6), (0.12, 0.6), (0, 1), second=True)


def draw_siren(pen: Pen) -> None:
    pen.box(-0.7, 0.4, 0.7, 0.75, second=True)
    angles = np.linspace(np.pi, 2 * np.pi, 16)
    pen.shape(*zip(0.5 * np.cos(angles), 0.4 + 0.7 * np.sin(angles)))
    for angle in (-2.5, -2.0, -1.14, -0.64):
        x, y = np.cos(angle), np.sin(angle)
        pen.line((0.75 * x, 0.2 + 0.85 * y), (x, 0.2 + 1.15 * y))


def draw_street_music(pen: Pen) -> None:
    pen.disc(-0.55, 0.6, 0.3)
    pen.disc(0.55, 0.4, 0.3)
    pen.line((-0.3, 0.6), (-0.3, -0.7), (0.8, -0.9), (0.8, 0.4))
    pen.line((-0.3, -0.4), (0.8, -0.6))


RECIPES: dict[str, tuple[Callable[[Array, Generator, Generator], Array], Callable[[Pen], None]]] = {
    "air_conditioner": (sound_air_conditioner, draw_air_conditioner),
    "car_horn": (sound_car_horn, draw_car_horn),
    "children_playing": (sound_children_playing, draw_children_playing),
    "dog_bark": (sound_dog_bark, draw_dog_bark),
    "drilling": (sound_drilling, draw_drilling),
    "engine_idling": (sound_engine_idling, draw_engine_idling),
    "gun_shot": (sound_gun_shot, draw_gun_shot),
    "jackhammer": (sound_jackhammer, draw_jackhammer),
    "siren": (sound_siren, draw_siren),
    "street_music": (sound_street_music, draw_street_music)}


def main(argv: list[str] | None = None) -> None:
    parser = make_parser(__doc__, "sets/toy", seed_of="everything")
    parser.add_argument("--recordings", type=int, default=50, metavar="N",
                        help=f"of each class, {SLICES} samples each; default: %(default)s")
    parser.add_argument("--split", choices=["grouped", "random"], default="grouped",
                        help="keep the slices of a recording on one side, or not; default: grouped")
    args = parser.parse_args(argv)
    make(args.out, args.recordings, args.split, args.seed)


if __name__ == "__main__":
    run(main)
