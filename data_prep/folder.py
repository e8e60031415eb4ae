"""Your own sounds and pictures: two trees of class folders, or a list of pairs.

python -m data_prep.folder my_clips --out sets/mine           my_clips/audio/dog/1.wav with my_clips/image/dog/1.jpg
python -m data_prep.folder --csv pairs.csv --out sets/mine    columns audio,image,label and, if you like, split,group,id

Paths in the list are relative to its own folder, or to the one that is named before it; an empty cell is a side that is
not there.
"""
if __name__ == "__main__":
    from ptm_mini.errors import run_script
    run_script(__file__)

import csv
import os
from dataclasses import fields
from pathlib import Path

from data_prep.preparing import prepare, preparing_arguments
from data_prep.two_trees import named_apart, read_trees
from ptm_mini.data.manifest import CONTROL, SPLITS, Row, csv_columns, csv_rows, open_text
from ptm_mini.errors import InputError, nearest
from ptm_mini.settings import shown

COLUMNS = [field.name for field in fields(Row)]
NEEDED = ("audio", "image", "label")


def read_pairs(path, root):
    """The samples of a CSV of pairs, in its order. returns list of Rows, their paths relative to the folder `root`"""
    rows, ids = [], set()
    with open_text(path) as file:
        reader = csv.DictReader(file, strict=True)
        columns = csv_columns(reader, path)
        for column in columns:
            if column not in COLUMNS or columns.count(column) > 1:
                raise InputError(f"{path}: column {shown(column)}; {nearest(column, COLUMNS)}, each once")
        for column in NEEDED:
            if column not in columns:
                raise InputError(f"{path}: no column {column!r}; expected {','.join(NEEDED)} and perhaps split,group,id")
        for cells in csv_rows(reader, path):
            where = f"{path}:{reader.line_num}"
            check_cells(cells, where, ids)
            ids.add(cells.get("id"))
            cells |= {side: relative(cells[side], root, where) for side in ("audio", "image") if cells[side]}
            rows.append(Row(**{"id": Path(cells["image"] or cells["audio"]).stem, "split": "", **cells}))
    return rows if "id" in columns else named_apart(rows)


def check_cells(cells, where, ids):
    """Raise InputError for what a sample can't be made of. ids: of the samples before it"""
    if None in cells or None in cells.values():
        raise InputError(f"{where}: more or fewer cells than the first line has; expected as many")
    for column, cell in cells.items():
        if CONTROL.search(cell) or column not in ("audio", "image") and cell != cell.strip():
            raise InputError(f"{where}: {column} {shown(cell)} has a control character in it, or white space around it; "
                             f"rename")
    if not cells["label"]:
        raise InputError(f"{where}: the label is empty; expected the name of a class")
    if not cells["audio"] and not cells["image"]:
        raise InputError(f"{where}: neither audio nor image; expected at least one")
    if "split" in cells and cells["split"] not in SPLITS:
        raise InputError(f"{where}: split {shown(cells['split'])}; expected one of {', '.join(SPLITS)}, or no such column")
    if "id" in cells and (not cells["id"] or cells["id"] in ids):
        raise InputError(f"{where}: id {shown(cells['id'])} is empty or stands above too; expected one of its own "
                         f"for each sample")


def relative(cell, root, where):
    path = root / cell
    if ".." in path.parts or not path.is_relative_to(root):
        raise InputError(f"{where}: path {shown(cell)} leads out of {root}; expected one below it: name the folder that holds "
                         f"all the files, python -m data_prep.folder FOLDER --csv pairs.csv")
    return path.relative_to(root).as_posix()


def main(argv=None):
    parser = preparing_arguments(__doc__, "sets/folder")
    parser.add_argument("folder", type=Path, nargs="?", help="holds the two trees, or the files of the list")
    parser.add_argument("--csv", type=Path, help="list of pairs")
    options = parser.parse_args(argv)
    if options.csv:
        root = Path(os.path.realpath(options.folder or options.csv.parent))
        prepare(root, read_pairs(options.csv, root), [], options)
    elif options.folder:
        prepare(*read_trees(options.folder), options)
    else:
        raise InputError("no folder is named; expected one, or --csv with a list of pairs")
