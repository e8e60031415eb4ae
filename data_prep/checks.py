"""What a file is. Each is decoded once to its end, piece by piece, so that a broken one is found here and not in training."""
import hashlib
import os
from typing import NamedTuple

import numpy as np
import soundfile
from PIL import Image

from ptm_mini.data.audio import LOUDEST, PIECE, UNREADABLE, read_waveform
from ptm_mini.data.decoding import decoding
from ptm_mini.data.image import FORMATS, read_image
from ptm_mini.errors import InputError


class Sound(NamedTuple):
    digest: str                    # of the file's bytes
    rate: int                      # Hz
    channels: int
    seconds: float


class Picture(NamedTuple):
    digest: str
    width: int
    height: int


@decoding()
def examine_sound(path):
    """A whole sound's facts. Raises InputError where training would, and for what is broken behind the part that it uses."""
    digest = digest_of(path)
    read_waveform(path, 16000, 16000)
    frames = 0
    try:
        with soundfile.SoundFile(path) as file:
            while frames < file.frames and len(piece := file.read(PIECE, dtype="float32", always_2d=True)):
                if not (np.abs(piece) <= LOUDEST).all():                     # NaN is not either
                    raise InputError(f"{path}: holds NaN, infinity or samples beyond 2^32; expected finite ones, of the "
                                     f"order of 1: export it again")
                frames += len(piece)
            if frames < file.frames:
                raise InputError(f"{path}: the sound breaks off after {frames} samples; expected {file.frames}: copy it again")
            return Sound(digest, file.samplerate, file.channels, frames / file.samplerate)
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(f"{path}: breaks off after {frames} samples ({getattr(error, 'error_string', error)}); expected a "
                         f"whole file: copy it again") from error


@decoding()
def examine_picture(path):
    """A whole picture's facts. Raises InputError where training would."""
    digest = digest_of(path)
    read_image(path, 32)
    with Image.open(path, formats=FORMATS) as picture:
        return Picture(digest, *picture.size)


def digest_of(path):
    """SHA-256 of a file's bytes. Raises InputError where it is no file, or can't be read."""
    if not os.path.isfile(path):                                # a pipe would be waited for
        raise InputError(f"{path}: no regular file is there, or a link leads nowhere; expected a sound or a picture")
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while piece := file.read(PIECE):
                digest.update(piece)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); expected a readable file") from error
    return digest.hexdigest()
