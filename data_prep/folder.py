"""Audio and image files of your own: two trees of class folders, or a list of pairs.

python -m data_prep.folder my_clips --out sets/mine         (my_clips/audio/dog/1.wav with
                                                            my_clips/image/dog/1.jpg)
python -m data_prep.folder --csv pairs.csv --out sets/mine  (columns audio,image,label and, if you
                                                            like, split,group,id)
"""
import os
import re
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

from data_prep.shared import make_prepare_parser, prepare
from ptm_mini.data.manifest import SPLITS, Row, read_csv
from ptm_mini.errors import InputError, run

Key = tuple[str, str]           # a class and a file's stem
TREES = {"audio": ("audio", "audio_dataset", "sound", "sounds", "dataset_v3_sound"),
         "image": ("image", "images", "vision", "visual", "dataset_v3_vision")}
SUFFIXES = {"audio": ".wav .flac .ogg .oga .opus .mp3 .aiff .aif .au .caf .w64 .rf64".split(),
            "image": ".jpg .jpeg .png .bmp .gif .tif .tiff .webp .ppm .pgm .tga .jp2".split()}


def read_trees(folder: Path, find_sound: Callable[[Key, dict[Key, str]], Key] | None = None
               ) -> tuple[Path, list[Row], list[str]]:
    """List the samples of two trees of class folders, or of such a pair for each split.

    find_sound  (an image's key, all sounds): the key of its sound, if it is not the same
    returns     root, the folder that the rows' paths are relative to; rows in the order of classes
                and names, with splits if the layout has them; why others are none
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected one that holds audio/ and image/")
    root, parts = find_parts(folder.resolve())
    rows, left_out = [], []
    for split, trees in parts.items():
        sounds = list_files(trees["audio"], "audio", root, left_out)
        images = list_files(trees["image"], "image", root, left_out)
        alone = dict(sounds)
        for (label, stem), image in images.items():
            key = find_sound((label, stem), sounds) if find_sound else (label, stem)
            alone.pop(key, None)
            rows.append(Row(stem, sounds.get(key, ""), image, label, split))
        rows += [Row(stem, sound, "", label, split) for (label, stem), sound in alone.items()]
    return root, sorted(rows, key=lambda row: (row.label, row.id, row.split)), left_out


def find_parts(folder: Path) -> tuple[Path, dict[str, dict[str, Path]]]:
    """Find a set in a folder or in one below it: its root, {split: {modality: tree}}.

    The splits are those of the root's folders train, val and test, or "" for its own trees.
    """
    found = {}
    for root in (folder, *list_folders(folder)):
        places = {"": root, **{split: root / split for split in SPLITS}}
        parts = {split: trees for split, place in places.items() if (trees := find_trees(place))}
        if parts:
            found[root] = parts
        if folder in found:
            break
    if len(found) != 1:
        names = ", ".join(root.name for root in found) or "no folder"
        raise InputError(f"{folder}: audio and images side by side in {names}; expected "
                         f"audio/CLASS/ and image/CLASS/ in one folder, or in each of train/, val/ "
                         f"and test/: rename or move them, or use --csv")
    return found.popitem()


def find_trees(folder: Path) -> dict[str, Path]:
    """Find the trees in a folder: {modality: tree}, empty where it holds none."""
    trees = [(modality, path) for path in list_folders(folder)
             for modality, names in TREES.items() if simplify(path.name) in names]
    if trees and sorted(modality for modality, _ in trees) != ["audio", "image"]:
        raise InputError(f"{folder}: holds {', '.join(path.name for _, path in trees)}; expected "
                         f"one folder of audio beside one of images: rename or move the others")
    return dict(trees)


def list_folders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("[!.]*")) if path.is_dir()]


def simplify(name: str) -> str:
    """Make names equal that differ in case, `_`, `-` and space only: Dog-Bark is dog_bark."""
    return re.sub("[ _-]+", "_", name.lower())


def list_files(tree: Path, modality: str, root: Path, left_out: list[str]) -> dict[Key, str]:
    """List a tree's files: paths relative to root. `left_out` gets why others are none."""
    found = defaultdict(list)
    for path in sorted(tree.glob("[!.]*/[!.]*")):                 # none that is hidden
        name = path.relative_to(root).as_posix()
        if path.suffix.lower() not in SUFFIXES[modality]:
            left_out.append(f"{name!r}: no {modality} file by its name")
        elif any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in name):
            left_out.append(f"{name!r}: has control characters or is no UTF-8; rename it")
        else:
            found[simplify(path.parent.name), path.stem].append(name)
    for names in found.values():
        if len(names) > 1:
            left_out.append(f"{', '.join(names)}: one name for several; pair them by --csv")
    return {key: names[0] for key, names in found.items() if len(names) == 1}


def read_pairs(path: Path, root: Path) -> list[Row]:
    """Read a CSV of pairs, in its order; the rows' paths are relative to the folder `root`."""
    rows = []
    for place, cells in read_csv(path, ["audio", "image", "label"], ["split", "group", "id"]):
        for modality in ("audio", "image"):
            if cells[modality]:
                cells[modality] = Path(os.path.relpath(root / cells[modality], root)).as_posix()
            if cells[modality].startswith(".."):
                raise InputError(f"{place}: {cells[modality]!r} leads out of {root}; expected a "
                                 f"path below it: name the folder of all files before --csv")
        name = cells.get("id") or Path(cells["image"] or cells["audio"]).stem
        row = Row(**{"split": "", **cells, "id": name})
        if not row.label or not row.audio and not row.image:
            raise InputError(f"{place}: expected a label, and audio or image or both")
        if "split" in cells and row.split not in SPLITS:
            raise InputError(f"{place}: split {row.split!r}; expected one of {', '.join(SPLITS)}")
        rows.append(row)
    return rows


def main(argv: list[str] | None = None) -> None:
    parser = make_prepare_parser(__doc__, "sets/folder")
    parser.add_argument("folder", type=Path, nargs="?",
                        help="holds the two trees, or the files of the list")
    parser.add_argument("--csv", type=Path, help="list of pairs")
    args = parser.parse_args(argv)
    if args.csv:
        root = (args.folder or args.csv.parent).resolve()
        prepare(root, read_pairs(args.csv, root), [], args)
    elif args.folder:
        prepare(*read_trees(args.folder), args)
    else:
        raise InputError("no folder is named; expected one, or --csv with a list of pairs")


if __name__ == "__main__":
    run(main)
