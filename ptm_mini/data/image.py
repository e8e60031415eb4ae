"""Images: a file to RGB pixels, pixels to normalised tensors."""
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn import functional as F

from ptm_mini.errors import InputError

IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
# TGA last, since it has no mark to know it by. Pillow would hand EPS to a program that runs it.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "JPEG2000", "TGA")
SPARE = 4    # large images are first shrunk in whole steps, to no less than so many times the size


def read_image(source: Path | Image.Image, size: int,
               steps: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
    """Decode an image, turn it upright, crop the centred square, convert it to RGB and resize it.

    steps    a dict that receives the steps between, for docs/porting.md: rgb [side, side, 3] and
             resized [3, H, W], not yet rounded
    returns  [3, H, W] uint8, H = W = size
    raises   InputError where the file is missing, no image, truncated or smaller than 2x2
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")                 # what is wrong becomes an error below
            rgb = decode(source, size)
    except FileNotFoundError as error:
        raise InputError(f"{source}: no such file; expected an image") from error
    except Exception as error:                              # Pillow raises nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{source}: Pillow can't read it ({reason}); expected a whole PNG, JPEG "
                         f"or similar of at least 2x2 pixels") from error
    pixels = torch.from_numpy(np.array(rgb))                                 # [side, side, 3] uint8
    resized = F.interpolate(pixels.permute(2, 0, 1)[None].double(), size, mode="bicubic",
                            antialias=True)[0]                               # [3, H, W]
    if steps is not None:
        steps |= {"rgb": pixels, "resized": resized}
    # Half up, and a little more, so that the order of the sums does not decide about exact halves.
    return (resized + 0.501).floor().clamp(0, 255).byte()


def decode(source: Path | Image.Image, size: int) -> Image.Image:
    """Return the centred square of an upright image in RGB, shrunk where it is very large."""
    if isinstance(source, Image.Image):
        image = ImageOps.exif_transpose(source)
    else:
        with Image.open(source, formats=FORMATS) as image:
            image.verify()                                  # of PNG the checksums; closes the file
        with Image.open(source, formats=FORMATS) as image:
            image.draft(image.mode, (SPARE * size, SPARE * size))    # JPEG: at 1/2, 1/4 or 1/8
            image.getexif()                    # keeps its own copy, which exif_transpose reads;
            image.info.pop("exif", None)       # info's goes: Pillow can't write back every exif
            image = ImageOps.exif_transpose(image)
    side = min(image.size)
    if side < 2:
        raise ValueError(f"{image.width}x{image.height} pixels")
    left, top = (image.width - side) // 2, (image.height - side) // 2
    rgb = convert_to_rgb(image.crop((left, top, left + side, top + side)))
    return rgb.reduce(max(1, side // (SPARE * size)))


def convert_to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode: 16-bit grey becomes round(x / 257), transparency is laid over white."""
    if image.mode == "F":
        raise ValueError("its pixels have no set range: save it with 8 or 16 bits")
    if image.mode.startswith("I"):                          # convert("L") would clip it
        grey = (np.asarray(image) / 257).round()
        if grey.min() < 0 or grey.max() > 255:
            raise ValueError("its pixels have more than 16 bits: save it with 8 or 16")
        return Image.fromarray(grey.astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def normalise(pixels: torch.Tensor) -> torch.Tensor:
    """[..., 3, H, W] uint8 to float32 with ImageNet's mean 0 and std 1 in each channel."""
    return pixels.float().div_(255).sub_(IMAGENET_MEAN).div_(IMAGENET_STD)


def denormalise(image: torch.Tensor) -> torch.Tensor:
    """Invert `normalise`, for pictures: [3, H, W] float to uint8."""
    return ((image * IMAGENET_STD + IMAGENET_MEAN).clamp(0, 1) * 255).round().byte()
