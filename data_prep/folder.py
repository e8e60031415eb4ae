"""Audio and image files of your own: two trees of class folders, or a list of pairs.

python -m data_prep.folder my_clips --out sets/mine         my_clips/audio/dog/1.wav with
                                                            my_clips/image/dog/1.jpg
python -m data_prep.folder --csv pairs.csv --out sets/mine  columns audio,image,label and, if you
                                                            like, split,group,id

Paths in the list are relative to its own folder, or to the one that is named before it; an empty
cell is a missing modality.
"""
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from data_prep.shared import make_prepare_parser, prepare
from ptm_mini.data.manifest import SPLITS, Row, read_csv
from ptm_mini.errors import InputError, run

TREES = {"audio": ("audio", "audios", "audio_dataset", "sound", "sounds", "dataset_v3_sound"),
         "image": ("image", "images", "vision", "visual", "visuals", "dataset_v3_vision")}
SUFFIXES = {"audio": (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au",
                      ".caf", ".w64", ".rf64"),
            "image": (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm",
                      ".pgm", ".tga", ".jp2")}
FOLDERS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"),
           "test": ("test", "testing", "eval", "evaluation")}


def read_trees(folder: Path, find_sound: Callable[[str, set[str]], str] | None = None
               ) -> tuple[Path, list[Row], list[str]]:
    """List the samples of two trees of class folders, or of such a pair for each split.

    find_sound  (an image's stem, the stems of its class's sounds): the stem of its sound, if it is
                not the same
    returns     root, the folder that the rows' paths are relative to; rows in the order of classes
                and names, with splits if the layout has them; a remark for each thing left aside
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected one that holds audio/ and image/")
    root, parts = find_parts(folder.resolve())
    rows, remarks = [], []
    for split, trees in parts.items():
        sounds, images = (list_files(trees[modality], modality, root, remarks)
                          for modality in ("audio", "image"))
        stems = defaultdict(set)
        for label, stem in sounds:
            stems[label].add(stem)
        used = set()
        for (label, stem), image in images.items():
            key = label, find_sound(stem, stems[label]) if find_sound else stem
            used.add(key)
            rows.append(Row(stem, sounds.get(key, ""), image, label, split))
        for label, stem in sounds.keys() - used:
            rows.append(Row(stem, sounds[label, stem], "", label, split))
    return root, name_apart(sorted(rows, key=lambda row: (row.label, row.id, row.split))), remarks


def find_parts(folder: Path) -> tuple[Path, dict[str, dict[str, Path]]]:
    """Find a set in a folder or in one below it: its root, {split: {modality: tree}}.

    The splits are those of the root's folders train, val and test, or "" for its own trees.
    """
    found = find_trees(folder)
    places = list(found)
    if len(places) == 1:
        return places[0], {"": found[places[0]]}
    parts = {look_up(place.name, FOLDERS): trees for place, trees in found.items()}
    if "" in parts or len(parts) < len(found) or len({place.parent for place in places}) != 1:
        names = ", ".join(place.name for place in places) or "no folder"
        raise InputError(f"{folder}: audio and images side by side in {names}; expected "
                         f"audio/CLASS/ and image/CLASS/ in one folder, or in each of train/, val/ "
                         f"and test/: rename or move them, or use --csv")
    return places[0].parent, parts


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


def look_up(name: str, table: dict[str, tuple[str, ...]]) -> str:
    """Find the key whose names include this one, in whatever case; "" where none does."""
    return next((key for key, names in table.items() if simplify(name) in names), "")


def list_folders(folder: Path) -> list[Path]:
    """List the folders in a folder that are not hidden."""
    return [path for path in sorted(folder.iterdir())
            if path.is_dir() and not path.name.startswith(".")]


def simplify(name: str) -> str:
    """Make names equal that differ in case, `_`, `-` and space only: Dog-Bark is dog_bark."""
    return re.sub("[ _-]+", "_", unicodedata.normalize("NFC", name).lower())


def list_files(tree: Path, modality: str, root: Path,
               remarks: list[str]) -> dict[tuple[str, str], str]:
    """List a tree: {(label, stem): path relative to root}. `remarks` gets what is left aside."""
    found = defaultdict(list)
    for folder in sorted(tree.iterdir()):
        if folder.name.startswith(".") or not folder.is_dir():
            remarks.append(f"{folder.relative_to(root).as_posix()!r}: no class folder")
            continue
        for path in sorted(folder.iterdir()):
            name = path.relative_to(root).as_posix()
            if (path.name.startswith(".") or path.suffix.lower() not in SUFFIXES[modality]
                    or path.is_dir()):
                remarks.append(f"{name!r}: no {modality} file by its name")
            elif any(ord(letter) < 32 or 0xD800 <= ord(letter) < 0xE000 for letter in name):
                remarks.append(f"{name!r}: has control characters or is no UTF-8; rename it")
            else:
                stem = unicodedata.normalize("NFC", path.stem)
                found[simplify(folder.name), stem].append(name)
    for names in found.values():
        if len(names) > 1:
            remarks.append(f"{', '.join(names)}: one name for several; pair them by --csv")
    return {key: names[0] for key, names in found.items() if len(names) == 1}


def name_apart(rows: list[Row]) -> list[Row]:
    """Make ids differ: put the class before them or, where that is not enough, a number."""
    for form in ("{row.id}", "{row.label}/{row.id}", "{number}/{row.id}"):
        ids = [form.format(row=row, number=number) for number, row in enumerate(rows)]
        if len(set(ids)) == len(ids):
            break
    return [replace(row, id=name) for row, name in zip(rows, ids)]


def read_pairs(path: Path, root: Path) -> list[Row]:
    """Read a CSV of pairs, in its order; the rows' paths are relative to the folder `root`."""
    rows, ids = [], set()
    for place, cells in read_csv(path, ["audio", "image", "label"], ["split", "group", "id"]):
        for modality in ("audio", "image"):
            if cells[modality]:
                cells[modality] = make_relative(place, cells[modality], root)
        name = Path(cells["image"] or cells["audio"]).stem
        row = Row(**{"id": name, "split": "", **cells, "label": cells["label"].strip()})
        if not row.label or not row.audio and not row.image:
            raise InputError(f"{place}: expected a label, and audio or image or both")
        if "split" in cells and row.split not in SPLITS:
            raise InputError(f"{place}: split {row.split!r}; expected one of {', '.join(SPLITS)}")
        if "id" in cells and (not row.id or row.id in ids):
            raise InputError(f"{place}: id {row.id!r} is empty or stands above; expected another")
        ids.add(row.id)
        rows.append(row)
    return name_apart(rows)


def make_relative(place: str, cell: str, root: Path) -> str:
    """Return a cell's path relative to the folder `root`. Raises InputError if it is not below."""
    path = root / cell
    if "\\" in cell or ".." in path.parts or not path.is_relative_to(root):
        raise InputError(f"{place}: path {cell!r} has backslashes or leads out of {root}; expected "
                         f"one below it, with /: name the folder of all files before --csv")
    return path.relative_to(root).as_posix()


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
