"""The gallery: a few samples before and after each damage, with the answers."""
import numpy as np
import torch
from PIL import Image, ImageDraw

from ptm_mini.config import Situation
from ptm_mini.data.image import denormalise
from ptm_mini.report.charts import INK, as_png, font

RIGHT, WRONG = "#188038", "#d93025"


def heat(spectrogram):
    """[T, M] in standard deviations to a picture [M, T], time to the right and low notes at the bottom, black to yellow."""
    level = np.clip((spectrogram.numpy().T[::-1] + 2) / 5, 0, 1)
    return Image.fromarray((255 * np.stack([level ** 0.7, level ** 1.5, 0.6 * np.sin(np.pi * level) + 0.1 * level], axis=-1))
                           .clip(0, 255).astype(np.uint8))


def shown(image):
    """[3, H, W] normalised to a picture"""
    return Image.fromarray(denormalise(image).permute(1, 2, 0).numpy())


def show(picture, x, y, side, audio, image):
    """Paste what the model sees of one sample, [T, M] and [3, H, W]: the image at (x, y), the spectrogram to its right."""
    picture.paste(shown(image).resize((side, side), Image.Resampling.NEAREST), (x, y))
    picture.paste(heat(audio).resize((side, side), Image.Resampling.NEAREST), (x + side + 6, y))


def evenly_spaced(view, count):
    """Row numbers of at most `count` of a View's samples that lack nothing, a list."""
    complete = view.data.indices(view.split, Situation.COMPLETE)
    return complete[torch.linspace(0, len(complete) - 1, min(count, len(complete))).round().long()].tolist()


@torch.no_grad()
def examples(strategies, view, count):
    """A few samples of a View, evenly spaced, before and after each damage, with each strategy's answer.

    returns  list of (class name, {Situation: (audio [T, M], image [3, H, W], {strategy: class name})})
    """
    samples = []
    for index in evenly_spaced(view, count):
        cells = {}
        for situation in Situation:
            sample = view.sample(index, situation)
            inputs = [x[None].to(view.device) for x in sample[:3]]
            answers = {name: view.data.classes[scores_of(*inputs).argmax()] for name, scores_of in strategies.items()}
            cells[situation] = (sample.audio, sample.image, answers)
        samples.append((view.data.rows[index].label, cells))
    return samples


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
            show(picture, x, y, side, audio, image)
            for i, name in enumerate(strategies):
                right = answers[name] == truth
                draw.text((x, y + side + 4 + i * line), f"{name}: {answers[name]}" + ("" if right else "  (wrong)"),
                          RIGHT if right else WRONG, font(14))
    return as_png(picture)
