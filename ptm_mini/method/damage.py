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


class Sample(NamedTuple):
    """One sample, or a batch of them: then each part has a first dimension B, and `id` is a list."""
    audio: torch.Tensor           # [T, M] float32, mean 0 and std 1 over the training split; all 0 where missing
    image: torch.Tensor           # [3, H, W] float32, ImageNet's mean and std; all 0 where missing
    situation: torch.Tensor       # [] long, what it suffers: at first from what it lacks
    label: torch.Tensor           # [] long
    id: str


def stack(samples, count):
    """`count` Samples as one batch. Each is put in its place when it comes, so that the next one can have its memory."""
    batch = None
    for i, sample in enumerate(samples):
        *tensors, name = sample
        if batch is None:
            batch = Sample(*(x.new_empty(count, *x.shape) for x in tensors), [])
        for whole, part in zip(batch, tensors):
            whole[i] = part
        batch.id.append(name)
    return batch


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
    reach = round((share * image.shape[-1] - 1) / 2)                               # the square's side is 2 reach + 1
    pixels = torch.arange(image.shape[-1])
    near = ((pixels[:, None] - pixels).abs() <= reach).float()
    mean = near / near.sum(dim=1, keepdim=True)                                    # [H, H]: rows sum to 1
    return mean @ image @ mean.T


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


def damage_sample(sample, situation, damage, seed, epoch, kinds=ALL_KINDS):
    """Put a Sample into a situation, besides what it lacks: that stays all 0.

    situation  Situation
    damage     DamageConfig
    kinds      names of the kinds that can be drawn; "missing" never is in NOISY_BOTH
    returns    Sample, in the situation that follows from both
    """
    audio, image, lacking, *_ = sample
    generator, strengths = seeded_generator(seed, epoch, sample.id), damage.alone
    if situation == Situation.NOISY_BOTH:
        strengths, kinds = damage.both, [kind for kind in kinds if kind != MISSING]
    to_damage = situation & ~int(lacking)
    if to_damage & Situation.NOISY_AUDIO:
        audio = damage_modality(audio, AUDIO_KINDS, strengths, generator, kinds)
    if to_damage & Situation.NOISY_IMAGE:
        image = damage_modality(image, IMAGE_KINDS, strengths, generator, kinds)
    return sample._replace(audio=audio, image=image, situation=lacking | situation)
