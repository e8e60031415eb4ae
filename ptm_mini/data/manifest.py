"""A prepared set on disk: manifest.csv, classes.json and, if the files lie elsewhere, root.txt."""
import csv
import json
import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from pathlib import Path

from ptm_mini.errors import InputError, nearest

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Row:
    """A sample in manifest.csv. An empty audio or image is a missing modality."""
    id: str
    audio: str           # path relative to the set's root
    image: str
    label: str
    split: str
    group: str = ""      # samples that must stay on one side of a split; empty: a group of its own


def read_csv(path: Path, required: Iterable[str],
             optional: Collection[str] | None = ()) -> list[tuple[str, dict[str, str]]]:
    """Read a CSV file strictly.

    optional  names of further columns; None: any
    returns   (place such as "pairs.csv:3", {column: cell}) for each row
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            columns = next(reader, [])
            rows = [(f"{path}:{reader.line_num}", cells) for cells in reader if cells]
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a readable CSV file") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: {error}; expected comma-separated UTF-8 text") from error
    for column in required:
        if column not in columns:
            raise InputError(f"{path}: no column {column!r}; expected {','.join(required)}, with "
                             f"commas between them")
    for column in columns:
        if columns.count(column) > 1:
            raise InputError(f"{path}: column {column!r} stands twice; expected it once")
        if optional is not None and column not in (*required, *optional):
            raise InputError(f"{path}: no such column as {column!r}; "
                             f"{nearest(column, (*required, *optional))}")
    for place, cells in rows:
        if len(cells) != len(columns):
            raise InputError(f"{place}: {len(cells)} cells; expected {len(columns)}, as in line 1")
        for cell in cells:
            if any(ord(letter) < 32 for letter in cell):
                raise InputError(f"{place}: {cell!r} holds a control character; expected text")
    return [(place, dict(zip(columns, cells))) for place, cells in rows]


def read_set(folder: Path) -> tuple[Path, list[Row], list[str]]:
    """Read a prepared set and check every cell.

    returns  root, the folder that paths are relative to (root.txt names it, else the set's own);
             rows; the K classes
    raises   InputError for the first error, with its line
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected a prepared set: data_prep makes one, "
                         f"and --data says where it is")
    pointer, root = folder / "root.txt", folder.resolve()
    if pointer.exists():
        root = (folder / pointer.read_text(encoding="utf-8").rstrip("\r\n")).resolve()
        if not root.is_dir():
            raise InputError(f"{pointer}: {root}: no such folder; expected the one that holds the "
                             f"set's files: write there where it is now")
    classes = read_classes(folder / "classes.json")
    rows, places = [], {}
    for place, cells in read_csv(folder / "manifest.csv", [item.name for item in fields(Row)]):
        row = Row(**cells)
        check_row(place, row, root, classes)
        if row.id in places:
            raise InputError(f"{place}: id {row.id!r} stands at {places[row.id]} too; expected "
                             f"each id once")
        places[row.id] = place
        rows.append(row)
    for split in SPLITS:
        if not any(row.split == split for row in rows):
            raise InputError(f"{folder / 'manifest.csv'}: no row of split {split!r}; expected some "
                             f"of each of {', '.join(SPLITS)}")
    return root, rows, classes


def read_classes(path: Path) -> list[str]:
    """Read the K class names. Raises InputError where they are not different names."""
    try:
        classes = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}; expected a JSON list of names") from error
    if not (isinstance(classes, list) and all(isinstance(name, str) and name for name in classes)
            and len(set(classes)) == len(classes) > 1):
        raise InputError(f"{path}: expected a list of two or more different names, such as "
                         f"[\"dog\", \"rain\"]")
    return classes


def check_row(place: str, row: Row, root: Path, classes: list[str]) -> None:
    """Raise InputError for the first wrong cell of a row."""
    if not row.id:
        raise InputError(f"{place}: the id is empty; expected a different one for each sample")
    if row.label not in classes:
        raise InputError(f"{place}: label {row.label!r} is not in classes.json; "
                         f"{nearest(row.label, classes)}")
    if row.split not in SPLITS:
        raise InputError(f"{place}: split {row.split!r}; expected one of {', '.join(SPLITS)}")
    if not row.audio and not row.image:
        raise InputError(f"{place}: neither audio nor image; expected at least one")
    for name in filter(None, (row.audio, row.image)):
        if leads_out(name, root):
            raise InputError(f"{place}: path {name!r} leads out of {root}; copy the file in, or "
                             f"let root.txt beside the manifest name the folder of all files")
        if not (root / name).is_file():
            raise InputError(f"{place}: {root / name}: no such file; mend the path or leave the "
                             f"cell empty")


def leads_out(name: str, root: Path) -> bool:
    """Whether a path is not below the folder `root`: absolute, by .. or through a link."""
    path = Path(name)
    return (path.is_absolute() or ".." in path.parts
            or not Path(os.path.realpath(root / path)).is_relative_to(os.path.realpath(root)))
