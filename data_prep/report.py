"""What was found in a set's files: a dict, printed in short and written as report.json."""
import math
from collections import Counter, defaultdict
from collections.abc import Callable
from statistics import median
from typing import Any, NamedTuple

from ptm_mini.config import FRAME_LENGTH_MS, FRAME_SHIFT_MS, PRESETS
from ptm_mini.data.manifest import SPLITS, Row
from ptm_mini.errors import nearest

COVERED = 0.95                     # share of the files that the advised settings take whole
MOST = 10                          # entries of a long list that are printed, and kinds counted
PATCHES = PRESETS["tiny"].model    # multiples of its patches fit


class Facts(NamedTuple):
    """What decoding told about a file."""
    digest: str                    # of the file's bytes
    kind: str                      # such as "8000 Hz, channels: 1" or "64x48"
    extent: float                  # a sound's seconds, or an image's shorter side in pixels


def make_report(rows: list[Row], dropped: list[Row], files: dict[str, Facts], unreadable: list[str],
                remarks: list[str], random_splits: list[str]) -> dict[str, Any]:
    """Describe a set: its rows, the rows left out, and an error for each unreadable file.

    files          by path
    remarks        on what was left aside by its name or place
    random_splits  of the rows, to say what a random split would leak
    """
    counts = Counter((row.label, row.split) for row in rows)
    labels = {row.label for row in [*rows, *dropped]}
    lost = labels - {row.label for row in rows if row.audio and row.image}
    sounds = [files[name] for name in {row.audio for row in rows} - {""}]
    images = [files[name] for name in {row.image for row in rows} - {""}]
    return {
        "samples": len(rows),
        "classes": {label: {split: counts[label, split] for split in SPLITS}
                    for label in sorted({row.label for row in rows})},
        "audio": describe(sounds, advise_seconds),
        "image": describe(images, advise_size),
        "groups_in_test_and_elsewhere": count_leaks(rows, [row.split for row in rows]),
        "with_a_random_split": count_leaks(rows, random_splits),
        "equal_files": find_equal_files(files),
        "classes_without_a_pair": {label: nearest(label, sorted(labels - {label}))
                                   for label in sorted(lost)},
        "left_out": {row.id: "no image" if row.audio else "no audio" for row in dropped},
        "left_aside": remarks,
        "unreadable": unreadable}


def describe(files: list[Facts], advise: Callable[[float], str]) -> dict[str, Any]:
    """Count the files of each kind, and find the setting that takes COVERED of them whole."""
    if not files:
        return {}
    extents = sorted(file.extent for file in files)
    covered = extents[math.ceil(COVERED * len(extents)) - 1]
    return {"files": len(files),
            "kinds": dict(Counter(file.kind for file in files).most_common(MOST)),
            "least, median, most": [round(f(extents), 3) for f in (min, median, max)],
            f"takes {COVERED:.0%} whole": advise(covered)}


def advise_seconds(seconds: float) -> str:
    """Name the least audio.seconds, in whole patches, that takes so many seconds whole."""
    overhang = FRAME_LENGTH_MS - FRAME_SHIFT_MS            # n frames last FRAME_SHIFT_MS n + this
    patch = FRAME_SHIFT_MS * PATCHES.audio_patch
    patches = math.ceil((1000 * seconds - overhang) / patch)
    return f"--set audio.seconds={(patches * patch + overhang) / 1000:g}"


def advise_size(side: float) -> str:
    """Name the least image.size, in whole patches, that takes a side of so many pixels whole."""
    return f"--set image.size={math.ceil(side / PATCHES.image_patch) * PATCHES.image_patch}"


def count_leaks(rows: list[Row], splits: list[str]) -> int:
    """Count the groups that stand in test and elsewhere."""
    parts = defaultdict(set)
    for row, split in zip(rows, splits):
        if row.group:
            parts[row.group].add(split)
    return sum("test" in part and len(part) > 1 for part in parts.values())


def find_equal_files(files: dict[str, Facts]) -> list[str]:
    """List the files whose content others have too."""
    names = defaultdict(list)
    for name, facts in files.items():
        names[facts.digest].append(name)
    return [" = ".join(same) for same in names.values() if len(same) > 1]


def print_report(report: dict[str, Any]) -> None:
    """Print what is not empty, and of long lists the beginning: report.json has them whole."""
    for key, value in report.items():
        if isinstance(value, dict):
            value = [f"{name}: {entry}" for name, entry in value.items()]
        if not isinstance(value, list):
            print(f"{key}: {value}")
        elif value:
            more = [f"and {len(value) - MOST} more"] if len(value) > MOST else []
            print(f"{key}:", *value[:MOST], *more, sep="\n  ")
