"""CIFAR10-AV: the pictures of CIFAR-10's classes, each with a sound of its class.

python -m data_prep.cifar10_av DOWNLOADED --out sets/cifar10_av

A picture belongs to the sound of its name; where there is none, to the sound whose name it begins with: cat-7_2.png has
cat-7.wav, and so has cat-7_3.png.
"""
if __name__ == "__main__":
    from ptm_mini.errors import run_script
    run_script(__file__)

import re
from pathlib import Path

from data_prep.preparing import prepare, preparing_arguments
from data_prep.two_trees import read_trees


def sound_of(stem, sounds):
    """The stem of the sound that belongs to a picture: its own, or the longest that it begins with, up to a `_`, `-` or space.

    sounds  stems of the sounds of its class
    """
    begin = stem
    while begin and begin not in sounds:
        begin = re.sub("[ _-]*[^ _-]*$", "", begin)
    return begin or stem


def main(argv=None):
    parser = preparing_arguments(__doc__, "sets/cifar10_av")
    parser.add_argument("folder", type=Path, help="the set as downloaded, such as vision/cat/1.png and audio/cat/1.wav")
    options = parser.parse_args(argv)
    prepare(*read_trees(options.folder, sound_of), options)
