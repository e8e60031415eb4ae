"""UrbanSound8K-AV: UrbanSound8K's slices of street recordings, each with an image.

python -m data_prep.urbansound8k_av DOWNLOADED --out sets/urbansound8k_av
python -m data_prep.urbansound8k_av DOWNLOADED --out sets/fold-3 \\
    --split folds --fold 3 --metadata UrbanSound8K.csv

Files are named fsID-classID-occurrence-slice. Slices of one recording have its fsID, which is their
group: a random split puts them on both sides.
"""
import re
from dataclasses import replace
from pathlib import Path

from data_prep.folder import read_trees
from data_prep.shared import make_prepare_parser, prepare
from ptm_mini.data.manifest import Row, read_csv
from ptm_mini.errors import InputError, run


def split_by_fold(rows: list[Row], metadata: Path, fold: int) -> list[Row]:
    """Put the rows of a fold in the test split, the others in training."""
    table = read_csv(metadata, ["slice_file_name", "fold"], optional=None)
    folds = {Path(cells["slice_file_name"]).stem: cells["fold"] for _, cells in table}
    for row in rows:
        if row.id not in folds:
            raise InputError(f"{row.audio or row.image}: not in {metadata}; expected each slice")
    return [replace(row, split="test" if folds[row.id] == str(fold) else "train") for row in rows]


def main(argv: list[str] | None = None) -> None:
    parser = make_prepare_parser(__doc__, "sets/urbansound8k_av", ("grouped", "random", "folds"))
    parser.add_argument("folder", type=Path, help="the set as downloaded, such as "
                        "Dataset_v3_sound/ and Dataset_v3_vision/")
    parser.add_argument("--fold", type=int, choices=range(1, 11), metavar="N",
                        help="for --split folds: the test split is the set's own fold N")
    parser.add_argument("--metadata", type=Path, metavar="CSV",
                        help="for --split folds: UrbanSound8K.csv, as UrbanSound8K itself has it")
    args = parser.parse_args(argv)
    if len({args.split == "folds", args.fold is not None, args.metadata is not None}) > 1:
        raise InputError("--split folds, --fold, --metadata: expected all three, or none")
    root, rows, remarks = read_trees(args.folder)
    rows = [replace(row, group=re.sub(r"-\d+-\d+-\d+$", "", row.id)) for row in rows]
    if args.fold:
        rows = split_by_fold(rows, args.metadata, args.fold)
    prepare(root, rows, remarks, args)


if __name__ == "__main__":
    run(main)
