"""Damage, as the paper's uncertain modalities suffer it, on normalised inputs.

One kind is drawn for each damaged modality of each sample, from a generator seeded by (seed, epoch, sample id): the same
sample is damaged the same way for every method, and alone as in any batch.
"""
import hashlib

import numpy as np
import torch
from torch.nn import functional as F

from ptm_mini.config import Situation


def seeded_generator(seed, epoch, name):
    """numpy Generator (PCG64) for one sample's id, or whatever else is drawn anew each epoch.

    The name counts by the first 8 bytes of its SHA-256, big-endian.
    """
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng([seed, epoch, int.from_bytes(digest[:8], "big")])


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


def degrade_modality(x, functions, strengths, generator, kinds):
    """Draw one kind, evenly, and apply it. x: one sample's audio [T, M] or image [3, H, W]; returns the same shape"""
    kind = generator.choice([kind for kind in (*functions, MISSING) if kind in kinds])
    return torch.zeros_like(x) if kind == MISSING else functions[kind](x, getattr(strengths, kind), generator)


def degrade(audio, image, situation, missing, damage, generator, kinds=ALL_KINDS):
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
        audio = degrade_modality(audio, AUDIO_KINDS, strengths, generator, kinds)
    if to_damage & Situation.NOISY_IMAGE:
        image = degrade_modality(image, IMAGE_KINDS, strengths, generator, kinds)
    return audio, image


def degrade_batch(batch, situations, damage, seed, epoch, kinds=ALL_KINDS):
    """Damage each sample of a batch by its own situation; evaluation is epoch 0, training counts from 1.

    batch       Batch with audio [B, T, M], image [B, 3, H, W], missing [B] and B ids
    situations  [B] long
    returns     audio [B, T, M], image [B, 3, H, W], situations [B] with what is missing added
    """
    samples = [degrade(audio, image, Situation(int(situation)), int(missing), damage,
                       seeded_generator(seed, epoch, sample_id), kinds)
               for audio, image, situation, missing, sample_id
               in zip(batch.audio, batch.image, situations, batch.missing, batch.ids)]
    audio, image = (torch.stack(parts) for parts in zip(*samples))
    return audio, image, situations | batch.missing
