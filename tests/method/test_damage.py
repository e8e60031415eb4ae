"""Damage: along the right axes, seeded by sample, and of the strengths that DESIGN section 3 names."""
import numpy as np
import pytest
import torch

from ptm_mini.config import DAMAGES, Situation
from ptm_mini.method.damage import (AUDIO_KINDS, IMAGE_KINDS, Batch, add_gaussian_clamped, blur, damage_batch, mask_time,
                                    pixelate, seeded_generator, shift_time, weights_generator)

STRONG, PAPER = DAMAGES["strong"], DAMAGES["paper"]


def generator(seed=0):
    return np.random.default_rng(seed)


def make_batch(n, missing=0):
    random = torch.Generator().manual_seed(1)
    return Batch(torch.randn(n, 96, 64, generator=random), torch.randn(n, 3, 32, 32, generator=random),
                 torch.full((n,), missing), torch.zeros(n, dtype=torch.long), [f"sample {i}" for i in range(n)])


def damaged(batch, situation, damage=STRONG, seed=0, epoch=1):
    return damage_batch(batch, torch.full_like(batch.situations, situation), damage, seed, epoch)


def test_shift_and_mask_run_along_time_not_along_mel_bins():
    ramp = torch.arange(96.0)[:, None] + 1 + torch.zeros(96, 64)                  # a frame's value tells its time
    for seed in range(20):
        for kind, share in ((shift_time, 0.5), (mask_time, 0.25)):
            out = kind(ramp, share, generator(seed))
            assert out.eq(out[:, :1]).all()                                       # every mel bin of a frame alike
        assert out.eq(0).any(dim=1).sum() <= 24
        moved = int(shift_time(ramp, 0.5, generator(seed)).argmin(dim=0)[0])
        assert min(moved, 96 - moved) <= 48


def test_image_noise_is_neither_blank_nor_unbounded():
    out = add_gaussian_clamped(torch.zeros(3, 32, 32), 5.0, generator())
    assert out.abs().max() == 3 and 0.3 < (out.abs() < 3).float().mean() < 0.6 and out.std() > 2


def test_blur_is_a_box_mean_and_scales_with_the_side():
    image = torch.randn(3, 224, 224, generator=torch.Generator().manual_seed(0))
    assert blur(image, 0.23, None)[0, 100, 100] == pytest.approx(image[0, 75:126, 75:126].mean().item(), abs=1e-5)   # 51
    assert blur(image, 0.03, None)[0, 100, 100] == pytest.approx(image[0, 97:104, 97:104].mean().item(), abs=1e-5)   # 7
    assert blur(torch.ones(3, 32, 32), 0.23, None).allclose(torch.ones(3, 32, 32))                                   # edges


@pytest.mark.parametrize("side, share, left", [(224, 0.05, 11), (32, 0.05, 2), (32, 0.30, 10)])
def test_pixelate_leaves_the_share_of_the_side(side, share, left):
    image = torch.randn(3, side, side, generator=torch.Generator().manual_seed(0))
    assert len(pixelate(image, share, None)[0].unique()) == left ** 2


def test_each_situation_damages_its_own_modality_alone():
    batch = make_batch(16)
    for situation in Situation:
        audio, image, situations, _, _ = damaged(batch, situation)
        assert (audio == batch.audio).all() == (not situation & Situation.NOISY_AUDIO)
        assert (image == batch.image).all() == (not situation & Situation.NOISY_IMAGE)
        assert situations.eq(situation).all()
    assert [situation.label for situation in Situation] == ["complete", "noisy_audio", "noisy_image", "noisy_both"]


def test_the_same_sample_alone_and_in_any_batch():
    batch = make_batch(8)
    situations = torch.arange(8) % 4
    together = damage_batch(batch, situations, STRONG, 0, 1)
    for i in range(8):
        one = Batch(*(part[i:i + 1] for part in batch))
        alone = damage_batch(one, situations[i:i + 1], STRONG, 0, 1)
        assert all(torch.equal(a[0], b[i]) for a, b in zip(alone[:3], together[:3]))


def test_seed_epoch_and_id_each_change_the_damage():
    batch = make_batch(2)
    same = batch._replace(audio=batch.audio[:1].repeat(2, 1, 1))
    first = damaged(same, Situation.NOISY_BOTH)[0]
    assert not torch.equal(first[0], first[1])
    assert torch.equal(first, damaged(same, Situation.NOISY_BOTH)[0])
    assert not torch.equal(first, damaged(same, Situation.NOISY_BOTH, epoch=2)[0])
    assert not torch.equal(first, damaged(same, Situation.NOISY_BOTH, seed=1)[0])


def test_missing_is_drawn_alone_and_never_in_both():
    batch = make_batch(200)
    blank = {situation: damaged(batch, situation)[0].flatten(1).eq(0).all(dim=1).float().mean().item()
             for situation in (Situation.NOISY_AUDIO, Situation.NOISY_BOTH)}
    assert 0.15 < blank[Situation.NOISY_AUDIO] < 0.35 and blank[Situation.NOISY_BOTH] == 0


def test_a_missing_modality_stays_missing_and_adds_to_the_situation():
    batch = make_batch(8, missing=Situation.NOISY_AUDIO)
    batch.audio.zero_()
    audio, image, situations, _, _ = damaged(batch, Situation.NOISY_IMAGE)
    assert audio.eq(0).all() and situations.eq(Situation.NOISY_BOTH).all() and not torch.equal(image, batch.image)


def test_paper_damage_is_weaker_in_both_only():
    assert PAPER.alone == STRONG.alone and STRONG.both == STRONG.alone
    change = {name: (damaged(make_batch(100), Situation.NOISY_BOTH, damage)[1] - make_batch(100).image).square().mean()
              for name, damage in DAMAGES.items()}
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
