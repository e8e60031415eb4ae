"""The sound front end against torchaudio's figures, a slow direct formula, and bad files."""
import math
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import refusal

from ptm_mini.config import AudioConfig
from ptm_mini.data.audio import analysis, fbank, frames_used, read_waveform, resample, resampling_kernel

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


def read_whole(path, sample_rate, samples):
    """What read_waveform gives, from the whole file: all of it decoded and resampled, then cut."""
    wave, rate = soundfile.read(path, dtype="float32", always_2d=True)
    wave = resample(torch.from_numpy(wave).mean(dim=1), rate, sample_rate)[:samples]
    return torch.nn.functional.pad(wave - wave.mean(), (0, samples - len(wave)))


@pytest.mark.parametrize("format, rate", [
    ("wav", 4000), ("wav", 8000), ("flac", 11127), ("wav", 16000), ("ogg", 22050), ("mp3", 44100), ("aiff", 44101),
    ("w64", 48000), ("wav", 192000)])
def test_reading_what_is_used_gives_the_bits_of_reading_all(tmp_path, format, rate):
    random, path = np.random.default_rng(rate), tmp_path / f"clip.{format}"
    for target, samples in ((16000, 1600), (16000, 1601), (22050, 600), (8000, 4001)):
        for frames in (rate // 40 + 1, samples * rate // target, samples * rate // target + random.integers(-9, 80), rate // 2):
            soundfile.write(path, 0.2 * random.standard_normal((frames, 2)), rate)
            assert torch.equal(read_waveform(path, target, samples), read_whole(path, target, samples)), (target, frames)


def test_a_long_file_is_read_as_far_as_it_is_used(tmp_path, monkeypatch):
    path, read, original = tmp_path / "long.wav", [], soundfile.SoundFile.read
    soundfile.write(path, np.zeros((60 * 44100, 2), np.int16), 44100)
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *some, **more: read.append(original(*some, **more)) or read[-1])
    read_waveform(path, 16000, 8000)
    assert [len(block) for block in read] == [7999 * 441 // 160 + 1 + resampling_kernel(44100, 16000)[1]]


def write_bad(kind, path):
    random = np.random.default_rng(0)
    wave = 0.1 * random.standard_normal(16000)
    if kind == "missing":
        return
    if kind == "short":
        wave = wave[:399]
    if kind == "long":
        wave = 0.1 * random.standard_normal(32000)
    if kind == "NaN":
        wave[5] = np.nan
    if kind == "loud":
        wave[5] = 1e19
    soundfile.write(path, wave, 16000, subtype="FLOAT" if kind in ("NaN", "loud") else None)      # None: the format's own
    content = bytearray(path.read_bytes())
    if kind == "no sound":
        content = b"this is text"
    if kind in ("truncated", "long", "empty"):
        del content[0 if kind == "empty" else len(content) * 3 // 4:]
    if kind in ("1 Hz", "2 GHz"):
        content[24:28] = struct.pack("<I", int(kind.replace(" GHz", "000000000").split()[0]))
    if kind == "no channels":
        content[22:24] = b"\0\0"
    if kind == "endless":                                          # 2^36 - 1 frames, 256 GiB
        content[21:26] = bytes([content[21] | 15, 255, 255, 255, 255])
    path.write_bytes(content)


@pytest.mark.parametrize("kind, name, says", [
    ("missing", "a.wav", "no such file"), ("empty", "a.wav", "expected a WAV, FLAC or OGG"),
    ("no sound", "a.wav", "expected a WAV, FLAC or OGG"), ("no sound", "a.flac", "expected a WAV, FLAC or OGG"),
    ("whole", "a.raw.wav", "a.raw: samplerate must be specified; expected a WAV, FLAC or OGG"),
    ("truncated", "a.wav", "breaks off after 11994 samples"), ("truncated", "a.flac", "a.flac"), ("truncated", "a.ogg", "breaks off after"), ("truncated", "a.aiff", "breaks off after"),
    ("truncated", "a.au", "breaks off after"), ("truncated", "a.w64", "breaks off after"),
    ("truncated", "a.rf64", "breaks off after"), ("truncated", "a.caf", "a.caf"), ("truncated", "a.mp3", "breaks off after"),
    ("long", "a.wav", "breaks off after 23994 samples"), ("long", "a.ogg", "breaks off after"),
    ("NaN", "a.wav", "holds NaN, infinity or samples beyond"), ("loud", "a.wav", "holds NaN, infinity or samples beyond"),
    ("short", "a.wav", "399 samples at 16000 Hz; expected at least 25 ms"), ("no channels", "a.wav", "Channel count is zero"),
    ("1 Hz", "a.wav", "its header says 1 Hz; expected 1000 to 500000"), ("2 GHz", "a.wav", "its header says 2000000000 Hz")])
def test_bad_files_are_named_in_one_line(tmp_path, kind, name, says):
    write_bad(kind, tmp_path / name)
    if kind == "whole":
        (tmp_path / name).rename(tmp_path / "a.raw")               # a name that promises samples without a header
        name = "a.raw"
    said = refusal(read_waveform, tmp_path / name, CONFIG.sample_rate, CONFIG.samples)
    assert str(tmp_path / name) in said and says in said


def test_a_header_that_promises_too_much_allocates_nothing(tmp_path):
    write_bad("endless", tmp_path / "a.flac")
    assert read_waveform(tmp_path / "a.flac", 16000, 8000).std() > 0.05
    assert "a.flac: " in refusal(read_waveform, tmp_path / "a.flac", 16000, 57_600_000)


def test_what_is_read_of_many_channels_is_what_is_there(tmp_path):
    """1,024 channels for an hour at 500 kHz are promised, 6.6 TiB, and 100 frames are there."""
    header = struct.pack("<HHIIHH", 1, 1024, 500_000, 500_000 * 2048, 2048, 16)
    (tmp_path / "a.wav").write_bytes(b"RIFF\xff\xef\xff\x7fWAVEfmt \x10\0\0\0" + header + b"data\0\xe8\xff\x7f" + bytes(204_800))
    tracemalloc.start()
    assert "a.wav: the sound breaks off after 100 samples" in refusal(read_waveform, tmp_path / "a.wav", 16000, 57_600_000)
    assert tracemalloc.get_traced_memory()[1] < 300e6
    tracemalloc.stop()


def test_a_file_that_soundfile_trips_over_is_named(tmp_path, monkeypatch):
    """As it does where an MP3 header is wrong about its frames: "negative dimensions are not allowed"."""
    soundfile.write(tmp_path / "a.wav", np.zeros(16000), 16000)
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *some, **more: np.empty((-1, 2)))
    assert "a.wav: negative dimensions are not allowed" in refusal(read_waveform, tmp_path / "a.wav", 16000, 8000)


def test_sizes_that_stand_for_unknown_and_formats_that_cannot_seek_are_read(tmp_path):
    wave = 0.1 * np.random.default_rng(0).standard_normal(16000)
    soundfile.write(tmp_path / "a.wav", wave, 16000)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[40:44] = content[4:8] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(content)
    soundfile.write(tmp_path / "b.wav", wave, 16000, subtype="GSM610")
    for name in ("a.wav", "b.wav"):
        assert read_waveform(tmp_path / name, 16000, 15600).std() > 0.05


@pytest.mark.parametrize("format, subtype", [("OGG", "VORBIS"), ("OGG", "OPUS"), ("FLAC", "PCM_16"), ("CAF", "PCM_16")])
def test_a_window_of_a_packed_clip_is_where_reading_on_would_come_to_it(tmp_path, format, subtype):
    soundfile.write(tmp_path / "long", 0.1 * np.random.default_rng(0).standard_normal(96000), 24000, format=format, subtype=subtype)
    whole, used = torch.from_numpy(soundfile.read(tmp_path / "long", dtype="float32")[0]), frames_used("", 24000, 24000, 8000)
    start = round(0.7 * (len(whole) - used))
    expected = whole[start:start + 8000]
    assert torch.equal(read_waveform(tmp_path / "long", 24000, 8000, 0.7), expected - expected.mean())


@pytest.mark.parametrize("place", [0.0, 0.3, 1.0])
def test_a_window_of_a_long_clip_is_read_from_its_place(tmp_path, place):
    wave = 0.1 * np.random.default_rng(0).standard_normal(48000)
    soundfile.write(tmp_path / "long.wav", wave, 16000, subtype="FLOAT")
    used = frames_used("long", 16000, 16000, 8000)
    start = round(place * (48000 - used))
    expected = torch.from_numpy(wave[start:start + 8000]).float()
    assert torch.equal(read_waveform(tmp_path / "long.wav", 16000, 8000, place), expected - expected.mean())
    assert torch.equal(read_waveform((torch.from_numpy(wave), 16000), 16000, 8000, place), expected - expected.mean())
