"""UrbanSound8K-AV: UrbanSound8K's slices of street recordings, each with a picture.

python -m data_prep.urbansound8k_av DOWNLOADED --out sets/urbansound8k_av
python -m data_prep.urbansound8k_av DOWNLOADED --out sets/fold-3 --split folds --fold 3

Files are named fsID-classID-occurrence-slice. Slices of one recording have its fsID, which is their group: a random split
puts them on both sides.
"""
if __name__ == "__main__":
    from ptm_mini.errors import run_script
    run_script(__file__)

import csv
import re
from dataclasses import replace
from pathlib import Path

from data_prep.preparing import prepare, preparing_arguments
from data_prep.two_trees import read_trees
from ptm_mini.data.manifest import csv_columns, csv_rows, open_text
from ptm_mini.errors import InputError, whole_number
from ptm_mini.settings import shown

NAME = re.compile(r"(\d+)-\d+-\d+-\d+")
METADATA = "urbansound8k.csv"                # its name, in whatever case


def recording(stem):
    """The fsID in a slice's name; "" where it has another form of name."""
    name = NAME.fullmatch(stem)
    return name[1] if name else ""


def stem_of(row):
    return Path(row.audio or row.image).stem


def find_metadata(folder):
    found = sorted(path for path in folder.rglob("*.csv") if path.name.lower() == METADATA)
    if len(found) != 1:
        raise InputError(f"{folder}: {len(found)} files named UrbanSound8K.csv in it; expected one, with the folds: name it "
                         f"by --metadata (it comes with UrbanSound8K itself, in metadata/)")
    return found[0]


def read_folds(path):
    """{stem of a slice: fold} of UrbanSound8K's CSV"""
    with open_text(path) as file:
        reader = csv.DictReader(file)
        columns = csv_columns(reader, path)
        for column in ("slice_file_name", "fold"):
            if column not in columns:
                raise InputError(f"{path}: no column {column!r}; expected UrbanSound8K.csv as it comes with the set")
        folds = {}
        for row in csv_rows(reader, path):
            if not re.fullmatch("[0-9]{1,3}", row["fold"] or ""):
                raise InputError(f"{path}:{reader.line_num}: fold {shown(row['fold'])}; expected a number")
            folds[Path(row["slice_file_name"]).stem] = int(row["fold"])
    return folds


def split_by_fold(rows, folds, fold):
    """The rows of a fold in the test split, the others in training."""
    if fold not in folds.values():
        raise InputError(f"--fold {fold}: no such fold; expected one of {', '.join(map(str, sorted(set(folds.values()))))}")
    for row in rows:
        if stem_of(row) not in folds:
            raise InputError(f"{row.audio or row.image}: not in UrbanSound8K.csv; expected each slice there: remove the file, "
                             f"or choose another --split")
    return [replace(row, split="test" if folds[stem_of(row)] == fold else "train") for row in rows]


def main(argv=None):
    parser = preparing_arguments(__doc__, "sets/urbansound8k_av", splits=("grouped", "random", "folds"))
    parser.add_argument("folder", type=Path, help="the set as downloaded, such as Dataset_v3_sound/ and Dataset_v3_vision/")
    parser.add_argument("--fold", type=whole_number(1), metavar="N",
                        help="for --split folds: the test split is the set's own fold N")
    parser.add_argument("--metadata", type=Path, help="UrbanSound8K.csv, with the folds (default: looked for in the folder)")
    options = parser.parse_args(argv)
    if (options.split == "folds") != (options.fold is not None):
        raise InputError(f"--split {options.split}, --fold {options.fold}: expected --split folds with --fold N, or neither")
    root, rows, remarks = read_trees(options.folder)
    rows = [replace(row, group=recording(stem_of(row))) for row in rows]
    if options.split == "folds":
        rows = split_by_fold(rows, read_folds(options.metadata or find_metadata(options.folder)), options.fold)
    prepare(root, rows, remarks, options, groups_are="recordings (fsID)")
