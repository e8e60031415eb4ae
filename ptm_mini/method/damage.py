"""Damage, as the paper's uncertain modalities suffer it, on normalised inputs; and every seed of the project.

One kind is drawn for each damaged modality of each sample, so that the same sample is damaged the same way for every method,
and alone as in any batch. What is drawn anew each epoch comes from seeded_generator(seed, epoch, name); the names are

    the sample's id               its damage: the audio's kind and draws, then the image's
    "situation " + its id         the situation that training puts it into
    "shift " + its id             how far augmentation moves its audio, then its image
    the name of what is trained   the order of an epoch's samples; such a name is "prompt noisy_audio"

Training's epochs count from 1, evaluation is epoch 0. Drawn once: weights, by weights_generator; and the share of the
training samples that is used, by numpy's default_rng(seed).
"""
import hashlib
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from ptm_mini.config import Situation

SITUATION, SHIFT = "situation {}", "shift {}"      # of a sample's id, as above
EVALUATION_EPOCH = 0


def seeded_generator(seed, epoch, name):
    """numpy Generator (PCG64). The name counts by the first 8 bytes of its SHA-256, big-endian."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng([seed, epoch, int.from_bytes(digest[:8], "big")])


def weights_generator(seed, situation=None):
    """torch Generator of the backbone's first weights, or of what is added to it for a situation"""
    return torch.Generator().manual_seed(seed if situation is None else seed * len(Situation) + situation)


class Batch(NamedTuple):
    audio: torch.Tensor           # [B, T, M] float32, mean 0 and std 1 over the training split; all 0 where missing
    image: torch.Tensor           # [B, 3, H, W] float32, ImageNet's mean and std; all 0 where missing
    situations: torch.Tensor      # [B] long, what each sample suffers: at first from what it lacks
    labels: torch.Tensor          # [B] long
    ids: list


def add_gaussian(x, std, generator):
    """[...] plus independent normal noise"""
    return x + std * torch.from_numpy(generator.standard_normal(x.shape, dtype=np.float32))


def shift_time(audio, share, generator):
    """[T, M] rolled along time by up to share * T frames, either way"""
    most = round(share * len(audio))
    return audio.roll(int(generator.integers(-most, most, endpoint=True)), dims=0)


def mask_time(audio, share, generator):
    """[T, M] with one stretch of up to share * T frames set to 0, the data set's mean"""
    frames = int(generator.integers(0, round(share * len(audio)), endpoint=True))
    start = int(generator.integers(0, len(audio) - frames, endpoint=True))
    audio = audio.clone()
    audio[start:start + frames] = 0
    return audio


def add_gaussian_clamped(image, std, generator):
    """[3, H, W] plus normal noise, then clamped to +-3"""
    return add_gaussian(image, std, generator).clamp(-3, 3)


def blur(image, share, generator):
    """[3, H, W] averaged over a square of side share * H, to the nearest odd number; at the edge over what is there"""
    kernel = 2 * round((share * image.shape[-1] - 1) / 2) + 1
    return F.avg_pool2d(image, kernel, stride=1, padding=kernel // 2, count_include_pad=False)


def pixelate(image, share, generator):
    """[3, H, W] averaged down to a side of share * H and repeated back up"""
    small = F.adaptive_avg_pool2d(image, max(1, round(share * image.shape[-1])))
    return F.interpolate(small[None], size=image.shape[-2:], mode="nearest")[0]


AUDIO_KINDS = {"audio_gaussian": add_gaussian, "audio_shift": shift_time, "audio_mask": mask_time}
IMAGE_KINDS = {"image_gaussian": add_gaussian_clamped, "image_blur": blur, "image_pixelate": pixelate}
MISSING = "missing"
ALL_KINDS = (*AUDIO_KINDS, *IMAGE_KINDS, MISSING)


def damage_modality(x, functions, strengths, generator, kinds):
    """Draw one kind, evenly, and apply it. x: one sample's audio [T, M] or image [3, H, W]; returns the same shape"""
    kind = generator.choice([kind for kind in (*functions, MISSING) if kind in kinds])
    return torch.zeros_like(x) if kind == MISSING else functions[kind](x, getattr(strengths, kind), generator)


def damage_sample(audio, image, situation, missing, damage, generator, kinds=ALL_KINDS):
    """Damage one sample.

    audio [T, M], image [3, H, W]  normalised
    situation  Situation to put it in
    missing    Situation of the modalities that it really lacks: those stay all 0
    damage     DamageConfig
    kinds      names of the kinds that can be drawn; "missing" never is in NOISY_BOTH
    returns    audio, image
    """
    strengths = damage.alone
    if situation == Situation.NOISY_BOTH:
        strengths, kinds = damage.both, [kind for kind in kinds if kind != MISSING]
    to_damage = situation & ~missing
    if to_damage & Situation.NOISY_AUDIO:
        audio = damage_modality(audio, AUDIO_KINDS, strengths, generator, kinds)
    if to_damage & Situation.NOISY_IMAGE:
        image = damage_modality(image, IMAGE_KINDS, strengths, generator, kinds)
    return audio, image


def damage_batch(batch, situations, damage, seed, epoch, kinds=ALL_KINDS):
    """Put each sample of a Batch into a situation of its own, besides what it lacks. situations [B] long; returns Batch"""
    samples = [damage_sample(audio, image, Situation(situation), missing, damage, seeded_generator(seed, epoch, name), kinds)
               for audio, image, situation, missing, name
               in zip(batch.audio, batch.image, situations.tolist(), batch.situations.tolist(), batch.ids)]
    audio, image = (torch.stack(parts) for parts in zip(*samples))
    return batch._replace(audio=audio, image=image, situations=situations | batch.situations)
