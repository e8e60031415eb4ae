"""Pictures of every mode, and bad ones."""
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch.nn import functional as F

from ptm_mini.data import image
from ptm_mini.data.image import denormalise, normalise, read_image, resize
from ptm_mini.errors import InputError

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


def test_premultiplied_modes_of_pillow_images_become_rgb():
    for mode in ("La", "RGBa"):
        clear, grey = Image.new(mode, (40, 40)), Image.new(mode, (40, 40), (100,) * (len(mode) - 1) + (255,))
        assert read_image(clear, SIZE).eq(255).all() and read_image(grey, SIZE).eq(100).all()


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


def noise(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("side, size", [(64, 32), (28, 32), (45, 32), (20, 224), (301, 224), (32, 32)])
def test_the_resize_of_a_square_is_torchs_antialiased_bicubic(side, size):
    pixels = torch.from_numpy(np.array(noise(side, side))).permute(2, 0, 1)[None].double()
    expected = F.interpolate(pixels, size=(size, size), mode="bicubic", antialias=True)[0]
    assert (resize(noise(side, side), size) - expected).abs().max() < 1e-10


@pytest.mark.parametrize("width, height", [(100, 64), (64, 101), (33, 32), (3, 2), (480, 360)])
def test_the_resize_takes_pillows_centred_square(width, height):
    """But for Pillow's rounding and clipping between its two passes, which a picture without hard edges hardly shows."""
    smooth = noise(4, 4).resize((width, height), Image.Resampling.BILINEAR)
    expected = np.array(ImageOps.fit(smooth, (32, 32), Image.Resampling.BICUBIC)).transpose(2, 0, 1)
    assert (resize(smooth, 32) - torch.from_numpy(expected)).abs().max() < 1.5


def test_a_large_picture_in_strips_gives_the_same(monkeypatch):
    whole = resize(noise(60, 47), 32)
    monkeypatch.setattr(image, "STRIP", 200)
    assert (resize(noise(60, 47), 32) - whole).abs().max() < 1e-10


def test_halves_are_rounded_up_and_the_steps_can_be_seen(tmp_path):
    trace = {}
    Image.fromarray(np.array([[0, 1], [1, 0]], np.uint8)).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png", 1, trace).flatten().tolist() == [1, 1, 1]
    assert trace["resized"].flatten().tolist() == [0.5] * 3 and trace["rgb"][0].tolist() == [[0] * 3, [1] * 3]


def test_a_large_jpeg_is_decoded_small(tmp_path):
    smooth = noise(4, 4).resize((1100, 1024), Image.Resampling.BILINEAR)
    pixels = read(tmp_path, smooth, "large.jpg", quality=95)
    assert image.decoded(tmp_path / "large.jpg", 128).size == (138, 128)
    assert (pixels - (resize(smooth, SIZE))).abs().max() < 4


def test_pillows_warnings_stay_inside(tmp_path, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40 * 40)
    monkeypatch.setattr(image, "STRIP", 400)                                      # a strip is small beside such a limit
    assert read(tmp_path, Image.new("RGB", (40, 41))).eq(0).all() and not recwarn
    noise(57, 57).save(tmp_path / "bomb.png")
    with pytest.raises(InputError, match="bomb.png: Pillow can't read it .*exceeds limit"):
        read_image(tmp_path / "bomb.png", SIZE)


def test_normalise_has_imagenet_mean_and_inverts():
    pixels = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(denormalise(normalise(pixels)[0]), pixels[0])
    assert normalise(torch.zeros(3, 1, 1, dtype=torch.uint8)).flatten().tolist() == pytest.approx(
        [-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])


@pytest.mark.parametrize("kind, says", [
    ("missing", "no such file"), ("empty", "Pillow can't read it"), ("text", "Pillow can't read it"),
    ("truncated", "Pillow can't read it"), ("1x1", "1x1 pixels; expected at least 2x2"), ("float", "floating-point"),
    ("32-bit", "32-bit pixels have no set range"), ("checksum", "broken PNG file"), ("program", "cannot identify image file"),
    ("EXIF", "Pillow can't read it (bad operand type")])
def test_bad_files_are_named_in_one_line(tmp_path, kind, says):
    path = tmp_path / "picture.tiff"
    if kind != "missing":
        pictures = {"1x1": Image.new("RGB", (1, 1)), "float": Image.new("F", (8, 8)), "32-bit": Image.new("I", (8, 8), 1 << 20)}
        pictures.get(kind, noise(64, 64)).save(path)
    if kind in ("empty", "text"):
        path.write_text("" if kind == "empty" else "text")
    if kind == "truncated":
        path.write_bytes(path.read_bytes()[:6000])
    if kind == "checksum":
        noise(64, 64).save(path, "PNG")
        content = bytearray(path.read_bytes())
        content[-13] ^= 1                                      # the last byte but those of the chunk that ends the file
        path.write_bytes(content)
    if kind == "program":                                      # PostScript, which Pillow would hand to an interpreter
        noise(64, 64).save(path, "EPS")
    if kind == "EXIF":                                         # to be turned, and a resolution that is text: Pillow trips
        noise(64, 64).save(path, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\2\1\x12\0\3\0\0\0\1\0\6\0\0"
                                              b"\1\x1a\0\2\0\0\0\4abc\0\0\0\0\0")
    with pytest.raises(InputError) as caught:
        read_image(path, SIZE)
    assert str(path) in str(caught.value) and says in str(caught.value) and "\n" not in str(caught.value)
