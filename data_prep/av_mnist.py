"""AV-MNIST: spoken digits (Free Spoken Digit Dataset) paired with handwritten ones (MNIST).

python -m data_prep.av_mnist --fsdd DIR --mnist DIR --out sets/av_mnist
"""
import gzip
import shutil
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.shared import make_parser, new_folder, pair_by_class, write_set
from ptm_mini.data.manifest import Row
from ptm_mini.errors import InputError, run


def read_idx(path: Path) -> np.ndarray:
    """Read one of MNIST's IDX files, plain or gzip: uint8 labels [n] or images [n, 28, 28]."""
    try:
        content = path.read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)
        header = 4 + 4 * content[3]                   # byte 3 is the number of dimensions
        shape = [int.from_bytes(content[i:i + 4], "big") for i in range(4, header, 4)]
        return np.frombuffer(content, np.uint8, offset=header).reshape(shape)
    except (OSError, EOFError, zlib.error, IndexError, ValueError) as error:
        raise InputError(f"{path}: {error}; expected a whole IDX file, plain or gzip") from error


def read_mnist(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read all pairs of IDX files in a folder: images [n, 28, 28] and labels [n], uint8."""
    paths = {path.name.removesuffix(".gz"): path for path in sorted(folder.glob("*idx3-ubyte*"))}
    if not paths:
        raise InputError(f"--mnist {folder}: no *-images-idx3-ubyte or .gz there; expected some")
    partners = [path.with_name(path.name.replace("images", "labels").replace("idx3", "idx1"))
                for path in paths.values()]
    images, labels = ([read_idx(path) for path in files] for files in (paths.values(), partners))
    for path, *counts in zip(partners, map(len, labels), map(len, images)):
        if counts[0] != counts[1]:
            raise InputError(f"{path}: {counts[0]} labels for {counts[1]} images; expected as many")
    return np.concatenate(images), np.concatenate(labels)


def read_fsdd(folder: Path) -> list[Row]:
    """List recordings named {digit}_{speaker}_{index}.wav as rows in their official splits."""
    rows = []
    for path in sorted(folder.glob("[0-9]_*_[0-9]*.wav")):
        index = path.stem.split("_")[-1]
        if not index.isdecimal():
            raise InputError(f"{path}: expected a name such as 7_jackson_32.wav: rename it")
        split = "test" if int(index) < 5 else "val" if int(index) < 10 else "train"
        rows.append(Row(path.stem, f"audio/{path.name}", f"image/{path.stem}.png", path.name[0],
                        split))
    if not rows:
        raise InputError(f"--fsdd {folder}: no 7_jackson_32.wav or such there; expected some")
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = make_parser(__doc__, "sets/av_mnist", seed_of="the pairing")
    parser.add_argument("--fsdd", type=Path, required=True,
                        help="folder with FSDD's recordings, 7_jackson_32.wav")
    parser.add_argument("--mnist", type=Path, required=True,
                        help="folder with MNIST's IDX files, plain or gzip")
    args = parser.parse_args(argv)
    rows = read_fsdd(args.fsdd)
    images, labels = read_mnist(args.mnist)
    pairs = pair_by_class([row.label for row in rows], labels.astype(str), args.seed)
    with new_folder(args.out) as folder:
        write_set(folder, rows, [str(digit) for digit in range(10)])
        (folder / "audio").mkdir()
        (folder / "image").mkdir()
        for row, image in zip(rows, images[pairs]):
            shutil.copyfile(args.fsdd / f"{row.id}.wav", folder / row.audio)
            Image.fromarray(image).save(folder / row.image)


if __name__ == "__main__":
    run(main)
