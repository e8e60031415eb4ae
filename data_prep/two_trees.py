"""Sounds in one tree of class folders, pictures in another: where they are, and what belongs together by name.

A set is its trees side by side, audio/CLASS/ with image/CLASS/ under any of the names below, or such a pair in each of train/,
test/ and, if it is there, val/; in the given folder or one level below it.
"""
import os
import re
import unicodedata
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

from ptm_mini.data.manifest import CONTROL, Row
from ptm_mini.errors import InputError

TREES = {**dict.fromkeys(("audio", "audios", "audio_dataset", "sound", "sounds", "dataset_v3_sound"), "audio"),
         **dict.fromkeys(("image", "images", "vision", "visual", "visuals", "dataset_v3_vision"), "image")}    # by key_of
SUFFIXES = {"audio": {".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif", ".au", ".caf", ".w64", ".rf64"},
            "image": {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".tga", ".jp2"}}
SPLIT_FOLDERS = {"train": "train", "test": "test", "val": "val", "valid": "val", "validation": "val"}


def key_of(name):
    """What names have in common that differ in case, `_`, `-` and space only: Dog-Bark and dog bark are dog_bark."""
    return re.sub("[ _-]+", "_", unicodedata.normalize("NFC", name).lower()).strip()


def same_stem(stem, sounds):
    """The stem of the sound that belongs to a picture: its own. sounds: the stems of the sounds of its class"""
    return stem


def read_trees(folder, sound_of=same_stem):
    """The samples of a folder, in the order of their classes and stems, whatever the layout.

    returns  root, rows, remarks: the folder that the rows' paths are relative to; Rows, an empty cell where a side is not
             there, a split where the layout has one, no group; a line for each thing that was left aside
    """
    root, trees = find_trees(folder)
    rows, remarks = [], []
    for split, tree in trees:
        sounds, pictures = (files_in(tree[column], column, root, remarks) for column in ("audio", "image"))
        stems = defaultdict(set)
        for label, stem in sounds:
            stems[label].add(stem)
        sound_for = {(label, stem): (label, sound_of(stem, stems[label])) for label, stem in pictures}
        for label, stem in pictures.keys() | (sounds.keys() - set(sound_for.values())):
            audio = sounds.get(sound_for.get((label, stem), (label, stem)), "")
            rows.append(Row(stem, audio, pictures.get((label, stem), ""), label, split))
    return root, named_apart(sorted(rows, key=lambda row: (row.label, row.id, row.split))), remarks


def find_trees(folder):
    """Where a set is. returns its folder, list of (split or "", {"audio": tree, "image": tree})"""
    folder = Path(os.path.realpath(folder))          # resolve() of a link to itself is an error of its own kind
    if trees := trees_in(folder):
        return folder, trees
    below = [(place, trees) for place in folders_in(folder) if (trees := trees_in(place))]
    if len(below) > 1:
        raise InputError(f"{folder}: holds several sets, {', '.join(place.name for place, _ in below)}; name one of them")
    if not below:
        raise InputError(f"{folder}: no folder of sounds beside one of pictures, there or one level below; expected such as "
                         f"audio/CLASS/ with image/CLASS/, or a list of pairs: python -m data_prep.folder --csv pairs.csv")
    return below[0]


def trees_in(place):
    """The trees that lie in a folder itself, or in its train/, test/ and val/; none where there are none."""
    found = []
    for part in (place, *(path for path in folders_in(place) if key_of(path.name) in SPLIT_FOLDERS)):
        trees = [(TREES[key_of(path.name)], path) for path in folders_in(part) if key_of(path.name) in TREES]
        if sorted(column for column, _ in trees) == ["audio", "image"]:
            found.append((SPLIT_FOLDERS[key_of(part.name)] if part != place else "", dict(trees)))
        elif len(trees) > 1 or trees and part != place:
            raise InputError(f"{part}: holds {', '.join(path.name for _, path in trees)}; expected one folder of sounds and "
                             f"one of pictures: rename or move the others")
    if len(found) > 1 and not found[0][0]:
        raise InputError(f"{place}: holds sounds and pictures both itself and in {found[1][1]['audio'].parent.name}; expected "
                         f"either: move the others")
    return found


def folders_in(folder):
    return [path for path in entries(folder) if os.path.isdir(path)]


def entries(folder):
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: can't be read ({error.strerror}); expected a folder") from error


def files_in(tree, column, root, remarks):
    """The sounds or pictures of a tree, by their names. returns {(label, stem): path relative to the root}"""
    found = defaultdict(list)
    for folder in entries(tree):
        for path in entries(folder) if os.path.isdir(folder) else [folder]:
            name = path.relative_to(root).as_posix()
            if path == folder or os.path.isdir(path) or path.suffix.lower() not in SUFFIXES[column]:
                remarks.append(f"{name}: no {column} file in a class folder, by its place and name")
            elif not can_be_a_cell(name):
                remarks.append(f"{name}: a control character, or bytes that are no UTF-8, can't be in a manifest; rename it")
            else:
                found[key_of(folder.name), unicodedata.normalize("NFC", path.stem)].append(name)
    for names in found.values():
        if len(names) > 1:
            remarks.append(f"{', '.join(names)}: one name for several; keep one, or pair them by --csv")
    return {key: names[0] for key, names in found.items() if len(names) == 1}


def can_be_a_cell(name):
    return not CONTROL.search(name) and name == name.encode(errors="replace").decode()


def named_apart(rows):
    """The rows with ids that all differ: the stems where they do, else with the class, the split, or a number before them."""
    for naming in (lambda n, row: row.id, lambda n, row: f"{row.label}/{row.id}",
                   lambda n, row: f"{row.split}/{row.label}/{row.id}", lambda n, row: f"{n}/{row.id}"):
        ids = [naming(n, row).strip() for n, row in enumerate(rows)]
        if len(set(ids)) == len(ids) and "" not in ids:
            break
    return [replace(row, id=name) for row, name in zip(rows, ids)]
