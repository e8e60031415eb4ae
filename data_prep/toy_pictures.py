"""Pictures of the toy set: one drawing a class, in lines and shapes on a unit square, over a cluttered background."""
import colorsys

import numpy as np
from PIL import Image, ImageDraw

SIDE = 64                                # pixels


class Pen:
    """Draws in a square of side 2 around (0, 0), y downwards, placed, scaled and turned somewhere on the picture."""

    def __init__(self, picture, generator):
        self.draw = ImageDraw.Draw(picture)
        self.centre = generator.uniform(0.44, 0.56, 2) * SIDE
        self.scale = generator.uniform(0.32, 0.42) * SIDE
        angle = generator.uniform(-0.15, 0.15)
        self.turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        self.stroke = int(generator.integers(3, 6))
        self.colour, self.second = colour(generator, 0.7), colour(generator, 0.5)

    def place(self, points):
        return [tuple(self.centre + self.scale * self.turn @ np.array(point)) for point in points]

    def line(self, *points):
        self.draw.line(self.place(points), fill=self.colour, width=self.stroke, joint="curve")

    def shape(self, *points, second=False):
        self.draw.polygon(self.place(points), fill=self.second if second else self.colour)

    def disc(self, x, y, radius, second=False):
        angles = np.linspace(0, 2 * np.pi, 24)
        self.shape(*zip(x + radius * np.cos(angles), y + radius * np.sin(angles)), second=second)

    def ring(self, x, y, radius):
        angles = np.linspace(0, 2 * np.pi, 24)
        self.line(*zip(x + radius * np.cos(angles), y + radius * np.sin(angles)))

    def box(self, left, top, right, bottom, second=False):
        self.shape((left, top), (right, top), (right, bottom), (left, bottom), second=second)


def colour(generator, low=0.35, high=1.0):
    rgb = colorsys.hsv_to_rgb(generator.uniform(), generator.uniform(0.3, 1), generator.uniform(low, high))
    return tuple(round(255 * channel) for channel in rgb)


def air_conditioner(pen):
    pen.box(-1, -0.7, 1, 0.7)
    pen.disc(0, 0, 0.55, second=True)
    pen.line((-0.4, -0.4), (0.4, 0.4))
    pen.line((-0.4, 0.4), (0.4, -0.4))


def car_horn(pen):
    pen.box(-1, -0.1, 1, 0.4)
    pen.shape((-0.6, -0.1), (-0.35, -0.6), (0.35, -0.6), (0.6, -0.1))
    pen.disc(-0.55, 0.45, 0.25, second=True)
    pen.disc(0.55, 0.45, 0.25, second=True)


def children_playing(pen):
    for x in (-0.55, 0.55):
        pen.disc(x, -0.65, 0.25)
        pen.line((x, -0.4), (x, 0.3))
        pen.line((x - 0.35, -0.3), (x, 0), (x + 0.35, -0.3))
        pen.line((x - 0.3, 0.9), (x, 0.3), (x + 0.3, 0.9))


def dog_bark(pen):
    pen.box(-0.7, -0.2, 0.5, 0.3)
    pen.box(0.3, -0.7, 0.95, -0.1)
    pen.shape((0.3, -0.7), (0.45, -1), (0.6, -0.7), second=True)
    pen.line((-0.7, -0.2), (-1, -0.6))
    for x in (-0.6, -0.3, 0.1, 0.4):
        pen.line((x, 0.3), (x, 0.9))


def drilling(pen):
    pen.box(-0.9, -0.5, 0.3, 0)
    pen.shape((-0.8, 0), (-0.3, 0), (-0.4, 0.8), (-0.9, 0.8), second=True)
    pen.shape((0.3, -0.4), (0.6, -0.25), (0.3, -0.1), second=True)
    pen.line((0.5, -0.25), (1, -0.25))


def engine_idling(pen):
    pen.ring(0, 0, 0.6)
    pen.disc(0, 0, 0.25, second=True)
    for angle in np.arange(8) * np.pi / 4:
        pen.line((0.6 * np.cos(angle), 0.6 * np.sin(angle)), (np.cos(angle), np.sin(angle)))


def gun_shot(pen):
    pen.box(-0.7, -0.5, 1, -0.15)
    pen.shape((-0.7, -0.5), (-0.25, -0.5), (-0.45, 0.7), (-0.95, 0.7))
    pen.ring(0, 0.05, 0.2)


def jackhammer(pen):
    pen.line((-0.6, -0.85), (0.6, -0.85))
    pen.box(-0.25, -0.8, 0.25, 0.3)
    pen.box(-0.12, 0.3, 0.12, 0.6, second=True)
    pen.shape((-0.12, 0.6), (0.12, 0.6), (0, 1), second=True)


def siren(pen):
    pen.box(-0.7, 0.4, 0.7, 0.75, second=True)
    angles = np.linspace(np.pi, 2 * np.pi, 16)
    pen.shape(*zip(0.5 * np.cos(angles), 0.4 + 0.7 * np.sin(angles)))
    for angle in (-2.5, -2.0, -1.14, -0.64):
        pen.line((0.75 * np.cos(angle), 0.2 + 0.85 * np.sin(angle)), (np.cos(angle), 0.2 + 1.15 * np.sin(angle)))


def street_music(pen):
    pen.disc(-0.55, 0.6, 0.3)
    pen.disc(0.55, 0.4, 0.3)
    pen.line((-0.3, 0.6), (-0.3, -0.7), (0.8, -0.9), (0.8, 0.4))
    pen.line((-0.3, -0.4), (0.8, -0.6))


DRAWINGS = {drawing.__name__: drawing for drawing in (
    air_conditioner, car_horn, children_playing, dog_bark, drilling, engine_idling, gun_shot, jackhammer, siren,
    street_music)}


def draw_picture(name, generator):
    """One picture of a class, SIDE x SIDE RGB."""
    picture = Image.new("RGB", (SIDE, SIDE), colour(generator, 0, 0.35))
    draw = ImageDraw.Draw(picture)
    for _ in range(generator.integers(2, 7)):                              # clutter behind
        x, y, length = generator.uniform(0, SIDE, 3)
        shape = draw.ellipse if generator.uniform() < 0.5 else draw.rectangle
        shape((x, y, x + length / 3, y + generator.uniform(1, SIDE / 3)), fill=colour(generator, 0, 0.5))
    DRAWINGS[name](Pen(picture, generator))
    for _ in range(generator.integers(0, 4)):                              # and a little in front
        draw.line([tuple(point) for point in generator.uniform(0, SIDE, (2, 2))], fill=colour(generator), width=1)
    noise = generator.normal(0, generator.uniform(2, 14), (SIDE, SIDE, 3))
    return Image.fromarray((np.asarray(picture) + noise).clip(0, 255).astype(np.uint8))
