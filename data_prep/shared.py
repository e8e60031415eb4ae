"""What the scripts share: flags, checks of files, groups, splits, and the set that is written."""
import argparse
import csv
import hashlib
import json
import logging
import os
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import soundfile
from PIL import Image

from data_prep.report import Facts, make_report, print_report
from ptm_mini.config import AudioConfig
from ptm_mini.data.audio import measure_seconds, read_waveform
from ptm_mini.data.image import FORMATS, read_image
from ptm_mini.data.manifest import SPLITS, Row, leads_out
from ptm_mini.errors import InputError, nearest, new_parser
from ptm_mini.files import refuse_existing

logger = logging.getLogger(__name__)
SHARES = (0.7, 0.1, 0.2)           # of train, val and test
VALIDATION = (7 / 8, 1 / 8)        # of train and val, where a layout's own splits lack val


def make_parser(description: str, out: str, seed_of: str) -> argparse.ArgumentParser:
    """Make a parser with the flags of every script."""
    parser = new_parser(description)
    parser.add_argument("--out", type=Path, default=Path(out), help=f"new folder; default: {out}")
    parser.add_argument("--seed", type=whole_number, default=0, help=f"of {seed_of}; default: 0")
    return parser


def whole_number(text: str) -> int:
    """Read an integer of 0 or more; of a ValueError argparse makes a line that names the flag."""
    if not text.isdecimal():
        raise ValueError(text)
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


def prepare(root: Path, rows: list[Row], left_out: list[str], args: argparse.Namespace) -> None:
    """Check the files of samples, group and split them, report, and write the set args.out.

    root, rows, left_out  as data_prep.folder.read_trees returns them
    """
    refuse_existing(args.out)
    if len({row.id for row in rows}) < len(rows):
        rows = [replace(row, id=f"{row.label}/{n}/{row.id}") for n, row in enumerate(rows)]
    files = examine_files(root, rows, args.copy, left_out)
    kept = []
    for row in rows:
        audio, image = (name if name in files else "" for name in (row.audio, row.image))
        if audio and image or args.keep_unpaired and (audio or image):
            kept.append(replace(row, audio=audio, image=image))
        else:
            left_out.append(f"{row.id} ({row.label}): no {'image' if audio else 'audio'}")
    left_out[:0] = explain_lost_classes(rows, kept)
    kept = group_by_content(kept, files)
    rows = choose_splits(kept, args.split, args.seed)
    report = make_report(rows, choose_splits(kept, "random", args.seed), files, left_out)
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


def pair_by_class(sounds: Sequence[str], images: Sequence[str], seed: int) -> np.ndarray:
    """Draw for each sound an image of its class, no image twice: from classes [n] and [m], indices
    of images [n]. Raises InputError where a class has too few."""
    generator, sounds, images = np.random.default_rng(seed), np.array(sounds), np.array(images)
    pairs = np.zeros(len(sounds), int)
    for label in np.unique(sounds):
        wanted, found = np.flatnonzero(sounds == label), np.flatnonzero(images == label)
        if len(found) < len(wanted):
            raise InputError(f"class {label}: {len(found)} images for {len(wanted)} samples; "
                             f"expected one each")
        pairs[wanted] = generator.permutation(found)[:len(wanted)]
    return pairs


def explain_lost_classes(rows: list[Row], kept: list[Row]) -> list[str]:
    """Name each class of which no sample is kept, with what may be meant."""
    labels, remarks = {row.label for row in rows}, []
    for label in sorted(labels - {row.label for row in kept}):
        own = [row for row in rows if row.label == label]
        sounds, images = ([name for name in names if name] for names in
                          ([row.audio for row in own], [row.image for row in own]))
        if any(row.audio and row.image for row in own):
            reason = "none of its pairs can be read, see below"
        elif sounds and images:
            reason = f"no image has a sound's name, such as {sounds[0]} beside {images[0]}"
        else:
            reason = f"no {'image' if sounds else 'audio'}; {nearest(label, labels - {label})}"
        remarks.append(f"class {label!r} is lost: {reason}")
    return remarks


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
        raise InputError(f"{path}: can't be written ({error}); expected a place that can be, "
                         f"with room for it") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_set(folder: Path, rows: list[Row], classes: list[str]) -> None:
    """Write manifest.csv and classes.json. Raises InputError for an empty split or one class."""
    counts = Counter(row.split for row in rows)
    if len(counts) < len(SPLITS):
        raise InputError(f"splits of {len(rows)} samples: {', '.join(counts)} alone; expected "
                         f"{', '.join(SPLITS)}: more samples or groups, or another --split")
    if len(classes) < 2:
        raise InputError(f"one class alone, {classes[0]!r}; expected two or more")
    with open(folder / "manifest.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, rows))
    text = json.dumps(classes, indent=1) + "\n"
    (folder / "classes.json").write_text(text, encoding="utf-8")
    logger.info("%d training, %d validation and %d test samples", *(counts[s] for s in SPLITS))


def examine_files(root: Path, rows: list[Row], copy: bool, left_out: list[str]
                  ) -> dict[str, Facts]:
    """Decode each file to its end: the facts of the whole ones. `left_out` gets errors."""
    files = {}
    for modality in ("audio", "image"):
        names = sorted({getattr(row, modality) for row in rows} - {""})
        logger.info("checking %d %s files", len(names), modality)
        for name in names:
            try:
                if leads_out(name, root) and not copy:
                    raise InputError(f"{root / name}: a link leads out of {root}; expected a file "
                                     f"below it: --copy takes it in")
                files[name] = examine(root / name, modality)
            except (InputError, OSError) as error:
                left_out.append(str(error))
    return files


def examine(path: Path, modality: str) -> Facts:
    """Decode a file to its end. Raises InputError for what can't be trained on."""
    if modality == "audio":
        read_waveform(path, AudioConfig())
        info = soundfile.info(path)
        last_minute = AudioConfig(sample_rate=info.samplerate, seconds=60)   # no need to resample
        read_waveform(path, last_minute, place=1.0)              # decodes what is before it too
        kind, extent = f"{info.samplerate} Hz, channels: {info.channels}", measure_seconds(path)
    else:
        read_image(path, 32)
        with Image.open(path, formats=FORMATS) as image:
            kind, extent = f"{image.width}x{image.height}", min(image.size)
    digest = hashlib.sha256(np.memmap(path, mode="r")).hexdigest()       # mapped: takes no memory
    return Facts(digest, kind, extent)


def group_by_content(rows: list[Row], files: dict[str, Facts]) -> list[Row]:
    """Put rows without a group in one with those that share a file's content."""
    groups = {}                                             # of each content
    for row in rows:
        digests = [files[name].digest for name in (row.audio, row.image) if name and not row.group]
        known = {groups[digest] for digest in digests if digest in groups}
        group = min(known, default=row.id)
        if len(known) > 1:                                  # this row joins two groups
            groups = {key: group if old in known else old for key, old in groups.items()}
        groups |= dict.fromkeys(digests, group)
    return [replace(row, group=row.group or groups[files[row.audio or row.image].digest])
            for row in rows]


def choose_splits(rows: list[Row], split: str | None, seed: int) -> list[Row]:
    """Split rows as asked for, or keep their own splits and cut validation from training if needed.

    split  "grouped" or "random"; anything else: the rows' own where each has one, else grouped
    """
    if split in ("grouped", "random") or not all(row.split for row in rows):
        return assign_splits(rows, split != "random", seed, SHARES)
    if any(row.split == "val" for row in rows):
        return rows
    training = [row for row in rows if row.split == "train"]
    cut = {row.id: row for row in assign_splits(training, True, seed, VALIDATION)}
    return [cut.get(row.id, row) for row in rows]


def assign_splits(rows: list[Row], grouped: bool, seed: int,
                  shares: tuple[float, ...]) -> list[Row]:
    """Split class by class into train, val and test, whose shares are met as nearly as can be.

    grouped  keep each group on one side; else sample by sample, which is the paper's random split
    """
    members = defaultdict(list)                                        # group: its samples
    for row in rows:
        members[row.group if grouped else row.id].append(row)
    splits = {}
    generator = np.random.default_rng(seed)
    for label in sorted({row.label for row in rows}):
        wanted = np.array(shares) * sum(row.label == label for row in rows)
        own = [samples for samples in members.values() if samples[0].label == label]
        for number in generator.permutation(len(own)):
            part = int(np.argmax(wanted))                              # the split that lacks most
            wanted[part] -= len(own[number])
            splits |= {row.id: SPLITS[part] for row in own[number]}
    return [replace(row, split=splits[row.id]) for row in rows]
