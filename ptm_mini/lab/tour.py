"""One sample from its files to the answer: draw what docs/tour.md shows, print what it quotes.

python -m ptm_mini.lab.tour runs/toy-1 docs/tour --sample siren-000-0
"""
from pathlib import Path

import soundfile
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ptm_mini import plots
from ptm_mini.config import Situation
from ptm_mini.data.audio import fbank, read_waveform
from ptm_mini.data.dataset import PreparedSet
from ptm_mini.data.image import read_image
from ptm_mini.errors import InputError, new_parser, run as run_command
from ptm_mini.lab import attention
from ptm_mini.lab.hooks import record
from ptm_mini.method.damage import Sample
from ptm_mini.method.prompts import PromptedBackbone
from ptm_mini.report import OpenRun, add_run_arguments, format_table, open_runs, write

FOLLOWED = Situation.NOISY_IMAGE                   # whose way through the model is shown


def print_shape(name: str, value: Tensor, remark: str = "") -> None:
    print(f"{name:<24} {list(value.shape)!s:<14} {remark}".rstrip())


def draw_tokens(picture: Image.Image, patch: int, upward: bool) -> Image.Image:
    """Draw a picture's patches and their tokens' numbers; upward: row 0 is the lowest."""
    columns, rows = picture.width // patch, picture.height // patch
    picture = picture.resize((plots.SIDE, plots.SIDE), Image.Resampling.NEAREST)
    draw, height, width = ImageDraw.Draw(picture), plots.SIDE / rows, plots.SIDE / columns
    for token in range(rows * columns):
        row, left = token // columns, token % columns * width
        top = (rows - 1 - row if upward else row) * height
        draw.rectangle((left, top, left + width, top + height), outline="white")
        draw.text((left + width / 2, top + height / 2), str(token), "white", plots.font(14),
                  anchor="mm", stroke_width=2, stroke_fill="black")
    return picture


def show_files(data: PreparedSet, index: int, out: Path) -> None:
    """Show the way from the two files to what the model takes, and where its tokens lie."""
    row, sample, config, sound, picture = data.rows[index], data.sample(index), data.config, {}, {}
    stored, _ = soundfile.read(data.root / row.audio, dtype="float32", always_2d=True)
    wave = read_waveform(data.root / row.audio, config.audio)
    log_mel = fbank(wave, config.audio, sound)
    pixels = read_image(data.root / row.image, config.image.size, picture)
    steps = {"sound file": stored, "waveform": wave, **sound, "log-mel": log_mel,
             "audio": sample.audio, **picture, "pixels": pixels, "image": sample.image}
    for name, value in steps.items():
        print_shape(name, value, f"{float(value.min()):.2f} to {float(value.max()):.2f}")
    audio, image = plots.draw_audio(sample.audio), plots.draw_image(sample.image)
    pictures = {"spectrogram": audio,
                "audio tokens": draw_tokens(audio, config.model.audio_patch, upward=True),
                "image file": Image.fromarray(picture["rgb"].numpy()), "pixels": image,
                "image tokens": draw_tokens(image, config.model.image_patch, upward=False)}
    cells = {name: plots.Cell([drawn], []) for name, drawn in pictures.items()}
    write(out / "inputs.png", plots.grid([("", cells)]))


def show_damage(batch: Sample, out: Path) -> None:
    """Show the sample in each situation."""
    cells = {}
    for situation, audio, image in zip(Situation, batch.audio, batch.image):
        pictures = [plots.draw_image(image), plots.draw_audio(audio)]
        cells[situation.label] = plots.Cell(pictures, [])
    write(out / "damage.png", plots.grid([("", cells)]))


def show_model(model: PromptedBackbone, batch: Sample) -> None:
    """Show the shapes on the way through the model, and the attention to the prompts."""
    with record(model.backbone) as recorded:
        model.answer_each(batch.audio, batch.image, batch.situation)
    for place, prompts in model.sets[FOLLOWED].named_parameters():
        print_shape(place, prompts)
    for modality in ("audio", "image"):
        print_shape(f"{modality} tokens", recorded[f"{modality}_encoder.tokens"][FOLLOWED])
    for title, path, read in (("audio encoder, block 1", "audio_encoder.blocks.0", "audio"),
                              ("image encoder, block 1", "image_encoder.blocks.0", "image"),
                              ("fusion, audio's queries", "fusion.0.update_audio", "image"),
                              ("fusion, image's queries", "fusion.0.update_image", "audio")):
        if f"{path}.out" in recorded:             # a run may have no such direction
            probabilities = recorded[f"{path}.attention.probabilities"][FOLLOWED]
            tokens = recorded[f"{read}_encoder.tokens"].shape[1]
            share = probabilities[..., :-tokens].sum(dim=-1).mean()      # [heads, N, P+N_c]
            print_shape(title, probabilities, f"share of the prompts {share:.3f}")
    print_shape("features", recorded["features"][FOLLOWED])


def show_answers(run: OpenRun, batch: Sample, out: Path) -> None:
    """Show what the router and each strategy make of the sample in each situation."""
    situations, classes, right = [s.label for s in Situation], run.run.classes, {}
    for row, logits in run.models.answer(batch).rows.items():
        p = logits.softmax(dim=-1)                                       # [S, K]
        right[row] = dict(zip(situations, p[:, batch.label[0]].tolist()))
        likeliest = p[FOLLOWED].argsort(descending=True)[:3].tolist()
        print(f"{row:<24} {', '.join(f'{classes[k]} {p[FOLLOWED, k]:.3f}' for k in likeliest)}")
    shares = run.models.router(*run.models.backbone.encode(batch.audio, batch.image)).softmax(-1)
    routes = {s.label: dict(zip(situations, shares[s].tolist())) for s in Situation}
    print(f"\n{format_table([routes], 'in, taken for')}\n")
    title = f"Probability of the right class, {classes[batch.label[0]]}"
    write(out / "answers.png", plots.bars([right], title))


@torch.no_grad()
def main(argv: list[str] | None = None) -> None:
    parser = new_parser(__doc__)
    add_run_arguments(parser)
    parser.add_argument("out", type=Path, help="folder for the pictures, made if need be")
    parser.add_argument("--sample", metavar="ID", required=True,
                        help="one of the set, with sound and image")
    args = parser.parse_args(argv)
    run = open_runs(args, ["prompt"])[0]              # of several seeds the first
    data = run.split.data
    indices = {row.id: i for i, row in enumerate(data.rows) if row.audio and row.image}
    if args.sample not in indices:
        raise InputError(f"--sample {args.sample}: no sample with sound and image; expected an id "
                         f"in {data.folder}/manifest.csv")
    index = indices[args.sample]
    batch, = data.loader([run.split.item(index, s) for s in Situation], len(Situation))
    show_files(data, index, args.out)
    show_damage(batch, args.out)
    batch = batch.to(data.device)
    show_model(run.models.methods["prompt"], batch)
    if run.run.config.model.fusion_blocks:
        write(args.out / "fusion.png", attention.draw(run, [index]))
    show_answers(run, batch, args.out)


if __name__ == "__main__":
    run_command(main)
