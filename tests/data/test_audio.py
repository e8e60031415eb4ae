"""The sound front end against torchaudio's figures and slow forms, and what breaks files."""
import math
import struct
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import refusal
from torch import Tensor
from torch.nn import functional as F

from ptm_mini.config import PRESETS, AudioConfig
from ptm_mini.data.audio import fbank, read_waveform, resample, used_part

GOLDEN = np.load(Path(__file__).with_name("golden_fbank.npz"))    # torchaudio 2.9's figures
CONFIG = AudioConfig(seconds=0.975)                               # 15600 samples


def golden(name: str) -> Tensor:
    return torch.from_numpy(GOLDEN[name])


def noise(*shape: int) -> np.ndarray:
    return 0.1 * np.random.default_rng(0).standard_normal(shape)


@pytest.mark.parametrize("name", [name for name in GOLDEN.files if name.startswith("fbank")])
def test_the_filterbank_equals_torchaudios(name: str) -> None:
    mels, sound = name.removeprefix("fbank").split("_", 1)
    config = AudioConfig(sample_rate=int(sound.split("_")[-1]), mels=int(mels))
    ours = fbank(golden(f"wave_{sound}"), config)
    assert ours.shape == golden(name).shape
    assert (ours - golden(name)).abs().max() < 1e-3


def test_frames_follow_from_seconds() -> None:
    for config in (CONFIG, AudioConfig(sample_rate=22050, seconds=1.0), PRESETS["base"].audio):
        spectrogram = fbank(torch.zeros(config.samples), config)
        assert spectrogram.shape == (config.frames, config.mels)
        assert spectrogram.unique().item() == pytest.approx(math.log(2 ** -23))      # of silence


@pytest.mark.parametrize("name", [name for name in GOLDEN.files if name.startswith("resample")])
def test_resampling_equals_torchaudios(name: str) -> None:
    source, target = map(int, name.split("_")[1:])
    wave = golden(f"wave_{source}")
    ours = resample(wave, source, target)
    assert len(ours) == math.ceil(len(wave) * target / source)
    assert (ours[:len(golden(name))] - golden(name)).abs().max() < 1e-4


@pytest.mark.parametrize("name, rate", [
    ("a.wav", 4000), ("a.wav", 8000), ("a.flac", 11127), ("a.wav", 16000), ("a.ogg", 22050),
    ("a.mp3", 44100), ("a.aiff", 44101), ("a.w64", 48000), ("a.wav", 192000)])
def test_the_used_part_has_the_bits_of_the_whole(tmp_path: Path, name: str, rate: int) -> None:
    """As all of the file, decoded and resampled, and cut only then."""
    for target, seconds in ((16000, 0.1), (16000, 0.1000625), (22050, 0.0273), (8000, 0.5)):
        config = AudioConfig(sample_rate=target, seconds=seconds)
        end = config.samples * rate // target
        for frames in (rate // 40 + 1, end, end + 37, rate // 2):
            soundfile.write(tmp_path / name, noise(max(frames, rate // 40 + 1), 2), rate)
            wave = soundfile.read(tmp_path / name, dtype="float32")[0]
            wave = resample(torch.from_numpy(wave).mean(dim=1), rate, target)[:config.samples]
            expected = F.pad(wave - wave.mean(), (0, config.samples - len(wave)))
            assert torch.equal(read_waveform(tmp_path / name, config), expected), (target, frames)


@pytest.mark.parametrize("format, subtype", [("WAV", "FLOAT"), ("OGG", "VORBIS"), ("OGG", "OPUS"),
                                             ("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III")])
def test_a_window_lies_at_its_place(tmp_path: Path, format: str, subtype: str) -> None:
    """Beyond the first piece too, where soundfile seeks, which is not exact in MP3."""
    config, path = AudioConfig(sample_rate=24000, seconds=0.5), tmp_path / "long"
    soundfile.write(path, noise(96000), 24000, format=format, subtype=subtype)
    with soundfile.SoundFile(path) as file:
        whole = torch.from_numpy(file.read(dtype="float32"))
    for place in (0.0, 0.3, 1.0):
        start, _ = used_part(len(whole), 24000, config, place)
        expected = whole[start:start + 12000] - whole[start:start + 12000].mean()
        assert torch.equal(read_waveform(path, config, place), expected)
        assert torch.equal(read_waveform((whole, 24000), config, place), expected)


@pytest.mark.parametrize("place", [0.0, 1.0])
def test_a_long_file_costs_bounded_memory(tmp_path: Path, place: float) -> None:
    """Of two minutes, 42 MB, only the used part is kept."""
    soundfile.write(tmp_path / "long.wav", np.ones((120 * 44100, 2), np.int16), 44100)
    tracemalloc.start()
    read_waveform(tmp_path / "long.wav", CONFIG, place)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3e6


def write_bad(kind: str, path: Path) -> None:
    """Write a sound of a second with something wrong."""
    wave, subtype = noise(32000 if kind == "long" else 399 if kind == "short" else 16000), None
    if kind in ("nan", "1e19"):
        wave[5], subtype = float(kind), "FLOAT"
    soundfile.write(path, wave, 16000, subtype=subtype)
    content = bytearray(path.read_bytes())
    if kind in ("truncated", "long"):                # the end of "long" lies beyond the used part
        del content[len(content) * 3 // 4:]
    if kind == "1 Hz":
        content[24:28] = struct.pack("<I", 1)
    path.write_bytes(b"this is text" if kind == "no sound" else content)


@pytest.mark.parametrize("kind, name, message", [
    ("no sound", "a.wav", "expected a WAV, FLAC or OGG"),
    ("truncated", "a.wav", "the sound breaks off after 11994 samples; expected a whole file"),
    ("truncated", "a.flac", "a.flac: "), ("truncated", "a.caf", "a.caf: "),
    ("truncated", "a.ogg", "breaks off after"), ("truncated", "a.mp3", "breaks off after"),
    ("truncated", "a.aiff", "breaks off after"), ("truncated", "a.au", "breaks off after"),
    ("truncated", "a.w64", "breaks off after"), ("truncated", "a.rf64", "breaks off after"),
    ("long", "a.wav", "breaks off after"), ("long", "a.ogg", "breaks off after"),
    ("nan", "a.wav", "holds NaN, inf"), ("1e19", "a.wav", "holds NaN, infinity or huge samples"),
    ("short", "a.wav", "399 samples at 16000 Hz; expected 25 ms (one analysis window) or more"),
    ("1 Hz", "a.wav", "sample rate 1 Hz is not between 1000 and 500000")])
def test_bad_files_are_named(tmp_path: Path, kind: str, name: str, message: str) -> None:
    assert "no such file" in refusal(read_waveform, tmp_path / name, CONFIG)
    write_bad(kind, tmp_path / name)
    refused = refusal(read_waveform, tmp_path / name, CONFIG)
    assert refused.startswith(f"{tmp_path / name}: ") and message in refused


def test_sizes_that_streaming_writers_leave_unknown_are_allowed(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", noise(16000), 16000)
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[40:44] = content[4:8] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(content)
    assert read_waveform(tmp_path / "a.wav", CONFIG).std() > 0.05
