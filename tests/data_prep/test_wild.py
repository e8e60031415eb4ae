"""Files that people really have: the whole ones are read right, the broken ones named."""
import io
import struct
import zlib
from collections import Counter

import numpy as np
import pytest
import soundfile
from PIL import Image

from data_prep import folder
from data_prep.shared import examine_sound

SOUNDS = [("WAV", "PCM_U8"), ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "FLOAT"),
          ("WAV", "DOUBLE"), ("WAV", "ULAW"), ("WAV", "IMA_ADPCM"), ("WAV", "GSM610"),
          ("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"),
          ("AIFF", "PCM_16"), ("AU", "FLOAT"), ("CAF", "PCM_24"), ("W64", "PCM_16"),
          ("RF64", "PCM_32"), ("MP3", "MPEG_LAYER_III")]
RATES = (8000, 16000, 24000, 48000)                          # that every format has
IMAGES = [("PNG", "1"), ("PNG", "L"), ("PNG", "LA"), ("PNG", "P"), ("PNG", "RGBA"),
          ("PNG", "I;16"), ("JPEG", "L"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("TIFF", "1"),
          ("TIFF", "LAB"), ("TIFF", "RGBA"), ("GIF", "P"), ("WEBP", "RGBA"), ("BMP", "RGB"),
          ("PPM", "L"), ("TGA", "RGBA"), ("JPEG2000", "RGB")]
SIZES = ((2, 2), (28, 28), (32, 33), (3, 200), (640, 480))


def encode_sound(kind="WAV", depth="PCM_16", seconds=0.3, rate=16000, channels=1, last=None,
                 seed=0):
    """Encode noise whose last sample may be given."""
    noise = np.random.default_rng(seed).uniform(-0.5, 0.5, (round(rate * seconds), channels))
    if last is not None:
        noise[-1] = last
    buffer = io.BytesIO()
    soundfile.write(buffer, noise, rate, subtype=depth, format=kind)
    return buffer.getvalue()


def encode_image(kind="PNG", mode="RGB", size=(40, 40), seed=0):
    width, height = size
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 4), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(noise[..., :2].copy().view(np.uint16)[..., 0])
    elif mode == "LAB":
        image = Image.frombytes("LAB", size, noise[..., :3].tobytes())
    else:
        image = Image.fromarray(noise).convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


def write_file(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def half(content):
    return content[:len(content) // 2]


def png(width, height, data=b"not deflated", wrong=0):
    def chunk(name, content):
        check = zlib.crc32(name + content) ^ wrong
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", check)
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data)
            + chunk(b"IEND", b""))


BROKEN_SOUNDS = {
    "empty.wav": b"", "text.wav": b"this is a sound\n" * 50, "image.wav": encode_image(),
    "cut header.wav": encode_sound()[:30], "too short.wav": encode_sound(seconds=0.02),
    "NaN.wav": encode_sound(depth="FLOAT", last=np.nan),
    "infinite.wav": encode_sound(depth="DOUBLE", last=np.inf),
    "late NaN.wav": encode_sound(depth="FLOAT", seconds=5, last=np.nan),
    "huge.wav": encode_sound(depth="FLOAT", last=1e30),
    "late.flac": encode_sound("FLAC", seconds=9)[:-2000],
    **{f"half {kind}.{kind.lower()}": half(encode_sound(kind, seconds=1))
       for kind in ("WAV", "FLAC", "AIFF", "CAF", "W64", "RF64", "AU")},
    "half OGG.ogg": half(encode_sound("OGG", "VORBIS", seconds=1)),
    "half MP3.mp3": half(encode_sound("MP3", "MPEG_LAYER_III", seconds=5))}
BROKEN_IMAGES = {
    "empty.png": b"", "text.jpg": b"<html>404</html>\n", "sound.png": encode_sound(),
    "checksum.png": png(10, 10, zlib.compress(bytes(310)), wrong=1), "deflated.png": png(10, 10),
    "less.png": png(99, 99, zlib.compress(bytes(100))), "huge.png": png(60_000, 60_000),
    "one pixel.png": encode_image(size=(1, 1)),
    **{f"half {kind}.{kind.lower()}": half(encode_image(kind, size=(200, 200)))
       for kind in ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "TGA")}}


def test_what_can_be_read_is_read_right(tmp_path, prepare):
    facts = {"hertz": Counter(), "channels": Counter()}
    for n in range(36):
        kind, depth = SOUNDS[n % len(SOUNDS)]
        rate, channels = RATES[n % len(RATES)], 1 if depth == "GSM610" else 1 + n % 2
        facts["hertz"][str(rate)] += 1
        facts["channels"][str(channels)] += 1
        sound = encode_sound(kind, depth, 0.1 + n / 10, rate, channels, seed=n)
        write_file(tmp_path / f"audio/{'ab'[n % 2]}/{n}.{kind.lower()}", sound)
        kind, mode = IMAGES[n % len(IMAGES)]
        image = encode_image(kind, mode, SIZES[n % len(SIZES)], seed=n)
        suffix = {"JPEG2000": "jp2"}.get(kind, kind.lower())
        write_file(tmp_path / f"image/{'ab'[n % 2]}/{n}.{suffix}", image)
    rows, report = prepare(folder, tmp_path)
    assert not report["unreadable"] and not report["left_aside"] and len(rows) == 36
    assert facts == {key: report["audio"][key] for key in facts}
    seconds = report["audio"]["seconds (least, median, most)"]
    assert seconds == pytest.approx([0.1, 1.85, 3.6], abs=0.1)
    assert set(report["image"]["pixels"]) == {f"{width}x{height}" for width, height in SIZES}


def test_an_mp3_without_the_header_that_knows_its_length_is_read_whole(tmp_path):
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", 44100, 1, "MPEG_LAYER_III", format="MP3",
                             bitrate_mode="CONSTANT", compression_level=0.5) as file:
        file.write(np.random.default_rng(0).uniform(-0.2, 0.2, 4 * 44100))
    content = buffer.getvalue()
    second = content.index(content[:2], 4)                   # a frame begins with 11 set bits
    assert b"Info" in content[:second]
    (tmp_path / "1.mp3").write_bytes(content[second:] + b"TAG" + bytes(125))
    assert examine_sound(tmp_path / "1.mp3").seconds == pytest.approx(4, abs=0.1)


def test_each_broken_file_is_named_in_one_line_and_none_gets_in(tmp_path, prepare):
    for n in range(24):
        write_file(tmp_path / f"audio/{'ab'[n % 2]}/{n}.wav", encode_sound(seed=n))
        write_file(tmp_path / f"image/{'ab'[n % 2]}/{n}.png", encode_image(seed=n))
    for name, content in BROKEN_SOUNDS.items():
        write_file(tmp_path / "audio/a" / f"sound {name}", content)
    for name, content in BROKEN_IMAGES.items():
        write_file(tmp_path / "image/a" / f"image {name}", content)
    rows, report = prepare(folder, tmp_path, "--keep-unpaired")
    names = [f"/sound {name}: " for name in BROKEN_SOUNDS]
    names += [f"/image {name}: " for name in BROKEN_IMAGES]
    assert len(rows) == 24 and len(report["unreadable"]) == len(names)
    for name in names:
        reasons = [reason for reason in report["unreadable"] if name in reason]
        assert len(reasons) == 1 and "\n" not in reasons[0] and "; expected" in reasons[0]
