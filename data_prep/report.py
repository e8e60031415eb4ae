"""What was found in a set's files: a dict, printed in short and written as report.json."""
import math
from collections import Counter, defaultdict
from statistics import median
from typing import Any, NamedTuple

from ptm_mini.config import FRAME_LENGTH_MS, FRAME_SHIFT_MS, PRESETS
from ptm_mini.data.manifest import SPLITS, Row
from ptm_mini.errors import nearest

COVERED = 0.95                     # share of the files that the advised settings take whole
MOST = 10                          # entries of a long list that are printed, and kinds counted
PATCHES = PRESETS["tiny"].model    # multiples of its patches fit


class SoundFacts(NamedTuple):
    digest: str                    # of the file's bytes
    rate: int                      # Hz
    channels: int
    seconds: float


class ImageFacts(NamedTuple):
    digest: str
    width: int                     # pixels
    height: int


Files = dict[str, SoundFacts | ImageFacts]             # by path


def make_report(rows: list[Row], dropped: list[Row], files: Files, unreadable: list[str],
                remarks: list[str], random_splits: list[str]) -> dict[str, Any]:
    """Describe a set: its rows, the rows left out, and an error for each unreadable file.

    remarks        on what was left aside by its name or place
    random_splits  of the rows, to say what a random split would leak
    """
    counts = Counter((row.label, row.split) for row in rows)
    labels = sorted({row.label for row in rows})
    sounds = [files[name] for name in {row.audio for row in rows} - {""}]
    images = [files[name] for name in {row.image for row in rows} - {""}]
    return {
        "samples": len(rows),
        "audio_only": sum(not row.image for row in rows),
        "image_only": sum(not row.audio for row in rows),
        "classes": {label: {split: counts[label, split] for split in SPLITS} for label in labels},
        "audio": describe_sounds(sounds) if sounds else {},
        "image": describe_images(images) if images else {},
        "groups_in_test_and_elsewhere": count_leaks(rows, [row.split for row in rows]),
        "with_a_random_split": count_leaks(rows, random_splits),
        "equal_files": find_equal_files(files),
        "classes_without_a_pair": find_lost_classes([*rows, *dropped]),
        "left_out": {row.id: "no image" if row.audio else "no audio" if row.image else "neither"
                     for row in dropped},
        "left_aside": remarks,
        "unreadable": unreadable}


def describe_sounds(sounds: list[SoundFacts]) -> dict[str, Any]:
    seconds = [sound.seconds for sound in sounds]
    advised = advise_seconds(seconds, PATCHES.audio_patch)
    return {"files": len(sounds),
            "hertz": dict(Counter(sound.rate for sound in sounds).most_common(MOST)),
            "channels": dict(Counter(sound.channels for sound in sounds).most_common(MOST)),
            "seconds (least, median, most)": [round(f(seconds), 3) for f in (min, median, max)],
            f"takes {COVERED:.0%} whole": f"--set audio.seconds={advised:g}"}


def describe_images(images: list[ImageFacts]) -> dict[str, Any]:
    sizes = Counter(f"{image.width}x{image.height}" for image in images)
    sides = [min(image.width, image.height) for image in images]
    advised = advise_size(sides, PATCHES.image_patch)
    return {"files": len(images), "pixels": dict(sizes.most_common(MOST)),
            f"takes {COVERED:.0%} whole": f"--set image.size={advised}"}


def advise_seconds(durations: list[float], patch: int) -> float:
    """Find the least audio.seconds that takes COVERED of the sounds whole, in whole patches."""
    overhang = FRAME_LENGTH_MS - FRAME_SHIFT_MS            # n frames last FRAME_SHIFT_MS n + this
    needed = (1000 * cover(durations) - overhang) / FRAME_SHIFT_MS
    return (math.ceil(needed / patch) * patch * FRAME_SHIFT_MS + overhang) / 1000


def advise_size(sides: list[int], patch: int) -> int:
    """Find the least image.size that takes COVERED of the images' shorter sides whole."""
    return math.ceil(cover(sides) / patch) * patch


def cover(values: list[float]) -> float:
    """Find the least value that COVERED of the values do not exceed."""
    return sorted(values)[math.ceil(COVERED * len(values)) - 1]


def count_leaks(rows: list[Row], splits: list[str]) -> dict[str, int]:
    """Count the groups that stand in test and elsewhere, and the test samples in them."""
    parts = defaultdict(set)
    for row, split in zip(rows, splits):
        parts[row.group].add(split)
    leaking = {group for group, own in parts.items() if group and "test" in own and len(own) > 1}
    touched = sum(row.group in leaking for row, split in zip(rows, splits) if split == "test")
    return {"groups": len(leaking), "test_samples": touched}


def find_equal_files(files: Files) -> list[str]:
    """List the files whose content others have too."""
    names = defaultdict(list)
    for name, facts in files.items():
        names[facts.digest].append(name)
    return [" = ".join(same) for same in names.values() if len(same) > 1]


def find_lost_classes(rows: list[Row]) -> dict[str, str]:
    """{class without a pair: what it lacks, and the nearest name among those that have it}."""
    paired = {row.label for row in rows if row.audio and row.image}
    heard = {row.label for row in rows if row.audio} - paired
    seen = {row.label for row in rows if row.image} - paired
    lost = {label: "no audio and image of one name" for label in heard & seen}
    for missing, own, others in (("image", heard, seen), ("audio", seen, heard)):
        for label in sorted(own - others):
            hint = f"; {nearest(label, sorted(others - own))}" if others - own else ""
            lost[label] = f"no {missing}{hint}"
    return lost


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
