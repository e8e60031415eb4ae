"""Audio and image files of your own: two trees of class folders, or a list of pairs.

python -m data_prep.folder my_clips --out sets/mine         (my_clips/audio/dog/1.wav with
                                                            my_clips/image/dog/1.jpg, or
                                                            my_clips/dog/audio/1.wav with ...)
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
            "image": ".jpg .jpeg .jfif .png .bmp .gif .tif .tiff .webp .ppm .pgm .tga .jp2".split()}
FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"),
           "test": ("test", "testing", "eval", "evaluation")}


def read_trees(folder: Path, find_sound: Callable[[Key, dict[Key, str]], Key] | None = None
               ) -> tuple[Path, list[Row], list[str]]:
    """List the samples of two trees of class folders, or of such a pair for each split or class.

    find_sound  (an image's key, all sounds): the key of its sound, if it is not the same
    returns     root, the folder that the rows' paths are relative to; rows in the order of classes
                and names, with splits if the layout has them; why others are none
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected one that holds audio/ and image/")
    root, parts = find_parts(folder.resolve())
    rows, left_out = [], []
    hidden = sum(path.name.startswith(".") for path in root.rglob("*"))
    if hidden:
        left_out.append(f"{hidden} files and folders whose names begin with a dot")
    for name, trees in parts.items():
        split = look_up(name, FOLDERS)
        only_class = "" if split else name            # of all files in the two trees
        sounds = list_files(trees["audio"], "audio", only_class, root, left_out)
        images = list_files(trees["image"], "image", only_class, root, left_out)
        alone = dict(sounds)
        for (label, stem), image in images.items():
            key = find_sound((label, stem), sounds) if find_sound else (label, stem)
            alone.pop(key, None)
            rows.append(Row(stem, sounds.get(key, ""), image, label, split))
        rows += [Row(stem, sound, "", label, split) for (label, stem), sound in alone.items()]
    return root, sorted(rows, key=lambda row: (row.label, row.id, row.split)), left_out


def find_parts(folder: Path) -> tuple[Path, dict[str, dict[str, Path]]]:
    """Find a set in a folder or below it: its root, {part: {modality: tree}}.

    The parts are the root's folders, all named after splits or all after classes, or "", itself.
    """
    found = find_trees(folder)
    places, splits = list(found), [look_up(place.name, FOLDERS) for place in found]
    if len(found) == 1:
        return places[0], {"": found[places[0]]}
    flat = not any(list_folders(tree) for trees in found.values() for tree in trees.values())
    if len({place.parent for place in places}) != 1 or not (
            flat and not any(splits) or all(splits) and len(set(splits)) == len(splits)):
        names = ", ".join(place.name for place in places) or "no folder"
        raise InputError(f"{folder}: audio and images side by side in {names}; expected them in "
                         f"one folder, or in train/, val/ and test/, or in a folder for each "
                         f"class: rename or move them, or use --csv")
    return places[0].parent, {place.name: trees for place, trees in found.items()}


def find_trees(place: Path, depth: int = 2) -> dict[Path, dict[str, Path]]:
    """Find each folder, up to `depth` below a place, that holds trees: {folder: {modality: tree}}.

    Raises InputError where it does not hold one of each modality.
    """
    trees, found = [], {}
    for path in list_folders(place):
        if modality := look_up(path.name, TREES):
            trees.append((modality, path))
        elif depth:
            found |= find_trees(path, depth - 1)
    if trees and sorted(modality for modality, _ in trees) != ["audio", "image"]:
        raise InputError(f"{place}: holds {', '.join(path.name for _, path in trees)}; expected "
                         f"one folder of audio beside one of images: rename or move the others")
    return {place: dict(trees), **found} if trees else found


def list_folders(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("[!.]*")) if path.is_dir()]


def look_up(name: str, table: dict[str, tuple[str, ...]]) -> str:
    """Find the key whose names include this one; "" where none does."""
    return next((key for key, names in table.items() if simplify(name) in names), "")


def simplify(name: str) -> str:
    """Make names equal that differ in case, `_`, `-` and space only: Dog-Bark is dog_bark."""
    return re.sub("[ _-]+", "_", name.lower())


def list_files(tree: Path, modality: str, only_class: str, root: Path,
               left_out: list[str]) -> dict[Key, str]:
    """List a tree's files: paths relative to root. `left_out` gets why others are none.

    only_class  of all files, which are in the tree itself; "": they are in class folders
    """
    found = defaultdict(list)
    if not only_class:
        left_out += [f"{path.relative_to(root).as_posix()!r}: in no class folder"
                     for path in sorted(tree.glob("[!.]*")) if path.is_file()]
    for path in sorted(tree.glob("[!.]*" if only_class else "[!.]*/[!.]*")):
        name = path.relative_to(root).as_posix()
        if path.suffix.lower() not in SUFFIXES[modality] or path.is_dir():
            left_out.append(f"{name!r}: no {modality} file by its name")
        elif any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in name):
            left_out.append(f"{name!r}: has control characters or is no UTF-8; rename it")
        else:
            found[simplify(only_class or path.parent.name), path.stem].append(name)
    if not found:
        names = ", ".join(sorted(path.name for path in tree.iterdir())[:3]) or "nothing"
        raise InputError(f"{tree}: holds {names} and no {modality} file in a class folder; "
                         f"expected {tree.name}/dog/1{SUFFIXES[modality][0]}: move the files, or "
                         f"pair them by --csv, such as one frame of each clip")
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
                path = root / cells[modality].replace("\\", "/")
                cells[modality] = Path(os.path.relpath(path, root)).as_posix()
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
