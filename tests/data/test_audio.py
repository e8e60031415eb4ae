"""The sound front end against torchaudio's figures, a slow direct formula, and bad files."""
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from ptm_mini.data.audio import analysis, fbank, read_waveform, resample
from ptm_mini.config import AudioConfig
from ptm_mini.errors import InputError

GOLDEN = np.load(Path(__file__).with_name("golden_fbank.npz"))          # torchaudio 2.9, see the note in the README
CONFIG = AudioConfig(seconds=0.975)


def golden(name):
    return torch.from_numpy(GOLDEN[name])


@pytest.mark.parametrize("name", [name for name in GOLDEN.files if name.startswith("fbank")])
def test_fbank_equals_torchaudio(name):
    mels, tag = name.removeprefix("fbank").split("_", 1)
    ours = fbank(golden(f"wave_{tag}"), int(tag.split("_")[-1]), int(mels))
    assert ours.shape == golden(name).shape
    assert (ours - golden(name)).abs().max() < 1e-3


@pytest.mark.parametrize("name", [name for name in GOLDEN.files if name.startswith("resample")])
def test_resample_equals_torchaudio(name):
    source, target = map(int, name.split("_")[1:])
    ours = resample(golden(f"wave_{source}"), source, target)
    assert (ours[:len(golden(name))] - golden(name)).abs().max() < 1e-4


@pytest.mark.parametrize("source, target", [(8000, 16000), (192000, 16000), (11127, 16000), (16000, 8000)])
def test_resample_equals_the_formula_sample_by_sample(source, target):
    wave = torch.randn(source // 50, generator=torch.Generator().manual_seed(0))
    ours = resample(wave, source, target)
    assert len(ours) == math.ceil(len(wave) * target / source)
    c = 0.99 * min(1, target / source)
    for n in (0, 1, len(ours) // 2, len(ours) - 1):
        direct = 0.0
        for k, x in enumerate(wave.tolist()):
            t = k - n * source / target
            if abs(c * t) < 6:
                direct += x * c * np.sinc(c * t) * math.cos(math.pi * c * t / 12) ** 2
        assert ours[n].item() == pytest.approx(direct, abs=1e-5)


def test_resampling_keeps_a_tone_and_removes_what_is_too_high():
    t = torch.arange(44100) / 44100
    kept = resample(torch.sin(2 * math.pi * 1000 * t), 44100, 16000)
    expected = torch.sin(2 * math.pi * 1000 * torch.arange(16000) / 16000)
    assert (kept - expected)[100:-100].abs().max() < 0.01
    assert resample(torch.sin(2 * math.pi * 12000 * t), 44100, 16000)[100:-100].abs().max() < 0.01


def test_a_louder_clip_is_higher_by_a_constant():
    """Nothing is scaled by the clip's own maximum: a factor of g adds 2 ln g everywhere."""
    wave = torch.randn(4000, generator=torch.Generator().manual_seed(0))
    assert (fbank(8 * wave, 16000, 64) - fbank(wave, 16000, 64) - 2 * math.log(8)).abs().max() < 1e-5


def test_filters_are_made_once_and_cover_the_band_evenly():
    window, hop, fft_size, filters = analysis(16000, 64)
    assert (len(window), hop, fft_size) == (400, 160, 512) and analysis(16000, 64)[3] is filters
    assert filters.shape == (257, 64) and filters[-1].eq(0).all()
    assert filters.argmax(dim=0).diff().ge(0).all() and filters.sum(dim=0).gt(0).all()


def test_frames_follow_from_seconds():
    for config in (CONFIG, AudioConfig(sample_rate=22050, seconds=1.0), AudioConfig(seconds=10.255, mels=128)):
        samples = round(config.seconds * config.sample_rate)
        assert fbank(torch.zeros(samples), config.sample_rate, config.mels).shape == (config.frames, config.mels)
    assert AudioConfig(seconds=10.255).frames == 1024


def test_fbank_refuses_less_than_a_window():
    with pytest.raises(ValueError, match="expected 400 or more"):
        fbank(torch.zeros(399), 16000, 64)


@pytest.mark.parametrize("format, depth, tolerance", [
    ("wav", "PCM_U8", 2e-2), ("wav", "PCM_16", 1e-4), ("wav", "PCM_24", 1e-6), ("wav", "PCM_32", 1e-6),
    ("wav", "FLOAT", 1e-6), ("wav", "DOUBLE", 1e-6), ("flac", "PCM_16", 1e-4), ("flac", "PCM_24", 1e-6), ("ogg", "VORBIS", 0.1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_reads_formats_depths_and_channels(tmp_path, format, depth, tolerance, channels):
    wave = 0.4 * np.sin(2 * np.pi * 440 * np.arange(8000) / 16000)
    path = tmp_path / f"clip.{format}"
    soundfile.write(path, np.stack([wave * (1 + c) / 2 for c in range(channels)], axis=1), 16000, subtype=depth)
    ours = read_waveform(path, CONFIG.sample_rate, CONFIG.samples)
    assert ours.shape == (15600,) and ours[8000:].eq(0).all()
    expected = wave * np.mean([(1 + c) / 2 for c in range(channels)])
    assert np.abs(ours[200:7800].numpy() - (expected - expected.mean())[200:7800]).max() < tolerance


def test_long_clips_are_cut_and_the_mean_is_removed(tmp_path):
    path = tmp_path / "long.wav"
    soundfile.write(path, 0.25 + 0.1 * np.sin(np.arange(3 * 44100) / 10), 44100, subtype="FLOAT")
    ours = read_waveform(path, CONFIG.sample_rate, CONFIG.samples)
    assert ours.shape == (15600,) and abs(ours.mean()) < 1e-6 and ours.std() > 0.05


def write_bad(kind, path):
    wave = 0.1 * np.random.default_rng(0).standard_normal(16000)
    if kind == "missing":
        return
    if kind == "short":
        wave = wave[:399]
    if kind == "NaN":
        wave[5] = np.nan
    soundfile.write(path, wave, 16000, subtype="FLOAT" if kind == "NaN" else None)       # None: the format's own
    if kind == "empty":
        path.write_bytes(b"")
    if kind == "no sound":
        path.write_text("this is text")
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


@pytest.mark.parametrize("kind, name, says", [
    ("missing", "a.wav", "no such file"), ("empty", "a.wav", "expected a WAV, FLAC or OGG"),
    ("no sound", "a.wav", "expected a WAV, FLAC or OGG"), ("truncated", "a.wav", "breaks off after"),
    ("truncated", "a.flac", "a.flac"), ("truncated", "a.ogg", "breaks off after"), ("NaN", "a.wav", "NaN"),
    ("short", "a.wav", "399 samples at 16000 Hz; expected at least 25 ms")])
def test_bad_files_are_named_in_one_line(tmp_path, kind, name, says):
    write_bad(kind, tmp_path / name)
    with pytest.raises(InputError) as caught:
        read_waveform(tmp_path / name, CONFIG.sample_rate, CONFIG.samples)
    assert str(tmp_path / name) in str(caught.value) and says in str(caught.value) and "\n" not in str(caught.value)
