"""Sound: a file to a waveform, a waveform to Kaldi's log-mel filterbank. No torchaudio."""
import math
import os
import re
from functools import lru_cache
from pathlib import Path

import soundfile
import torch
from torch.nn import functional as F

from ptm_mini.config import FRAME_LENGTH_MS, AudioConfig
from ptm_mini.errors import InputError

PRE_EMPHASIS = 0.97
LOWEST_HZ = 20.0                # lower edge of the first mel filter; the last ends at half the rate
FLOOR = torch.finfo(torch.float32).eps    # least energy before the logarithm: silence is -15.94
ZEROS, ROLLOFF = 6, 0.99        # resampling: zero crossings on each side, share of the band kept
PIECE = 1 << 16                 # frames decoded at once: long files cost no more than short ones
RATES = 1_000, 500_000          # Hz; a rate beyond them is a broken header
LOUDEST = 2.0 ** 32             # louder samples are no sound: the energy of 1e19 would overflow
UNREADABLE = soundfile.LibsndfileError, TypeError, ValueError    # raised for files it can't read
UNKNOWN_SIZE = 0x7FFFF000       # bytes and above in a header: unknown, as streaming writers do

Sound = Path | tuple[torch.Tensor, int]    # a file, or float samples [n] or [n, channels] and Hz


def read_waveform(source: Sound, config: AudioConfig, place: float = 0.0) -> torch.Tensor:
    """Decode the used part of a sound, mix it down, resample and cut it, remove its mean, zero-pad.

    source   a file that libsndfile reads, of any channels and depth, or what is in one
    place    where in a longer sound the used part lies: 0 at its beginning, 1 at its end
    returns  [samples] float32 at config.sample_rate
    raises   InputError where the file is missing, no sound or breaks off, where the used part
             holds NaN or absurdly large values or is shorter than one window
    """
    name = source if isinstance(source, Path) else "audio"
    if isinstance(source, Path):
        wave, rate = decode(source, config, place)
    else:
        wave, rate = source
        used = frames_used(name, rate, config)
        start = round(place * max(0, len(wave) - used))
        wave = wave[start:start + used].float()
        wave = wave if wave.ndim == 1 else wave.mean(dim=1)
    if not (wave.abs() <= LOUDEST).all():
        raise InputError(f"{name}: holds NaN, infinity or samples beyond 2^32; expected finite "
                         f"ones, of the order of 1: export it again")
    if len(wave) * 1000 < FRAME_LENGTH_MS * rate:
        raise InputError(f"{name}: {len(wave)} samples at {rate} Hz; expected {FRAME_LENGTH_MS} ms "
                         f"(one analysis window) or more: remove it or leave its cell empty")
    wave = resample(wave, rate, config.sample_rate)[:config.samples]
    return F.pad(wave - wave.mean(), (0, config.samples - len(wave)))


def decode(path: Path, config: AudioConfig, place: float) -> tuple[torch.Tensor, int]:
    """Decode the frames of a file that reach into config.samples: [n] channel mean, rate in Hz."""
    try:
        with soundfile.SoundFile(path) as file:
            rate, frames, remarks = file.samplerate, file.frames, file.extra_info
            used = frames_used(path, rate, config)
            slack = rate // 10 if file.format == "MP3" else 0      # its length may be an estimate
            start, position, pieces = round(place * max(0, frames - used)), 0, [torch.zeros(0)]
            # From the beginning: seeking in a compressed file is not exact.
            while position < start + used:
                count = min(PIECE, (start if position < start else start + used) - position)
                piece = file.read(count, dtype="float32", always_2d=True)
                if not len(piece):
                    break
                if position >= start:
                    pieces.append(torch.from_numpy(piece).mean(dim=1))
                position += len(piece)
    except InputError:
        raise
    except UNREADABLE as error:
        reason = "no such file" if not os.path.exists(path) else str(error).rstrip(".")
        raise InputError(f"{path}: {reason}; expected a WAV, FLAC or OGG file") from error
    if position < min(start + used, frames) - slack or breaks_off(remarks):
        raise InputError(f"{path}: the sound breaks off after {position} samples; expected a whole "
                         f"file: copy it again")
    return torch.cat(pieces), rate


def frames_used(name: object, rate: int, config: AudioConfig) -> int:
    """Count the frames that reach into config.samples. Raises InputError for an absurd rate."""
    if not RATES[0] <= rate <= RATES[1]:
        raise InputError(f"{name}: its header says {rate} Hz; expected {RATES[0]} to {RATES[1]}: "
                         f"export it again")
    _, reach = resampling_kernel(rate, config.sample_rate)
    return (config.samples - 1) * rate // config.sample_rate + reach + 1


def breaks_off(remarks: str) -> bool:
    """Whether libsndfile remarks that a file holds less than its header promises.

    It reads such files without an error; each format (WAV, AIFF, AU, OGG, ...) has its own wording.
    """
    sizes = re.findall(r"^ *(?:data|SSND|Data Size|riff|Riff size|BODY) *: "
                       r"(\d+) \(should be (\d+)\)", remarks, re.MULTILINE)
    return (any(int(found) < int(promised) < UNKNOWN_SIZE for promised, found in sizes)
            or any(words in remarks for words in (
                "File ended unexpectedly", "Junk after the last page", "a truncated file",
                "Last page lacks an end-of-stream bit")))


@lru_cache(maxsize=16)
def resampling_kernel(source: int, target: int) -> tuple[torch.Tensor, int]:
    """Windowed-sinc weights for resampling from one rate to another.

    returns  weights [phases, 2 * reach + 1], a row for each phase that an output sample can have
             between two input samples; reach
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
