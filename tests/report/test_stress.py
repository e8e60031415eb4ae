"""Severities by hand."""
import pytest

from ptm_mini.config import DAMAGES, Strengths
from ptm_mini.report.stress import scaled


def test_severities_by_hand():
    strengths = DAMAGES["strong"].alone
    nothing, same, twice = (scaled(strengths, severity) for severity in (0.0, 1.0, 2.0))
    assert nothing == Strengths(0, 0, 0, 0, 0, 1.0)
    for name, value in vars(strengths).items():
        assert getattr(same, name) == pytest.approx(value)
    assert (twice.audio_gaussian, twice.audio_shift, twice.audio_mask, twice.image_blur) == (4.4, 1.0, 0.5, 0.46)
    assert 1 / twice.image_pixelate == pytest.approx(1 + 2 * (1 / 0.05 - 1))         # shrunk by 39 in place of 20
    assert scaled(Strengths(image_pixelate=0.0), 0.0).image_pixelate == 1.0
