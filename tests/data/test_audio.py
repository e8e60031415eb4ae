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
from ptm_mini.data import audio
from ptm_mini.data.audio import fbank, measure_seconds, read_waveform, resample, used_part
from ptm_mini.errors import InputError

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


def test_frames_follow_from_seconds_and_silence_is_finite() -> None:
    for config in (AudioConfig(sample_rate=22050, seconds=1.0), PRESETS["base"].audio):
        spectrogram = fbank(torch.zeros(config.samples), config)
        assert spectrogram.shape == (config.frames, config.mels) and spectrogram.isfinite().all()


@pytest.mark.parametrize("name", [name for name in GOLDEN.files if name.startswith("resample")])
def test_resampling_equals_torchaudios(name: str) -> None:
    source, target = map(int, name.split("_")[1:])
    wave = golden(f"wave_{source}")
    ours = resample(wave, source, target)
    assert len(ours) == math.ceil(len(wave) * target / source)
    assert (ours[:len(golden(name))] - golden(name)).abs().max() < 1e-4


@pytest.mark.parametrize("name, rate", [
    ("a.wav", 4000), ("a.flac", 11127), ("a.wav", 16000), ("a.ogg", 22050), ("a.mp3", 44100),
    ("a.aiff", 44101), ("a.wav", 192000)])
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


FORMATS = [(format, subtype) for format in soundfile.available_formats() if format != "RAW"
           for subtype in soundfile.available_subtypes(format)]


def write_sound(path: Path, format: str, subtype: str) -> bool:
    """Write two seconds, if soundfile can write this format (some take no rate but 8 kHz)."""
    for rate in (24000, 8000):
        try:
            soundfile.write(path, 0.5 * noise(2 * rate), rate, format=format, subtype=subtype)
            return soundfile.info(path).frames > 0
        except (soundfile.LibsndfileError, ValueError):
            pass
    return False


def test_a_window_lies_at_its_place_in_every_format(tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the first piece too, where soundfile seeks, which is not exact in MP3."""
    monkeypatch.setattr(audio, "PIECE", 4096)
    path, tried = tmp_path / "sound", 0
    for format, subtype in FORMATS:
        if not write_sound(path, format, subtype):
            continue
        tried += 1
        with soundfile.SoundFile(path) as file:
            rate, file.seekable = file.samplerate, lambda: False      # its seek may fail
            whole = torch.from_numpy(file.read(file.frames, dtype="float32"))
        config = AudioConfig(sample_rate=rate, seconds=0.5)
        for place in (0.0, 0.3, 1.0):
            start, _ = used_part("", len(whole), rate, config, place)
            expected = whole[start:start + config.samples]
            expected = expected - expected.mean()
            for source in (path, (whole, rate)):
                found = read_waveform(source, config, place)
                assert torch.allclose(found, expected, atol=1e-6), (format, subtype, place)
    assert tried > 60


UNTOLD = {"AVR", "IRCAM", "MAT4", "MAT5", "MPC2K", "NIST", "PAF", "PVF", "SD2", "SDS", "SVX", "VOC",
          "WVE", "XI"}                              # as docs/data.md lists them


def test_a_sound_that_breaks_off_is_refused_where_its_format_can_tell(tmp_path: Path) -> None:
    path, untold = tmp_path / "sound", set()
    for format, subtype in FORMATS:
        if write_sound(path, format, subtype):
            content, seconds = path.read_bytes(), soundfile.info(path).duration
            for share in (1 / 3, 1 / 2, 0.99):
                path.write_bytes(content[:int(share * len(content))])
                try:
                    read_waveform(path, AudioConfig(sample_rate=8000, seconds=seconds))
                    untold.add(format)
                except InputError:
                    pass
    assert untold == UNTOLD


def strip_header(path: Path, mode: str) -> int:
    """Write an MP3 of two seconds without the frame that states its length; returns its frames."""
    wave = 2 * noise(32000)
    wave[:8000] *= 0.1
    with soundfile.SoundFile(path, "w", 16000, 1, format="MP3", bitrate_mode=mode,
                             compression_level=0.5) as file:
        file.write(wave)
    content = path.read_bytes()
    second = content.find(content[:2], 4)
    while content[second + 2] & 0x0F != content[2] & 0x0F:
        second = content.find(content[:2], second + 1)
    path.write_bytes(b"ID3\4\0\0\0\0\2\0" + bytes(256) + content[second:] + b"TAG" + bytes(125))
    return len(wave)


@pytest.mark.parametrize("place", [0.0, 1.0])
def test_lengths_that_no_header_states(tmp_path: Path, place: float) -> None:
    """An MP3 of constant bitrate, with tags around it, and a FLAC as an encoder streams it."""
    config = AudioConfig(sample_rate=16000, seconds=1)
    frames = strip_header(tmp_path / "a.mp3", "CONSTANT")
    whole = read_waveform(tmp_path / "a.mp3", AudioConfig(sample_rate=16000, seconds=2.2))
    assert 0 <= int(whole.nonzero().max()) - frames < 1600
    assert read_waveform(tmp_path / "a.mp3", config, place).std() > 0.1
    strip_header(tmp_path / "a.mp3", "VARIABLE")
    assert "its bitrate varies and no header states its length" in refusal(
        read_waveform, tmp_path / "a.mp3", config, place)
    soundfile.write(tmp_path / "a.flac", 0.2 * noise(32000), 16000)
    whole = read_waveform(tmp_path / "a.flac", config, place)
    content = bytearray((tmp_path / "a.flac").read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(content)
    assert torch.equal(read_waveform(tmp_path / "a.flac", config, place), whole)
    assert measure_seconds(tmp_path / "a.flac") == 2


def test_what_writers_leave_behind_or_open_is_allowed(tmp_path: Path) -> None:
    """Tags after an OGG; sizes of a WAV that is streamed."""
    soundfile.write(tmp_path / "a.ogg", noise(16000), 16000)
    with open(tmp_path / "a.ogg", "ab") as file:
        file.write(b"TAG" + bytes(125))
    soundfile.write(tmp_path / "a.wav", noise(16000), 16000)
    with open(tmp_path / "a.wav", "r+b") as file:
        for place in (4, 40):
            file.seek(place)
            file.write(b"\xff\xff\xff\xff")
    for name in ("a.ogg", "a.wav"):
        assert read_waveform(tmp_path / name, CONFIG).std() > 0.05


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
    wave, subtype = noise({"long": 32000, "short": 399}.get(kind, 16000)), None
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
    ("truncated", "a.flac", "a.flac: "), ("truncated", "a.mp3", "breaks off after"),
    ("long", "a.wav", "breaks off after"), ("long", "a.ogg", "breaks off after"),
    ("nan", "a.wav", "holds NaN, inf"), ("1e19", "a.wav", "holds NaN, infinity or huge samples"),
    ("short", "a.wav", "399 samples at 16000 Hz; expected 25 ms (one analysis window) or more"),
    ("1 Hz", "a.wav", "a sample rate of 1 Hz; expected 1000 to 500000")])
def test_bad_files_are_named(tmp_path: Path, kind: str, name: str, message: str) -> None:
    assert "no such file" in refusal(read_waveform, tmp_path / name, CONFIG)
    write_bad(kind, tmp_path / name)
    refused = refusal(read_waveform, tmp_path / name, CONFIG)
    assert refused.startswith(f"{tmp_path / name}: ") and message in refused
