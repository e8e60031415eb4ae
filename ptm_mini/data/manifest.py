"""A prepared set on disk: manifest.csv, classes.json and, where the files lie elsewhere, root.txt: read, checked, written."""
import csv
import io
import json
import os
import re
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path

from ptm_mini.errors import InputError, nearest
from ptm_mini.settings import shown

MOST_CLASSES, LONGEST = 100_000, 4096                   # and characters of a name or a path
SPLITS = ("train", "val", "test")
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")           # newline, tab, NUL and the like: no part of a name


@dataclass(frozen=True)
class Row:
    """One sample. An empty audio or image is a missing modality; an empty group is a group of its own."""
    id: str
    audio: str          # path relative to the set's root, as root_of gives it
    image: str
    label: str
    split: str
    group: str = ""


def read_set(folder):
    """Read a prepared set and check every cell.

    returns  rows, classes: list of Row, list of K names
    raises   InputError for the first thing wrong, with its line
    """
    classes, root = read_classes(folder / "classes.json"), root_of(folder)
    real = lru_cache(maxsize=None)(os.path.realpath)
    path, columns = folder / "manifest.csv", [f.name for f in fields(Row)]
    rows, lines, known = [], {}, dict.fromkeys(classes)
    with open_text(path) as file:
        reader = csv.DictReader(file, strict=True)                   # else an unclosed quote swallows the lines after it
        found = csv_columns(reader, path)
        for column in found:
            if column not in columns:
                raise InputError(f"{path}: column {shown(column)}: no such column; {nearest(column, columns)}")
        for column in columns:
            if found.count(column) != 1:
                raise InputError(f"{path}: column {column!r} stands {found.count(column)} times; expected "
                                 f"{','.join(columns)}")
        for cells in csv_rows(reader, path):
            where = f"{path}:{reader.line_num}"
            if None in cells or None in cells.values():
                raise InputError(f"{where}: expected {len(columns)} cells, as the first line has")
            row = Row(**cells)
            check_row(row, where, root, known, real)
            if row.id in lines:
                raise InputError(f"{where}: id {row.id!r} stands in line {lines[row.id]} too; expected each id once")
            lines[row.id] = reader.line_num
            rows.append(row)
    for split in SPLITS:
        if not any(row.split == split for row in rows):
            raise InputError(f"{path}: no row of split {split!r}; expected some of each of {', '.join(SPLITS)}")
    return rows, classes


def root_of(folder):
    """The folder that a set's manifest has its paths relative to: the one that root.txt names, else the set's own.

    root.txt is one line, an absolute path or one relative to the set's folder.
    """
    path = folder / "root.txt"
    if not os.path.exists(path):
        return folder.resolve()
    with open_text(path) as file:
        name = file.read().rstrip("\r\n")
    if not name or len(name) > LONGEST or CONTROL.search(name):
        raise InputError(f"{path}: {shown(name)}; expected one line, the folder that the manifest's paths are relative to")
    root = (folder / name).resolve()
    if not os.path.isdir(root):
        raise InputError(f"{path}: {root}: no such folder; write there where the set's files are now")
    return root


def csv_columns(reader, path):
    """The names in the first line of a CSV file; none of an empty one"""
    try:
        return reader.fieldnames or []
    except csv.Error as error:
        raise InputError(f"{path}:1: {error}; expected comma-separated text") from error


def csv_rows(reader, path):
    try:
        yield from reader
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: {error}; expected comma-separated text") from error


def open_text(path):
    """Open a UTF-8 text file whole, so that a wrong byte is found here; a byte-order mark is left out."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected a prepared set (python -m data_prep.toy makes one)") from error
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); expected a text file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8; save it as UTF-8 text") from error
    return io.StringIO(text, newline="")


def read_classes(path):
    with open_text(path) as file:
        try:
            classes = json.load(file)
        except json.JSONDecodeError as error:
            raise InputError(f"{path}:{error.lineno}: not JSON ({error.msg}); expected a list of names") from error
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path}: numbers without end, or nested without end; expected a list of names") from error
    if not (isinstance(classes, list) and len(classes) > 1 and all(isinstance(name, str) and name for name in classes)
            and len(set(classes)) == len(classes)):
        raise InputError(f"{path}: expected a list of two or more different names, such as [\"dog\", \"rain\"]")
    if len(classes) > MOST_CLASSES:
        raise InputError(f"{path}: {len(classes)} names; expected at most {MOST_CLASSES}")
    for name in classes:
        if len(name) > LONGEST:
            raise InputError(f"{path}: class {name[:60]!r}... has {len(name)} characters; expected at most {LONGEST}")
        if CONTROL.search(name) or name != name.strip():
            raise InputError(f"{path}: class {name!r} holds a control character, or white space around it; expected a name")
    return classes


def check_row(row, where, root, classes, real):
    for column, cell in vars(row).items():
        if len(cell) > LONGEST:
            raise InputError(f"{where}: {column} {cell[:60]!r}... has {len(cell)} characters; expected at most {LONGEST}")
        if CONTROL.search(cell):
            raise InputError(f"{where}: {column} {cell!r} holds a control character; expected plain text: rename it")
    if not row.id:
        raise InputError(f"{where}: the id is empty; expected a name of its own for each sample")
    for column, cell in (("id", row.id), ("group", row.group)):
        if cell != cell.strip():                                     # "yard" and "yard " would be two groups
            raise InputError(f"{where}: {column} {cell!r} starts or ends with white space; expected a name without it")
    if row.label not in classes:
        raise InputError(f"{where}: label {row.label!r} is not in classes.json; {nearest(row.label, classes)}")
    if row.split not in SPLITS:
        raise InputError(f"{where}: split {row.split!r}; expected one of {', '.join(SPLITS)}")
    if not row.audio and not row.image:
        raise InputError(f"{where}: sample {row.id!r} has neither audio nor image; expected at least one")
    for name in filter(None, (row.audio, row.image)):
        if leads_out(name, root, real):
            raise InputError(f"{where}: path {name!r} leads out of {root}; copy the file in, or let root.txt beside the "
                             f"manifest name the folder that holds the set's files")
        if not os.path.isfile(root / name):
            raise InputError(f"{where}: {root / name}: no such file; mend the path or leave the cell empty")


def leads_out(name, root, real=os.path.realpath):
    """Whether a path that should be relative to the folder `root` leaves it: absolute, by .. or through a symbolic link.

    real  os.path.realpath, or one that remembers the folders that it has seen
    """
    path = Path(name)
    if path.is_absolute() or ".." in path.parts:
        return True
    path = root / path
    return not Path(os.path.realpath(path) if os.path.islink(path) else real(path.parent)).is_relative_to(root)


def write_set(folder, rows, classes, root=None):
    """Write manifest.csv and classes.json into `folder`.

    root  the folder that the rows' paths are relative to, where that is another: root.txt names it
    """
    if root:
        (folder / "root.txt").write_text(f"{root}\n", encoding="utf-8")
    with open(folder / "manifest.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [f.name for f in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, rows))
    (folder / "classes.json").write_text(json.dumps(classes, indent=1) + "\n", encoding="utf-8")
