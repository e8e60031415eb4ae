"""Golden arrays for porters: a small model's weights, inputs, intermediates and training steps.

python -m ptm_mini.lab.golden golden.npz                  write them
python -m ptm_mini.lab.golden --compare mine.npz          compare a port's, which have their names

docs/porting.md says which arrays to feed and to compare, in which order and how closely.
"""
import sys
from dataclasses import replace
from fnmatch import fnmatchcase
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from PIL import ExifTags, Image
from torch import Tensor, nn
from torch.nn import functional as F

from ptm_mini.checkpoint import copy_tensors, trainable
from ptm_mini.config import PRESETS, Situation, override
from ptm_mini.data.audio import fbank, mel_filters, read_waveform, resample
from ptm_mini.data.dataset import Normalisation, augment, collate, model_inputs
from ptm_mini.data.image import read_image
from ptm_mini.errors import InputError, new_parser, run
from ptm_mini.evaluation import select_surest
from ptm_mini.files import refuse_existing, whole_file
from ptm_mini.lab.hooks import record
from ptm_mini.lab.weights import plain_name
from ptm_mini.method.backbone import Backbone, initialise
from ptm_mini.method.baselines import adapter, lora, scale_shift
from ptm_mini.method.damage import (KINDS, Sample, damage_sample, draw_damage, seeded_generator,
                                    weights_generator)
from ptm_mini.method.prompts import (PromptedBackbone, PromptSet, concat_prompts, prompt,
                                     select_prompts)
from ptm_mini.method.router import Router, pick_situations
from ptm_mini.training import make_optimizer

CONFIG = override(PRESETS["tiny"], "audio.sample_rate=8000", "audio.seconds=0.495", "audio.mels=32",
                  "image.size=24", "model.width=16", "model.heads=2", "model.depth=3",
                  "model.fusion_depth=2", "prompts.length=2", "prompts.input_depth=3",
                  "prompts.joint=true", "lora.rank=2", "adapter.bottleneck=3",
                  "damage.alone.image_pixelate=0.3", "damage.both.image_pixelate=0.3")
NORMALISATION = Normalisation(mean=-6.0, std=4.0)
CLASSES, LABELS = 5, torch.tensor([0, 3, 1, 4])
LOSS = nn.CrossEntropyLoss(label_smoothing=CONFIG.train.label_smoothing)
SITUATIONS = torch.tensor(list(Situation))          # sample s is in situation s
CLIPS = {"down": (22050, 11250, 2), "up": (4000, 1600, 1), "odd": (11025, 5600, 3),
         "short": (8000, 2500, 1)}                  # rate, samples, channels
PICTURES = {"wide": ("RGB", 30, 41, 3), "tall": ("RGB", 38, 25, 3), "small": ("RGB", 13, 10, 3),
            "square": ("RGB", 32, 32, 3), "grey": ("L", 27, 30), "grey16": ("I;16", 31, 30),
            "alpha": ("RGBA", 30, 30, 4), "large": ("L", 195, 198), "halves": ("RGB", 48, 48, 3),
            "turned": ("RGB", 30, 41, 3), "mirrored": ("RGB", 33, 28, 3), "palette": ("P", 29, 30),
            "cmyk": ("CMYK", 30, 33, 4), "grey_alpha": ("LA", 31, 28, 2)}      # mode, shape
ORIENTATIONS = {"turned": 6, "mirrored": 7}         # of EXIF
KEYS = [(0, 0, "dog-1"), (0, 1, "dog-1"), (0, 2, "dog-1"), (1, 1, "dog-1"), (7, 1, "dog-1"),
        (0, 1, "rain 2"), (0, 1, "Ära"), (0, 1, "0_george_0"), (3, 12, "siren-000-1"),
        (123456789, 30, "x")]                       # seed, epoch, sample id
KEYS_KEPT = (3, 4, 8)                               # all six kinds of damage are among them
Arrays = dict[str, Any]                             # {name: array, tensor or number}
# Step of docs/porting.md, arrays to compare, and the largest error relative to an array's largest
# value. Single precision alone makes up to 8e-7, of log-mels 1e-5.
TOLERANCES = [
    ("1 tokens", "plain.*.patches plain.*.tokens", 3e-6),
    ("2 blocks", "plain.*_encoder.blocks.* plain.*_encoder.out", 3e-6),
    ("3 fusion, joint, head", "plain.fusion.* plain.joint.* plain.features plain.logits", 3e-6),
    ("4 prompts", "situation.* depth.*", 3e-6),
    ("5 answers", "concat.* lowest_entropy.scores lowest_entropy.selected", 3e-6),
    ("6 router", "*.pooled router.logits router.*picks router.weight router.bias routed.*", 3e-6),
    ("7 baselines", "lora.logits adapter.logits scale_shift.logits", 3e-6),
    ("8 training", "*.gradient.* step.after.* *.losses *.loss *.learning_rates *.beta1", 3e-6),
    ("9 damage", "damage.*.out", 3e-6),
    ("10 sound", "clip.*.mono clip.*.resampled clip.*.waveform", 3e-6),
    ("11 filterbank", "filterbank.* *.frames *.windowed *.power *.energy", 3e-6),
    ("11 log-mel", "clip.*.log_mel", 1e-4),
    ("12 normalise", "clip.*.audio input.audio missing.*", 3e-6),
    ("13 images", "picture.*.decoded picture.*.rgb picture.*.resized picture.*.pixels "
                  "picture.*.image picture.*.weights input.image", 3e-6),
    ("14 draws", "draws.[0-9].* draws.integers draws.normal draws.kind* draws.situation "
                 "draws.shift draws.order", 3e-6)]


def named(prefix: str, /, **arrays: Any) -> Arrays:
    """Put a prefix before each name."""
    return {prefix + name: array for name, array in arrays.items()}


def make_clips() -> Arrays:
    """From stored samples to the normalised log-mel; of "down" the steps between too."""
    random, audio, arrays = np.random.default_rng(1), CONFIG.audio, {}
    for name, (rate, samples, channels) in CLIPS.items():
        tone = np.sin(2 * np.pi * 440 * np.arange(samples) / rate)[:, None]
        noise = random.standard_normal((samples, channels))
        stored = (10000 * tone + 3000 * noise).astype(np.int16)
        wave, steps = torch.from_numpy(stored / np.float32(32768)), {}
        mono, waveform = wave.mean(dim=1), read_waveform((wave, rate), audio)
        log_mel = fbank(waveform, audio, steps)
        arrays |= named(f"clip.{name}.", stored=stored, rate=rate, waveform=waveform,
                        resampled=resample(mono, rate, audio.sample_rate), log_mel=log_mel,
                        audio=model_inputs(log_mel, None, CONFIG, NORMALISATION)[0])
        if name == "down":
            arrays |= named("clip.down.", mono=mono, **steps)
    window = torch.hann_window(audio.window_and_hop[0], periodic=False)
    filters = mel_filters(audio.sample_rate, 256, audio.mels)
    return arrays | named("filterbank.", window=window, filters=filters)


def make_pictures() -> Arrays:
    """From stored pixels to the normalised image; of "wide" the weights of its resize too."""
    random, size, arrays = np.random.default_rng(2), CONFIG.image.size, {}
    for name, (mode, *shape) in PICTURES.items():
        dtype = np.uint16 if mode == "I;16" else np.uint8
        stored = random.integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)
        if name == "halves":             # equal rows of 0 and 128: half of the results end in .5
            stored = np.repeat(stored[:1] // 128 * 128, len(stored), axis=0)
        image = Image.frombytes(mode, (shape[1], shape[0]), stored.tobytes())
        if mode == "P":
            arrays["picture.palette.palette"] = random.integers(0, 256, (256, 3), dtype=np.uint8)
            image.putpalette(arrays["picture.palette.palette"].tobytes())
        if name in ORIENTATIONS:
            image.getexif()[ExifTags.Base.Orientation] = ORIENTATIONS[name]
            arrays[f"picture.{name}.orientation"] = ORIENTATIONS[name]
        arrays |= named(f"picture.{name}.", stored=stored, **make_picture(image))
    pixels = random.integers(0, 256, (25, 28, 3), dtype=np.uint8)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "draft.jpg"
        Image.fromarray(pixels).resize((220, 200)).save(path)
        image = Image.open(path)
        image.draft("RGB", (110, 100))
        arrays |= named("picture.jpeg.", bytes=np.fromfile(path, np.uint8),
                        decoded=np.asarray(image), **make_picture(path))
    side = len(arrays["picture.wide.rgb"])
    one_hot = torch.eye(side, dtype=torch.double)[None, None]        # resized along columns alone
    weights = F.interpolate(one_hot, (size, side), mode="bicubic", antialias=True)[0, 0]
    return arrays | {"picture.wide.weights": weights}


def make_picture(source: Path | Image.Image) -> Arrays:
    """The steps of one picture."""
    steps: dict[str, Tensor] = {}
    pixels = read_image(source, CONFIG.image.size, steps)
    return {"rgb": steps["rgb"], "resized": steps["resized"].float(), "pixels": pixels,
            "image": model_inputs(None, pixels, CONFIG, NORMALISATION)[1]}


def make_damage(sample: Sample) -> Arrays:
    """Each kind of damage; the draws for each of KEYS, and what becomes of the sample by some."""
    arrays, rows, kinds = {}, [], list(KINDS)
    for kind in kinds[:-1]:                             # all but "missing", which draws nothing
        x, strength = getattr(sample, kind.split("_")[0]), getattr(CONFIG.damage.alone, kind)
        drawn = KINDS[kind].draw(strength, x.shape, seeded_generator(0, 2, kind))
        arrays |= named(f"damage.{kind}.", drawn=drawn, out=KINDS[kind].apply(x, drawn))
    for i, (seed, epoch, name) in enumerate(KEYS):
        own = sample._replace(id=name)
        both = draw_damage(own, Situation.NOISY_BOTH, CONFIG.damage, seed, epoch)
        alone = draw_damage(own, Situation.NOISY_AUDIO, CONFIG.damage, seed, epoch)
        rows.append({
            "seed": seed, "epoch": epoch, "id": name,
            "integers": seeded_generator(seed, epoch, name).integers(0, 1000, 8),
            "normal": seeded_generator(seed, epoch, name).standard_normal(8, dtype=np.float32),
            "situation": seeded_generator(seed, epoch, f"situation {name}").integers(4),
            "shift": seeded_generator(seed, epoch, f"shift {name}").integers(-5, 6, 3),
            "kinds": [kinds.index(kind) for kind, _ in both.values()],
            "kind_alone": kinds.index(alone["audio"][0])})
        if i in KEYS_KEPT:
            damaged = damage_sample(own, Situation.NOISY_BOTH, CONFIG.damage, seed, epoch)
            moved = augment(own, replace(CONFIG.train, seed=seed), epoch)
            arrays |= named(f"draws.{i}.", audio=damaged.audio, image=damaged.image,
                            moved_audio=moved.audio, moved_image=moved.image)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    order = seeded_generator(0, 1, "prompt noisy_audio").permutation(12)
    return arrays | named("draws.", **columns, order=order)


@torch.no_grad()
def shake(model: nn.Module, generator: torch.Generator, by: float = 0.1) -> nn.Module:
    """Move every trainable parameter from its start, in place, so that no 0 hides an error."""
    for parameter in trainable(model).values():
        parameter += by * torch.randn(parameter.shape, generator=generator)
    return model


def make_answers(model: PromptedBackbone, audio: Tensor, image: Tensor) -> Arrays:
    """Every answer, with the intermediates without prompts and with each sample's own set."""
    backbone, arrays = model.backbone, {}
    with record(backbone) as plain:
        backbone(audio, image)
    with record(backbone) as prompted:
        scores = model.answer_each(audio, image, SITUATIONS)
    prompts = select_prompts(model.sets, SITUATIONS)
    for depth in range(CONFIG.prompts.input_depth):          # the first blocks' prompts alone
        fewer = prompts._replace(audio_input=prompts.audio_input[:, :depth],
                                 image_input=prompts.image_input[:, :depth])
        with record(backbone) as found:
            arrays[f"depth.{depth}.features"] = backbone.features(audio, image, fewer)
        if depth:
            arrays |= named(f"depth.{depth}.", **{
                name: array for name, array in found.items() if "_encoder.blocks." in name})
    logits = 3 * torch.randn(4, 16, CLASSES, generator=torch.Generator().manual_seed(6))
    each = torch.stack([model.answer(audio, image, situation) for situation in Situation])
    features = backbone.features(audio, image, concat_prompts(model.sets))
    return (arrays | named("plain.", **plain) | named("situation.", **prompted, scores=scores)
            | named("concat.", features=features, scores=model(audio, image))
            | named("lowest_entropy.", scores=select_surest(each), logits=logits,
                    selected=select_surest(logits)))


def make_router(model: PromptedBackbone, samples: list[Sample]) -> Arrays:
    """A router fitted on four samples in each situation, and its picks for the damaged batch."""
    router, encode = Router(CONFIG.model.width), model.backbone.encode
    training = collate([damage_sample(sample, situation, CONFIG.damage, seed=0, epoch=1)
                        for situation in Situation for sample in samples])
    tokens = encode(training.audio, training.image)
    router.fit([(*tokens, training.situation)], CONFIG.router.shrinkage)
    arrays = named("router.fit.", features=router.pool(*tokens), situations=training.situation)
    audio, image, *_ = collate([damage_sample(*pair, CONFIG.damage, seed=0, epoch=5)
                                for pair in zip(samples, Situation)])   # its picks differ
    tokens = encode(audio, image)
    logits = router(*tokens)
    picks = pick_situations(logits, audio, image)
    blank = [pick_situations(logits, *pair) for pair in
             ((audio, 0 * image), (0 * audio, image), (0 * audio, 0 * image))]
    return (arrays | {"routed.scores": model.answer_each(audio, image, picks)}
            | named("router.", **trainable(router), audio=audio, image=image, logits=logits,
                    pooled=router.pool(*tokens), picks=picks, blank_picks=torch.stack(blank)))


def make_baselines(backbone: Backbone, audio: Tensor, image: Tensor,
                   generator: torch.Generator) -> Arrays:
    """Each small baseline's parameters and answers, and a few gradients of their loss."""
    arrays = {}
    for build in (lora, adapter, scale_shift):
        model = shake(build(backbone, CONFIG, generator), generator)
        parameters = {plain_name(name): p for name, p in trainable(model).items()}
        logits = model(audio, image)
        LOSS(logits, LABELS).backward()
        gradients = {f"gradient.{name}": p.grad for name, p in parameters.items()
                     if name.startswith("audio_encoder.blocks.0.attention.")}
        arrays |= named(f"{build.__name__}.", logits=logits, **parameters, **gradients)
    return arrays


def make_training(model: PromptedBackbone, audio: Tensor, image: Tensor) -> Arrays:
    """Ten steps of one prompt set, of which three are kept whole; the gradients of all together."""
    one = prompt(model.backbone, CONFIG, weights_generator(0, Situation.NOISY_AUDIO))
    shake(one, torch.Generator().manual_seed(5))
    parameters = {name.removeprefix("sets.0."): p for name, p in trainable(one).items()}
    arrays, rows = named("step.start.", **copy_tensors(parameters)), []
    optimizer, scheduler = make_optimizer(parameters, CONFIG.train.full_mixed, 10, {})
    for step in range(10):
        loss, settings = LOSS(one(audio, image), LABELS), optimizer.param_groups[0]
        rows.append((loss.item(), settings["lr"], settings["betas"][0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        if step < 3:
            gradients = {name: p.grad for name, p in parameters.items()}
            arrays |= (named(f"step.gradient.{step}.", **gradients)
                       | named(f"step.after.{step}.", **copy_tensors(parameters)))
    losses, rates, betas = zip(*rows)
    answers = model.answer_each(audio, image, SITUATIONS), model(audio, image)
    loss = sum(LOSS(answer, LABELS) for answer in answers) / 2
    loss.backward()
    gradients = {name.removeprefix("sets."): p.grad for name, p in trainable(model).items()}
    return (arrays | named("step.", losses=losses, learning_rates=rates, beta1=betas)
            | named("together.gradient.", **gradients) | {"together.loss": loss.item()})


def make_arrays() -> Arrays:
    """Make every array."""
    generator, arrays = torch.Generator().manual_seed(0), make_clips() | make_pictures()
    samples = [Sample(arrays[f"clip.{clip}.audio"], arrays[f"picture.{picture}.image"],
                      torch.tensor(0), label, clip)
               for clip, picture, label in zip(CLIPS, PICTURES, LABELS)]
    audio, image, *_ = collate(samples)
    backbone = Backbone(CONFIG, CLASSES)
    initialise(backbone, generator)
    shake(backbone, generator)
    sets = [shake(PromptSet(CONFIG, backbone.head, generator), generator, by=0.5)
            for _ in Situation]
    model = PromptedBackbone(backbone, sets)
    with torch.no_grad():
        arrays |= make_answers(model, audio, image) | make_router(model, samples)
        arrays |= make_damage(samples[0])
    no_audio, no_image = model_inputs(None, None, CONFIG, NORMALISATION)
    return (arrays | {"normalisation": NORMALISATION, "labels": LABELS}
            | named("input.", audio=audio, image=image)
            | named("missing.", audio=no_audio, image=no_image)
            | named("weights.", **backbone.state_dict()) | trainable(model)
            | make_training(model, audio, image)
            | make_baselines(backbone, audio, image, generator))


def compute_error(mine: np.ndarray, golden: np.ndarray) -> float:
    """Compute the largest difference relative to the golden array's largest value."""
    if mine.shape != golden.shape or np.isnan(mine).any():      # else shapes might be broadcast
        return np.inf
    return float(abs(mine.astype(float) - golden).max() / (abs(golden).max() or 1))


def compare(mine: Arrays, golden: Arrays) -> tuple[bool, int]:
    """Print each step's worst array and what is missing.

    returns  whether all that are not missing are right, and how many these are
    """
    right, found, expected = True, 0, 0
    for step, patterns, tolerance in TOLERANCES:
        names = [name for name in golden
                 if any(fnmatchcase(name, pattern) for pattern in patterns.split())]
        errors = {name: compute_error(mine[name], golden[name]) for name in names if name in mine}
        found += len(errors)
        expected += len(names)
        if errors:
            worst = max(errors, key=errors.get)
            verdict = "right" if errors[worst] <= tolerance else "WRONG"
            right &= verdict == "right"
            print(f"{step}: {verdict}, at worst {worst}: error {errors[worst]:.1e}, tolerance "
                  f"{tolerance:.0e}")
        if missing := [name for name in names if name not in mine]:
            print(f"{step}: {len(missing)} of {len(names)} missing: {' '.join(missing)}")
    print(f"compared {found} of {expected} arrays")
    return right, found


def main(argv: list[str] | None = None) -> None:
    parser = new_parser(__doc__)
    parser.add_argument("file", type=Path, help="the new .npz file, or with --compare a port's")
    parser.add_argument("--compare", action="store_true", help="exit with status 1 for an error")
    args = parser.parse_args(argv)
    if not args.compare:
        refuse_existing(args.file)
    arrays = {name: array.detach().numpy() if isinstance(array, Tensor) else np.asarray(array)
              for name, array in make_arrays().items()}
    if args.compare:
        try:
            mine = dict(np.load(args.file))
        except Exception as error:                  # of other files NumPy raises nearly anything
            raise InputError(f"{args.file}: NumPy can't read it ({error}); expected arrays, named "
                             f"like the golden ones: write them with numpy.savez") from error
        right, found = compare(mine, arrays)
        if not found:
            raise InputError(f"{args.file}: has no array to compare; expected golden names, such "
                             f"as plain.features: rename them")
        sys.exit(0 if right else 1)
    with whole_file(args.file) as file:
        np.savez_compressed(file, **arrays)


if __name__ == "__main__":
    run(main)
