"""Images of every mode, the resize against its formula in NumPy, and bad files."""
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import refusal
from PIL import Image
from torch import Tensor

from ptm_mini.data.image import denormalise, normalise, read_image

SIZE = 32


def save_and_read(folder: Path, image: Image.Image, name: str = "a.png",
                  **options: object) -> Tensor:
    image.save(folder / name, **options)
    return read_image(folder / name, SIZE)


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def keys_cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -1/2."""
    x = abs(x)
    near, far = (3 * x ** 3 - 5 * x ** 2 + 2) / 2, (-x ** 3 + 5 * x ** 2 - 8 * x + 4) / 2
    return near * (x <= 1) + far * ((x > 1) & (x < 2))


def resize_weights(side: int, size: int) -> np.ndarray:
    """[size, side]: pixel i is centred at (i + 1/2) side / size; shrinking widens the kernel."""
    pixel, centre = np.arange(side) + 0.5, (np.arange(size)[:, None] + 0.5) * side / size
    weights = keys_cubic((pixel - centre) / max(side / size, 1))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("mode, colour, expected", [
    ("L", 100, (100, 100, 100)), ("RGB", (10, 20, 30), (10, 20, 30)), ("1", 1, (255, 255, 255)),
    ("LA", (100, 0), (255, 255, 255)), ("LA", (100, 255), (100, 100, 100)),
    ("RGBA", (10, 20, 30, 255), (10, 20, 30)), ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
    ("I;16", 257 * 100, (100, 100, 100)), ("I;16", 257 * 100 + 129, (101, 101, 101)),
    ("I;16", 65535, (255, 255, 255)), ("I", 257 * 100, (100, 100, 100)),
    ("RGBa", (100, 100, 100, 255), (100, 100, 100)), ("RGBa", (0, 0, 0, 0), (255, 255, 255))])
def test_modes_become_rgb(tmp_path: Path, mode: str, colour: tuple[int, ...],
                          expected: tuple[int, ...]) -> None:
    image = Image.new(mode, (40, 50), colour)
    found = [read_image(image, SIZE)]
    if mode not in ("I", "RGBa"):                        # which no file has
        found.append(save_and_read(tmp_path, image))
    for pixels in found:
        assert pixels.shape == (3, SIZE, SIZE) and pixels.dtype == torch.uint8
        assert [channel.unique().tolist() for channel in pixels] == [[value] for value in expected]


def test_palettes_and_cmyk_become_rgb(tmp_path: Path) -> None:
    red = Image.new("RGB", (40, 40), (255, 0, 0))
    palette = red.quantize(4)
    clear = {"transparency": palette.getpixel((0, 0))}
    assert save_and_read(tmp_path, palette)[:, 5, 5].tolist() == [255, 0, 0]
    assert save_and_read(tmp_path, palette, **clear)[:, 5, 5].tolist() == [255, 255, 255]
    r, g, b = save_and_read(tmp_path, red.convert("CMYK"), "a.jpg")[:, 5, 5].tolist()
    assert r > 200 and max(g, b) < 60


# Orientation 6, to be turned clockwise, and a resolution of another type than Pillow writes: text
EXIF = b"Exif\0\0" + struct.pack("<2sHIH HHIHH HHII I", b"II", 42, 8, 2, 0x112, 3, 1, 6, 0,
                                  0x11A, 2, 7, 38, 0) + b"72 dpi\0"


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_an_image_is_turned_upright(tmp_path: Path, name: str) -> None:
    image = Image.new("RGB", (32, 32), "black")
    image.paste((255, 255, 255), (0, 0, 32, 16))                          # white above
    pixels = save_and_read(tmp_path, image, name, exif=EXIF)
    assert pixels[:, :, 31].min() > 200 and pixels[:, :, 0].max() < 50    # white at the right


@pytest.mark.parametrize("width, height, size", [
    (97, 32, 32), (32, 96, 32), (47, 45, 32), (20, 20, 224), (120, 120, 32), (2, 2, 8)])
def test_the_centred_square_is_resized_by_the_formula(width: int, height: int, size: int) -> None:
    side, steps, image = min(width, height), {}, noise(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    ours, weights = read_image(image, size, steps), resize_weights(side, size)
    square = np.array(image, dtype=float)[top:top + side, left:left + side]
    expected = np.einsum("iy,yxc,jx->cij", weights, square, weights, optimize=True)
    assert np.array_equal(steps["rgb"], square)
    assert np.abs(steps["resized"].numpy() - expected).max() < 1e-9
    assert torch.equal(ours, (steps["resized"] + 0.501).floor().clamp(0, 255).byte())


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_large_image_is_first_shrunk_to_four_times_the_size(tmp_path: Path, name: str) -> None:
    """A JPEG as it is decoded, before its pixels take memory; what is open already can't be."""
    image, steps = noise(4, 4).resize((1100, 1024), Image.Resampling.BILINEAR), {}
    image.save(tmp_path / name)
    ours = read_image(tmp_path / name, SIZE, steps)
    assert steps["rgb"].shape == (128, 128, 3)
    assert torch.equal(ours, read_image(Image.open(tmp_path / name), SIZE)) == (name == "a.png")
    weights, square = resize_weights(1024, SIZE), np.array(image, dtype=float)[:, 38:1062]
    expected = np.einsum("iy,yxc,jx->cij", weights, square, weights, optimize=True)
    assert np.abs(ours.numpy() - expected).max() < 4


def test_normalise_has_imagenets_mean_and_can_be_inverted() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3).view(3, 16, 16)
    normal = normalise(pixels)
    assert normal.dtype == torch.float32 and torch.equal(denormalise(normal), pixels)
    black, white = normal[:, 0, 0].tolist(), normal[:, -1, -1].tolist()
    assert black == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    assert white == pytest.approx([0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225])


def write_bad(kind: str, path: Path) -> None:
    images = {"1x9": Image.new("RGB", (1, 9)), "float": Image.new("F", (8, 8)),
              "32-bit": Image.new("I", (8, 8), 1 << 20)}
    formats = {"checksum": "PNG", "JPEG": "JPEG", "program": "EPS"}
    images.get(kind, noise(64, 64)).save(path, formats.get(kind, "TIFF"))
    content = bytearray(path.read_bytes())
    if kind in ("truncated", "JPEG"):
        del content[len(content) // 2:]
    if kind == "checksum":
        content[-13] ^= 1                                # of the chunk before the last
    path.write_bytes(b"text" if kind == "text" else content)


@pytest.mark.parametrize("kind, reason", [
    ("text", "cannot identify image file"), ("truncated", ""), ("JPEG", "image file is truncated"),
    ("1x9", "1x9 pixels"), ("float", "its pixels have no set range"),
    ("32-bit", "its pixels have more than 16 bits"), ("checksum", "broken PNG file"),
    ("program", "cannot identify image file")])          # Pillow would have PostScript run
def test_bad_files_are_named_in_one_line(tmp_path: Path, kind: str, reason: str) -> None:
    path = tmp_path / "a.tiff"
    assert refusal(read_image, path, SIZE).startswith(f"{path}: no such file")
    write_bad(kind, path)
    message = refusal(read_image, path, SIZE)
    assert message.startswith(f"{path}: Pillow can't read it (") and reason in message
    assert message.endswith("; expected a whole PNG, JPEG or similar of at least 2x2 pixels")
