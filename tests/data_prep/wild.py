"""Sets as they are in the wild: 300 files of all that can be read, and more than 40 kinds of file that can't be.

python tests/data_prep/wild.py FOLDER writes both, as FOLDER/good and FOLDER/broken, for use by hand.
"""
import io
import itertools
import os
import shutil
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

PAIRS, CLASSES = 150, ("bell", "Übung, laut", 'the "third"')
RATES = (4000, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 37800, 44100, 48000, 88200, 96000, 176400, 192000)
SOUNDS = [("WAV", "PCM_U8"), ("WAV", "PCM_16"), ("WAV", "PCM_24"), ("WAV", "PCM_32"), ("WAV", "FLOAT"), ("WAV", "DOUBLE"),
          ("WAV", "ULAW"), ("WAV", "IMA_ADPCM"), ("WAV", "GSM610"), ("WAVEX", "PCM_16"), ("FLAC", "PCM_S8"),
          ("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS"), ("AIFF", "PCM_16"), ("AU", "FLOAT"),
          ("CAF", "PCM_24"), ("W64", "PCM_16"), ("RF64", "PCM_32"), ("MP3", "MPEG_LAYER_III")]
SECONDS = (0.01, 0.024, 0.025, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 4.0, 8.0)
LONG = {7: 600.0, 28: 600.0, 49: 61.3}                    # seconds of some, at the lowest rates
PICTURES = [("PNG", "1"), ("PNG", "L"), ("PNG", "LA"), ("PNG", "P"), ("PNG", "RGB"), ("PNG", "RGBA"), ("PNG", "I;16"),
            ("JPEG", "L"), ("JPEG", "RGB"), ("JPEG", "CMYK"), ("JPEG", "YCbCr"), ("TIFF", "1"), ("TIFF", "LA"), ("TIFF", "P"),
            ("TIFF", "RGBA"), ("TIFF", "CMYK"), ("TIFF", "YCbCr"), ("TIFF", "LAB"), ("TIFF", "I;16"), ("GIF", "P"),
            ("GIF", "L"), ("WEBP", "RGB"), ("WEBP", "RGBA"), ("BMP", "1"), ("BMP", "L"), ("BMP", "RGB"), ("PPM", "L"),
            ("PPM", "RGB"), ("TGA", "RGBA"), ("JPEG2000", "RGB")]
ENDINGS = {"WAVEX": "wav", "JPEG2000": "jp2", "TIFF": "tif"}
SIZES = ((2, 2), (28, 28), (32, 33), (64, 48), (3, 200), (640, 7), (300, 300), (1023, 767))


def sound(path, number):
    """The number-th sound: the formats in turn, each time with another rate, channel count and length where it allows them."""
    kind, depth = SOUNDS[number % len(SOUNDS)]
    path = path.with_name(f"{path.name}.{ENDINGS.get(kind, kind.lower())}")
    random = np.random.default_rng(number)
    for n in itertools.count(number):
        rate, channels = RATES[n % len(RATES)], 1 + (n // 3) % 8
        channels = {"MP3": 1 + channels % 2, "WAVEX": channels}.get(kind, 1 if depth in ("GSM610", "IMA_ADPCM") else channels)
        seconds = SECONDS[number // 2 % len(SECONDS)]
        if number in LONG:
            seconds, rate, channels = LONG[number], RATES[number % 2], 1 + number % 2
        wave = random.uniform(-0.5, 0.5, (round(rate * seconds), channels)) * np.linspace(0.1, 1, channels)
        try:
            return soundfile.write(path, wave, rate, subtype=depth, format=kind)
        except soundfile.LibsndfileError:                    # this format has no such rate
            continue


def picture(path, number):
    kind, mode = PICTURES[number % len(PICTURES)]
    width, height = SIZES[(number + number // len(SIZES)) % len(SIZES)]
    noise = np.random.default_rng(number).integers(0, 256, (height, width, 4), dtype=np.uint8)
    if mode == "I;16":
        made = Image.fromarray(noise[..., :2].copy().view(np.uint16)[..., 0])
    elif mode == "LAB":
        made = Image.frombytes("LAB", (width, height), noise[..., :3].tobytes())
    else:
        made = Image.fromarray(noise).convert(mode)
    options = {"exif": b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0" + bytes([1 + number % 8, 0, 0, 0, 0, 0, 0, 0])} \
        if kind == "JPEG" else {"transparency": 3} if mode == "P" and kind != "TIFF" else {}
    if kind == "GIF" and number % 2:
        options |= {"save_all": True, "append_images": [made, made]}
    made.save(path.with_name(f"{path.name}.{ENDINGS.get(kind, kind.lower())}"), kind, **options)


def good(folder):
    """Two trees with PAIRS pairs of every kind."""
    for n in range(PAIRS):
        label = CLASSES[n % len(CLASSES)]
        for tree, write in (("audio", sound), ("image", picture)):
            (folder / tree / label).mkdir(parents=True, exist_ok=True)
            write(folder / tree / label / f"no. {n:03d}, 'é'", n)
    return folder


def encoded(kind, depth, seconds=1.0, rate=16000, value=None, seed=0):
    """A sound file's bytes."""
    wave = np.random.default_rng(seed).uniform(-0.5, 0.5, round(rate * seconds))
    if value is not None:
        wave[-1] = value
    buffer = io.BytesIO()
    soundfile.write(buffer, wave, rate, subtype=depth, format=kind)
    return buffer.getvalue()


def drawn(kind, mode="RGB", side=40, seed=0):
    """A picture file's bytes."""
    noise = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).convert(mode).save(buffer, kind)
    return buffer.getvalue()


def wav_header(tag=1, channels=1, rate=16000, depth=16, promised=32000, data=b"\0" * 32000):
    form = struct.pack("<HHIIHH", tag, channels, rate, rate * channels * depth // 8, channels * depth // 8, depth)
    return (b"RIFF" + struct.pack("<I", 36 + promised) + b"WAVEfmt " + struct.pack("<I", 16) + form
            + b"data" + struct.pack("<I", promised) + data)


def png(width, height, data=b"", depth=8, colour=2, check=0):
    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content) ^ check)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
            + chunk(b"IDAT", data or zlib.compress(b"\0" * 100)) + chunk(b"IEND", b""))


def flipped(data, at):
    """The bytes with 16 of them in the middle turned over."""
    start = int(len(data) * at)
    return data[:start] + bytes(255 - byte for byte in data[start:start + 16]) + data[start + 16:]


def half(data):
    return data[:len(data) // 2]


def broken_sounds():
    """{what is wrong: (file name's ending, bytes)}"""
    wav, flac, ogg = encoded("WAV", "PCM_16"), encoded("FLAC", "PCM_16"), encoded("OGG", "VORBIS")
    return {
        "empty": (".wav", b""), "text": (".wav", b"this is a sound\n" * 50), "a picture": (".wav", drawn("PNG")),
        "a zip": (".flac", b"PK\3\4" + bytes(range(256)) * 8), "random": (".ogg", np.random.default_rng(0).bytes(5000)),
        "header cut": (".wav", wav[:30]), "no data": (".wav", wav[:36]), "data cut": (".wav", half(wav)),
        "flac cut": (".flac", half(flac)), "ogg cut": (".ogg", half(ogg)), "flac header alone": (".flac", flac[:42]),
        "aiff cut": (".aiff", half(encoded("AIFF", "PCM_16"))), "caf cut": (".caf", half(encoded("CAF", "PCM_16"))),
        "w64 cut": (".w64", half(encoded("W64", "PCM_16"))), "rf64 cut": (".rf64", half(encoded("RF64", "PCM_16"))),
        "au cut": (".au", half(encoded("AU", "PCM_16"))), "opus cut": (".ogg", half(encoded("OGG", "OPUS", rate=48000))),
        "flac flipped": (".flac", flipped(flac, 0.9)), "ogg flipped": (".ogg", flipped(ogg, 0.3)),
        "NaN": (".wav", encoded("WAV", "FLOAT", value=np.nan)), "infinite": (".wav", encoded("WAV", "DOUBLE", value=np.inf)),
        "late NaN": (".wav", encoded("WAV", "FLOAT", seconds=30, value=np.nan)),
        "late flac": (".flac", flipped(encoded("FLAC", "PCM_16", seconds=30), 0.9)),
        "huge values": (".wav", encoded("WAV", "FLOAT", value=1e30)),
        "no channels": (".wav", wav_header(channels=0)), "no rate": (".wav", wav_header(rate=0)),
        "absurd rate": (".wav", wav_header(rate=2_000_000_000)), "no depth": (".wav", wav_header(depth=0)),
        "unknown codec": (".wav", wav_header(tag=0x1234)), "a GB promised": (".wav", wav_header(promised=1_000_000_000)),
        "no frames": (".wav", wav_header(promised=0, data=b"")), "too short": (".wav", encoded("WAV", "PCM_16", 0.02)),
    }


def broken_pictures():
    rgb, jpeg = drawn("PNG"), drawn("JPEG", side=200)
    wide = Image.fromarray(np.full((9, 9), 1e6, np.int32))
    many, floating = io.BytesIO(), io.BytesIO()
    wide.save(many, "TIFF")
    wide.convert("F").save(floating, "TIFF")
    return {
        "empty": (".png", b""), "text": (".jpg", b"<html>404</html>\n"), "a sound": (".png", encoded("WAV", "PCM_16")),
        "an svg": (".png", b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        "random": (".jpg", np.random.default_rng(1).bytes(5000)),
        "png header": (".png", rgb[:20]), "png cut": (".png", half(rgb)), "jpeg cut": (".jpg", half(jpeg)),
        "jpeg start": (".jpg", jpeg[:2]), "gif cut": (".gif", half(drawn("GIF", "P"))),
        "webp cut": (".webp", half(drawn("WEBP"))), "tiff cut": (".tif", half(drawn("TIFF"))),
        "bmp cut": (".bmp", half(drawn("BMP"))), "ppm cut": (".ppm", half(drawn("PPM"))),
        "tga cut": (".tga", half(drawn("TGA"))), "jp2 cut": (".jp2", half(drawn("JPEG2000"))),
        "check sum": (".png", png(10, 10, check=1)), "deflated wrong": (".png", png(10, 10, data=b"not deflated")),
        "60,000 x 60,000": (".png", png(60_000, 60_000)), "no width": (".png", png(0, 10)),
        "1 x 1": (".png", drawn("PNG", side=1)), "floating": (".tif", floating.getvalue()),
        "32 bits": (".tif", many.getvalue()), "depth 3": (".png", png(10, 10, depth=3)),
        "less data": (".png", png(100, 100)),
    }


def broken(folder):
    """Two trees with a whole pair of each class many times over, and beside them every broken kind, its partner whole.

    returns  {path of the broken file, relative to the folder}
    """
    seeds = itertools.count(1)

    def whole(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = next(seeds)
        path.write_bytes(drawn("PNG", seed=seed) if path.suffix == ".png" else encoded("WAV", "PCM_16", 0.1, seed=seed))

    for n in range(24):
        whole(folder / "audio" / CLASSES[n % 2] / f"whole {n}.wav")
        whole(folder / "image" / CLASSES[n % 2] / f"whole {n}.png")
    sounds, pictures = folder / "audio" / CLASSES[0], folder / "image" / CLASSES[0]
    paths = []
    for name, (ending, data) in broken_sounds().items():
        paths.append(sounds / f"sound, {name}{ending}")
        paths[-1].write_bytes(data)
        whole(pictures / f"sound, {name}.png")
    for name, (ending, data) in broken_pictures().items():
        paths.append(pictures / f"picture, {name}{ending}")
        paths[-1].write_bytes(data)
        whole(sounds / f"picture, {name}.wav")
    shutil.move(sounds / "whole 0.wav", folder.parent / "outside.wav")
    for name, target in (("whole 0.wav", folder.parent / "outside.wav"), ("dangling.wav", "nowhere.wav"),
                         ("loop.wav", "loop.wav")):
        paths.append(sounds / name)
        paths[-1].symlink_to(target)
    for name in ("new\nline.wav", "bytes\udcff.wav", "bell\a.wav", "tab\t.wav", "wrong ending.txt", "no ending"):
        paths.append(sounds / name)
        shutil.copy(sounds / "whole 2.wav", paths[-1])
    paths += [sounds / "pipe.wav", sounds / "folder.wav", sounds.parent / "without a class.wav"]
    os.mkfifo(paths[-3])
    paths[-2].mkdir()
    shutil.copy(sounds / "whole 2.wav", paths[-1])
    return {path.relative_to(folder).as_posix() for path in paths}


if __name__ == "__main__":
    good(Path(sys.argv[1]) / "good")
    print(len(broken(Path(sys.argv[1]) / "broken")), "broken files")
