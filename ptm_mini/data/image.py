"""Pictures: a file to RGB pixels, pixels to normalised tensors. The resize is written out, the same with every Pillow."""
import numpy as np
import torch
from PIL import Image, ImageOps

from ptm_mini.data.decoding import decoding
from ptm_mini.errors import InputError

IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
# What is opened, TGA last since it has no mark to know it by. Pillow knows more, and hands EPS to a program that runs it.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "TGA")
DRAFT = 4                         # a JPEG's decoder may halve a picture that stays this many times as large as is needed
STRIP = 1 << 20                   # pixels that are turned to RGB and floating point at once: large pictures take no more


@decoding()
def read_image(source, size, trace=None):
    """Decode one picture, turn it upright, convert it to RGB, and bring the largest centred square to the size.

    source   a file that Pillow reads, or a Pillow Image, of any mode with 8 or 16 bits a channel
    trace    a dict that gets the steps between: rgb [height, width, 3] uint8 and resized [3, H, W], not yet rounded
    returns  [3, H, W] uint8, H = W = size, halves rounded up
    raises   InputError where the file is missing, no picture, truncated or smaller than 2x2
    """
    try:
        picture = decoded(source, DRAFT * size)
        resized = resize(picture, size) if min(picture.size) > 1 else None
    except Exception as error:                                    # broken files make Pillow raise nearly anything
        raise unreadable(source, error) from error
    if resized is None:
        raise InputError(f"{source}: {picture.width}x{picture.height} pixels; expected at least 2x2: replace it or leave "
                         f"its cell empty")
    if trace is not None:
        trace |= {"rgb": np.asarray(to_rgb(picture)), "resized": resized}
    return (resized + 0.5).floor().clamp(0, 255).byte()


def unreadable(source, error):
    """The InputError for a picture that Pillow can't read, from what it raised"""
    if isinstance(error, FileNotFoundError):
        return InputError(f"{source}: no such file; expected a picture")
    reason = " ".join(str(error).split()) or type(error).__name__
    return InputError(f"{source}: Pillow can't read it ({reason}); expected a whole PNG, JPEG or similar")


def decoded(source, least):
    """A picture upright and in memory; a JPEG file at 1/2, 1/4 or 1/8 of its sides where both stay at least so many pixels."""
    if isinstance(source, Image.Image):
        picture = ImageOps.exif_transpose(source)                 # a copy: whose it is keeps it as it is
    else:
        with Image.open(source, formats=FORMATS) as picture:
            picture.verify()                                      # of PNG the checksums; it has to be opened anew after that
        with Image.open(source, formats=FORMATS) as picture:
            picture.draft(picture.mode, (least, least))
            ImageOps.exif_transpose(picture, in_place=True)
            picture.load()
    if picture.mode == "F":
        raise ValueError("floating-point pixels have no set range: save it with 8 or 16 bits")
    if picture.mode == "I" and not 0 <= picture.getextrema()[0] <= picture.getextrema()[1] <= 65535:
        raise ValueError("32-bit pixels have no set range: save it with 8 or 16 bits")
    return picture


def to_rgb(picture):
    """Any Pillow mode to RGB: 16-bit grey becomes round(x / 257), transparency is laid over white."""
    if picture.mode.startswith("I"):                              # 16-bit grey; convert("L") would clip it
        return Image.fromarray((np.asarray(picture) / 257).round().astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = (picture.convert("LA") if picture.mode == "La" else picture).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def bicubic_weights(start, side, source, target):
    """How much each of `source` pixels in a line counts in each of `target` new ones, which cover [start, start + side].

    Keys' cubic (1981) with a = -1/2, widened by the scale s = side / target where that shrinks (antialiasing): new pixel i
    is centred on c = start + s (i + 1/2), old pixel j on j + 1/2, and with t = |j + 1/2 - c| / max(s, 1)

        w(t) = 1.5 t^3 - 2.5 t^2 + 1  for t < 1,    -0.5 t^3 + 2.5 t^2 - 4 t + 2  for 1 <= t < 2,    0 beyond

    divided by their sum over the pixels that are there. Pixels outside of the square count where the kernel reaches them.

    returns  [target, source] float64, rows sum to 1
    """
    scale = side / target
    centre = start + scale * (torch.arange(target, dtype=torch.double) + 0.5)
    t = (torch.arange(source) + 0.5 - centre[:, None]).abs() / max(scale, 1)
    weights = torch.where(t < 1, (1.5 * t - 2.5) * t * t + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2).where(t < 2, 0)
    return weights / weights.sum(dim=1, keepdim=True)


def resize(picture, size):
    """The largest centred square of a picture, whose corner may lie on half a pixel. returns [3, size, size] float64"""
    (width, height), side = picture.size, min(picture.size)
    across = bicubic_weights((width - side) / 2, side, width, size)            # [size, width]
    down = bicubic_weights((height - side) / 2, side, height, size)            # [size, height]
    resized = torch.zeros(3, size, size, dtype=torch.double)
    for rows in torch.arange(height).split(max(1, STRIP // width)):
        top, bottom = int(rows[0]), int(rows[-1]) + 1
        strip = np.array(to_rgb(picture.crop((0, top, width, bottom))))        # [rows, width, 3]
        strip = torch.from_numpy(strip).permute(2, 0, 1).double()              # [3, rows, width]
        resized += down[:, top:bottom] @ (strip @ across.T)
    return resized


def normalise(pixels):
    """[..., 3, H, W] uint8 to float32 with ImageNet's mean 0 and std 1 in each channel."""
    return pixels.float().div_(255).sub_(IMAGENET_MEAN).div_(IMAGENET_STD)


def denormalise(image):
    """The inverse of `normalise`, for showing: [3, H, W] float to uint8."""
    return ((image * IMAGENET_STD + IMAGENET_MEAN).clamp(0, 1) * 255).round().byte()
