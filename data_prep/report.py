"""What was found in a set's files: a dict, printed in short and written as report.json."""
import math
from collections import Counter, defaultdict
from statistics import median
from typing import Any, NamedTuple

from ptm_mini.config import FRAME_LENGTH_MS, FRAME_SHIFT_MS, PRESETS
from ptm_mini.data.manifest import SPLITS, Row

COVERED = 0.95                     # share of the files that the advised settings take whole
MOST = 10                          # entries of a long list that are printed, and kinds counted


class Facts(NamedTuple):
    """What decoding told about a file."""
    digest: str                    # of the file's bytes
    kind: str                      # such as "8000 Hz, channels: 1" or "64x48"
    extent: float                  # a sound's seconds, or an image's shorter side in pixels


def make_report(rows: list[Row], random_rows: list[Row], files: dict[str, Facts],
                left_out: list[str]) -> dict[str, Any]:
    """Describe a set; `random_rows`, with a random split, say what that would leak."""
    counts = Counter((row.label, row.split) for row in rows)
    sounds = [files[name] for name in {row.audio for row in rows} - {""}]
    images = [files[name] for name in {row.image for row in rows} - {""}]
    patches = PRESETS["tiny"].model                  # whole patches are advised
    step = patches.audio_patch * FRAME_SHIFT_MS / 1000
    overhang = (FRAME_LENGTH_MS - FRAME_SHIFT_MS) / 1000      # of the last frame
    same = defaultdict(list)
    for name, facts in files.items():
        same[facts.digest].append(name)
    return {
        "samples": len(rows),
        "classes": {label: {split: counts[label, split] for split in SPLITS}
                    for label in sorted({row.label for row in rows})},
        "audio": describe(sounds, "audio.seconds", step, overhang),
        "image": describe(images, "image.size", patches.image_patch, 0),
        "groups_in_test_and_elsewhere": count_leaks(rows),
        "with_a_random_split": count_leaks(random_rows),
        "equal_files": [" = ".join(names) for names in same.values() if len(names) > 1],
        "left_out": left_out}


def describe(files: list[Facts], setting: str, step: float, offset: float) -> dict[str, Any]:
    """Count the files of each kind, and find the setting that takes COVERED of them whole.

    step, offset  the setting is a multiple of `step`, plus `offset`
    """
    if not files:
        return {}
    extents = sorted(file.extent for file in files)
    covered = extents[math.ceil(COVERED * len(extents)) - 1]
    least = math.ceil(round((covered - offset) / step, 6)) * step + offset
    return {"files": len(files),
            "kinds": dict(Counter(file.kind for file in files).most_common(MOST)),
            "least, median, most": [round(f(extents), 3) for f in (min, median, max)],
            f"takes {COVERED:.0%} whole": f"--set {setting}={least:.9g}"}


def count_leaks(rows: list[Row]) -> int:
    """Count the groups that stand in test and elsewhere."""
    test = {row.group for row in rows if row.split == "test"}
    return len(test & {row.group for row in rows if row.split != "test"})


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
