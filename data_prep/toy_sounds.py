"""Sounds of the toy set: one recipe a class, from oscillators and filtered noise.

A recipe draws what belongs to the recording (pitch, rate, timbre) from `source` and what differs between its slices
(onset, jitter, noise) from `generator`. It takes t [samples] in seconds and returns a wave [samples] of any level.
"""
import numpy as np

SECONDS = (0.8, 1.3)                     # a clip's length


def band_noise(t, low, high, generator):
    """White noise between two frequencies in Hz, peak 1."""
    samples = -(-len(t) // 1024) * 1024                            # a length that the FFT is fast at
    spectrum = np.fft.rfft(generator.standard_normal(samples, dtype=np.float32))
    hertz = np.fft.rfftfreq(samples, t[1])
    spectrum[(hertz < low) | (hertz > high)] = 0
    wave = np.fft.irfft(spectrum)[:len(t)].astype(np.float32)
    return wave / (np.abs(wave).max() + 1e-9)


def harmonics(phase, slope, count):
    """A tone with overtones, sum_n n^-slope sin(n phase), by Horner's rule; phase [samples] in radians."""
    tone = np.exp(1j * phase.astype(np.float32), dtype=np.complex64)
    wave = np.zeros_like(tone)
    for n in range(count, 0, -1):
        wave = (wave + np.float32(n ** -slope)) * tone
    return wave.imag


def glide(t, hertz):
    """Phase of a tone whose frequency [samples] changes over time."""
    return 2 * np.pi * np.cumsum(hertz) * t[1]


def burst(t, start, attack, decay):
    """An envelope that rises from `start` within `attack` seconds and falls off with time constant `decay`."""
    since = t - start
    return np.clip(since / attack, 0, 1) * np.exp(-np.clip(since, 0, None) / decay) * (since > 0)


def air_conditioner(t, source, generator):
    hum = harmonics(2 * np.pi * source.uniform(90, 130) * t, 1.2, 5)
    return band_noise(t, 60, source.uniform(700, 1600), generator) + source.uniform(0.1, 0.3) * hum


def car_horn(t, source, generator):
    low, ratio = source.uniform(330, 480), source.uniform(1.2, 1.3)
    tone = harmonics(2 * np.pi * low * t, 0.7, 8) + harmonics(2 * np.pi * low * ratio * t, 0.7, 8)
    start, length = generator.uniform(0, 0.3), generator.uniform(0.25, 0.6)
    return tone * ((t > start) & (t < start + length))


def children_playing(t, source, generator):
    wave = np.zeros_like(t)
    for _ in range(generator.integers(4, 8)):
        start, length = generator.uniform(0, t[-1]), generator.uniform(0.12, 0.3)
        vibrato = 1 + 0.25 * np.sin(2 * np.pi * (t - start) / length)
        pitch = source.uniform(350, 600) * generator.uniform(0.8, 1.6) * vibrato
        wave += harmonics(glide(t, pitch), 1.0, 5) * burst(t, start, 0.04, length / 2)
    return wave


def dog_bark(t, source, generator):
    pitch, gap = source.uniform(350, 700), source.uniform(0.22, 0.4)
    wave = np.zeros_like(t)
    for start in np.arange(generator.uniform(0, 0.25), t[-1], gap):
        envelope = burst(t, start, 0.02, 0.06)
        falling = pitch * (1 + 0.6 * np.exp(-np.clip(t - start, 0, None) / 0.05))
        wave += envelope * (harmonics(glide(t, falling), 0.8, 6) + band_noise(t, 500, 3000, generator))
    return wave


def drilling(t, source, generator):
    pitch = source.uniform(150, 260) * (1 + 0.1 * np.sin(2 * np.pi * source.uniform(0.5, 2) * t + generator.uniform(0, 6)))
    return harmonics(glide(t, pitch), 0.5, 12) + source.uniform(1, 2) * band_noise(t, 1500, 6000, generator)


def engine_idling(t, source, generator):
    rate = source.uniform(22, 38)
    pulses = np.exp(-((rate * t + generator.uniform()) % 1) * 5)
    return pulses * (band_noise(t, 40, 400, generator) + harmonics(2 * np.pi * 3 * rate * t, 1.0, 4) * 0.5)


def gun_shot(t, source, generator):
    start = generator.uniform(0, 0.5)
    crack = burst(t, start, 0.002, source.uniform(0.04, 0.12)) * band_noise(t, 100, 6000, generator)
    return crack + 0.4 * burst(t, start, 0.005, source.uniform(0.15, 0.3)) * band_noise(t, 60, 800, generator)


def jackhammer(t, source, generator):
    rate = source.uniform(9, 16)
    blows = np.exp(-((rate * t + generator.uniform()) % 1) * 6)
    return blows * (band_noise(t, 200, source.uniform(3000, 6000), generator)
                    + 0.5 * np.sin(2 * np.pi * source.uniform(500, 900) * t))


def siren(t, source, generator):
    sweep = np.sin(2 * np.pi * source.uniform(0.7, 3) * t + generator.uniform(0, 6))
    return harmonics(glide(t, source.uniform(700, 1100) * (1 + 0.35 * sweep)), 1.3, 4)


def street_music(t, source, generator):
    root, beat = source.uniform(180, 330), source.uniform(0.14, 0.24)
    wave = np.zeros_like(t)
    for start in np.arange(generator.uniform(0, beat), t[-1], beat):
        for note in generator.choice([0, 2, 4, 7, 9, 12], size=2, replace=False):
            wave += harmonics(2 * np.pi * root * 2 ** (note / 12) * (t - start), 1.1, 5) * burst(t, start, 0.01, 0.15)
    return wave


RECIPES = {recipe.__name__: recipe for recipe in (
    air_conditioner, car_horn, children_playing, dog_bark, drilling, engine_idling, gun_shot, jackhammer, siren,
    street_music)}


def make_sound(name, rate, source, generator):
    """One clip of a class: its recipe, a second source 4 to 16 dB fainter, noise, and a level. returns [samples]"""
    t = np.arange(round(rate * generator.uniform(*SECONDS)), dtype=np.float32) / rate
    other = generator.choice([other for other in RECIPES if other != name])
    wave = unit(RECIPES[name](t, source, generator))
    wave += 10 ** (generator.uniform(-16, -4) / 20) * unit(RECIPES[other](t, generator, generator))
    wave += 10 ** (generator.uniform(-20, 0) / 20) * unit(band_noise(t, 20, generator.uniform(500, rate / 2), generator))
    return np.clip(unit(wave) * 0.15 * 10 ** (generator.uniform(-20, 0) / 20), -1, 1)


def unit(wave):
    """Scaled to root-mean-square 1"""
    return wave / (np.sqrt(np.mean(wave ** 2)) + 1e-9)
