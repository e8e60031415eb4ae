"""ESC-10 with CIFAR-10: environmental recordings, each with six images of a class.

python -m data_prep.esc10_cifar10 --esc ESC-50-master --cifar cifar-10-batches-bin

One sound serves several images, as in CIFAR10-AV; no image is used twice. Of ESC-10's five folds
one is test, the one before it validation.
"""
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from data_prep.shared import make_parser, new_folder, pair_by_class, write_set
from ptm_mini.data.image import read_image
from ptm_mini.data.manifest import Row, read_csv
from ptm_mini.errors import InputError, run

# CIFAR-10's classes in the order of its labels, each with the class of sounds it is paired with.
SOUND_OF = {"airplane": "helicopter", "automobile": "clock_tick", "bird": "rooster",
            "cat": "crying_baby", "deer": "crackling_fire", "dog": "dog", "frog": "rain",
            "horse": "sneezing", "ship": "sea_waves", "truck": "chainsaw"}
IMAGES = 6                # of each sound
RECORD = 1 + 3 * 32 * 32  # bytes of CIFAR-10's files: a label, then red, green and blue


def read_esc10(folder: Path, fold: int) -> list[Row]:
    """List each recording of ESC-10 as six rows, whose group is its source."""
    rows = []
    for place, cells in read_csv(folder / "meta" / "esc50.csv",
                                 ["filename", "fold", "category", "esc10", "src_file"], None):
        if cells["esc10"] != "True":
            continue
        stem = Path(cells["filename"]).stem
        file = next((folder / "audio").glob(f"{stem}.*"), None)
        if file is None:
            raise InputError(f"{place}: {folder / 'audio' / cells['filename']}: no such file, nor "
                             f"of another format; expected all recordings of esc10")
        split = {str(fold): "test", str(fold - 1 or 5): "val"}.get(cells["fold"], "train")
        rows += [Row(f"{stem}-{k}", f"audio/{file.name}", f"image/{stem}-{k}.png",
                     cells["category"], split, cells["src_file"]) for k in range(IMAGES)]
    return rows


def read_cifar10(folder: Path) -> tuple[list[str], Callable[[int], Image.Image]]:
    """List each image's class, as a class of sounds, and give the function that reads an image."""
    batches = sorted(folder.glob("*_batch*.bin"))
    if batches:
        records = np.concatenate([read_batch(path) for path in batches])
        pixels = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        classes = list(SOUND_OF.values())
        return [classes[label] for label in records[:, 0]], lambda i: Image.fromarray(pixels[i])
    files = [path for name in SOUND_OF for path in sorted((folder / name).glob("[!.]*"))]
    if not files:
        raise InputError(f"--cifar {folder}: neither data_batch_1.bin and so on nor folders "
                         f"airplane, automobile, ..; expected CIFAR-10's binary version")
    return [SOUND_OF[path.parent.name] for path in files], lambda i: Image.fromarray(
        read_image(files[i], 32).permute(1, 2, 0).numpy())


def read_batch(path: Path) -> np.ndarray:
    """Read a binary file of CIFAR-10: uint8 [n, 3073]."""
    content = np.fromfile(path, np.uint8)
    if len(content) % RECORD or content[::RECORD].max(initial=0) >= len(SOUND_OF):
        raise InputError(f"{path}: {len(content)} bytes; expected whole records of {RECORD} bytes, "
                         f"each with a label of 0 to 9 first")
    return content.reshape(-1, RECORD)


def main(argv: list[str] | None = None) -> None:
    parser = make_parser(__doc__, "sets/esc10_cifar10", seed_of="the pairing")
    parser.add_argument("--esc", type=Path, required=True,
                        help="ESC-50's folder, with audio/ and meta/esc50.csv")
    parser.add_argument("--cifar", type=Path, required=True,
                        help="folder with CIFAR-10's data_batch_*.bin, or with a folder a class")
    parser.add_argument("--fold", type=int, choices=range(1, 6), default=5,
                        help="the test split; default: 5")
    args = parser.parse_args(argv)
    rows = read_esc10(args.esc, args.fold)
    classes, take_image = read_cifar10(args.cifar)
    pairs = pair_by_class([row.label for row in rows], classes, args.seed)
    with new_folder(args.out) as folder:
        write_set(folder, rows, sorted(SOUND_OF.values()))
        (folder / "image").mkdir()
        (folder / "audio").mkdir()
        for row, image in zip(rows, pairs.tolist()):
            take_image(image).save(folder / row.image)
        for name in {row.audio for row in rows}:
            shutil.copyfile(args.esc / name, folder / name)


if __name__ == "__main__":
    run(main)
