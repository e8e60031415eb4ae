"""What the fusion blocks attend to: how much to the prompts, and to which patches.

python -m ptm_mini.lab.attention runs/toy-1         prints the prompts' shares, draws attention.png

Each sample has the prompts of its situation. All shares are means over the fusion blocks, their
heads and their queries.
"""
import argparse
from collections.abc import Sequence
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from ptm_mini import plots
from ptm_mini.config import DAMAGES, Situation
from ptm_mini.errors import InputError, run as run_command
from ptm_mini.evaluation import BATCH_SIZE
from ptm_mini.lab.hooks import record
from ptm_mini.method.damage import Sample
from ptm_mini.report import OpenRun, Table, add_run_arguments, format_table, open_runs, write
from ptm_mini.training import pick_device

SAMPLES = 4                                        # in the picture


class AttentionMap(NamedTuple):
    """What one modality's queries attend to: shares that sum to 1 for each sample."""
    prompts: Tensor         # [B, P]
    patches: Tensor         # [B, rows, columns] of the other modality, as it is drawn


Maps = dict[str, AttentionMap]           # by the modality, "audio" or "image", whose queries attend
MappedSample = tuple[str, dict[Situation, tuple[Sample, Maps]]]      # class; a batch of one sample


@torch.no_grad()
def map_attention(run: OpenRun, batch: Sample) -> Maps:
    """Map the attention of a batch; model.fusion can leave a modality out."""
    config, model = run.run.config, run.models.methods["prompt"]
    patch, side = config.model.audio_patch, config.image.size // config.model.image_patch
    grids = {"audio": (side, side),
             "image": (config.audio.mels // patch, config.audio.frames // patch)}
    batch = batch.to(run.split.data.device)
    with record(model.backbone.fusion) as recorded:
        model.answer_each(batch.audio, batch.image, batch.situation)
    maps = {}
    for modality, (rows, columns) in grids.items():
        blocks = [probabilities for name, probabilities in recorded.items()
                  if name.endswith(f"update_{modality}.attention.probabilities")]
        if blocks:
            keys = torch.stack(blocks).mean(dim=(0, 2, 3)).cpu()               # [B, P+N_c]
            P = keys.shape[1] - rows * columns
            patches = keys[:, P:].unflatten(1, (rows, columns))
            if modality == "image":
                patches = patches.flip(1)     # a spectrogram's lowest band is drawn at the bottom
            maps[modality] = AttentionMap(keys[:, :P], patches)
    return maps


def compute_shares(run: OpenRun) -> Table:
    """Average the prompts' share over the test samples, by queries (row) and situation (column).

    The column `even` is their share if all keys counted alike.
    """
    table: Table = {}
    for situation in run.split.situations():
        items = [run.split.item(row, situation)
                 for row in run.split.data.indices(run.split.split, situation).tolist()]
        maps = [map_attention(run, batch)
                for batch in run.split.data.loader(items, BATCH_SIZE)]
        for modality in maps[0]:
            shares = torch.cat([own[modality].prompts.sum(dim=1) for own in maps])
            table.setdefault(f"{modality} queries", {})[situation.label] = float(shares.mean())
    for modality, (prompts, patches) in maps[0].items():
        P, N = prompts.shape[1], patches[0].numel()
        table[f"{modality} queries"]["even"] = P / (P + N)
    return table


def collect_samples(run: OpenRun, rows: Sequence[int]) -> list[MappedSample]:
    """Map the attention of samples of the set, each in every situation."""
    samples = []
    for row in rows:
        mapped = {}
        for situation in Situation:
            batch, = run.split.data.loader([run.split.item(row, situation)], 1)
            mapped[situation] = batch, map_attention(run, batch)
        samples.append((run.split.data.rows[row].label, mapped))
    return samples


def cover(picture: Image.Image, strength: Tensor) -> Image.Image:
    """Lay orange over a picture in grey, the more the nearer `strength` [rows, columns] is to 1."""
    size = plots.SIDE, plots.SIDE
    covered = picture.convert("L").convert("RGB").resize(size, Image.Resampling.NEAREST)
    opacity = Image.fromarray((220 * strength).round().byte().numpy())
    covered.paste(plots.COLOURS[2], (0, 0), opacity.resize(size, Image.Resampling.NEAREST))
    return covered


def draw(samples: Sequence[MappedSample]) -> bytes:
    """Draw a row for each sample: its image and its spectrogram in each situation. PNG"""
    peak = max(float(own.patches.max()) for _, mapped in samples for _, maps in mapped.values()
               for own in maps.values())
    rows = []
    for label, mapped in samples:
        cells = {}
        for situation, (batch, maps) in mapped.items():
            read = {"audio": plots.draw_image(batch.image[0]),
                    "image": plots.draw_audio(batch.audio[0])}
            cells[situation.label] = plots.Cell(
                [cover(read[name], (own.patches[0] / peak).sqrt()) for name, own in maps.items()],
                [(f"{name}'s queries: prompts {float(own.prompts.sum()):.0%}", plots.INK)
                 for name, own in maps.items()])
        rows.append((label, cells))
    return plots.grid(rows, "The fusion blocks' attention, each sample with the prompts of its "
                            "situation. The audio's queries read the image, the image's the "
                            "spectrogram.\nOrange: a patch's share, by its square root; the "
                            f"strongest is {peak:.0%}.")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add_run_arguments(parser)
    parser.add_argument("--damage", choices=DAMAGES, help="severity; default: the run's own")
    args = parser.parse_args(argv)
    runs = open_runs(args.run, args.data, args.damage, methods=["prompt"], features=args.features,
                     workers=args.workers, device=pick_device(args.device))
    for run in runs:
        if not run.run.config.model.fusion_blocks:
            raise InputError(f"{run.run.folder}: has no fusion block; expected a run with one: "
                             f"model.fusion other than none, model.fusion_depth 1 or more")
    print("Share of the fusion blocks' attention at the prompts; even: if all keys counted alike"
          f"\n\n{format_table([compute_shares(run) for run in runs])}\n")
    for run in runs:
        complete = run.split.data.indices(run.split.split, Situation.COMPLETE)
        places = torch.linspace(0, len(complete) - 1, min(SAMPLES, len(complete))).round().long()
        write(run.run.folder / f"attention{run.suffix}.png",
              draw(collect_samples(run, complete[places].tolist())))


if __name__ == "__main__":
    run_command(main)
