"""Pictures of every mode, and bad ones."""
import numpy as np
import pytest
import torch
from PIL import Image

from ptm_mini.errors import InputError
from ptm_mini.data.image import denormalise, normalise, read_image

SIZE = 32


def read(tmp_path, picture, name="picture.png", **options):
    picture.save(tmp_path / name, **options)
    return read_image(tmp_path / name, SIZE)


@pytest.mark.parametrize("mode, colour, expected", [
    ("L", 100, (100, 100, 100)), ("RGB", (10, 20, 30), (10, 20, 30)), ("1", 1, (255, 255, 255)),
    ("LA", (100, 0), (255, 255, 255)), ("RGBA", (10, 20, 30, 255), (10, 20, 30)), ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
    ("I;16", 257 * 100, (100, 100, 100))])
def test_modes_become_rgb(tmp_path, mode, colour, expected):
    pixels = read(tmp_path, Image.new(mode, (40, 50), colour))
    assert pixels.shape == (3, 32, 32) and pixels.dtype == torch.uint8
    assert [channel.unique().tolist() for channel in pixels] == [[value] for value in expected]


def test_palette_cmyk_and_transparent_palette(tmp_path):
    red = Image.new("RGB", (40, 40), (255, 0, 0))
    assert read(tmp_path, red.quantize(4))[:, 5, 5].tolist() == [255, 0, 0]
    cmyk = read(tmp_path, red.convert("CMYK"), "picture.jpg")[:, 5, 5].tolist()
    assert cmyk[0] > 200 and max(cmyk[1:]) < 60
    palette = red.quantize(4)
    assert read(tmp_path, palette, transparency=palette.getpixel((0, 0)))[:, 5, 5].tolist() == [255, 255, 255]


def test_exif_rotation_is_applied(tmp_path):
    picture = Image.new("RGB", (32, 32), "black")
    picture.paste((255, 255, 255), (0, 0, 32, 16))                                # white above
    exif = Image.Exif()
    exif[0x0112] = 6                                                              # shown turned 90 degrees clockwise
    pixels = read(tmp_path, picture, exif=exif)
    assert pixels[:, :, 31].min() > 200 and pixels[:, :, 0].max() < 50            # white at the right


def test_shorter_side_is_resized_and_the_centre_kept(tmp_path):
    wide = np.zeros((32, 96, 3), np.uint8)
    wide[:, 32:64] = 200
    assert read(tmp_path, Image.fromarray(wide)).eq(200).all()


def test_normalise_has_imagenet_mean_and_inverts():
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(denormalise(normalise(pixels)[0]), pixels[0])
    assert normalise(torch.zeros(3, 1, 1, dtype=torch.uint8)).flatten().tolist() == pytest.approx(
        [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])


@pytest.mark.parametrize("kind, says", [
    ("missing", "no such file"), ("empty", "Pillow can't read it"), ("text", "Pillow can't read it"),
    ("truncated", "Pillow can't read it"), ("1x1", "1x1 pixels; expected at least 2x2"), ("float", "floating-point")])
def test_bad_files_are_named_in_one_line(tmp_path, kind, says):
    path = tmp_path / "picture.tiff"
    if kind != "missing":
        noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        pictures = {"1x1": Image.new("RGB", (1, 1)), "float": Image.new("F", (8, 8))}
        pictures.get(kind, Image.fromarray(noise)).save(path)
    if kind in ("empty", "text"):
        path.write_text("" if kind == "empty" else "text")
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:6000])
    with pytest.raises(InputError) as caught:
        read_image(path, SIZE)
    assert str(path) in str(caught.value) and says in str(caught.value) and "\n" not in str(caught.value)
