"""Files of tensors, ours and others': read so that no code in them can run, and without more memory than their size."""
import hashlib
import io
import pickle
import zipfile
from pathlib import Path
from typing import NamedTuple

import torch

from ptm_mini.data.decoding import decoding
from ptm_mini.errors import InputError

PREFIX = "module."                # of the wrapper that many official codes, CAV-MAE's too, save and load through
ZIP = b"PK"                       # the first bytes of what torch.save writes
LONGEST = 200                     # characters of a tensor's name
FLOATS = torch.float32, torch.float64, torch.float16, torch.bfloat16
EXPECTED = "expected a checkpoint as torch.save writes it, tensors by name"


class Checkpoint(NamedTuple):
    path: Path
    sha256: str
    tensors: dict                 # {name without PREFIX: finite float32 tensor}


def read(path):
    """The Checkpoint in a file. Raises InputError where it can't be read or holds anything but finite tensors by name."""
    saved, sha256 = saved_in(path, EXPECTED)
    tensors = {}
    for key, tensor in plain_tensors(path, saved, EXPECTED, FLOATS).items():
        name = key.removeprefix(PREFIX)
        if name in tensors:
            raise InputError(f"{path}: {name!r} stands in it with and without {PREFIX}; expected it once")
        tensors[name] = tensor.float()
    return Checkpoint(path, sha256, tensors)


def saved_in(path, expected):
    """What torch.save wrote into a file.

    expected  what an error says of it
    returns   the object, of whatever type; SHA-256 of the file
    raises    InputError where it can't be read, or holds more than tensors, containers, numbers and text
    """
    try:
        content = path.read_bytes()
        if content.startswith(ZIP):
            refuse_compressed(content)
        with decoding():
            saved = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); {expected}") from error
    except Exception as error:                      # of any kind: the unpickler stumbles over whatever stands in other files
        not_tensors = isinstance(error, pickle.UnpicklingError) and content.startswith(ZIP)
        fault = "holds more than tensors, perhaps code, which was not run" if not_tensors else "is not a whole file of tensors"
        raise InputError(f"{path}: {fault}; {expected}") from error
    return saved, hashlib.sha256(content).hexdigest()


def refuse_compressed(content):
    """torch.save compresses nothing; torch.load would unpack what others did, a thousandfold perhaps."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if any(part.compress_type != zipfile.ZIP_STORED for part in archive.infolist()):
            raise ValueError("is compressed")


def plain_tensors(path, saved, expected, types, without_limit=()):
    """The same dict, if it is one of plain tensors.

    path, saved    a file, and what is in it or in a part of it
    expected       what an error says of it
    types          what dtypes are taken
    without_limit  names of tensors that can hold -inf too
    raises         InputError for the first that is no plain tensor of finite numbers, or where they are more than the file
                   has room for: views that repeat a number without end
    """
    if not isinstance(saved, dict) or not saved:
        raise InputError(f"{path}: holds no tensors by name but a {type(saved).__name__}; {expected}")
    room = path.stat().st_size
    if sum(value.numel() * value.element_size() for value in saved.values() if isinstance(value, torch.Tensor)) > room:
        raise InputError(f"{path}: its tensors have more numbers than there are in it; {expected}")
    for key, value in saved.items():
        if not isinstance(key, str) or len(key) > LONGEST:
            raise InputError(f"{path}: holds something by another name than of 1 to {LONGEST} letters; {expected}")
        if not is_plain(value, types, key in without_limit):
            raise InputError(f"{path}: {key!r} is no tensor of finite numbers; {expected}")
    return saved


def is_plain(value, types, without_limit):
    """Whether it is an ordinary tensor of one of these dtypes, on the CPU, whose numbers are finite as float32"""
    if not (type(value) in (torch.Tensor, torch.nn.Parameter) and value.layout is torch.strided and not value.is_nested
            and value.device.type == "cpu" and value.dtype in types):
        return False
    value = value.float()
    return bool((value.isfinite() | value.isneginf() if without_limit else value.isfinite()).all())
