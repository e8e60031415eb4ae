"""What was found in a set's files: a dict, which becomes report.json, and the lines that are printed of it."""
from collections import Counter, defaultdict
from statistics import median

from data_prep.shared import assign_splits
from ptm_mini.config import PRESETS
from ptm_mini.data.manifest import SPLITS
from ptm_mini.data.used import COVERED, covering, seconds_for, size_for
from ptm_mini.errors import counted

PATCHES = PRESETS["tiny"].model   # its patches fit the other preset too
MOST = 10                         # entries of a list that are printed; report.json has all


def report(rows, dropped, files, unreadable, remarks, seed):
    """What there is to say of a set.

    rows         the Rows in it, with splits and groups
    dropped      Rows that were left out for want of a readable sound or picture
    files        {path: Sound or Picture}, of both
    unreadable   {path: what is wrong with it}
    remarks      a line for each thing in the folder that was left aside by its name or place
    seed         of the random split that is tried for its leak
    """
    sounds = [files[name] for name in sorted({row.audio for row in rows} - {""})]
    pictures = [files[name] for name in sorted({row.image for row in rows} - {""})]
    numbers = Counter((row.label, row.split) for row in rows)
    return {
        "samples": len(rows), "pairs": sum(bool(row.audio and row.image) for row in rows), **one_sided(rows),
        "left_out": {**one_sided(dropped), "nothing_readable": [row.id for row in dropped if not row.audio and not row.image]},
        "unreadable": unreadable, "left_aside": remarks, "equal_content": equal_content(rows, files),
        "classes": {label: {split: numbers[label, split] for split in SPLITS}
                    for label in sorted({row.label for row in rows})},
        "audio": audio_facts(sounds) if sounds else None, "image": image_facts(pictures) if pictures else None,
        "leak": leak(rows, [row.split for row in rows]),
        "leak_of_a_random_split": leak(rows, assign_splits([row.label for row in rows], range(len(rows)), seed))}


def one_sided(rows):
    return {"audio_only": [row.id for row in rows if row.audio and not row.image],
            "image_only": [row.id for row in rows if row.image and not row.audio]}


def audio_facts(sounds):
    seconds = [sound.seconds for sound in sounds]
    return {"files": len(sounds), "sample_rates": counts(sound.rate for sound in sounds),
            "channels": counts(sound.channels for sound in sounds),
            "seconds": {"shortest": min(seconds), "median": median(seconds), "longest": max(seconds),
                        f"covers {COVERED:.0%}": covering(seconds)},
            "setting": f"audio.seconds={seconds_for(seconds, PATCHES.audio_patch):g}"}


def image_facts(pictures):
    sides = [min(picture.width, picture.height) for picture in pictures]
    return {"files": len(pictures), "sizes": counts(f"{picture.width}x{picture.height}" for picture in pictures),
            "setting": f"image.size={size_for(sides, PATCHES.image_patch)}"}


def counts(values):
    """{value: how often}, the commonest first"""
    return dict(Counter(values).most_common())


def equal_content(rows, files):
    """The files that have their content in common with others: lists of paths, and the splits that they stand in."""
    paths, splits = defaultdict(list), defaultdict(set)
    for path, file in files.items():
        paths[file.digest].append(path)
    for row in rows:
        for path in filter(None, (row.audio, row.image)):
            splits[files[path].digest].add(row.split)
    return [{"files": some, "splits": sorted(splits[digest])} for digest, some in paths.items() if len(some) > 1]


def leak(rows, splits):
    """Which groups a split has both in test and elsewhere, and how many test samples are of them."""
    sides = defaultdict(set)
    for row, split in zip(rows, splits):
        sides[row.group].add(split)
    both = {group for group, found in sides.items() if group and "test" in found and len(found) > 1}
    touched = sum(row.group in both for row, split in zip(rows, splits) if split == "test")
    return {"groups_on_both_sides": sorted(both), "test_samples_touched": touched, "test_samples": splits.count("test")}


def lines_of(found, groups_are):
    """What is printed of a report, line by line. groups_are: what its groups are called"""
    yield (f"{counted(found['samples'], 'sample')} of {counted(len(found['classes']), 'class', 'classes')}: "
           f"{counted(found['pairs'], 'pair')}, "
           f"{len(found['audio_only'])} with a sound alone, {len(found['image_only'])} with a picture alone")
    for label, splits in found["classes"].items():
        yield f"  {shown(label)}: " + ", ".join(f"{count} {split}" for split, count in splits.items())
        if lacking := [split for split, count in splits.items() if not count]:
            yield f"  no sample in {', '.join(lacking)}: {shown(label)}"
    if facts := found["audio"]:
        yield f"sounds: {facts['files']}; Hz: {tally(facts['sample_rates'])}; channels: {tally(facts['channels'])}"
        yield (f"  seconds: {', '.join(f'{name} {value:.3g}' for name, value in facts['seconds'].items())}; "
               f"--set {facts['setting']} takes nearly all whole")
    if facts := found["image"]:
        yield f"pictures: {facts['files']}; pixels: {tally(facts['sizes'])}; --set {facts['setting']} keeps nearly all"
    if equal := found["equal_content"]:
        crossing = sum(len(same["splits"]) > 1 for same in equal)
        yield (f"{len(equal)} sounds or pictures in several files each, {crossing} of them on two sides of the split: "
               f"{some([' = '.join(same['files'][:3]) for same in equal])}")
    for name, title in (("leak", "this split has"), ("leak_of_a_random_split", "a random split would have")):
        if both := found[name]["groups_on_both_sides"]:
            yield (f"{title} {len(both)} {groups_are} both in test and elsewhere, which touches "
                   f"{found[name]['test_samples_touched']} of {found[name]['test_samples']} test samples: {some(both)}")
    for name, title in (("audio_only", "a readable sound alone"), ("image_only", "a readable picture alone"),
                        ("nothing_readable", "nothing readable")):
        if ids := found["left_out"][name]:
            yield f"left out, for having {title}: {len(ids)}: {some(ids)}"
    for remark in found["left_aside"]:
        yield f"left aside: {shown(remark)}"
    for reason in found["unreadable"].values():
        yield f"unreadable: {shown(reason)}"


def tally(numbers):
    return some([f"{value} ({number})" for value, number in numbers.items()])


def some(entries):
    more = f" and {len(entries) - MOST} more: report.json" if len(entries) > MOST else ""
    return ", ".join(map(shown, entries[:MOST])) + more


def shown(text):
    """Text on one line: what can't be printed is escaped, as in Python."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in text)
