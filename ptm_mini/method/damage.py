"""The damage of uncertain modalities, on normalised inputs; and every seed of the project.

One kind is drawn for each damaged modality of each sample, so that every method sees the same
sample damaged the same way, alone as in any batch. What is drawn anew each epoch comes from
seeded_generator(seed, epoch, name), where the name is

    the sample's id               its damage: the audio's kind and draws, then the image's
    "situation " + its id         the situation that training puts it into
    "shift " + its id             how far augmentation moves its audio, then its image
    the name of a stage           the order of an epoch's samples, such as "prompt noisy_audio"

Training's epochs count from 1; evaluation is epoch 0, and further draws d = 1, 2, .. of its damage
are epochs FURTHER_DRAWS + d.
Drawn once: weights (weights_generator), the fraction of the training samples (default_rng(seed)).
"""
import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor
from torch.nn import functional as F

from ptm_mini.config import DamageConfig, Situation

EVALUATION_EPOCH, FURTHER_DRAWS = 0, 2**40


def seeded_generator(seed: int, epoch: int, name: str) -> Generator:
    """Make a PCG64 generator; a name counts by the first 8 bytes of its SHA-256, big-endian."""
    digest = hashlib.sha256(name.encode()).digest()
    return np.random.default_rng([seed, epoch, int.from_bytes(digest[:8], "big")])


def weights_generator(seed: int, situation: Situation | None = None) -> torch.Generator:
    """Make the generator of the backbone's first weights, or of those trained for a situation."""
    number = seed if situation is None else seed * len(Situation) + situation
    return torch.Generator().manual_seed(number)


class Sample(NamedTuple):
    """A sample, or a batch of them: then each part has a first dimension B, and `id` is a list."""
    audio: Tensor           # [T, M] float32, normalised; all 0 where missing
    image: Tensor           # [3, H, W] float32, normalised; all 0 where missing
    situation: Tensor       # [] long, bits of Situation: what is missing or damaged
    label: Tensor           # [] long
    id: str

    def to(self, device: torch.device) -> "Sample":
        return Sample(*(x.to(device, non_blocking=True) for x in self[:-1]), self.id)


class Kind(NamedTuple):
    """A kind of damage. Draws are apart from their application, so that porters can feed them."""
    draw: Callable[[float, tuple[int, ...], Generator], Any]    # of strength and input's shape
    apply: Callable[[Tensor, Any], Tensor]                      # to the input, with the draws


def draw_noise(std: float, shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Draw independent normal numbers, float32."""
    return std * torch.from_numpy(generator.standard_normal(shape, dtype=np.float32))


def draw_shift(share: float, shape: tuple[int, ...], generator: Generator) -> int:
    """Draw a number of frames, up to share * T either way; positive is later."""
    most = round(share * shape[0])
    return int(generator.integers(-most, most, endpoint=True))


def draw_stretch(share: float, shape: tuple[int, ...], generator: Generator) -> tuple[int, int]:
    """Draw the first frame and the length of a stretch of up to share * T frames."""
    frames = int(generator.integers(0, round(share * shape[0]), endpoint=True))
    return int(generator.integers(0, shape[0] - frames, endpoint=True)), frames


def mask_time(audio: Tensor, stretch: tuple[int, int]) -> Tensor:
    """Set a stretch of the frames of [T, M] to 0, the data set's mean."""
    start, frames = stretch
    audio = audio.clone()
    audio[start:start + frames] = 0
    return audio


def blur(image: Tensor, reach: int) -> Tensor:
    """Average [3, H, W] over a square of side 2 reach + 1, the odd number nearest to share * H; at
    the edge over its part inside."""
    pixels = torch.arange(image.shape[-1])
    near = ((pixels[:, None] - pixels).abs() <= reach).to(image.dtype)
    mean = near / near.sum(dim=1, keepdim=True)                    # [H, H]: rows sum to 1
    return mean @ image @ mean.T


def pixelate(image: Tensor, side: int) -> Tensor:
    """Average [3, H, W] down to `side` cells a side, share * H of them, and repeat these back up:
    cell i is the mean of the pixels floor(i H / side) to ceil((i + 1) H / side) - 1, and pixel y
    shows cell floor(y side / H)."""
    cell = torch.arange(image.shape[-1]) * side // image.shape[-1]
    return F.adaptive_avg_pool2d(image, side)[:, cell][:, :, cell]


KINDS = {"audio_gaussian": Kind(draw_noise, torch.add),
         "audio_shift": Kind(draw_shift, lambda audio, frames: audio.roll(frames, dims=0)),
         "audio_mask": Kind(draw_stretch, mask_time),
         "image_gaussian": Kind(draw_noise, lambda image, noise: (image + noise).clamp(-3, 3)),
         "image_blur": Kind(lambda share, shape, _: round((share * shape[-1] - 1) / 2), blur),
         "image_pixelate": Kind(lambda share, shape, _: max(1, round(share * shape[-1])), pixelate),
         "missing": Kind(lambda *_: None, lambda x, _: torch.zeros_like(x))}    # of either modality


def draw_damage(sample: Sample, situation: Situation, damage: DamageConfig, seed: int,
                epoch: int) -> dict[str, tuple[str, Any]]:
    """Draw the damage of a sample that is put into a situation; a missing modality stays all 0.

    All kinds are equally likely; in NOISY_BOTH nothing goes missing.
    returns  {"audio" or "image": (name of the kind, its draws)}
    """
    generator, drawn = seeded_generator(seed, epoch, sample.id), {}
    both = situation == Situation.NOISY_BOTH
    strengths = damage.both if both else damage.alone
    for modality, bit in (("audio", Situation.NOISY_AUDIO), ("image", Situation.NOISY_IMAGE)):
        if situation & bit & ~int(sample.situation):
            possible = [kind for kind in KINDS
                        if kind.startswith(modality) or kind == "missing" and not both]
            kind = possible[generator.integers(len(possible))]
            strength, shape = getattr(strengths, kind, None), getattr(sample, modality).shape
            drawn[modality] = kind, KINDS[kind].draw(strength, shape, generator)
    return drawn


def damage_sample(sample: Sample, situation: Situation, damage: DamageConfig, seed: int,
                  epoch: int) -> Sample:
    """Damage a sample (arguments as of draw_damage); its situation joins what is missing."""
    drawn = draw_damage(sample, situation, damage, seed, epoch)
    damaged = {modality: KINDS[kind].apply(getattr(sample, modality), draws)
               for modality, (kind, draws) in drawn.items()}
    return sample._replace(**damaged, situation=sample.situation | situation)
