"""What the scripts share: a new set's folder, splits, pairs, and the line that says what was made."""
import io
from collections import Counter, defaultdict
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import soundfile

from ptm_mini.data.manifest import SPLITS, write_set
from ptm_mini.errors import InputError, Parser, counted, whole_number
from ptm_mini.files import new_folder


@contextmanager
def new_set(out, classes, root=None):
    """Make the new prepared set `out`, whole or not at all: yield its folder and a list that is to be filled with its Rows;
    then write them and say how many there are. root: where the rows' files are, if not in the set"""
    rows = []
    with new_folder(out) as folder:
        yield folder, rows
        write_set(folder, rows, classes, root)
    counts = Counter(row.split for row in rows)
    print(f"{out}: {counts['train']} training, {counts['val']} validation and {counts['test']} test samples")


def arguments(description, out, seed_of):
    """A Parser with what every script takes: --out, by default `out`, and --seed."""
    parser = Parser(description)
    parser.add_argument("--out", type=Path, default=Path(out), help="new folder (default: %(default)s)")
    parser.add_argument("--seed", type=whole_number(0), default=0, help=f"of {seed_of} (default: %(default)s)")
    return parser


def sound_bytes(samples, rate, depth):
    """A WAV file's bytes, for libsndfile's own writing to a full disk fails without a reason.

    samples  [n] or [n, channels] float; depth: a subtype of soundfile's, such as PCM_16
    """
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, subtype=depth, format="WAV")
    return buffer.getvalue()


def assign_splits(labels, groups, seed, shares=(0.7, 0.1, 0.2)):
    """Split class by class into train, val and test, with each group on one side.

    labels, groups  one entry a sample. Every sample a group of its own is the paper's random split; slices of one
                    recording as one group keep a model from recognising the recording.
    shares          of train, val and test within each class, met as nearly as whole groups allow
    returns         list of split names
    """
    members = defaultdict(list)                                       # group -> its samples
    for sample, group in enumerate(groups):
        members[group].append(sample)
    splits = [""] * len(labels)
    generator = np.random.default_rng(seed)
    for label in sorted(set(labels)):
        wanted = np.array(shares) * labels.count(label)
        own = [group for group, samples in members.items() if labels[samples[0]] == label]
        for g in generator.permutation(len(own)):
            side = int(np.argmax(wanted))                             # the split that lacks most
            wanted[side] -= len(members[own[g]])
            for sample in members[own[g]]:
                splits[sample] = SPLITS[side]
    return splits


def pair_by_class(audio_labels, image_labels, seed):
    """For each recording an image of the same class, at random, no image twice.

    returns  list of indices into image_labels, one for each of audio_labels
    raises   InputError where a class has too few images
    """
    generator = np.random.default_rng(seed)
    pairs = [0] * len(audio_labels)
    for label in sorted(set(audio_labels)):
        recordings = [i for i, other in enumerate(audio_labels) if other == label]
        images = [i for i, other in enumerate(image_labels) if other == label]
        if len(images) < len(recordings):
            raise InputError(f"class {label!r}: {counted(len(images), 'image')} for {counted(len(recordings), 'recording')}; "
                             f"expected one each")
        for recording, image in zip(recordings, generator.permutation(images)):
            pairs[recording] = int(image)
    return pairs
