"""Where the fusion blocks look: how much at the prompts, and at which patches.

python -m ptm_mini.lab.attention runs/toy-1         prints the prompts' shares, draws attention.png

Each sample has the prompts of its situation. All shares are means over the fusion blocks, their
heads and their queries.
"""
import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from ptm_mini import plots
from ptm_mini.config import DAMAGES, Situation
from ptm_mini.errors import InputError, run as run_command
from ptm_mini.evaluation import BATCH_SIZE
from ptm_mini.lab.hooks import record
from ptm_mini.lab.token_cache import add_run_arguments
from ptm_mini.method.damage import Sample
from ptm_mini.report import OpenRun, Table, format_table, open_runs, write
from ptm_mini.training import pick_device

SAMPLES = 4                                        # in the picture


class AttentionMap(NamedTuple):
    """What one modality's queries attend to: shares that sum to 1 for each sample."""
    prompts: Tensor         # [B, P]
    patches: Tensor         # [B, rows, columns] of the other modality, as it is drawn


@torch.no_grad()
def map_attention(run: OpenRun, batch: Sample) -> dict[str, AttentionMap]:
    """Map the attention of a batch: {"audio" or "image", whose queries attend: AttentionMap}."""
    config, model = run.run.config, run.models.methods["prompt"]
    bands = config.audio.mels // config.model.audio_patch
    side = config.image.size // config.model.image_patch
    batch = batch.to(run.split.data.device)
    with record(model.backbone.fusion) as recorded:
        model.answer_each(batch.audio, batch.image, batch.situation)
    maps = {}
    for modality, rows in (("audio", side), ("image", bands)):
        blocks = [probabilities for name, probabilities in recorded.items()
                  if name.endswith(f"update_{modality}.attention.probabilities")]
        if blocks:                                 # model.fusion can leave a direction out
            keys = torch.stack(blocks).mean(dim=(0, 2, 3)).cpu()               # [B, P+N_c]
            N = side * side if modality == "audio" else bands * (
                config.audio.frames // config.model.audio_patch)
            prompts, patches = keys.split([keys.shape[1] - N, N], dim=1)
            patches = patches.unflatten(1, (rows, -1))
            # A spectrogram's first row of patches is its lowest band, which is drawn last.
            maps[modality] = AttentionMap(prompts,
                                          patches.flip(1) if modality == "image" else patches)
    return maps


def compute_shares(run: OpenRun) -> Table:
    """Average the prompts' share over the test samples, by queries (row) and situation (column).

    The column `even` is the share if all keys counted alike.
    """
    table: Table = {}
    for situation in run.split.situations():
        items = [run.split.item(row, situation)
                 for row in run.split.data.indices(run.split.split, situation).tolist()]
        shares: dict[str, list[Tensor]] = {}
        for batch in run.split.data.loader(items, BATCH_SIZE):
            maps = map_attention(run, batch)
            for modality, (prompts, _) in maps.items():
                shares.setdefault(f"{modality} queries", []).append(prompts.sum(dim=1))
        for row, parts in shares.items():
            table.setdefault(row, {})[situation.label] = float(torch.cat(parts).mean())
    for modality, (prompts, patches) in maps.items():
        P, N = prompts.shape[1], patches[0].numel()
        table[f"{modality} queries"]["even"] = P / (P + N)
    return table


class MappedSample(NamedTuple):
    """A sample in every situation."""
    label: str
    batches: dict[Situation, Sample]                     # of the sample alone
    maps: dict[Situation, dict[str, AttentionMap]]


def collect_samples(run: OpenRun, rows: Sequence[int]) -> list[MappedSample]:
    """Map the attention of samples of the set, each in every situation."""
    samples = []
    for row in rows:
        batches = {}
        for situation in Situation:
            batches[situation], = run.split.data.loader([run.split.item(row, situation)], 1)
        maps = {situation: map_attention(run, batch) for situation, batch in batches.items()}
        samples.append(MappedSample(run.split.data.rows[row].label, batches, maps))
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
    peak = max(float(one.patches.max()) for sample in samples for maps in sample.maps.values()
               for one in maps.values())
    rows = []
    for sample in samples:
        cells = {}
        for situation, maps in sample.maps.items():
            batch = sample.batches[situation]
            read = {"audio": plots.draw_image(batch.image[0]),
                    "image": plots.draw_audio(batch.audio[0])}
            pictures = [cover(read[modality], (one.patches[0] / peak).sqrt())
                        for modality, one in maps.items()]
            lines = [(f"{modality}'s queries: prompts {float(one.prompts.sum()):.0%}", plots.INK)
                     for modality, one in maps.items()]
            cells[situation.label] = plots.Cell(pictures, lines)
        rows.append((sample.label, cells))
    return plots.grid(rows, "Where the fusion blocks look, each sample with the prompts of its "
                            "situation\nThe audio's queries look at the image, the image's queries "
                            "at the spectrogram. Orange: a patch's share of the attention, strongest"
                            f" at {peak:.0%}.")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder, or the folder of several seeds")
    parser.add_argument("--damage", choices=DAMAGES, help="severity; default: the run's own")
    add_run_arguments(parser)
    args = parser.parse_args(argv)
    runs = open_runs(args.run, args.data, args.damage, methods=["prompt"], features=args.features,
                     workers=args.workers, device=pick_device(args.device))
    for run in runs:
        if not run.run.config.model.fusion_blocks:
            raise InputError(f"{run.run.folder}: has no fusion block, where attention is looked "
                             f"at; expected a run whose model.fusion is not none")
    print("Share of the fusion blocks' attention at the prompts, mean over heads, queries and test "
          "samples;\neven: if all keys counted alike\n\n"
          f"{format_table([compute_shares(run) for run in runs])}\n")
    for run in runs:
        complete = run.split.data.indices(run.split.split, Situation.COMPLETE)
        places = torch.linspace(0, len(complete) - 1, min(SAMPLES, len(complete))).round().long()
        write(run.run.folder / f"attention{run.suffix}.png",
              draw(collect_samples(run, complete[places].tolist())))


if __name__ == "__main__":
    run_command(main)
