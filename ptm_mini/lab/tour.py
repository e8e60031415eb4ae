"""One sample from its files to the answer: draw what docs/tour.md shows, print what it quotes.

python -m ptm_mini.lab.tour runs/toy-1 docs/tour --sample siren-000-0
"""
import argparse
from pathlib import Path

import soundfile
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from ptm_mini import plots
from ptm_mini.checkpoint import read_run
from ptm_mini.config import Situation
from ptm_mini.data.audio import fbank, read_waveform
from ptm_mini.data.image import read_image
from ptm_mini.errors import InputError, run as run_command
from ptm_mini.evaluation import EvalSplit
from ptm_mini.lab import attention
from ptm_mini.lab.hooks import record
from ptm_mini.method.damage import EVALUATION_EPOCH, Sample, draw_damage
from ptm_mini.method.prompts import PromptedBackbone
from ptm_mini.report import OpenRun, format_table, open_runs, write

FOLLOWED = Situation.NOISY_IMAGE                   # whose way through the model is shown
ANSWERS = ("backbone", "prompt oracle", "prompt concat", "prompt routed")
SIDE = plots.SIDE


def print_line(name: str, value: object, remark: str = "") -> None:
    """Print a name, a tensor's shape or anything else, and a remark."""
    shape = list(value.shape) if hasattr(value, "shape") else value
    print(f"{name:<24} {shape!s:<14} {remark}".rstrip())


def write_row(path: Path, pictures: dict[str, Image.Image]) -> None:
    """Write pictures with their names above, side by side."""
    cells = {name: plots.Cell([picture], []) for name, picture in pictures.items()}
    write(path, plots.grid([("", cells)]))


def draw_wave(wave: Tensor, used: float = 1.0) -> Image.Image:
    """Draw a waveform [samples]; the share of it that is not used lies on grey."""
    picture = Image.new("RGB", (SIDE, SIDE), plots.FAINT)
    draw = ImageDraw.Draw(picture)
    draw.rectangle((0, 0, used * SIDE, SIDE), "white")
    heights = SIDE * (0.5 - 0.48 * wave / wave.abs().max().clamp(min=1e-9))
    for x, part in enumerate(heights.tensor_split(SIDE)):
        draw.line((x, float(part.min()), x, float(part.max()) + 1), plots.COLOURS[1])
    return picture


def draw_tokens(picture: Image.Image, rows: int, columns: int, upward: bool) -> Image.Image:
    """Draw a picture's patches and their tokens' numbers; upward: row 0 is the lowest."""
    picture = picture.resize((SIDE, SIDE), Image.Resampling.NEAREST)
    draw, height, width = ImageDraw.Draw(picture), SIDE / rows, SIDE / columns
    for token in range(rows * columns):
        row, left = token // columns, token % columns * width
        top = (rows - 1 - row if upward else row) * height
        draw.rectangle((left, top, left + width, top + height), outline="white")
        draw.text((left + width / 2, top + height / 2), str(token), "white", plots.font(14),
                  anchor="mm", stroke_width=2, stroke_fill="black")
    return picture


def draw_matrix(probabilities: Tensor, prompts: int) -> Image.Image:
    """Draw attention [N, P+N_c], a row for each query; the prompts end at the blue line."""
    white = Image.new("RGB", (SIDE, SIDE), "white")
    picture = attention.cover(white, (probabilities / probabilities.max()).sqrt())
    x = SIDE * prompts / probabilities.shape[1]
    ImageDraw.Draw(picture).line((x, 0, x, SIDE), plots.COLOURS[1], width=2)
    return picture


def show_files(split: EvalSplit, index: int, out: Path) -> None:
    """Show the way from the two files to what the model takes, and where its tokens lie."""
    data, row, sample = split.data, split.data.rows[index], split.data.sample(index)
    audio, image, model = data.config.audio, data.config.image, data.config.model
    sound, picture = {}, {}
    stored, rate = soundfile.read(data.root / row.audio, dtype="float32", always_2d=True)
    wave = read_waveform(data.root / row.audio, audio)
    log_mel = fbank(wave, audio, sound)
    pixels = read_image(data.root / row.image, image.size, picture)
    print_line("sound file", stored, f"{rate} Hz, {len(stored) / rate:.3f} s")
    print_line("waveform", wave, f"{audio.sample_rate} Hz, {audio.seconds} s")
    for name, value in {**sound, "log-mel": log_mel, "audio": sample.audio,
                        **picture, "pixels": pixels, "image": sample.image}.items():
        print_line(name, value, f"{float(value.min()):.2f} to {float(value.max()):.2f}")
    mono, used = torch.from_numpy(stored).mean(dim=1), audio.seconds * rate / len(stored)
    spectrogram, drawn = plots.draw_audio(sample.audio), plots.draw_image(sample.image)
    bands, columns = audio.mels // model.audio_patch, audio.frames // model.audio_patch
    side = image.size // model.image_patch
    write_row(out / "sound.png", {
        f"file, {rate} Hz": draw_wave(mono, used),
        f"waveform, {audio.sample_rate} Hz": draw_wave(wave), "spectrogram": spectrogram,
        "audio tokens": draw_tokens(spectrogram, bands, columns, upward=True)})
    write_row(out / "picture.png", {
        "file": Image.fromarray(picture["rgb"].numpy()), "pixels": drawn,
        "image tokens": draw_tokens(drawn, side, side, upward=False)})


def show_damage(split: EvalSplit, index: int, batches: dict[Situation, Sample], out: Path) -> None:
    """Show the sample before and after each situation's damage, with what is drawn for it."""
    config, cells = split.data.config, {}
    for situation, batch in batches.items():
        drawn = draw_damage(split.data.sample(index), situation, config.damage, config.train.seed,
                            EVALUATION_EPOCH)
        for modality, (kind, draws) in drawn.items():
            text = list(draws.shape) if torch.is_tensor(draws) else draws
            print_line(f"{situation.label}, {modality}", kind, f"draws {text}")
        lines = [(drawn[modality][0] if modality in drawn else f"{modality} as it is", plots.INK)
                 for modality in ("image", "audio")]
        cells[situation.label] = plots.Cell(
            [plots.draw_image(batch.image[0]), plots.draw_audio(batch.audio[0])], lines)
    write(out / "damage.png", plots.grid([("", cells)]))


def show_model(model: PromptedBackbone, batch: Sample, out: Path) -> None:
    """Show the shapes on the way through the model, and the attention to the prompts."""
    matrices = {}
    with record(model.backbone) as recorded:
        model.answer_each(batch.audio, batch.image, batch.situation)
    for place, prompts in model.sets[FOLLOWED].named_parameters():
        print_line(place, prompts)
    for modality in ("audio", "image"):
        print_line(f"{modality} tokens", recorded[f"{modality}_encoder.tokens"][0])
    for title, path, read in (("audio encoder, block 1", "audio_encoder.blocks.0", "audio"),
                              ("image encoder, block 1", "image_encoder.blocks.0", "image"),
                              ("fusion, audio's queries", "fusion.0.update_audio", "image"),
                              ("fusion, image's queries", "fusion.0.update_image", "audio")):
        if f"{path}.attention.probabilities" in recorded:    # a run may have no such direction
            probabilities = recorded[f"{path}.attention.probabilities"][0]   # [heads, N, P+N_c]
            mean = probabilities.mean(dim=0)
            P = mean.shape[1] - recorded[f"{read}_encoder.tokens"].shape[1]
            share = mean[:, :P].sum(dim=1).mean()
            print_line(title, probabilities, f"share of the prompts {share:.3f}")
            matrices[title] = draw_matrix(mean, P)
    print_line("features", recorded["features"][0])
    write_row(out / "prompts.png", matrices)


def show_answers(run: OpenRun, label: str, batches: dict[Situation, Sample], out: Path) -> None:
    """Show what the router and each strategy make of the sample in each situation."""
    routes, right = {}, {row: {} for row in ANSWERS}
    for situation, batch in batches.items():
        tokens = run.models.backbone.encode(batch.audio, batch.image)
        shares = run.models.router(*tokens).softmax(dim=-1)[0].tolist()
        routes[situation.label] = {s.label: share for s, share in zip(Situation, shares)}
        rows = run.models.answer(batch).rows
        for row in ANSWERS:
            p = dict(zip(run.run.classes, rows[row].softmax(dim=-1)[0].tolist()))
            right[row][situation.label] = p[label]
            if situation == FOLLOWED:
                likeliest = sorted(p, key=p.get, reverse=True)[:3]
                print_line(row, ", ".join(f"{name} {p[name]:.3f}" for name in likeliest))
    print(f"\n{format_table([routes], 'in, taken for')}\n")
    print(f"{format_table([right], f'p({label})')}\n")
    write(out / "answers.png", plots.bars([right], f"Probability of the right class, {label}"))


@torch.no_grad()
def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("run", type=Path, help="run folder that train.py made")
    add("out", type=Path, help="folder for the pictures, made if need be")
    add("--sample", metavar="ID", required=True, help="one of the set, with sound and image")
    add("--data", type=Path, help="where the run's set is now; default: where it was")
    add("--features", type=Path, metavar="DIR", help="cache for decoded files; default: in the set")
    args = parser.parse_args(argv)
    read_run(args.run)                        # one run, not a folder of several
    run, = open_runs(args.run, args.data, methods=["prompt"], features=args.features)
    split, model = run.split, run.models.methods["prompt"]
    indices = [i for i, row in enumerate(split.data.rows)
               if row.id == args.sample and row.audio and row.image]
    if not indices:
        raise InputError(f"--sample {args.sample}: no sample of that id with sound and image in "
                         f"{split.data.folder}; expected an id in its manifest.csv")
    index, = indices
    batches = {}
    for situation in Situation:
        batches[situation], = split.data.loader([split.item(index, situation)], 1)
    show_files(split, index, args.out)
    show_damage(split, index, batches, args.out)
    show_model(model, batches[FOLLOWED], args.out)
    if run.run.config.model.fusion_blocks:
        write(args.out / "fusion.png", attention.draw(attention.collect_samples(run, [index])))
    show_answers(run, split.data.rows[index].label, batches, args.out)


if __name__ == "__main__":
    run_command(main)
