"""Damage: along the right axes, of the set strength, seeded by sample and by nothing else."""
from collections import Counter

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ptm_mini.config import DAMAGES, Situation, Strengths
from ptm_mini.method.damage import KINDS, Sample, damage_sample, draw_damage, weights_generator

STRONG = DAMAGES["strong"]
COMPLETE, AUDIO, IMAGE, BOTH = Situation


def apply_kind(x: Tensor, kind: str, strength: float, seed: int = 0) -> Tensor:
    drawn = KINDS[kind].draw(strength, tuple(x.shape), np.random.default_rng(seed))
    return KINDS[kind].apply(x, drawn)


def make_samples(n: int, missing: Situation = COMPLETE) -> list[Sample]:
    generator = torch.Generator().manual_seed(1)
    return [Sample(torch.randn(96, 64, generator=generator),
                   torch.randn(3, 32, 32, generator=generator),
                   torch.tensor(missing), torch.tensor(0), f"sample {i}") for i in range(n)]


def damage(sample: Sample, situation: Situation, seed: int = 0, epoch: int = 1) -> Sample:
    return damage_sample(sample, situation, STRONG, seed, epoch)


def equal(one: Sample, other: Sample) -> bool:
    return torch.equal(one.audio, other.audio) and torch.equal(one.image, other.image)


def test_shift_and_mask_run_along_time_not_along_mel_bins() -> None:
    ramp = torch.arange(96.0)[:, None] + 1 + torch.zeros(96, 64)          # values tell the time
    shifts, masks = set(), set()
    for seed in range(300):
        shifted = apply_kind(ramp, "audio_shift", 0.5, seed)
        masked = apply_kind(ramp, "audio_mask", 0.25, seed)
        assert shifted.eq(shifted[:, :1]).all() and masked.eq(masked[:, :1]).all()
        shift = int(shifted[:, 0].argmin())
        assert torch.equal(shifted, ramp.roll(shift, dims=0))
        shifts.add(shift)
        zero = masked[:, 0].eq(0)
        assert torch.equal(masked[~zero], ramp[~zero]) and zero.diff().sum() <= 2    # one stretch
        masks.add(int(zero.sum()))
    assert len(shifts) > 80 and max(masks) == 24 and len(masks) == 25


def test_noise_has_its_strength_and_an_image_stays_within_3() -> None:
    noise = apply_kind(torch.full((960, 64), 7.0), "audio_gaussian", 2.2) - 7
    assert noise.std().item() == pytest.approx(2.2, rel=0.02) and abs(noise.mean()) < 0.05
    noisy = apply_kind(torch.zeros(3, 32, 32), "image_gaussian", 5.0)
    assert noise.dtype == noisy.dtype == torch.float32
    assert noisy.abs().max() == 3 and 0.4 < (noisy.abs() < 3).float().mean() < 0.5    # of a normal


@pytest.mark.parametrize("side, share, kernel", [(64, 0.23, 15), (32, 0.03, 1), (16, 1.0, 17)])
def test_blur_is_a_box_mean_over_the_part_inside(side: int, share: float, kernel: int) -> None:
    image = torch.randn(3, side, side)
    expected = F.avg_pool2d(image, kernel, 1, kernel // 2, count_include_pad=False)
    assert (apply_kind(image, "image_blur", share) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("side, share, left", [(224, 0.05, 11), (33, 0.3, 10), (32, 0.0, 1)])
def test_pixelate_leaves_the_share_of_the_side(side: int, share: float, left: int) -> None:
    image = torch.randn(3, side, side)
    assert len(apply_kind(image, "image_pixelate", share)[0].unique()) == left ** 2


def test_each_situation_damages_its_own_modality_alone() -> None:
    samples, originals = make_samples(32), make_samples(32)
    for situation in Situation:
        damaged = [damage(sample, situation) for sample in samples]
        assert all(sample.situation == situation for sample in damaged)
        for part, bit in (("audio", AUDIO), ("image", IMAGE)):
            changed = sum(not torch.equal(getattr(one, part), getattr(before, part))
                          for one, before in zip(damaged, originals))
            # of 32 some may be shifted or masked by no frame
            assert changed > 24 if situation & bit else changed == 0
    assert all(map(equal, samples, originals))                        # damage makes new tensors


def test_damage_depends_on_seed_epoch_and_id_and_on_nothing_else() -> None:
    samples = make_samples(4)
    first = [damage(sample, BOTH) for sample in samples]
    torch.manual_seed(1)
    np.random.seed(1)
    again = [damage(sample, BOTH) for sample in reversed(samples)][::-1]
    assert all(map(equal, first, again))                              # neither order nor neighbours
    for other in (damage(samples[0]._replace(id="another"), BOTH),
                  damage(samples[0], BOTH, epoch=2), damage(samples[0], BOTH, seed=1)):
        assert not torch.equal(first[0].audio, other.audio)


def test_every_kind_is_drawn_as_often_and_missing_never_in_both() -> None:
    assert {*KINDS} == {*vars(Strengths()), "missing"}
    sample, counts = make_samples(1)[0], Counter()
    for situation in Situation:
        for epoch in range(400):
            drawn = draw_damage(sample, situation, STRONG, 0, epoch)
            counts.update((situation, modality, kind) for modality, (kind, _) in drawn.items())
    assert len(counts) == 4 + 4 + 3 + 3
    for (situation, _, kind), count in counts.items():
        assert count > 0.7 * 400 / (3 if situation == BOTH else 4)
        assert (situation, kind) != (BOTH, "missing")


@pytest.mark.parametrize("missing, situation", [(AUDIO, IMAGE), (IMAGE, BOTH)])
def test_a_missing_modality_stays_0(missing: Situation, situation: Situation) -> None:
    lost = "audio" if missing == AUDIO else "image"
    for sample in make_samples(8, missing):
        getattr(sample, lost).zero_()
        damaged = damage(sample, situation)
        assert not getattr(damaged, lost).any() and damaged.situation == missing | situation


def test_each_situation_draws_its_weights_from_a_seed_of_its_own() -> None:
    assert len({weights_generator(1, situation).initial_seed()
                for situation in (None, *Situation)}) == 5
