"""Files that people really have: the whole ones are read right, the broken ones named."""
from collections import Counter

import numpy as np
import pytest
import soundfile
from PIL import Image

from data_prep import folder

SOUNDS = [("wav", "PCM_U8"), ("wav", "PCM_24"), ("wav", "FLOAT"), ("wav", "DOUBLE"),
          ("wav", "ULAW"), ("wav", "IMA_ADPCM"), ("flac", "PCM_24"), ("ogg", "VORBIS"),
          ("ogg", "OPUS"), ("aiff", "PCM_16"), ("au", "FLOAT"), ("caf", "PCM_24"),
          ("w64", "PCM_16"), ("rf64", "PCM_32"), ("mp3", "MPEG_LAYER_III")]
IMAGES = [("png", "1"), ("png", "LA"), ("png", "P"), ("png", "RGBA"), ("jpg", "L"), ("jpg", "CMYK"),
          ("tiff", "1"), ("tiff", "RGBA"), ("gif", "P"), ("webp", "RGBA"), ("bmp", "RGB"),
          ("ppm", "L"), ("tga", "RGBA"), ("jp2", "RGB")]
RATES = (8000, 16000, 24000, 48000)                          # that every format has
SIZES = ((2, 2), (28, 28), (3, 200), (640, 480))


def write_sound(path, depth="PCM_16", seconds=0.3, rate=16000, channels=1, last=0.0):
    """Write noise with a given last sample."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(list(path.name.encode()))
    noise = generator.uniform(-0.5, 0.5, (round(rate * seconds), channels))
    noise[-1] = last
    soundfile.write(path, noise, rate, subtype=depth)


def write_image(path, mode="RGB", size=(40, 40)):
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(list(path.name.encode()))
    noise = generator.integers(0, 256, (*size[::-1], 4), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(path)


def test_nothing_that_can_be_read_is_left_out(tmp_path, prepare):
    kinds = Counter()
    for n in range(30):
        rate, channels = RATES[n % len(RATES)], 1 + n // 4 % 2
        kinds[f"{rate} Hz, channels: {channels}"] += 1
        suffix, depth = SOUNDS[n % len(SOUNDS)]
        write_sound(tmp_path / f"audio/{'ab'[n % 2]}/{n}.{suffix}", depth, 0.1 + n / 30, rate,
                    channels)
        suffix, mode = IMAGES[n % len(IMAGES)]
        write_image(tmp_path / f"image/{'ab'[n % 2]}/{n}.{suffix}", mode, SIZES[n % len(SIZES)])
    rows, report = prepare(folder, tmp_path)
    assert not report["left_out"] and len(rows) == 30
    assert report["audio"]["kinds"] == kinds
    assert report["audio"]["least, median, most"] == pytest.approx([0.1, 0.6, 1.1], abs=0.1)
    assert set(report["image"]["kinds"]) == {f"{width}x{height}" for width, height in SIZES}


def test_each_broken_file_is_named_in_one_line_and_none_gets_in(tmp_path, prepare):
    for n in range(24):
        write_sound(tmp_path / f"audio/{'ab'[n % 2]}/{n}.wav")
        write_image(tmp_path / f"image/{'ab'[n % 2]}/{n}.png")
    sounds, images = tmp_path / "audio/a", tmp_path / "image/a"
    whole = set(sounds.iterdir()) | set(images.iterdir())
    write_sound(sounds / "NaN.wav", "FLOAT", last=np.nan)
    write_sound(sounds / "late infinity.wav", "DOUBLE", seconds=70, last=np.inf)
    write_sound(sounds / "loud.wav", "FLOAT", last=1e30)
    write_sound(sounds / "short.wav", seconds=0.02)
    write_sound(sounds / "late.flac", seconds=70)
    (sounds / "late.flac").write_bytes((sounds / "late.flac").read_bytes()[:-2000])
    write_image(images / "one pixel.png", size=(1, 1))
    for path in (sounds / "empty.wav", sounds / "text.wav", images / "empty.png"):
        path.write_text("no sound\n" * ("text" in path.name))
    for suffix, depth in SOUNDS[6:]:
        path = sounds / f"half {suffix} {depth}.{suffix}"
        write_sound(path, depth, seconds=5)
        path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    for suffix in ("png", "jpg", "gif", "webp", "tiff", "bmp", "ppm", "tga"):
        path = images / f"half {suffix}.{suffix}"
        write_image(path, size=(200, 200))
        path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])
    broken = (set(sounds.iterdir()) | set(images.iterdir())) - whole
    _, report = prepare(folder, tmp_path, "--keep-unpaired")
    reasons = [line for line in report["left_out"] if " (a): no " not in line]
    assert report["samples"] == 24 and len(reasons) == len(broken) > 20
    for path in broken:
        (reason,) = [line for line in reasons if f"{path}: " in line]
        assert "\n" not in reason and "; expected" in reason
