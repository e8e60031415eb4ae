"""What the fusion blocks attend to: how much to the prompts, and to which patches.

python -m ptm_mini.lab.attention runs/toy-1         prints the prompts' shares, draws attention.png

Each sample has its situation's prompts. Shares are means over fusion blocks, heads and queries.
"""
import argparse
from collections.abc import Sequence

import torch
from PIL import Image
from torch import Tensor

from ptm_mini import plots
from ptm_mini.config import Situation
from ptm_mini.errors import InputError, run as run_command
from ptm_mini.evaluation import BATCH_SIZE
from ptm_mini.lab.hooks import record
from ptm_mini.method.damage import Sample
from ptm_mini.report import OpenRun, Table, add_run_arguments, format_table, open_runs, write
from ptm_mini.training import pick_device

SAMPLES = 4                                        # in the picture


@torch.no_grad()
def map_attention(run: OpenRun, batch: Sample) -> dict[str, tuple[Tensor, Tensor]]:
    """Map a batch's attention by the modality, "audio" or "image", whose queries attend.

    returns  shares of the prompts [B, P] and of the other modality's patches [B, rows, columns],
             as it is drawn, which sum to 1; a modality that model.fusion omits has none
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
            prompts, patches = keys.split([keys.shape[1] - rows * columns, rows * columns], dim=1)
            patches = patches.unflatten(1, (rows, columns))
            if modality == "image":
                patches = patches.flip(1)     # a spectrogram's lowest band is drawn at the bottom
            maps[modality] = prompts, patches
    return maps


def compute_shares(run: OpenRun) -> Table:
    """Average the prompts' share over the test samples, by queries (row) and situation (column)."""
    table: Table = {}
    for situation in run.split.situations():
        rows = run.split.data.indices(run.split.split, situation).tolist()
        items = [run.split.item(row, situation) for row in rows]
        maps = [map_attention(run, batch) for batch in run.split.data.loader(items, BATCH_SIZE)]
        for modality in maps[0]:
            shares = torch.cat([own[modality][0].sum(dim=1) for own in maps])
            table.setdefault(f"{modality} queries", {})[situation.label] = float(shares.mean())
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
    split, batches = run.split, {}
    for situation in Situation:
        items = [split.item(sample, situation) for sample in samples]
        batches[situation], = split.data.loader(items, len(items))
    maps = {situation: map_attention(run, batch) for situation, batch in batches.items()}
    peak = max(float(patches.max()) for own in maps.values() for _, patches in own.values())
    rows = []
    for i, sample in enumerate(samples):
        cells = {}
        for situation, batch in batches.items():
            read = {"audio": plots.draw_image(batch.image[i]),
                    "image": plots.draw_audio(batch.audio[i])}
            cell = cells[situation.label] = plots.Cell([], [])
            for name, (prompts, patches) in maps[situation].items():
                cell.pictures.append(cover(read[name], (patches[i] / peak).sqrt()))
                share = float(prompts[i].sum())
                cell.lines.append((f"{name}'s queries: prompts {share:.0%}", plots.INK))
        rows.append((split.data.rows[sample].label, cells))
    return plots.grid(rows, "What the fusion blocks' queries attend to. Orange: the share of a "
                            f"patch, by its square root; the strongest is {peak:.0%}.")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser)
    args = parser.parse_args(argv)
    runs = open_runs(args.run, args.data, methods=["prompt"], features=args.features,
                     workers=args.workers, device=pick_device(args.device))
    if not runs[0].run.config.model.fusion_blocks:
        raise InputError(f"{args.run}: has no fusion block; expected a run with model.fusion")
    print("Share of the fusion blocks' attention at the prompts:\n\n"
          f"{format_table([compute_shares(run) for run in runs])}\n")
    for run in runs:
        complete = run.split.data.indices(run.split.split, Situation.COMPLETE)
        places = torch.linspace(0, len(complete) - 1, min(SAMPLES, len(complete))).round().long()
        write(run.run.folder / "attention.png", draw(run, complete[places].tolist()))


if __name__ == "__main__":
    run_command(main)
