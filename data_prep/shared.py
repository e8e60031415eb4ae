"""What the scripts share: flags, checks of files, groups, splits, and the set that is written."""
import argparse
import csv
import hashlib
import json
import logging
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from data_prep.report import Facts, make_report, print_report
from ptm_mini.config import AudioConfig
from ptm_mini.data.audio import read_waveform
from ptm_mini.data.image import FORMATS, read_image
from ptm_mini.data.manifest import SPLITS, Row, leads_out
from ptm_mini.errors import InputError
from ptm_mini.files import refuse_existing

logger = logging.getLogger(__name__)
SHARES = (0.7, 0.1, 0.2)           # of train, val and test
VALIDATION = (7 / 8, 1 / 8)        # of train and val, where a layout's own splits lack val


def make_parser(description: str, out: str, seed_of: str) -> argparse.ArgumentParser:
    """Make a parser with the flags of every script."""
    parser = argparse.ArgumentParser(description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(out), help=f"new folder; default: {out}")
    parser.add_argument("--seed", type=parse_seed, default=0, help=f"of {seed_of}; default: 0")
    return parser


def parse_seed(text: str) -> int:
    """Parse --seed for argparse; NumPy takes no negative one."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}; expected a whole number, 0 or more")
    return int(text)


def make_prepare_parser(description: str, out: str,
                        splits: Sequence[str] = ("grouped", "random")) -> argparse.ArgumentParser:
    """Make a parser with the flags that `prepare` reads."""
    parser = make_parser(description, out, seed_of="the split")
    parser.add_argument("--split", choices=splits,
                        help="70%% training, 10%% validation, 20%% test of each class, with groups "
                             "on one side or not; default: the set's own, else grouped")
    parser.add_argument("--copy", action="store_true",
                        help="copy the files into the set; default: point at where they are")
    parser.add_argument("--keep-unpaired", action="store_true",
                        help="keep samples with a missing modality; default: leave them out")
    return parser


def prepare(root: Path, rows: list[Row], remarks: list[str], args: argparse.Namespace) -> None:
    """Check the files of samples, group and split them, report, and write the set args.out.

    root, rows, remarks  as data_prep.folder.read_trees returns them; groups, and splits unless
                         args.split says otherwise, are kept where rows have them
    """
    refuse_existing(args.out)
    files, unreadable = examine_files(root, rows, args.copy)
    rows = [replace(row, audio=row.audio if row.audio in files else "",
                    image=row.image if row.image in files else "") for row in rows]
    enough = any if args.keep_unpaired else all
    dropped = [row for row in rows if not enough((row.audio, row.image))]
    rows = group_by_content([row for row in rows if enough((row.audio, row.image))], files)
    rows = choose_splits(rows, args.split, args.seed)
    random_splits = assign_splits([row.label for row in rows], range(len(rows)), args.seed)
    report = make_report(rows, dropped, files, unreadable, remarks, random_splits)
    print_report(report)
    if not rows:
        raise InputError(f"{root}: no sample is left, see above; expected pairs such as "
                         f"audio/dog/1.wav and image/dog/1.png, or a list of them by --csv")
    with new_folder(args.out) as folder:
        write_set(folder, rows, list(report["classes"]))
        text = json.dumps(report, indent=1, ensure_ascii=False) + "\n"
        (folder / "report.json").write_text(text, encoding="utf-8")
        if not args.copy:
            (folder / "root.txt").write_text(f"{root}\n", encoding="utf-8")
            return
        for name in {name for row in rows for name in (row.audio, row.image) if name}:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / name, folder / name)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder that becomes `path` when the block ends well, else is removed."""
    refuse_existing(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        temporary.rename(path)
        logger.info("made %s", path)
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror or error}); expected a place "
                         f"that can be, with room for it") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_set(folder: Path, rows: list[Row], classes: list[str]) -> None:
    """Write manifest.csv and classes.json. Raises InputError for an empty split or one class."""
    counts = Counter(row.split for row in rows)
    for split in SPLITS:
        if not counts[split]:
            raise InputError(f"no sample of split {split!r} among {len(rows)}; expected some of "
                             f"each: more samples or groups, or another --split")
    if len(classes) < 2:
        raise InputError(f"one class alone, {classes[0]!r}; expected two or more")
    with open(folder / "manifest.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, rows))
    text = json.dumps(classes, indent=1) + "\n"
    (folder / "classes.json").write_text(text, encoding="utf-8")
    logger.info("%d training, %d validation and %d test samples", *(counts[s] for s in SPLITS))


def examine_files(root: Path, rows: list[Row],
                  copy: bool) -> tuple[dict[str, Facts], list[str]]:
    """Decode each file to its end: the facts of the whole ones, an error for each of the others."""
    files, unreadable = {}, []
    for modality, examine in (("audio", examine_sound), ("image", examine_image)):
        names = sorted({getattr(row, modality) for row in rows} - {""})
        logger.info("checking %d %s files", len(names), modality)
        for name in names:
            try:
                if leads_out(name, root) and not copy:
                    raise InputError(f"{root / name}: a link leads out of {root}; expected a file "
                                     f"below it: --copy takes it in")
                files[name] = examine(root / name)
            except (InputError, OSError) as error:
                unreadable.append(str(error))
    return files, unreadable


def examine_sound(path: Path) -> Facts:
    """Decode a sound to its end. Raises InputError for what can't be trained on."""
    read_waveform(path, AudioConfig())
    info = soundfile.info(path)
    last_minute = AudioConfig(sample_rate=info.samplerate, seconds=60)      # no need to resample
    read_waveform(path, last_minute, place=1.0)                 # decodes what is before it too
    return Facts(hash_file(path), f"{info.samplerate} Hz, channels: {info.channels}", info.duration)


def examine_image(path: Path) -> Facts:
    """Decode an image. Raises InputError for what can't be trained on."""
    read_image(path, 32)
    with Image.open(path, formats=FORMATS) as image:
        return Facts(hash_file(path), f"{image.width}x{image.height}", min(image.size))


def hash_file(path: Path) -> str:
    """Compute the SHA-256 of a file, which is mapped so that it takes no memory."""
    return hashlib.sha256(np.memmap(path, mode="r")).hexdigest()


def group_by_content(rows: list[Row], files: dict[str, Facts]) -> list[Row]:
    """Give rows without a group one where they share a file's content, directly or by others."""
    contents = {i: [files[name].digest for name in (row.audio, row.image) if name]
                for i, row in enumerate(rows) if not row.group}
    first, before = {}, None                   # content: the first row of its group
    while first != before:
        before = dict(first)
        for i, digests in contents.items():
            leader = min(first.get(digest, i) for digest in digests)
            first.update(dict.fromkeys(digests, leader))
    leaders = {i: first[digests[0]] for i, digests in contents.items()}
    sizes = Counter(leaders.values())
    return [replace(row, group=rows[leaders[i]].id) if sizes[leaders.get(i)] > 1 else row
            for i, row in enumerate(rows)]


def choose_splits(rows: list[Row], split: str | None, seed: int) -> list[Row]:
    """Split rows as asked for, or keep their own splits and cut validation from training if needed.

    split  "grouped" or "random"; anything else: the rows' own where each has one, else grouped
    """
    labels = [row.label for row in rows]
    groups = [row.group or number for number, row in enumerate(rows)]
    splits = [row.split for row in rows]
    if split == "random":
        splits = assign_splits(labels, range(len(rows)), seed)
    elif split == "grouped" or not all(splits):
        splits = assign_splits(labels, groups, seed)
    elif "val" not in splits:
        training = [i for i, name in enumerate(splits) if name == "train"]
        parts = assign_splits([labels[i] for i in training], [groups[i] for i in training], seed,
                              VALIDATION)
        for i, part in zip(training, parts):
            splits[i] = part
    return [replace(row, split=name) for row, name in zip(rows, splits)]


def assign_splits(labels: Sequence[str], groups: Sequence[Hashable], seed: int,
                  shares: Sequence[float] = SHARES) -> list[str]:
    """Split class by class into train, val and test, with each group on one side.

    labels, groups  of each sample; with each sample a group this is the paper's random split
    shares          of train, val and test in each class, met as nearly as whole groups allow
    """
    members = defaultdict(list)                                        # group: its samples
    for sample, group in enumerate(groups):
        members[group].append(sample)
    splits = [""] * len(labels)
    generator = np.random.default_rng(seed)
    for label in sorted(set(labels)):
        wanted = np.array(shares) * labels.count(label)
        own = [samples for samples in members.values() if labels[samples[0]] == label]
        for number in generator.permutation(len(own)):
            part = int(np.argmax(wanted))                              # the split that lacks most
            wanted[part] -= len(own[number])
            for sample in own[number]:
                splits[sample] = SPLITS[part]
    return splits
