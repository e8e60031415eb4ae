"""What the fusion blocks attend to: how much to the prompts, and to which patches.

python -m ptm_mini.lab.attention runs/toy-1         prints the prompts' shares, draws attention.png

Each sample has its situation's prompts. Shares are means over fusion blocks, heads and queries.
"""
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from ptm_mini import plots
from ptm_mini.config import Situation
from ptm_mini.errors import InputError, new_parser, run as run_command
from ptm_mini.evaluation import BATCH_SIZE, Table
from ptm_mini.lab.hooks import record
from ptm_mini.method.damage import Sample
from ptm_mini.report import (OpenRun, add_run_arguments, format_table, open_runs, pick_samples,
                             write)

SAMPLES = 4                                        # in the picture


@torch.no_grad()
def map_attention(run: OpenRun, batch: Sample) -> dict[str, Tensor]:
    """Map a batch's attention by the modality, "audio" or "image", whose queries attend.

    returns  shares of the other modality's patches [B, rows, columns], as it is drawn; the prompts
             have the rest of 1. A modality that model.fusion omits has no map.
    """
    config, model = run.run.config, run.models.methods["prompt"]
    patch, side = config.model.audio_patch, config.image.size // config.model.image_patch
    bands, frames = config.audio.mels // patch, config.audio.frames // patch
    batch = batch.to(run.split.data.device)
    with record(model.backbone.fusion) as recorded:
        model.answer_each(batch.audio, batch.image, batch.situation)
    maps = {}
    for modality, rows, columns in (("audio", side, side), ("image", bands, frames)):
        blocks = [probabilities for name, probabilities in recorded.items()
                  if name.endswith(f"update_{modality}.attention.probabilities")]
        if blocks:
            keys = torch.stack(blocks).mean(dim=(0, 2, 3)).cpu()               # [B, P+N_c]
            maps[modality] = keys[:, -rows * columns:].unflatten(1, (rows, columns))
    if "image" in maps:
        maps["image"] = maps["image"].flip(1)     # the lowest band is drawn at the bottom
    return maps


def compute_shares(run: OpenRun) -> Table:
    """Average the prompts' share over the test samples, by queries (row) and situation (column)."""
    table: Table = {}
    for situation in run.split.situations():
        rows = run.split.data.indices(run.split.split, situation).tolist()
        items = [run.split.item(row, situation) for row in rows]
        maps = [map_attention(run, batch) for batch in run.split.data.loader(items, BATCH_SIZE)]
        for modality in maps[0]:
            patches = torch.cat([own[modality] for own in maps]).sum(dim=(1, 2))
            table.setdefault(f"{modality} queries", {})[situation.label] = 1 - float(patches.mean())
    return table


def cover(picture: Image.Image, strength: Tensor) -> Image.Image:
    """Lay orange over a picture in grey, the more the nearer `strength` [rows, columns] is to 1."""
    size = plots.SIDE, plots.SIDE
    covered = picture.convert("L").convert("RGB").resize(size, Image.Resampling.NEAREST)
    opacity = Image.fromarray((220 * strength).round().byte().numpy())
    covered.paste(plots.COLOURS[2], (0, 0), opacity.resize(size, Image.Resampling.NEAREST))
    return covered


def draw(run: OpenRun, samples: Sequence[int]) -> bytes:
    """Draw a row for each of some samples: its image and spectrogram in each situation. PNG"""
    data, found = run.split.data, []
    for situation in Situation:
        items = [run.split.item(sample, situation) for sample in samples]
        batch, = data.loader(items, len(items))
        found.append((situation.label, batch, map_attention(run, batch)))
    peak = max(float(patches.max()) for *_, maps in found for patches in maps.values())
    rows = [(data.rows[sample].label, {}) for sample in samples]
    for i, (_, cells) in enumerate(rows):
        for column, batch, maps in found:
            read = {"audio": plots.draw_image(batch.image[i]),
                    "image": plots.draw_audio(batch.audio[i])}
            cell = cells[column] = plots.Cell([], [])
            for name, patches in maps.items():
                share = 1 - float(patches[i].sum())
                cell.pictures.append(cover(read[name], (patches[i] / peak).sqrt()))
                cell.lines.append((f"{name}'s queries: prompts {share:.0%}", plots.INK))
    return plots.grid(rows, "What the fusion blocks' queries attend to. Orange: the share of a "
                            f"patch, by its square root; the strongest is {peak:.0%}.")


def main(argv: list[str] | None = None) -> None:
    parser = new_parser(__doc__)
    add_run_arguments(parser)
    args = parser.parse_args(argv)
    runs = open_runs(args, ["prompt"])
    if not runs[0].run.config.model.fusion_blocks:
        raise InputError(f"{args.run}: has no fusion block; expected a run with some: "
                         f"model.fusion and model.fusion_depth")
    print("Share of the fusion blocks' attention at the prompts:\n\n"
          f"{format_table([compute_shares(run) for run in runs])}\n")
    for run in runs:
        write(run.run.folder / "attention.png", draw(run, pick_samples(run.split, SAMPLES)))


if __name__ == "__main__":
    run_command(main)
