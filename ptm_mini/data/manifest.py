"""A prepared set on disk: manifest.csv, classes.json and, if the files lie elsewhere, root.txt."""
import csv
import json
from collections.abc import Collection
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


def read_csv(path: Path, required: Collection[str],
             optional: Collection[str] | None = ()) -> list[tuple[str, dict[str, str]]]:
    """Read a CSV file strictly, with commas, semicolons or tabs between its cells.

    optional  names of further columns; None: any
    returns   (place such as "pairs.csv:3", {column: cell}) for each row
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            separator = max(",;\t", key=file.readline().count)
            file.seek(0)
            reader = csv.DictReader(file, delimiter=separator, strict=True)
            columns = reader.fieldnames or []
            rows = [(f"{path}:{reader.reader.line_num}", cells) for cells in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: {reason}; expected comma-separated UTF-8 text") from error
    for column in required:
        if column not in columns:
            raise InputError(f"{path}: no column {column!r}; expected {','.join(required)}")
    if len(set(columns)) < len(columns):
        raise InputError(f"{path}: two columns of one name; expected different names")
    known = [*required, *(optional or ())]
    for column in columns:
        if optional is not None and column not in known:
            raise InputError(f"{path}: no such column as {column!r}; {nearest(column, known)}")
    for place, cells in rows:
        if None in cells or None in cells.values():    # as DictReader marks too many and too few
            raise InputError(f"{place}: expected {len(columns)} cells, as in line 1")
    return rows


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
        root = (folder / pointer.read_text(encoding="utf-8").strip()).resolve()
        if not root.is_dir():
            raise InputError(f"{pointer}: {root}: no such folder; expected where the files are now")
    classes = read_classes(folder / "classes.json")
    manifest, rows = folder / "manifest.csv", {}
    for place, cells in read_csv(manifest, [item.name for item in fields(Row)]):
        row = Row(**cells)
        check_row(place, row, root, classes)
        if not row.id or row.id in rows:
            raise InputError(f"{place}: id {row.id!r}; expected a different one for each sample")
        rows[row.id] = row
    for split in SPLITS:
        if not any(row.split == split for row in rows.values()):
            raise InputError(f"{manifest}: no row of split {split!r}; expected some")
    return root, list(rows.values()), classes


def read_classes(path: Path) -> list[str]:
    """Read the K class names. Raises InputError where they are not different names."""
    try:
        classes = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {error}; expected a JSON list of names") from error
    if not (isinstance(classes, list) and all(isinstance(name, str) and name for name in classes)
            and len(set(classes)) == len(classes) > 1):
        raise InputError(f"{path}: expected different names, two or more: [\"dog\", \"rain\"]")
    return classes


def check_row(place: str, row: Row, root: Path, classes: list[str]) -> None:
    """Raise InputError for the first wrong label, split or path of a row."""
    if row.label not in classes:
        raise InputError(f"{place}: label {row.label!r} is not in classes.json; "
                         f"{nearest(row.label, classes)}")
    if row.split not in SPLITS:
        raise InputError(f"{place}: split {row.split!r}; expected one of {', '.join(SPLITS)}")
    if not row.audio and not row.image:
        raise InputError(f"{place}: neither audio nor image; expected at least one")
    for name in filter(None, (row.audio, row.image)):
        if leads_out(name, root):
            raise InputError(f"{place}: path {name!r} leads out of {root}; expected one below it, "
                             f"or a root.txt that names the folder of all files")
        if not (root / name).is_file():
            raise InputError(f"{place}: {root / name}: no such file; expected one or an empty cell")


def leads_out(name: str, root: Path) -> bool:
    """Whether a path is not below the folder `root`: absolute, by .. or through a link."""
    return Path(name).is_absolute() or not (root / name).resolve().is_relative_to(root.resolve())
