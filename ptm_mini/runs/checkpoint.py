"""A checkpoint that somebody else wrote: tensors by name, read so that no code in it can run."""
import hashlib
import io
import pickle
from pathlib import Path
from typing import NamedTuple

import torch

from ptm_mini.errors import InputError

PREFIX = "module."                # of the wrapper that many official codes, CAV-MAE's too, save and load through
ZIP = b"PK"                       # the first bytes of what torch.save writes
EXPECTED = "expected a checkpoint as torch.save writes it, tensors by name"


class Checkpoint(NamedTuple):
    path: Path
    sha256: str
    tensors: dict                 # {name without PREFIX: finite float32 tensor}


def read(path):
    """The Checkpoint in a file. Raises InputError where it can't be read or holds anything but finite tensors by name."""
    try:
        content = path.read_bytes()
        saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); {EXPECTED}") from error
    except Exception as error:                      # of any kind: the unpickler stumbles over whatever stands in other files
        not_tensors = isinstance(error, pickle.UnpicklingError) and content.startswith(ZIP)
        fault = "holds more than tensors, perhaps code, which was not run" if not_tensors else "is not a whole file of tensors"
        raise InputError(f"{path}: {fault}; {EXPECTED}") from error
    if not isinstance(saved, dict) or not saved:
        raise InputError(f"{path}: holds no tensors by name but a {type(saved).__name__}; {EXPECTED}")
    tensors = {}
    for key, tensor in saved.items():
        name = str(key).removeprefix(PREFIX)
        if not is_plain(tensor):
            raise InputError(f"{path}: {key!r} is no tensor of finite numbers; {EXPECTED}")
        if name in tensors:
            raise InputError(f"{path}: {name!r} stands in it with and without {PREFIX}; expected it once")
        tensors[name] = tensor.float()
    return Checkpoint(path, hashlib.sha256(content).hexdigest(), tensors)


def is_plain(value):
    """Whether it is an ordinary tensor of finite floating-point numbers"""
    return (isinstance(value, torch.Tensor) and value.layout is torch.strided and value.device.type == "cpu"
            and value.is_floating_point() and bool(value.isfinite().all()))
