"""Sound: a file to a waveform, a waveform to Kaldi's log-mel filterbank. Formulas in torch, no torchaudio."""
import math
import os
import re
from functools import lru_cache

import soundfile
import torch

from ptm_mini.config import FRAME_LENGTH_MS, window_and_hop
from ptm_mini.data.decoding import decoding
from ptm_mini.errors import InputError

PRE_EMPHASIS = 0.97
LOWEST_HZ = 20.0                       # lower edge of the first mel filter; the last ends at half the sample rate
FLOOR = torch.finfo(torch.float32).eps  # least energy before the logarithm: digital silence becomes -15.94
ZEROS, ROLLOFF = 6, 0.99               # resampling kernel: zero crossings on each side, share of the band kept
PIECE = 1 << 16                        # frames decoded at once: a header's promises allocate nothing
UNREADABLE = soundfile.LibsndfileError, TypeError, ValueError        # the last two: of *.raw; of names, lengths that can't be
PART = 1 << 12                         # samples resampled at once: their neighbours stay in the processor's cache
RATES = 1_000, 500_000                 # Hz; a rate beyond them is a broken header, and its kernel would fill the memory
LOUDEST = 2.0 ** 32                    # floats on the scale of 32-bit integers pass; the energy of 1e19 would overflow
UNKNOWN_SIZE = 0x7FFFF000              # bytes and above in a header stand for "unknown", as streaming writers do


@decoding()
def read_waveform(source, sample_rate, samples, place=0.0):
    """Decode what is used of one clip, mix it down, resample and cut it, remove its mean and zero-pad it.

    source   a file that libsndfile reads: WAV, FLAC, OGG; any channels, any depth; or what is in one: (wave, rate), float
             [n] or [n, channels] and Hz
    place    where in a longer clip the part that is used lies: 0 at its beginning, 1 at its end
    returns  [samples] float32 at sample_rate Hz
    raises   InputError where the file is missing, no sound, breaks off within what is used or says that it does, holds NaN
             or absurdly large values there, has an absurd rate or is shorter than one window
    """
    given = isinstance(source, tuple)
    name, (wave, rate) = ("audio", source) if given else (source, decoded(source, sample_rate, samples, place))
    used = frames_used(name, rate, sample_rate, samples)
    start = round(place * max(0, len(wave) - used))
    wave = wave[start:start + used].float()
    wave = wave if wave.ndim == 1 else wave.mean(dim=1)
    if not (wave.abs() <= LOUDEST).all():
        raise InputError(f"{name}: holds NaN, infinity or samples beyond 2^32; expected finite ones, of the order of 1: "
                         f"export it again")
    if len(wave) * 1000 < FRAME_LENGTH_MS * rate:
        raise InputError(f"{name}: {len(wave)} samples at {rate} Hz; expected at least {FRAME_LENGTH_MS} ms, one "
                         f"analysis window: remove it or leave its cell empty")
    wave = resample(wave, rate, sample_rate)[:samples]
    return torch.nn.functional.pad(wave - wave.mean(), (0, samples - len(wave)))


def decoded(path, sample_rate, samples, place):
    """The frames of a sound file that reach into `samples` at sample_rate Hz, from its `place`. A long file costs no more than
    they do, and what a header says of its length allocates nothing.

    returns  [n] float32, the mean of the channels; rate in Hz
    """
    try:
        with soundfile.SoundFile(path) as file:
            rate, frames, remarks = file.samplerate, file.frames, file.extra_info
            used = frames_used(path, rate, sample_rate, samples)
            if place:
                skip(file, round(place * max(0, frames - used)))
            pieces, left = [torch.zeros(0)], used
            while left > 0 and len(piece := file.read(min(PIECE, left), dtype="float32", always_2d=True)):
                pieces.append(torch.from_numpy(piece).mean(dim=1))
                left -= len(piece)
    except InputError:
        raise
    except UNREADABLE as error:
        raise unreadable(path, error) from error
    wave = torch.cat(pieces)
    if len(wave) < min(used, frames) or is_cut_short(remarks):
        raise InputError(f"{path}: the sound breaks off after {frames if len(wave) == used else len(wave)} samples; expected "
                         f"a whole file: copy it again")
    return wave, rate


def skip(file, frames):
    """Go to a frame of a SoundFile. OGG is decoded up to there: where such a file is broken, libsndfile's own way can crash."""
    if file.format != "OGG":
        file.seek(frames)
        return
    while frames > 0 and (count := len(file.read(min(PIECE, frames), dtype="float32", always_2d=True))):
        frames -= count


def unreadable(path, error):
    """The InputError for a file that soundfile can't read, from one of UNREADABLE"""
    reason = "no such file" if not os.path.exists(path) else getattr(error, "error_string", str(error)).rstrip(".")
    return InputError(f"{path}: {reason}; expected a WAV, FLAC or OGG file")


def frames_used(name, rate, sample_rate, samples):
    """How many of a sound's first frames reach into `samples` at sample_rate Hz. Raises InputError for an absurd rate."""
    if not RATES[0] <= rate <= RATES[1]:
        raise InputError(f"{name}: its header says {rate} Hz; expected {RATES[0]} to {RATES[1]}: export it again")
    _, reach = resampling_kernel(rate, sample_rate)
    return (samples - 1) * rate // sample_rate + reach + 1


def is_cut_short(remarks):
    """Whether libsndfile's remarks say that a file holds less than its header promises; it reads such files without an
    error. Each format has a wording of its own: WAV, CAF; AIFF; AU; W64; RF64; SVX; Opus; Vorbis; VOC."""
    sizes = re.findall(r"^ *(?:data|SSND|Data Size|riff|Riff size|BODY) *: (\d+) \(should be (\d+)\)", remarks, re.MULTILINE)
    return (any(int(found) < int(promised) < UNKNOWN_SIZE for promised, found in sizes)
            or any(words in remarks for words in ("File ended unexpectedly", "Junk after the last page",
                                                  "Last page lacks an end-of-stream bit", "a truncated file")))


@lru_cache(maxsize=16)
def resampling_kernel(source, target):
    """Windowed-sinc weights, one row for each phase that an output sample can have between two input samples.

    returns  weights [phases, 2 * reach + 1] float32, reach
    """
    divisor = math.gcd(source, target)
    source, target = source // divisor, target // divisor
    cutoff = ROLLOFF * min(source, target) / source            # of the low-pass filter, in cycles per 2 input samples
    reach = math.ceil(ZEROS / cutoff) + 1
    phase = (torch.arange(target) * source % target).double()[:, None] / target
    distance = (torch.arange(-reach, reach + 1) - phase) * cutoff
    window = torch.cos(distance.clamp(-ZEROS, ZEROS) * math.pi / ZEROS / 2) ** 2        # Hann
    return (torch.sinc(distance) * window * cutoff).float(), reach


def resample(wave, source, target):
    """Resample by a Hann-windowed sinc, as torchaudio.functional.resample does by default.

    y[n] = sum_k x[k] h(k - n source/target),  h(t) = c sinc(c t) cos^2(pi c t / 12),  c = 0.99 min(1, target/source)

    wave     [samples] at `source` Hz
    returns  [ceil(samples * target / source)] at `target` Hz
    """
    if source == target:
        return wave
    weights, reach = resampling_kernel(source, target)
    n = torch.arange(math.ceil(len(wave) * target / source))
    # window k of the padded wave is centred on input sample k
    neighbours = torch.nn.functional.pad(wave, (reach, reach + 1)).unfold(0, 2 * reach + 1, 1)
    return torch.cat([(neighbours[part * source // target] * weights[part % len(weights)]).sum(dim=1)
                      for part in n.split(PART)])


def mel(hertz):
    return 1127.0 * torch.log1p(torch.as_tensor(hertz, dtype=torch.float64) / 700.0)


@lru_cache(maxsize=16)
def analysis(rate, mels):
    """What the filterbank needs at a rate, made once.

    returns  window [samples] float32, symmetric Hann; hop in samples; FFT size, the next power of two;
             filters [fft_size // 2 + 1, mels] float32: triangles evenly spaced, and triangular, on the mel scale
    """
    window, hop = window_and_hop(rate)
    fft_size = 1 << (window - 1).bit_length()
    edges = torch.linspace(mel(LOWEST_HZ), mel(rate / 2), mels + 2, dtype=torch.float64)
    frequency = mel(torch.arange(fft_size // 2 + 1) * rate / fft_size)[:, None]
    left, centre, right = edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (frequency - left) / (centre - left), (right - frequency) / (right - centre)
    filters = torch.minimum(rising, falling).clamp(min=0)
    filters[-1] = 0                                            # Kaldi leaves the Nyquist bin out
    return torch.hann_window(window, periodic=False), hop, fft_size, filters.float()


def fbank(wave, rate, mels, trace=None):
    """Kaldi log-mel filterbank: 25 ms Hann windows every 10 ms, each with its mean removed and pre-emphasised.

    One clip at a time: its frames stay in the processor's cache from step to step, those of a batch would not.

    wave     [samples]
    trace    a dict that gets the steps between: frames [T, window], windowed [T, window], power [T, fft_size / 2 + 1] and
             energy [T, M]
    returns  [T, M] natural logarithm of the energy, equal to torchaudio.compliance.kaldi.fbank
    raises   ValueError where the clip is shorter than one window
    """
    window, hop, fft_size, filters = analysis(rate, mels)
    if len(wave) < len(window):
        raise ValueError(f"a clip of {len(wave)} samples; expected {len(window)} or more, one window at {rate} Hz")
    frames = wave.unfold(0, len(window), hop)                                      # [T, window]
    centred = frames - frames.mean(dim=1, keepdim=True)
    before = torch.cat([centred[:, :1], centred[:, :-1]], dim=1)                   # Kaldi repeats the first sample
    windowed = (centred - PRE_EMPHASIS * before) * window.to(wave.dtype)
    spectrum = torch.fft.rfft(windowed, n=fft_size)                                # [T, fft_size / 2 + 1]
    power = spectrum.real.square() + spectrum.imag.square()                        # abs() would take a root to be squared
    energy = power @ filters.to(wave.dtype)                                        # [T, M]
    if trace is not None:
        trace |= {"frames": frames, "windowed": windowed, "power": power, "energy": energy}
    return energy.clamp(min=FLOOR).log()
