"""What reaches the model: clips and pictures from their files on, and the damage with its draws."""
import io
from dataclasses import replace

import numpy as np
import soundfile
import torch
from PIL import Image

from ptm_mini.config import PRESETS, Situation
from ptm_mini.data.audio import analysis, fbank, read_waveform, resample
from ptm_mini.data.image import bicubic_weights, read_image
from ptm_mini.data.prepared import Normalisation, normalised
from ptm_mini.method.damage import (ALL_KINDS, AUDIO_KINDS, IMAGE_KINDS, SHIFT, SITUATION, apply_damage, damage_sample,
                                    draw_damage, seeded_generator)
from ptm_mini.settings import with_assignments
from ptm_mini.training.samples import moved

CONFIG = with_assignments(PRESETS["tiny"], [
    "audio.sample_rate=8000", "audio.seconds=0.495", "audio.mels=32", "image.size=24", "model.width=16", "model.heads=2",
    "model.depth=3", "model.fusion_depth=2", "prompts.length=2", "prompts.input_depth=3", "prompts.joint=true", "lora.rank=2",
    "adapter.bottleneck=3", "damage.alone.image_pixelate=0.3", "damage.both.image_pixelate=0.3"])     # 7 of 24 cells, not 1
NORMALISATION = Normalisation(mean=-6.0, std=4.0)
CLIPS = {"down": (22050, 11250, 2), "up": (4000, 1600, 1), "odd": (11025, 5600, 3), "short": (8000, 2500, 1)}
PICTURES = {"wide": ("RGB", 41, 30), "tall": ("RGB", 25, 38), "small": ("RGB", 10, 13), "square": ("RGB", 32, 32),
            "grey": ("L", 30, 27), "grey16": ("I;16", 30, 31), "alpha": ("RGBA", 30, 30)}
NAMES = [(0, 0, "dog-1"), (0, 1, "dog-1"), (0, 2, "dog-1"), (1, 1, "dog-1"), (7, 1, "dog-1"), (0, 1, "rain 2"), (0, 1, "Ära"),
         (0, 1, "0_george_0"), (3, 12, "siren-000-1"), (123456789, 30, "x")]                 # seed, epoch, sample id
SHOWN = (1, 4, 7)                 # of them, whose damage and augmentation are kept whole: among them is every kind but blur


def clips(folder):
    """From samples in a file to the normalised log-mel; of the clip "down" the filterbank's steps too."""
    random, found = np.random.default_rng(1), {}
    for name, (rate, samples, channels) in CLIPS.items():
        tone = np.sin(2 * np.pi * 440 * np.arange(samples) / rate)[:, None]
        stored = (10000 * tone + 3000 * random.standard_normal((samples, channels))).astype(np.int16)
        sound = io.BytesIO()                        # libsndfile's own writing to a full disk fails without a reason
        soundfile.write(sound, stored, rate, subtype="PCM_16", format="WAV")
        (folder / f"{name}.wav").write_bytes(sound.getvalue())
        waveform, steps = read_waveform(folder / f"{name}.wav", CONFIG.audio.sample_rate, CONFIG.audio.samples), {}
        log_mel = fbank(waveform, CONFIG.audio.sample_rate, CONFIG.audio.mels, steps)
        mono = torch.from_numpy(stored / np.float32(32768)).mean(dim=1)
        audio, _ = normalised(log_mel, torch.zeros(3, 1, 1), Situation.COMPLETE, NORMALISATION)
        found |= {f"clip.{name}.{step}": value for step, value in {
            "stored": stored, "rate": rate, "resampled": resample(mono, rate, CONFIG.audio.sample_rate), "waveform": waveform,
            **({"mono": mono} | steps if name == "down" else {}), "log_mel": log_mel, "audio": audio}.items()}
    window, _, _, filters = analysis(CONFIG.audio.sample_rate, CONFIG.audio.mels)
    return {**found, "filterbank.window": window, "filterbank.filters": filters,
            "normalisation": np.array(NORMALISATION)}


def pictures(folder):
    """From stored pixels to the normalised picture; of the picture "wide" the resize's weights too."""
    random, found = np.random.default_rng(2), {}
    for name, (mode, width, height) in PICTURES.items():
        channels = {"L": (), "I;16": (), "RGB": (3,), "RGBA": (4,)}[mode]
        deep = mode == "I;16"
        stored = random.integers(0, 65536 if deep else 256, (height, width, *channels), dtype=np.uint16 if deep else np.uint8)
        Image.fromarray(stored).save(folder / f"{name}.png")
        steps = {}
        pixels = read_image(folder / f"{name}.png", CONFIG.image.size, steps)
        _, image = normalised(torch.zeros(1, 1), pixels, Situation.COMPLETE, NORMALISATION)
        found |= {f"picture.{name}.{step}": value for step, value in {
            "stored": stored, "rgb": steps["rgb"], "resized": steps["resized"].float(), "pixels": pixels,
            "image": image}.items()}
    _, width, height = PICTURES["wide"]
    return {**found, "picture.wide.across": bicubic_weights((width - height) / 2, height, width, CONFIG.image.size),
            "picture.wide.down": bicubic_weights(0, height, height, CONFIG.image.size)}


def damages(sample):
    """Each kind with its draws, then draws and damage of ten (seed, epoch, id)."""
    found = {}
    for kind, of in {**AUDIO_KINDS, **IMAGE_KINDS}.items():
        x = sample.audio if kind in AUDIO_KINDS else sample.image
        drawn = of.draw(getattr(CONFIG.damage.alone, kind), x.shape, seeded_generator(0, 2, kind))
        found |= {f"damage.{kind}.drawn": drawn, f"damage.{kind}.out": apply_damage(x, kind, drawn)}
    rows = []
    for seed, epoch, name in NAMES:
        own, train = sample._replace(id=name), replace(CONFIG.train, seed=seed)
        drawn = draw_damage(own, Situation.NOISY_BOTH, CONFIG.damage, seed, epoch)
        alone = draw_damage(own, Situation.NOISY_AUDIO, CONFIG.damage, seed, epoch)
        damaged = damage_sample(own, Situation.NOISY_BOTH, CONFIG.damage, seed, epoch)
        rows.append({"seed": seed, "epoch": epoch, "id": name,
                     "integers": seeded_generator(seed, epoch, name).integers(0, 1000, 8),
                     "normal": seeded_generator(seed, epoch, name).standard_normal(8, dtype=np.float32),
                     "situation": seeded_generator(seed, epoch, SITUATION.format(name)).integers(len(Situation)),
                     "shift": seeded_generator(seed, epoch, SHIFT.format(name)).integers(-5, 5, 3, endpoint=True),
                     "kinds": [ALL_KINDS.index(drawn[modality][0]) for modality in ("audio", "image")],
                     "kind_alone": ALL_KINDS.index(alone["audio"][0])})
        found |= {f"draws.{len(rows) - 1}.{part}": value for part, value in {
            "audio": damaged.audio, "image": damaged.image, "moved_audio": moved(own, train, epoch).audio,
            "moved_image": moved(own, train, epoch).image}.items() if len(rows) - 1 in SHOWN}
    found |= {f"draws.{key}": np.array([row[key] for row in rows]) for key in rows[0]}
    return {**found, "draws.order": seeded_generator(0, 1, "prompt noisy_audio").permutation(12)}
