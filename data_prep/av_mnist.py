"""AV-MNIST: spoken digits (Free Spoken Digit Dataset) paired with handwritten ones (MNIST).

python -m data_prep.av_mnist --fsdd DIR --mnist DIR --out sets/av_mnist
"""
if __name__ == "__main__":
    from ptm_mini.errors import run_script
    run_script(__file__)

import gzip
import math
import os
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.shared import arguments, new_set, pair_by_class
from ptm_mini.data.manifest import Row
from ptm_mini.errors import InputError

CLASSES = [str(digit) for digit in range(10)]
MOST = 1 << 30                    # bytes of an IDX file's data; MNIST's largest has 47 million


def read_idx(path):
    """One of MNIST's IDX files, plain or gzip, as a uint8 array: [n] labels or [n, rows, columns] images."""
    try:
        with open(path, "rb") as file:
            whole = gzip.GzipFile(fileobj=file) if file.peek(2)[:2] == b"\x1f\x8b" else file
            head = whole.read(4)
            dimensions = head[3] if len(head) == 4 else 0
            if head[:3] != b"\0\0\x08" or dimensions not in (1, 3):
                raise InputError(f"{path}: starts with {head.hex()}; expected 00000801 (labels) or 00000803 (images)")
            shape = [int.from_bytes(whole.read(4), "big") for _ in range(dimensions)]
            data = whole.read(min(math.prod(shape), MOST) + 1)          # no more, whatever a few bytes of gzip expand to
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: can't be read ({error}); expected an IDX file, plain or gzip: copy it again") from error
    if len(data) != math.prod(shape):
        raise InputError(f"{path}: {len(data)} bytes of data; expected {math.prod(shape)}: copy it again")
    return np.frombuffer(data, np.uint8).reshape(shape)


def found(folder, pattern):
    return sorted(folder.glob(pattern)) if os.path.isdir(folder) else []         # glob trips over names that are too long


def read_mnist(folder):
    """All pairs of IDX files in a folder. returns images [n, 28, 28] uint8, labels [n] uint8"""
    files = {path.name.removesuffix(".gz"): path for path in found(folder, "*idx[13]-ubyte*")}
    names = [name for name in files if "idx3" in name]
    if not names:
        raise InputError(f"--mnist {folder}: no *-images-idx3-ubyte (or .gz) there; expected MNIST's IDX files")
    images, labels = [], []
    for name in names:
        partner = name.replace("images", "labels").replace("idx3", "idx1")
        if partner not in files:
            raise InputError(f"--mnist {folder}: {name} without {partner}; expected both")
        images.append(read_idx(files[name]))
        labels.append(read_idx(files[partner]))
        if images[-1].ndim != 3 or labels[-1].shape != images[-1].shape[:1]:
            raise InputError(f"{files[name]}: {len(images[-1])} images for {len(labels[-1])} labels; expected one each")
    return np.concatenate(images), np.concatenate(labels)


def read_fsdd(folder):
    """Recordings named {digit}_{speaker}_{index}.wav. returns list of (path, digit as text, split)"""
    recordings = []
    for path in found(folder, "*.wav"):
        name = re.fullmatch(r"(\d)_(\w+)_(\d+)", path.stem)
        if not name:
            raise InputError(f"{path}: expected a name such as 7_jackson_32.wav: digit, speaker, index")
        index = int(name[3])
        recordings.append((path, name[1], "test" if index < 5 else "val" if index < 10 else "train"))
    if not recordings:
        raise InputError(f"--fsdd {folder}: no .wav there; expected the set's recordings, such as 7_jackson_32.wav")
    return recordings


def make(fsdd, mnist, out, seed):
    """Write the prepared set into the new folder `out`: every recording once, with an image that no other one has."""
    recordings = read_fsdd(fsdd)
    images, labels = read_mnist(mnist)
    pairs = pair_by_class([digit for _, digit, _ in recordings], [str(label) for label in labels], seed)
    with new_set(out, CLASSES) as (folder, rows):
        for name in ("audio", "image"):
            (folder / name).mkdir()
        for (path, digit, split), image in zip(recordings, pairs):
            row = Row(id=path.stem, audio=f"audio/{path.name}", image=f"image/{path.stem}.png", label=digit, split=split)
            shutil.copyfile(path, folder / row.audio)
            Image.fromarray(images[image]).save(folder / row.image)
            rows.append(row)


def main(argv=None):
    parser = arguments(__doc__, "sets/av_mnist", seed_of="the pairing")
    parser.add_argument("--fsdd", type=Path, required=True, help="folder with FSDD's recordings, 7_jackson_32.wav")
    parser.add_argument("--mnist", type=Path, required=True, help="folder with MNIST's IDX files, plain or gzip")
    options = parser.parse_args(argv)
    make(options.fsdd, options.mnist, options.out, options.seed)
