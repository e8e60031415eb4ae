"""From samples to a prepared set: every file checked, groups, splits, the report, and the manifest, with copies or without."""
import json
import shutil
from collections import Counter
from dataclasses import replace

from data_prep.checks import examine_picture, examine_sound
from data_prep.report import lines_of, report
from data_prep.shared import arguments, assign_splits, new_set
from data_prep.two_trees import can_be_a_cell
from ptm_mini.data.manifest import SPLITS, leads_out
from ptm_mini.errors import InputError, counted
from ptm_mini.files import refuse_existing

VALIDATION = (7 / 8, 1 / 8)        # shares of training and validation where a set comes without a validation split


def preparing_arguments(description, out, splits=("grouped", "random")):
    """A Parser with what prepare reads, besides the set's folder."""
    parser = arguments(description, out, seed_of="the split")
    parser.add_argument("--split", choices=splits,
                        help="70%% training, 10%% validation, 20%% test of each class: grouped keeps what belongs together on "
                             "one side, random does not (default: the set's own train and test, or else grouped)")
    parser.add_argument("--copy", action="store_true", help="copy the files into the set (default: point at where they are)")
    parser.add_argument("--keep-unpaired", action="store_true",
                        help="keep samples that have only a sound or a picture (default: name them and leave them out)")
    return parser


def prepare(root, rows, remarks, options, groups_are="groups"):
    """Make the prepared set options.out, and say what is in it and what is not.

    root, rows, remarks   as read_trees gives them; a row's group is kept, and so is its split if options.split is not another
    groups_are            what the report calls the rows' groups
    raises                InputError where no set can be made of what is left
    """
    refuse_existing(options.out)
    if not can_be_a_cell(str(root)):
        raise InputError(f"{ascii(str(root))}: a control character, or bytes that are no UTF-8; rename the folder")
    files, unreadable = examine(root, rows, options.copy)
    rows = [replace(row, audio=row.audio if row.audio in files else "", image=row.image if row.image in files else "")
            for row in rows]
    needed = 1 if options.keep_unpaired else 2                 # sides
    dropped = [row for row in rows if bool(row.audio) + bool(row.image) < needed]
    rows = with_groups([row for row in rows if bool(row.audio) + bool(row.image) >= needed], files)
    rows = [replace(row, split=split) for row, split in zip(rows, splits_of(rows, options))]
    found = report(rows, dropped, files, unreadable, remarks, options.seed)
    print(*lines_of(found, groups_are), sep="\n")
    for split in SPLITS:
        if not any(row.split == split for row in rows):
            raise InputError(f"{root}: no sample of split {split!r} among the {len(rows)} that are left; expected some of "
                             f"each: more samples or groups, or another --split")
    if len(found["classes"]) < 2:
        raise InputError(f"{root}: 1 class is left, {rows[0].label!r}; expected two or more")
    copied = sorted({name for row in rows for name in (row.audio, row.image) if name}) if options.copy else []
    with new_set(options.out, list(found["classes"]), None if options.copy else root) as (folder, written):
        for name in copied:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, folder / name)
        (folder / "report.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        written += rows


def examine(root, rows, copy):
    """Check each file once. returns {path: Sound or Picture}, {path: what is wrong with it}"""
    files, unreadable = {}, {}
    for column, look in (("audio", examine_sound), ("image", examine_picture)):
        names = sorted({getattr(row, column) for row in rows} - {""})
        print(f"checking {counted(len(names), f'{column} file')}")
        for name in names:
            try:
                if leads_out(name, root) and not copy:
                    raise InputError(f"{root / name}: a link leads out of {root}; --copy takes the file in")
                files[name] = look(root / name)
            except InputError as error:
                unreadable[name] = str(error)
    return files, unreadable


def with_groups(rows, files):
    """The rows, each that has no group and shares a file's content with another such row in a group with it."""
    groups = [row.group for row in rows]
    leaders = list(range(len(rows)))                           # towards the first row of what hangs together

    def leader(i):
        while leaders[i] != i:
            leaders[i] = i = leaders[leaders[i]]
        return i

    first = {}                                                 # content -> the first row that has it
    nameless = [i for i, row in enumerate(rows) if not row.group]
    for i in nameless:
        for name in filter(None, (rows[i].audio, rows[i].image)):
            one, other = sorted((leader(i), leader(first.setdefault(files[name].digest, i))))
            leaders[other] = one
    sizes = Counter(map(leader, nameless))
    for i in nameless:
        groups[i] = rows[leader(i)].id if sizes[leader(i)] > 1 else ""
    return [replace(row, group=group) for row, group in zip(rows, groups)]


def splits_of(rows, options):
    """A split for each row: as options.split says, or the row's own, with a validation split cut from training if need be."""
    labels, groups = [row.label for row in rows], [row.group or i for i, row in enumerate(rows)]
    if options.split in ("grouped", "random") or not all(row.split for row in rows):
        return assign_splits(labels, range(len(rows)) if options.split == "random" else groups, options.seed)
    splits = [row.split for row in rows]
    if "val" not in splits:
        training = [i for i, split in enumerate(splits) if split == "train"]
        cut = assign_splits([labels[i] for i in training], [groups[i] for i in training], options.seed, VALIDATION)
        for i, split in zip(training, cut):
            splits[i] = split
    return splits
