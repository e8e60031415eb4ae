"""Pictures: a file to RGB pixels, pixels to normalised tensors."""
import numpy as np
import torch
from PIL import Image, ImageOps

from ptm_mini.errors import InputError

IMAGENET_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
IMAGENET_STD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def read_image(path, size):
    """Decode one picture, turn it upright, convert it to RGB, resize its shorter side and crop the centre.

    path     a file that Pillow reads, of any mode but floating point
    returns  [3, H, W] uint8, H = W = size
    raises   InputError where the file is missing, no picture, truncated or smaller than 2x2
    """
    try:
        with Image.open(path) as file:
            picture = to_rgb(ImageOps.exif_transpose(file))
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected a picture") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:     # all that Pillow raises
        raise InputError(f"{path}: Pillow can't read it ({error}); expected a whole PNG, JPEG or similar") from error
    if min(picture.size) < 2:
        raise InputError(f"{path}: {picture.width}x{picture.height} pixels; expected at least 2x2: replace it or leave "
                         f"its cell empty")
    picture = ImageOps.fit(picture, (size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def to_rgb(picture):
    """Any Pillow mode to RGB: 16-bit grey scaled to 8, transparency laid over white."""
    if picture.mode == "F":
        raise ValueError("floating-point pixels have no set range: save it with 8 or 16 bits")
    if picture.mode.startswith("I"):                                     # 16-bit grey; convert("L") would clip it
        return Image.fromarray((np.asarray(picture) / 257).round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")
    return picture.convert("RGB")


def normalise(pixels):
    """[..., 3, H, W] uint8 to float32 with ImageNet's mean 0 and std 1 in each channel."""
    return pixels.float().div_(255).sub_(IMAGENET_MEAN).div_(IMAGENET_STD)


def denormalise(image):
    """The inverse of `normalise`, for showing: [3, H, W] float to uint8."""
    return ((image * IMAGENET_STD + IMAGENET_MEAN).clamp(0, 1) * 255).round().byte()
