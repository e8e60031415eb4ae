"""Sound: a file to a waveform, a waveform to Kaldi's log-mel filterbank. No torchaudio."""
import math
import mmap
import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import numpy as np
import soundfile
import torch
from torch.nn import functional as F

from ptm_mini.config import FRAME_LENGTH_MS, AudioConfig
from ptm_mini.errors import InputError

PRE_EMPHASIS = 0.97
LOWEST_HZ = 20.0                # lower edge of the first mel filter; the last ends at half the rate
FLOOR = torch.finfo(torch.float32).eps    # least energy before the logarithm: silence is -15.94
ZEROS, ROLLOFF = 6, 0.99        # resampling: zero crossings on each side, share of the band kept
UNKNOWN = 2 ** 63 - 1           # frames: a FLAC header left the length open
PIECE = 1 << 16                 # frames decoded at once: long files cost no more than short ones

Sound = Path | tuple[torch.Tensor, int]    # a file, or float samples [n] or [n, channels] and Hz


def read_waveform(source: Sound, config: AudioConfig, place: float = 0.0) -> torch.Tensor:
    """Decode the used part of a sound, mix it down, resample and cut it, remove its mean, zero-pad.

    place    where in a longer sound the used part lies: 0 at its beginning, 1 at its end
    returns  [samples] float32 at config.sample_rate; with pad_log_mel not zero-padded
    raises   InputError where a file is missing, no sound or broken, or its used part unusable
    """
    if isinstance(source, Path):
        name, (wave, rate) = source, decode(source, config, place)
    else:
        name, (wave, rate) = "audio", source
        start, end = used_part(name, len(wave), rate, config, place)
        wave = wave[start:end].float()
        wave = wave if wave.ndim == 1 else wave.mean(dim=1)
    if not (wave.abs() < 1e10).all():      # NaN fails too; the energy of 1e19 overflows
        raise InputError(f"{name}: holds NaN, infinity or huge samples; expected finite ones, of "
                         f"the order of 1: export it again")
    if len(wave) * 1000 < FRAME_LENGTH_MS * rate:
        raise InputError(f"{name}: {len(wave)} samples at {rate} Hz; expected {FRAME_LENGTH_MS} ms "
                         f"(one analysis window) or more: remove it or leave its cell empty")
    wave = resample(wave, rate, config.sample_rate)[:config.samples]
    silence = 0 if config.pad_log_mel else config.samples - len(wave)
    return F.pad(wave - wave.mean(), (0, silence))


def decode(path: Path, config: AudioConfig, place: float) -> tuple[torch.Tensor, int]:
    """Decode the used part of a file: [n] mean of its channels, rate in Hz."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a WAV, FLAC or OGG file")
    try:
        with soundfile.SoundFile(path) as file:
            frames, position, pieces = file.frames, 0, [torch.zeros(0)]
            known = frames < UNKNOWN and (file.format != "MP3"
                                          or mp3_states_length(path, file.extra_info))
            if place and not known:
                frames = count_frames(path)
            start, end = used_part(path, frames, file.samplerate, config, place)
            for piece in read_pieces(file, end):
                pieces.append(torch.from_numpy(piece[max(0, start - position):]).mean(dim=1))
                position += len(piece)
            whole = (ogg_is_whole(path) if file.format == "OGG" else
                     not breaks_off(file.extra_info))
    except (soundfile.LibsndfileError, TypeError, ValueError) as error:
        raise InputError(f"{path}: {str(error).rstrip('.')}; expected a WAV, FLAC or OGG "
                         f"file") from error
    if not whole or known and position < min(end, frames):
        raise InputError(f"{path}: the sound breaks off after {position} samples; expected a whole "
                         f"file: copy it again")
    return torch.cat(pieces), file.samplerate


def read_pieces(file: soundfile.SoundFile, end: int) -> Iterator[np.ndarray]:
    """Yield a sound's first `end` frames in pieces [up to PIECE, channels] float32."""
    # Seeking is not exact in MP3: read from the beginning, and without the seek after each read,
    # which soundfile leaves out where a file is not seekable.
    file.seekable = lambda: False
    while end > 0 and len(piece := file.read(min(PIECE, end), dtype="float32", always_2d=True)):
        yield piece
        end -= len(piece)


def count_frames(path: Path) -> int:
    """Decode a file to its end."""
    with soundfile.SoundFile(path) as file:
        return sum(map(len, read_pieces(file, UNKNOWN)))


def measure_seconds(path: Path) -> float:
    """Take a sound's length from its header, or count where that leaves it open."""
    info = soundfile.info(path)
    return (info.frames if info.frames < UNKNOWN else count_frames(path)) / info.samplerate


def mp3_states_length(path: Path, remarks: str) -> bool:
    """Whether the first frame of an MP3 states how many there are; else libsndfile guesses.

    remarks  libsndfile's, which have the bytes of the first frame
    raises   InputError where the bitrate varies, so that libsndfile would stop at a wrong guess
    """
    with open(path, "rb") as file:
        content, start = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), 0
    if content[:3] == b"ID3":                     # a tag, whose size has 7 bits a byte
        start = 10 + sum(byte << 7 * (3 - i) for i, byte in enumerate(content[6:10]))
    start = content.find(b"\xff", start)
    if re.search(b"Xing|Info|VBRI", content[start:start + 200]):
        return True
    first, padding = content[start + 2], 2        # the bits of bitrate, rate and padding by a byte
    size = int(re.search(r"framesize *: (\d+)", remarks)[1]) - bool(first & padding)
    while start + 2 < len(content) and (content[start + 2] ^ first) & 0xFC == 0:
        start += size + bool(content[start + 2] & padding)
    if start < 0.9 * len(content):                # the rest may be tags
        raise InputError(f"{path}: its bitrate varies and no header states its length; expected a "
                         f"header, as every encoder writes it: convert it to WAV")
    return False


def used_part(name: object, frames: int, rate: int, config: AudioConfig,
              place: float) -> tuple[int, int]:
    """Find the frames that reach into config.samples: the first one, and the one after the last."""
    if not 1_000 <= rate <= 500_000:         # a broken header: its kernel might need any memory
        raise InputError(f"{name}: a sample rate of {rate} Hz; expected 1000 to 500000: export it "
                         f"again")
    _, reach = resampling_kernel(rate, config.sample_rate)
    used = (config.samples - 1) * rate // config.sample_rate + reach + 1
    start = round(place * max(0, frames - used))
    return start, start + used


def breaks_off(remarks: str) -> bool:
    """Whether libsndfile remarks that a file holds less than its header promises.

    It reads such files without an error. Streaming writers promise 2 GB or more, for unknown.
    """
    sizes = re.findall(r"^ *(?:data|SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)",
                       remarks, re.MULTILINE)                       # WAV, AIFF, AU, W64, RF64
    return any(int(found) < int(promised) < 0x7FFFF000 for promised, found in sizes)


def ogg_is_whole(path: Path) -> bool:
    """Whether the last page of an OGG file is whole, and marked as the last; tags may follow it."""
    tail = bytes(np.memmap(path, mode="r")[-1 << 17:])              # more than a page can have
    page = tail[max(0, tail.rfind(b"OggS")):]
    segments = page[27:27 + page[26]] if len(page) > 26 else b""    # the sizes of its parts
    return bool(segments) and page[5] & 4 > 0 and len(page) >= 27 + len(segments) + sum(segments)


@lru_cache(maxsize=16)
def resampling_kernel(source: int, target: int) -> tuple[torch.Tensor, int]:
    """Compute windowed-sinc weights [phases, 2 * reach + 1], and reach.

    A phase is where an output sample can lie between two input samples.
    """
    divisor = math.gcd(source, target)
    source, target = source // divisor, target // divisor
    cutoff = ROLLOFF * min(source, target) / source    # of the low-pass, in cycles per 2 samples
    reach = math.ceil(ZEROS / cutoff) + 1
    phase = (torch.arange(target) * source % target).double()[:, None] / target
    distance = (torch.arange(-reach, reach + 1) - phase) * cutoff
    window = torch.cos(distance.clamp(-ZEROS, ZEROS) * math.pi / ZEROS / 2) ** 2        # Hann
    return (torch.sinc(distance) * window * cutoff).float(), reach


def resample(wave: torch.Tensor, source: int, target: int) -> torch.Tensor:
    """Resample by a Hann-windowed sinc, as torchaudio.functional.resample does by default.

    y[n] = sum_k x[k] h(k - n source/target)
    h(t) = c sinc(c t) cos^2(pi c t / 12),  c = 0.99 min(1, target/source)

    wave     [samples] at `source` Hz
    returns  [ceil(samples * target / source)] at `target` Hz
    """
    if source == target:
        return wave
    weights, reach = resampling_kernel(source, target)
    n = torch.arange(math.ceil(len(wave) * target / source))
    # window k of the padded wave is centred on input sample k
    windows = F.pad(wave, (reach, reach + 1)).unfold(0, 2 * reach + 1, 1)
    return torch.cat([(windows[part * source // target] * weights[part % len(weights)]).sum(dim=1)
                      for part in n.split(1 << 12)])    # parts that fit the processor's cache


def mel(hertz: float | torch.Tensor) -> torch.Tensor:
    return 1127.0 * torch.log1p(torch.as_tensor(hertz, dtype=torch.float64) / 700.0)


@lru_cache(maxsize=16)
def mel_filters(rate: int, fft_size: int, mels: int) -> torch.Tensor:
    """[fft_size // 2 + 1, mels]: filters evenly spaced, and triangular, on the mel scale."""
    edges = torch.linspace(mel(LOWEST_HZ), mel(rate / 2), mels + 2, dtype=torch.float64)
    frequency = mel(torch.arange(fft_size // 2 + 1) * rate / fft_size)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (frequency - left) / (centre - left), (right - frequency) / (right - centre)
    filters = torch.minimum(rising, falling).clamp(min=0)
    filters[-1] = 0                                     # Kaldi leaves the Nyquist bin out
    return filters.float()


def fbank(wave: torch.Tensor, config: AudioConfig,
          steps: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
    """Kaldi log-mel filterbank: 25 ms Hann windows every 10 ms, centred and pre-emphasised.

    wave     [samples] at config.sample_rate
    steps    a dict that receives the steps between, for docs/porting.md: frames, windowed, power,
             energy
    returns  [T, M] natural logarithm of the energy, as torchaudio.compliance.kaldi.fbank gives it
    """
    window, hop = config.window_and_hop
    fft_size = 1 << (window - 1).bit_length()                                # next power of two
    frames = wave.unfold(0, window, hop)                                     # [T, window]
    centred = frames - frames.mean(dim=1, keepdim=True)
    before = torch.cat([centred[:, :1], centred[:, :-1]], dim=1)             # first one repeated
    windowed = (centred - PRE_EMPHASIS * before) * torch.hann_window(window, periodic=False)
    spectrum = torch.fft.rfft(windowed, n=fft_size)                          # [T, fft_size / 2 + 1]
    power = spectrum.real.square() + spectrum.imag.square()
    energy = power @ mel_filters(config.sample_rate, fft_size, config.mels)  # [T, M]
    if steps is not None:
        steps |= {"frames": frames, "windowed": windowed, "power": power, "energy": energy}
    return energy.clamp(min=FLOOR).log()
