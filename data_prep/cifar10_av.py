"""CIFAR10-AV: images of CIFAR-10's classes, each with a sound of its class.

python -m data_prep.cifar10_av DOWNLOADED --out sets/cifar10_av

An image belongs to the sound of its name; where there is none, to the sound whose name it begins
with: cat-7_2.png has cat-7.wav, and so has cat-7_3.png.
"""
import re
from pathlib import Path

from data_prep.folder import Key, read_trees
from data_prep.shared import make_prepare_parser, prepare
from ptm_mini.errors import run


def find_sound(image: Key, sounds: dict[Key, str]) -> Key:
    """Find an image's sound: of its own name, or of the longest whole words that it begins with."""
    label, start = image
    while start and (label, start) not in sounds:
        start = re.sub("[ _-]*[^ _-]*$", "", start)
    return label, start or image[1]


def main(argv: list[str] | None = None) -> None:
    parser = make_prepare_parser(__doc__, "sets/cifar10_av")
    parser.add_argument("folder", type=Path,
                        help="the set as downloaded, such as vision/cat/1.png and audio/cat/1.wav")
    args = parser.parse_args(argv)
    prepare(*read_trees(args.folder, find_sound), args)


if __name__ == "__main__":
    run(main)
