"""Images of every mode, the resize against its formula in NumPy, and bad files."""
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import refusal
from PIL import Image
from torch import Tensor

from ptm_mini.data import image as image_module
from ptm_mini.data.image import decode, denormalise, normalise, read_image

SIZE = 32


def save_and_read(folder: Path, image: Image.Image, name: str = "a.png",
                  **options: object) -> Tensor:
    image.save(folder / name, **options)
    return read_image(folder / name, SIZE)


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def smooth(width: int, height: int) -> Image.Image:
    return noise(4, 4).resize((width, height), Image.Resampling.BILINEAR)


def keys_cubic(x: np.ndarray) -> np.ndarray:
    """Keys' kernel with a = -1/2; exact on fractions."""
    x = abs(x)
    near, far = (3 * x ** 3 - 5 * x ** 2 + 2) / 2, (-x ** 3 + 5 * x ** 2 - 8 * x + 4) / 2
    return near * (x <= 1) + far * ((x > 1) & (x < 2))


def resize_weights(side: int, size: int, number: type = float) -> np.ndarray:
    """[size, side]: pixel i is centred at (i + 1/2) side / size; shrinking widens the kernel."""
    scale = number(side) / size
    pixel, centre = (np.array([number(2 * i + 1) / 2 for i in range(n)]) for n in (side, size))
    weights = keys_cubic((pixel - centre[:, None] * scale) / max(scale, number(1)))
    return weights / weights.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("mode, colour, expected", [
    ("L", 100, (100, 100, 100)), ("RGB", (10, 20, 30), (10, 20, 30)), ("1", 1, (255, 255, 255)),
    ("LA", (100, 0), (255, 255, 255)), ("LA", (100, 255), (100, 100, 100)),
    ("RGBA", (10, 20, 30, 255), (10, 20, 30)), ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
    ("I;16", 257 * 100, (100, 100, 100)), ("I;16", 257 * 100 + 129, (101, 101, 101)),
    ("I;16", 65535, (255, 255, 255))])
def test_modes_become_rgb(tmp_path: Path, mode: str, colour: tuple[int, ...],
                          expected: tuple[int, ...]) -> None:
    pixels = save_and_read(tmp_path, Image.new(mode, (40, 50), colour))
    assert pixels.shape == (3, SIZE, SIZE) and pixels.dtype == torch.uint8
    assert [channel.unique().tolist() for channel in pixels] == [[value] for value in expected]


def test_modes_that_only_images_in_memory_have_become_rgb() -> None:
    for mode, grey in (("La", (100, 255)), ("RGBa", (100, 100, 100, 255)), ("I", 257 * 100)):
        assert read_image(Image.new(mode, (40, 40), grey), SIZE).eq(100).all()
    for mode in ("La", "RGBa"):
        assert read_image(Image.new(mode, (40, 40)), SIZE).eq(255).all()         # all transparent


def test_palettes_and_cmyk_become_rgb(tmp_path: Path) -> None:
    red = Image.new("RGB", (40, 40), (255, 0, 0))
    palette = red.quantize(4)
    clear = {"transparency": palette.getpixel((0, 0))}
    assert save_and_read(tmp_path, palette)[:, 5, 5].tolist() == [255, 0, 0]
    assert save_and_read(tmp_path, palette, **clear)[:, 5, 5].tolist() == [255, 255, 255]
    r, g, b = save_and_read(tmp_path, red.convert("CMYK"), "a.jpg")[:, 5, 5].tolist()
    assert r > 200 and max(g, b) < 60


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_an_image_is_turned_upright(tmp_path: Path, name: str) -> None:
    image, exif = Image.new("RGB", (32, 32), "black"), Image.Exif()
    image.paste((255, 255, 255), (0, 0, 32, 16))                          # white above
    exif[0x0112] = 6                                                      # to be turned clockwise
    pixels = save_and_read(tmp_path, image, name, exif=exif)
    assert pixels[:, :, 31].min() > 200 and pixels[:, :, 0].max() < 50    # white at the right


@pytest.mark.parametrize("width, height", [(96, 32), (97, 32), (32, 95)])
def test_the_centred_square_is_kept(tmp_path: Path, width: int, height: int) -> None:
    pixels = np.array(noise(width, height))
    left, top = (width - 32) // 2, (height - 32) // 2
    ours = save_and_read(tmp_path, Image.fromarray(pixels))
    assert np.array_equal(ours.permute(1, 2, 0), pixels[top:top + 32, left:left + 32])


@pytest.mark.parametrize("side, size", [(64, 32), (28, 32), (45, 32), (20, 224), (120, 32), (2, 8)])
def test_the_resize_equals_its_formula(side: int, size: int) -> None:
    steps, image = {}, noise(side, side)
    ours, weights = read_image(image, size, steps), resize_weights(side, size)
    expected = np.einsum("iy,yxc,jx->cij", weights, np.array(image, dtype=float), weights)
    assert np.array_equal(steps["rgb"], np.array(image))
    assert np.abs(steps["resized"].numpy() - expected).max() < 1e-9
    assert torch.equal(ours, (steps["resized"] + 0.501).floor().clamp(0, 255).byte())


def test_exact_halves_are_rounded_up() -> None:
    """From 64 pixels to 32 many values lie at a half; rational numbers know which."""
    weights = resize_weights(64, 32, Fraction)
    pixels = np.array(noise(64, 64).convert("L"))
    exact = weights @ (pixels.astype(object) + Fraction(0)) @ weights.T
    expected = np.array([[min(max((value + Fraction(501, 1000)).__floor__(), 0), 255)
                          for value in row] for row in exact])
    assert np.array_equal(read_image(Image.fromarray(pixels), 32)[0], expected)
    half = Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8))
    assert read_image(half, 1).flatten().tolist() == [1, 1, 1]


@pytest.mark.parametrize("name, options", [("a.png", {}), ("a.jpg", {"quality": 95})])
def test_a_large_image_is_shrunk_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str,
                                       options: dict[str, int]) -> None:
    """A JPEG as it is decoded, before its pixels take memory; either to four times the size."""
    image, loaded, convert = smooth(1100, 1024), [], image_module.convert_to_rgb
    monkeypatch.setattr(image_module, "convert_to_rgb",
                        lambda square: loaded.append(square.size) or convert(square))
    ours = save_and_read(tmp_path, image, name, **options)
    assert loaded == [(128, 128) if name == "a.jpg" else (1024, 1024)]
    assert decode(tmp_path / name, SIZE).size == (128, 128)
    weights, square = resize_weights(1024, SIZE), np.array(image, dtype=float)[:, 38:1062]
    expected = np.einsum("iy,yxc,jx->cij", weights, square, weights, optimize=True)
    assert np.abs(ours.numpy() - expected).max() < 4


def test_pillows_warning_of_a_large_image_is_no_error(tmp_path: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 40)
    assert save_and_read(tmp_path, Image.new("RGB", (40, 41))).eq(0).all()
    noise(57, 57).save(tmp_path / "bomb.png")
    message = refusal(read_image, tmp_path / "bomb.png", SIZE)
    assert "bomb.png: Pillow can't read it (" in message and "exceeds limit" in message


def test_normalise_has_imagenets_mean_and_can_be_inverted() -> None:
    pixels = torch.arange(256, dtype=torch.uint8).repeat(3).view(3, 16, 16)
    normal = normalise(pixels)
    assert normal.dtype == torch.float32 and torch.equal(denormalise(normal), pixels)
    black, white = normal[:, 0, 0].tolist(), normal[:, -1, -1].tolist()
    assert black == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])
    assert white == pytest.approx([0.515 / 0.229, 0.544 / 0.224, 0.594 / 0.225])


def write_bad(kind: str, path: Path) -> None:
    images = {"1x1": Image.new("RGB", (1, 1)), "1x9": Image.new("RGB", (1, 9)),
              "float": Image.new("F", (8, 8)), "32-bit": Image.new("I", (8, 8), 1 << 20)}
    formats = {"checksum": "PNG", "JPEG": "JPEG", "program": "EPS"}
    images.get(kind, noise(64, 64)).save(path, formats.get(kind, "TIFF"))
    content = bytearray(path.read_bytes())
    if kind in ("empty", "text", "truncated", "JPEG"):
        keep = {"empty": 0, "text": 0, "truncated": 6000, "JPEG": len(content) // 2}[kind]
        content[keep:] = b"text" if kind == "text" else b""
    if kind == "checksum":
        content[-13] ^= 1                                # of the chunk before the last
    path.write_bytes(content)


@pytest.mark.parametrize("kind, reason", [
    ("empty", ""), ("text", ""), ("truncated", ""), ("JPEG", "image file is truncated"),
    ("1x1", "1x1 pixels"), ("1x9", "1x9 pixels"), ("float", "its pixels have no set range"),
    ("32-bit", "its pixels have no set range"), ("checksum", "broken PNG file"),
    ("program", "cannot identify image file")])          # Pillow would have PostScript run
def test_bad_files_are_named_in_one_line(tmp_path: Path, kind: str, reason: str) -> None:
    write_bad(kind, tmp_path / "a.tiff")
    message = refusal(read_image, tmp_path / "a.tiff", SIZE)
    assert message.startswith(f"{tmp_path / 'a.tiff'}: Pillow can't read it ({reason}")
    assert message.endswith("; expected a whole PNG, JPEG or similar of at least 2x2 pixels")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "a.png: no such file" in refusal(read_image, tmp_path / "a.png", SIZE)
