"""AV-MNIST: spoken digits (Free Spoken Digit Dataset) paired with handwritten ones (MNIST).

python -m data_prep.av_mnist --fsdd DIR --mnist DIR --out sets/av_mnist
"""
import gzip
import re
import shutil
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.shared import make_parser, new_folder, write_set
from ptm_mini.data.manifest import Row
from ptm_mini.errors import InputError, run

CLASSES = [str(digit) for digit in range(10)]


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
    images = np.concatenate([read_idx(path) for path in paths.values()])
    labels = np.concatenate([read_idx(path) for path in partners])
    if len(images) != len(labels):
        raise InputError(f"--mnist {folder}: {len(images)} images for {len(labels)} labels; "
                         f"expected one each")
    return images, labels


def read_fsdd(folder: Path) -> list[tuple[Path, str, str]]:
    """List recordings named {digit}_{speaker}_{index}.wav: (path, digit, its official split)."""
    recordings = []
    for path in sorted(folder.glob("*.wav")):
        name = re.fullmatch(r"(\d)_(\w+)_(\d+)", path.stem)
        if not name:
            raise InputError(f"{path}: expected a name such as 7_jackson_32.wav; rename it")
        index = int(name[3])
        split = "test" if index < 5 else "val" if index < 10 else "train"
        recordings.append((path, name[1], split))
    if not recordings:
        raise InputError(f"--fsdd {folder}: no .wav there; expected FSDD's 7_jackson_32.wav ...")
    return recordings


def pair_by_class(audio_labels: list[str], image_labels: list[str], seed: int) -> np.ndarray:
    """Draw for each recording an image of its class, no image twice: [n] indices of images."""
    generator = np.random.default_rng(seed)
    pairs = np.zeros(len(audio_labels), int)
    for label in CLASSES:
        recordings, images = (np.flatnonzero(np.array(labels) == label)
                              for labels in (audio_labels, image_labels))
        if len(images) < len(recordings):
            raise InputError(f"class {label}: {len(images)} images for {len(recordings)} "
                             f"recordings; expected one each")
        pairs[recordings] = generator.permutation(images)[:len(recordings)]
    return pairs


def make(fsdd: Path, mnist: Path, out: Path, seed: int) -> None:
    """Write the set into the new folder `out`: each recording once, with an image of its own."""
    recordings = read_fsdd(fsdd)
    images, labels = read_mnist(mnist)
    pairs = pair_by_class([digit for _, digit, _ in recordings], [str(n) for n in labels], seed)
    rows = [Row(path.stem, f"audio/{path.name}", f"image/{path.stem}.png", digit, split)
            for path, digit, split in recordings]
    with new_folder(out) as folder:
        write_set(folder, rows, CLASSES)
        (folder / "audio").mkdir()
        (folder / "image").mkdir()
        for row, (path, _, _), image in zip(rows, recordings, pairs):
            shutil.copyfile(path, folder / row.audio)
            Image.fromarray(images[image]).save(folder / row.image)


def main(argv: list[str] | None = None) -> None:
    parser = make_parser(__doc__, "sets/av_mnist", seed_of="the pairing")
    parser.add_argument("--fsdd", type=Path, required=True,
                        help="folder with FSDD's recordings, 7_jackson_32.wav")
    parser.add_argument("--mnist", type=Path, required=True,
                        help="folder with MNIST's IDX files, plain or gzip")
    args = parser.parse_args(argv)
    make(args.fsdd, args.mnist, args.out, args.seed)


if __name__ == "__main__":
    run(main)
