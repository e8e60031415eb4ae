"""One sample from its files to the answer: draws what docs/tour.md shows and prints what it quotes.

python -m ptm_mini.report.tour runs/toy-1 docs/tour --sample siren-000-0
"""
if __name__ == "__main__":
    from ptm_mini.errors import run_script
    run_script(__file__)

from pathlib import Path

import soundfile
import torch
from PIL import Image

from ptm_mini.config import Situation
from ptm_mini.data.audio import fbank, read_waveform
from ptm_mini.data.image import read_image
from ptm_mini.errors import InputError, Parser
from ptm_mini.method.damage import EVALUATION_EPOCH, draw_damage
from ptm_mini.report import attention, charts, tables
from ptm_mini.report.gallery import heat, shown
from ptm_mini.report.panels import curve, matrix, numbered, sheet
from ptm_mini.report.results import OpenRun, Selection, need, write
from ptm_mini.trace import traced

FOLLOWED = Situation.NOISY_IMAGE                   # the situation whose way through the model is shown
ANSWERS = ("backbone", "prompt situation", "prompt concat", "prompt routed")


def say(name, value, remark=""):
    """Print a line: a name, a tensor's shape or anything else, and a remark."""
    print(f"{name:<24} {str(list(value.shape) if hasattr(value, 'shape') else value):<14} {remark}".rstrip())


def from_files(view, row, sample, out):
    """From the two files to what the model takes, and where its tokens lie."""
    audio, image, model, sound, picture = view.config.audio, view.config.image, view.config.model, {}, {}
    heard, rate = soundfile.read(view.data.folder / row.audio, dtype="float32", always_2d=True)
    wave = read_waveform(view.data.folder / row.audio, audio.sample_rate, audio.samples)
    log_mel = fbank(wave, audio.sample_rate, audio.mels, sound)
    pixels = read_image(view.data.folder / row.image, image.size, picture)
    say("sound file", heard, f"{rate} Hz, {len(heard) / rate:.3f} s")
    say("waveform", wave, f"{audio.sample_rate} Hz, {audio.seconds} s")
    for name, value in {**sound, "log-mel": log_mel, "audio": sample.audio,
                        **picture, "pixels": pixels, "image": sample.image}.items():
        say(name, value, f"{float(value.min()):.2f} to {float(value.max()):.2f}")
    used, spectrogram = audio.seconds * rate / len(heard), heat(sample.audio)
    tokens = numbered(spectrogram, audio.mels // model.audio_patch, audio.frames // model.audio_patch, low_first=True)
    write(out / "sound.png", sheet([{f"file, {rate} Hz": curve(torch.from_numpy(heard).mean(dim=1), used),
                                     f"waveform, {audio.sample_rate} Hz": curve(wave), "spectrogram": spectrogram,
                                     "audio tokens": tokens}]))
    side = image.size // model.image_patch
    write(out / "picture.png", sheet([{"file": Image.fromarray(picture["rgb"]), "pixels": shown(sample.image),
                                       "image tokens": numbered(shown(sample.image), side, side)}]))


def damaged(view, samples, out):
    """Before and after each situation's damage, with what is drawn for it."""
    images, sounds = {}, {}
    for situation, sample in samples.items():
        drawn = draw_damage(samples[Situation.COMPLETE], situation, view.config.damage, view.config.train.seed,
                            EVALUATION_EPOCH)
        for modality, (kind, what) in drawn.items():
            say(f"{situation.label}, {modality}", kind, f"draws {list(what.shape) if torch.is_tensor(what) else what}")
        images[f"{situation.label}: {drawn.get('image', ['as it is'])[0]}"] = shown(sample.image)
        sounds[f"{situation.label}: {drawn.get('audio', ['as it is'])[0]}"] = heat(sample.audio)
    write(out / "damage.png", sheet([images, sounds]))


def through_the_model(model, inputs, out):
    """The shapes on the way through the model with the prompts of the situation FOLLOWED, and the attention at them."""
    matrices = {}
    with traced(model.backbone) as trace:
        model.by_situation(*inputs)
    for place, prompts in model.sets[FOLLOWED].named_parameters():
        say(place, prompts)
    for stream in ("audio", "image"):
        say(f"{stream} tokens", trace[f"{stream}_encoder.tokens"][0])
    for title, path, read in (("audio encoder, block 1", "audio_encoder.blocks.0", "audio"),
                              ("image encoder, block 1", "image_encoder.blocks.0", "image"),
                              ("fusion, audio's queries", "fusion.0.update_audio", "image"),
                              ("fusion, image's queries", "fusion.0.update_image", "audio")):
        kept = trace.get(f"{path}.attention.probabilities")
        if kept is not None:                               # a run may have no such block or direction
            P, mean = kept.shape[-1] - trace[f"{read}_encoder.tokens"].shape[1], kept[0].mean(dim=0)      # [N, P + N_c]
            say(title, kept[0], f"share at the prompts {mean[:, :P].sum(dim=1).mean():.3f}")
            matrices[title] = matrix(mean, P)
    say("features", trace["features"][0])
    write(out / "prompts.png", sheet([matrices]))


def answered(run, truth, samples, out):
    """What the router and each way to answer make of the sample in each situation."""
    routes, right = {}, {row: {} for row in ANSWERS}
    for situation, sample in samples.items():
        inputs = [x[None] for x in sample[:3]]
        routes[situation.label] = dict(zip((s.label for s in Situation), run.router(*inputs[:2]).softmax(dim=-1)[0].tolist()))
        for row in ANSWERS:
            p = dict(zip(run.view.data.classes, run.rows[row](*inputs).softmax(dim=-1)[0].tolist()))
            right[row][situation.label] = p[truth]
            if situation == FOLLOWED:
                say(row, ", ".join(f"{name} {p[name]:.3f}" for name in sorted(p, key=p.get, reverse=True)[:3]))
    print(f"\n{tables.table('in, taken for', [routes])}\n\n{tables.table(f'p({truth})', [right])}\n")
    write(out / "answers.png", charts.bars([right], list(routes), f"Probability of the right class, {truth}"))


@torch.no_grad()
def tour(run, index, out):
    """Print and draw the tour of the sample in the row `index` of an OpenRun's set. out: folder of the pictures"""
    row, model = run.view.data.rows[index], run.models["prompt"]
    samples = {situation: run.view.sample(index, situation) for situation in Situation}
    out.mkdir(parents=True, exist_ok=True)
    from_files(run.view, row, samples[Situation.COMPLETE], out)
    damaged(run.view, samples, out)
    through_the_model(model, [x[None] for x in samples[FOLLOWED][:3]], out)
    write(out / "fusion.png", attention.picture(attention.looks(model, run.view, [index])))
    answered(run, row.label, samples, out)


def main(argv=None):
    parser = Parser(__doc__)
    parser.add_argument("run", type=Path, help="run folder that train.py made")
    parser.add_argument("out", type=Path, help="folder for the pictures, made if need be")
    parser.add_argument("--sample", metavar="ID", required=True, help="one of the run's set, with sound and picture")
    options = parser.parse_args(argv)
    run = OpenRun(options.run, torch.device("cpu"), Selection())
    need(run.router is not None, "the tour", options.run, "prompt")
    found = [i for i, row in enumerate(run.view.data.rows) if row.id == options.sample and row.audio and row.image]
    if not found:
        raise InputError(f"--sample {options.sample}: no sample of that id with sound and picture in {run.view.data.folder}; "
                         f"expected an id in its manifest.csv")
    tour(run, found[0], options.out)
