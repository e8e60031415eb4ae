"""Sound: a file to a waveform, a waveform to Kaldi's log-mel filterbank. No torchaudio."""
import math
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

Sound = Path | tuple[torch.Tensor, int]    # a file, or float samples [n] or [n, channels] and Hz


def read_waveform(source: Sound, config: AudioConfig, place: float = 0.0) -> torch.Tensor:
    """Decode the used part of a sound, mix it down, resample and cut it, remove its mean, zero-pad.

    place    where in a longer sound the used part lies: 0 at its beginning, 1 at its end
    returns  [samples] float32 at config.sample_rate
    raises   InputError where a file is missing, no sound or broken, or its used part unusable
    """
    if isinstance(source, Path):
        name, (wave, rate) = source, decode(source, config, place)
    else:
        name, (wave, rate) = "audio", source
        start, end = used_part(len(wave), rate, config, place)
        wave = wave[start:end].float()
        wave = wave if wave.ndim == 1 else wave.mean(dim=1)
    if not (wave.abs() < 1e10).all():        # nor is NaN; the energy of 1e19 would overflow
        raise InputError(f"{name}: holds NaN, infinity or huge samples; expected finite ones, of "
                         f"the order of 1: export it again")
    if len(wave) * 1000 < FRAME_LENGTH_MS * rate:
        raise InputError(f"{name}: {len(wave)} samples at {rate} Hz; expected {FRAME_LENGTH_MS} ms "
                         f"(one analysis window) or more: remove it or leave its cell empty")
    wave = resample(wave, rate, config.sample_rate)[:config.samples]
    return F.pad(wave - wave.mean(), (0, config.samples - len(wave)))


def decode(path: Path, config: AudioConfig, place: float) -> tuple[torch.Tensor, int]:
    """Decode the used part of a file: [n] mean of its channels, rate in Hz."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected a WAV, FLAC or OGG file")
    try:
        with soundfile.SoundFile(path) as file:
            # Seeking is not exact in MP3: read from the beginning, and without soundfile's seek
            # after each read, which it leaves out where a file is not seekable.
            file.seekable = lambda: False
            start, end = used_part(file.frames, file.samplerate, config, place)
            position, pieces = 0, [torch.zeros(0)]
            while position < end:
                piece = file.read(min(PIECE, end - position), dtype="float32", always_2d=True)
                if not len(piece):
                    break
                pieces.append(torch.from_numpy(piece[max(0, start - position):]).mean(dim=1))
                position += len(piece)
            slack = file.samplerate // 10 if file.format == "MP3" else 0    # frames: an estimate
            whole = position >= min(end, file.frames) - slack and not breaks_off(file.extra_info)
    except (soundfile.LibsndfileError, TypeError, ValueError) as error:
        raise InputError(f"{path}: {str(error).rstrip('.')}; expected a WAV, FLAC or OGG "
                         f"file") from error
    if not whole:
        raise InputError(f"{path}: the sound breaks off after {position} samples; expected a whole "
                         f"file: copy it again")
    return torch.cat(pieces), file.samplerate


def used_part(frames: int, rate: int, config: AudioConfig, place: float) -> tuple[int, int]:
    """Find the frames that reach into config.samples: the first one, and the one after the last."""
    if not 1_000 <= rate <= 500_000:         # a broken header: its kernel might need any memory
        raise InputError(f"sample rate {rate} Hz is not between 1000 and 500000")
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
    return (any(int(found) < int(promised) < 0x7FFFF000 for promised, found in sizes)
            or "Junk after the last page" in remarks                # OGG, as the next one
            or "Last page lacks an end-of-stream bit" in remarks)


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
