"""Damage: along the right axes, seeded by sample, and of the strengths that DESIGN section 3 names."""
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ptm_mini.config import DAMAGES, Situation
from ptm_mini.data.prepared import stack
from ptm_mini.method.damage import (AUDIO_KINDS, IMAGE_KINDS, Sample, apply_damage, damage_sample, draw_damage, seeded_generator,
                                    weights_generator)

STRONG, PAPER = DAMAGES["strong"], DAMAGES["paper"]


def hit(x, kind, strength, seed=0):
    """x, damaged by one kind of a strength"""
    drawn = (AUDIO_KINDS | IMAGE_KINDS)[kind].draw(strength, x.shape, np.random.default_rng(seed))
    return apply_damage(x, kind, drawn)


def make_samples(n, missing=0):
    random = torch.Generator().manual_seed(1)
    return [Sample(torch.randn(96, 64, generator=random), torch.randn(3, 32, 32, generator=random), torch.tensor(missing),
                   torch.tensor(0), f"sample {i}") for i in range(n)]


def damaged(sample, situation, damage=STRONG, seed=0, epoch=1):
    return damage_sample(sample, situation, damage, seed, epoch)


def test_shift_and_mask_run_along_time_not_along_mel_bins():
    ramp = torch.arange(96.0)[:, None] + 1 + torch.zeros(96, 64)                  # a frame's value tells its time
    for seed in range(20):
        for kind, share in (("audio_shift", 0.5), ("audio_mask", 0.25)):
            out = hit(ramp, kind, share, seed)
            assert out.eq(out[:, :1]).all()                                       # every mel bin of a frame alike
        assert out.eq(0).any(dim=1).sum() <= 24
        moved = int(hit(ramp, "audio_shift", 0.5, seed).argmin(dim=0)[0])
        assert min(moved, 96 - moved) <= 48


def test_image_noise_is_neither_blank_nor_unbounded():
    out = hit(torch.zeros(3, 32, 32), "image_gaussian", 5.0)
    assert out.abs().max() == 3 and 0.3 < (out.abs() < 3).float().mean() < 0.6 and out.std() > 2


def test_blur_is_a_box_mean_and_scales_with_the_side():
    image = torch.randn(3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert hit(image, "image_blur", 0.23)[0, 100, 100] == pytest.approx(image[0, 75:126, 75:126].mean().item(), abs=1e-5)   # 51
    assert hit(image, "image_blur", 0.03)[0, 100, 100] == pytest.approx(image[0, 97:104, 97:104].mean().item(), abs=1e-5)   # 7
    assert hit(torch.ones(3, 32, 32), "image_blur", 0.23).allclose(torch.ones(3, 32, 32))                                   # edges


@pytest.mark.parametrize("side, share", [(224, 0.23), (224, 0.03), (32, 0.23), (32, 0.03), (16, 1.0), (16, 0.0)])
def test_blur_equals_pooling_over_what_is_there(side, share):
    image = torch.randn(3, side, side, generator=torch.Generator().manual_seed(0))
    kernel = 2 * round((share * side - 1) / 2) + 1
    expected = F.avg_pool2d(image, kernel, stride=1, padding=kernel // 2, count_include_pad=False)
    assert (hit(image, "image_blur", share) - expected).abs().max() < 1e-6


@pytest.mark.parametrize("side, share, left", [(224, 0.05, 11), (32, 0.05, 2), (32, 0.30, 10)])
def test_pixelate_leaves_the_share_of_the_side(side, share, left):
    image = torch.randn(3, side, side, generator=torch.Generator().manual_seed(0))
    assert len(hit(image, "image_pixelate", share)[0].unique()) == left ** 2


@pytest.mark.parametrize("side", [32, 33, 224])
def test_pixelate_shows_every_cell_where_it_lies(side):
    """Of whole numbers alone: pixel y shows cell floor(y cells / side), for every number of cells."""
    image = torch.arange(float(side)).expand(3, side, side)                       # a pixel's value tells its column
    for cells in range(1, side + 1):
        shown = apply_damage(image, "image_pixelate", cells)[0, 0].tolist()
        for y in (0, side // 3, side - 1):
            i = y * cells // side
            first, last = i * side // cells, -(-(i + 1) * side // cells) - 1
            assert shown[y] == pytest.approx((first + last) / 2, abs=1e-4)


def test_drawing_and_applying_are_apart():
    """What is drawn, told to apply_damage alone, gives what damage_sample gives."""
    for sample in make_samples(24):
        drawn, whole = draw_damage(sample, Situation.NOISY_BOTH, STRONG, 3, 2), damaged(sample, Situation.NOISY_BOTH, seed=3, epoch=2)
        assert list(drawn) == ["audio", "image"]
        for modality, (kind, what) in drawn.items():
            assert torch.equal(apply_damage(getattr(sample, modality), kind, what), getattr(whole, modality))


def test_each_situation_damages_its_own_modality_alone():
    samples = make_samples(32)
    for situation in Situation:
        after = [damaged(sample, situation) for sample in samples]
        assert all(one.situation == situation for one in after)
        for part, bit in (("audio", Situation.NOISY_AUDIO), ("image", Situation.NOISY_IMAGE)):
            changed = sum(not torch.equal(getattr(one, part), getattr(before, part)) for one, before in zip(after, samples))
            assert changed > 24 if situation & bit else changed == 0           # a shift or a mask can be drawn as none
    assert [situation.label for situation in Situation] == ["complete", "noisy_audio", "noisy_image", "noisy_both"]


def test_a_batch_is_its_samples_in_order():
    samples = make_samples(5)
    batch = stack(iter(samples), 5)
    assert batch.audio.shape == (5, 96, 64) and batch.situation.dtype == torch.long
    for i, sample in enumerate(samples):
        assert torch.equal(batch.audio[i], sample.audio) and torch.equal(batch.image[i], sample.image)
        assert batch.id[i] == sample.id


def test_seed_epoch_and_id_each_change_the_damage():
    sample = make_samples(1)[0]
    first = damaged(sample, Situation.NOISY_BOTH).audio
    assert torch.equal(first, damaged(sample, Situation.NOISY_BOTH).audio)
    assert not torch.equal(first, damaged(sample._replace(id="another"), Situation.NOISY_BOTH).audio)
    assert not torch.equal(first, damaged(sample, Situation.NOISY_BOTH, epoch=2).audio)
    assert not torch.equal(first, damaged(sample, Situation.NOISY_BOTH, seed=1).audio)


def test_missing_is_drawn_alone_and_never_in_both():
    samples = make_samples(200)
    blank = {situation: sum(damaged(sample, situation).audio.eq(0).all().item() for sample in samples) / 200
             for situation in (Situation.NOISY_AUDIO, Situation.NOISY_BOTH)}
    assert 0.15 < blank[Situation.NOISY_AUDIO] < 0.35 and blank[Situation.NOISY_BOTH] == 0


def test_a_missing_modality_stays_missing_and_adds_to_the_situation():
    for sample in make_samples(8, missing=Situation.NOISY_AUDIO):
        sample.audio.zero_()
        audio, image, situation, _, _ = damaged(sample, Situation.NOISY_IMAGE)
        assert audio.eq(0).all() and situation == Situation.NOISY_BOTH and not torch.equal(image, sample.image)


def test_paper_damage_is_weaker_in_both_only():
    assert PAPER.alone == STRONG.alone and STRONG.both == STRONG.alone
    change = {name: sum((damaged(sample, Situation.NOISY_BOTH, damage).image - sample.image).square().mean()
                        for sample in make_samples(100)) for name, damage in DAMAGES.items()}
    assert change["paper"] < 0.5 * change["strong"]


def test_every_kind_has_a_strength():
    assert {*AUDIO_KINDS, *IMAGE_KINDS} == set(vars(STRONG.alone))


def test_golden_draws():
    """For porters: the first numbers that one sample's generator gives."""
    assert seeded_generator(0, 1, "0_george_0").integers(0, 1000, 4).tolist() == [681, 591, 973, 21]


def test_golden_weights():
    """Weights are seeded by the run's seed, and those of a situation's models apart from the backbone's and each other's."""
    firsts = [torch.rand(1, generator=weights_generator(1, situation)).item() for situation in (None, *Situation)]
    assert len(set(firsts)) == 5 and firsts[1] == torch.rand(1, generator=torch.Generator().manual_seed(4)).item()
