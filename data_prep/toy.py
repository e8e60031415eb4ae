"""The toy set: ten UrbanSound8K-like classes, each heard and seen by a recipe of its own, made in seconds.

python -m data_prep.toy --out sets/toy

Everything varies: pitch, rate, level, onset, background noise and a second faint source of the sound; position, size,
colour, stroke and background clutter of the picture. Two slices are cut from each recording, so `group` has a meaning.
The same seed gives the same bytes.
"""
if __name__ == "__main__":
    from ptm_mini.errors import run_script
    run_script(__file__)

from dataclasses import replace

import numpy as np

from data_prep.shared import arguments, assign_splits, new_set, sound_bytes
from data_prep.toy_pictures import draw_picture
from data_prep.toy_sounds import RECIPES, make_sound
from ptm_mini.data.manifest import Row
from ptm_mini.errors import whole_number

CLASSES = list(RECIPES)
RECORDINGS, LEAST, SLICES = 50, 6, 2    # recordings of each class, the least with which each split has some, slices of each
FORMATS = [(8000, "PCM_16", 1), (11025, "PCM_U8", 1), (16000, "PCM_16", 1), (22050, "PCM_24", 2),
           (32000, "PCM_32", 1)]      # sample rate in Hz, depth, channels; no float: its header holds the time of day


def make(out, recordings, split, seed):
    """Write the set into the new folder `out`: WAV and PNG files, manifest.csv, classes.json.

    recordings   of each class
    split        "grouped" keeps the slices of a recording on one side, "random" does not
    """
    with new_set(out, CLASSES) as (folder, rows):
        for name in ("audio", "image"):
            (folder / name).mkdir()
        for label, name in enumerate(CLASSES):
            for recording in range(recordings):
                for part in range(SLICES):
                    group = f"{name}-{recording:03d}"
                    row = Row(id=f"{group}-{part}", audio=f"audio/{group}-{part}.wav", image=f"image/{group}-{part}.png",
                              label=name, split="", group=group)
                    source = np.random.default_rng([seed, label, recording])
                    generator = np.random.default_rng([seed, label, recording, 1 + part])
                    rate, depth, channels = FORMATS[source.integers(len(FORMATS))]
                    wave = make_sound(name, rate, source, generator)
                    sound = sound_bytes(np.repeat(wave[:, None], channels, axis=1), rate, depth)
                    (folder / row.audio).write_bytes(sound)
                    draw_picture(name, generator).save(folder / row.image)
                    rows.append(row)
        groups = [row.group if split == "grouped" else row.id for row in rows]
        splits = assign_splits([row.label for row in rows], groups, seed)
        rows[:] = [replace(row, split=side) for row, side in zip(rows, splits)]


def main(argv=None):
    parser = arguments(__doc__, "sets/toy", seed_of="everything")
    parser.add_argument("--recordings", type=whole_number(LEAST), default=RECORDINGS,
                        help=f"of each class, {SLICES} samples each (default: %(default)s)")
    parser.add_argument("--split", choices=["grouped", "random"], default="grouped",
                        help="keep the slices of a recording on one side, or not (default: %(default)s)")
    options = parser.parse_args(argv)
    make(options.out, options.recordings, options.split, options.seed)
