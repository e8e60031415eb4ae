"""Damage, as the paper's uncertain modalities suffer it, on normalised inputs; and every seed of the project.

One kind is drawn for each damaged modality of each sample, so that the same sample is damaged the same way for every method,
and alone as in any batch. What is drawn anew each epoch comes from seeded_generator(seed, epoch, name); the names are

    the sample's id               its damage: the audio's kind and draws, then the image's
    "situation " + its id         the situation that training puts it into
    "shift " + its id             how far augmentation moves its audio, then its image
    the name of what is trained   the order of an epoch's samples; such a name is "prompt noisy_audio"

Training's epochs count from 1 (under train.full_length its passes over the share of the samples), evaluation is epoch 0; where
it looks at a sample under several draws of its damage, draw d = 1, 2, .. is epoch FURTHER_DRAWS + d, which no training reaches.
Drawn once: weights, by weights_generator; and the share of the training samples that is used, by numpy's default_rng(seed).
"""
import hashlib
from typing import Callable, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from ptm_mini.config import Situation

SITUATION, SHIFT = "situation {}", "shift {}"      # of a sample's id, as above
EVALUATION_EPOCH, FURTHER_DRAWS = 0, 2**40


def seeded_generator(seed, epoch, name):
    """numpy Generator (PCG64). The name counts by the first 8 bytes of its SHA-256, big-endian."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng([seed, epoch, int.from_bytes(digest[:8], "big")])


def weights_generator(seed, situation=None):
    """torch Generator of the backbone's first weights, or of what is added to it for a situation"""
    return torch.Generator().manual_seed(seed if situation is None else seed * len(Situation) + situation)


class Sample(NamedTuple):
    """One sample, or a batch of them: then each part has a first dimension B, and `id` is a list."""
    audio: torch.Tensor           # [T, M] float32, mean 0 and std 1 over the training split; all 0 where missing
    image: torch.Tensor           # [3, H, W] float32, ImageNet's mean and std; all 0 where missing
    situation: torch.Tensor       # [] long, what it suffers: at first from what it lacks
    label: torch.Tensor           # [] long
    id: str


class Kind(NamedTuple):
    """A kind of damage: what is drawn, apart from what it does."""
    draw: Callable                # (strength, shape of the sample, generator) -> what `apply` takes besides it
    apply: Callable               # (audio [T, M] or image [3, H, W], what was drawn) -> the same shape


def draw_noise(std, shape, generator):
    """Independent normal numbers, float32"""
    return std * torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))


def draw_shift(share, shape, generator):
    """Frames, up to share * T either way"""
    most = round(share * shape[0])
    return int(generator.integers(-most, most, endpoint=True))


def draw_stretch(share, shape, generator):
    """(first frame, frames) of a stretch of up to share * T of them"""
    frames = int(generator.integers(0, round(share * shape[0]), endpoint=True))
    return int(generator.integers(0, shape[0] - frames, endpoint=True)), frames


def blur_reach(share, shape, generator):
    """Pixels to each side of a square whose side is share * H, to the nearest odd number. Nothing is drawn"""
    return round((share * shape[-1] - 1) / 2)


def coarse_side(share, shape, generator):
    """Pixels that are left of the side, share * H of them. Nothing is drawn"""
    return max(1, round(share * shape[-1]))


def add_noise_clamped(image, noise):
    """[3, H, W] plus noise of that shape, then clamped to +-3"""
    return (image + noise).clamp(-3, 3)


def shift_time(audio, frames):
    """[T, M] rolled along time; positive is later"""
    return audio.roll(frames, dims=0)


def mask_time(audio, stretch):
    """[T, M] with one stretch of frames set to 0, the data set's mean"""
    start, frames = stretch
    audio = audio.clone()
    audio[start:start + frames] = 0
    return audio


def blur(image, reach):
    """[3, H, W] averaged over a square of side 2 reach + 1; at the edge over what is there"""
    pixels = torch.arange(image.shape[-1])
    near = ((pixels[:, None] - pixels).abs() <= reach).to(image.dtype)
    mean = near / near.sum(dim=1, keepdim=True)                                    # [H, H]: rows sum to 1
    return mean @ image @ mean.T


def pixelate(image, side):
    """[3, H, W] averaged down to `side` cells a side and repeated back up.

    Cell i is the mean of the pixels floor(i H / side) to ceil((i + 1) H / side) - 1; pixel y shows cell floor(y side / H).
    """
    shown = torch.arange(image.shape[-1]) * side // image.shape[-1]
    return F.adaptive_avg_pool2d(image, side)[:, shown][:, :, shown]


AUDIO_KINDS = {"audio_gaussian": Kind(draw_noise, torch.add), "audio_shift": Kind(draw_shift, shift_time),
               "audio_mask": Kind(draw_stretch, mask_time)}
IMAGE_KINDS = {"image_gaussian": Kind(draw_noise, add_noise_clamped), "image_blur": Kind(blur_reach, blur),
               "image_pixelate": Kind(coarse_side, pixelate)}
MISSING = "missing"
ALL_KINDS = (*AUDIO_KINDS, *IMAGE_KINDS, MISSING)


def draw_damage(sample, situation, damage, seed, epoch, kinds=ALL_KINDS):
    """What is to happen to a Sample that is put into a situation, besides what it lacks: that stays all 0.

    situation  Situation
    damage     DamageConfig
    kinds      names of the kinds that can be drawn, each as likely; "missing" never is in NOISY_BOTH
    returns    {"audio" or "image": (name of the kind, what was drawn for it)}
    """
    generator, strengths, drawn = seeded_generator(seed, epoch, sample.id), damage.alone, {}
    if situation == Situation.NOISY_BOTH:
        strengths, kinds = damage.both, [kind for kind in kinds if kind != MISSING]
    for modality, bit, own in (("audio", Situation.NOISY_AUDIO, AUDIO_KINDS), ("image", Situation.NOISY_IMAGE, IMAGE_KINDS)):
        if situation & bit & ~int(sample.situation):
            able = [kind for kind in (*own, MISSING) if kind in kinds]
            kind = able[generator.integers(len(able))]
            drawn[modality] = kind, None if kind == MISSING else own[kind].draw(
                getattr(strengths, kind), getattr(sample, modality).shape, generator)
    return drawn


def apply_damage(x, kind, drawn):
    """Damage one modality by a kind that was drawn. x: audio [T, M] or image [3, H, W]; returns the same shape"""
    return torch.zeros_like(x) if kind == MISSING else (AUDIO_KINDS | IMAGE_KINDS)[kind].apply(x, drawn)


def damage_sample(sample, situation, damage, seed, epoch, kinds=ALL_KINDS):
    """Arguments as of draw_damage. returns Sample, damaged, in the situation that follows from what it lacks and suffers"""
    drawn = draw_damage(sample, situation, damage, seed, epoch, kinds)
    damaged = {modality: apply_damage(getattr(sample, modality), *what) for modality, what in drawn.items()}
    return sample._replace(**damaged, situation=sample.situation | situation)
