"""Where the fusion blocks look, each sample with the prompts of its situation: at which patches, and how much at the prompts.

All shares are means over a block's heads and queries, and over the fusion blocks where a model has several.
"""
from typing import NamedTuple

import torch
from PIL import Image, ImageDraw

from ptm_mini.config import Situation
from ptm_mini.errors import InputError
from ptm_mini.report import tables
from ptm_mini.report.charts import FAINT, INK, as_png, font
from ptm_mini.report.gallery import evenly_spaced, heat, shown
from ptm_mini.report.panels import PROMPTS, cover
from ptm_mini.report.results import need, open_runs, write
from ptm_mini.trace import traced

SAMPLES = 4                                        # in the picture
SIDE, GAP, LEFT, TOP = 150, 22, 130, 168


class Gaze(NamedTuple):
    """Where one modality's queries look: shares of their attention, which sum to 1 for each sample."""
    prompts: torch.Tensor         # [B, P]
    patches: torch.Tensor         # [B, rows, columns] of the other modality, as it is drawn: of a spectrogram, low notes last


@torch.no_grad()
def gazes(model, config, audio, image, situations):
    """
    model, config             Prompted, and the Config that it was made by
    audio, image, situations  [B, T, M], [B, 3, H, W], [B] long: whose prompts each sample has
    returns  {"audio" or "image", whose queries look: Gaze}, without a direction that `model.fusion` leaves out
    """
    sizes, found = config.model, {}
    side = config.image.size // sizes.image_patch
    grids = {"audio": (side, side),
             "image": (config.audio.mels // sizes.audio_patch, config.audio.frames // sizes.audio_patch)}
    with traced(model.backbone.fusion) as trace:
        model.by_situation(audio, image, situations)
    for reader, (rows, columns) in grids.items():
        blocks = [kept for path, kept in trace.items() if path.endswith(f"update_{reader}.attention.probabilities")]
        if blocks:
            keys = torch.stack(blocks).mean(dim=(0, 2, 3))           # [F, B, heads, N, P+N_c] -> [B, P+N_c]
            prompts, patches = keys.split([keys.shape[1] - rows * columns, rows * columns], dim=1)
            patches = patches.unflatten(1, (rows, columns))          # image: row-major; spectrogram: from its lowest band up
            found[reader] = Gaze(prompts, patches.flip(1) if reader == "image" else patches)
    return found


def prompt_shares(model, view):
    """The mean share of the attention at the prompts over a View's samples, and what it were if all keys counted alike.

    returns  {"audio queries" or "image queries": {situation or "even": share}}
    """
    shares = {}
    for situation in Situation:
        found = {}
        for *inputs, _ in view.batches(situation):
            for reader, gaze in gazes(model, view.config, *inputs).items():
                found.setdefault(reader, []).append(gaze.prompts.sum(dim=1))
                P, N = gaze.prompts.shape[1], gaze.patches[0].numel()
                shares.setdefault(f"{reader} queries", {})["even"] = P / (P + N)
        for reader, parts in found.items():
            shares[f"{reader} queries"][situation.label] = float(torch.cat(parts).mean())
    return shares


def looks(model, view, indices):
    """Samples of a View as `picture` takes them. returns list of (class name, {Situation: (audio, image, {reader: Gaze})})"""
    found = []
    for index in indices:
        cells = {}
        for situation in Situation:
            sample = view.sample(index, situation)
            inputs = [x[None].to(view.device) for x in (sample.audio, sample.image, torch.tensor(situation))]
            both = gazes(model, view.config, *inputs)
            own = {reader: Gaze(*(part[0].cpu() for part in gaze)) for reader, gaze in both.items()}
            cells[situation] = sample.audio, sample.image, own
        found.append((view.data.rows[index].label, cells))
    return found


def panel(picture, x, y, seen, gaze, peak):
    """Draw what is seen in grey at (x, y), the attention on its patches, and below a bar with the share at the prompts."""
    draw = ImageDraw.Draw(picture)
    picture.paste(seen.convert("L").resize((SIDE, SIDE), Image.Resampling.NEAREST), (x, y))
    cover(picture, x, y, (SIDE, SIDE), (gaze.patches / peak).sqrt())
    share = float(gaze.prompts.sum())
    draw.rectangle((x, y + SIDE + 6, x + SIDE - 1, y + SIDE + 16), FAINT)
    if share > 0:
        draw.rectangle((x, y + SIDE + 6, x + share * (SIDE - 1), y + SIDE + 16), PROMPTS)
    draw.text((x, y + SIDE + 19), f"prompts {share:.0%}", INK, font(13))


def legend(picture, peak):
    """Draw at the top what the picture says, and the scale of its colour up to the largest share of a patch."""
    draw = ImageDraw.Draw(picture)
    draw.text((8, 8), "Where the fusion block looks, each sample with its situation's prompts", INK, font(18))
    draw.text((8, 36), "The audio's queries look at the picture, the image's queries at the spectrogram (time to the right, "
              "low notes at the bottom).", INK, font(13))
    draw.text((8, 56), "Orange: a patch's share of that attention. Blue: the share of the prompts, which stand before the "
              "patches. All patches and prompts sum to 100%; mean over heads and queries.", INK, font(13))
    picture.paste("#808080", (LEFT, 82, LEFT + 200, 94))
    cover(picture, LEFT, 82, (200, 12), torch.linspace(0, 1, 200)[None])
    draw.text((LEFT - 8, 80), "share of a patch", INK, font(13), anchor="ra")
    for part in (0, 0.5, 1):
        draw.text((LEFT + 200 * part, 96), f"{part ** 2 * peak:.0%}", INK, font(12), anchor="ma")


def picture(samples):
    """PNG bytes of what `looks` returns: a row for each sample, and in it each situation's picture and spectrogram."""
    cell_width, cell_height = 2 * SIDE + 6 + GAP, SIDE + 52
    canvas = Image.new("RGB", (LEFT + len(Situation) * cell_width, TOP + len(samples) * cell_height), "white")
    draw = ImageDraw.Draw(canvas)
    peak = max(float(gaze.patches.max()) for _, cells in samples for _, _, own in cells.values() for gaze in own.values())
    legend(canvas, peak)
    for column, situation in enumerate(Situation):
        draw.text((LEFT + column * cell_width, TOP - 44), situation.label, INK, font(18))
        for i, reader in enumerate(samples[0][1][situation][2]):
            draw.text((LEFT + column * cell_width + i * (SIDE + 6), TOP - 18), f"{reader}'s queries", INK, font(13))
    for row, (name, cells) in enumerate(samples):
        y = TOP + row * cell_height
        draw.text((8, y + SIDE / 2), name.replace("_", "\n"), INK, font(16), anchor="lm")
        for column, (audio, image, own) in enumerate(cells.values()):
            seen = {"audio": shown(image), "image": heat(audio)}
            for i, (reader, gaze) in enumerate(own.items()):
                panel(canvas, LEFT + column * cell_width + i * (SIDE + 6), y, seen[reader], gaze, peak)
    return as_png(canvas)


def attention(folders, device, selection):
    """Print the share of the fusion blocks' attention at the prompts, and draw in each run's folder where they look."""
    runs = open_runs(folders, device, selection)
    for run in runs:
        need("prompt" in run.models, "--attention", run.folder, "prompt")
        if not run.view.config.model.fusion_blocks:
            raise InputError(f"--attention: {run.folder} has no fusion block, where it looks; expected a run whose "
                             f"model.fusion is not none and whose model.fusion_depth is 1 or more")
    found = [prompt_shares(run.models["prompt"], run.view) for run in runs]
    columns = (*(situation.label for situation in Situation), "even")
    print("Share of the fusion block's attention at the prompts, mean over heads, queries and test samples; even: if all keys "
          f"counted alike\n\n{tables.table('', found, columns)}\n")
    for run in runs:
        samples = looks(run.models["prompt"], run.view, evenly_spaced(run.view, SAMPLES))
        write(run.folder / f"attention{run.suffix}.png", picture(samples))
