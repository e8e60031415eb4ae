"""How much of a set's files is used: clips are cut to `audio.seconds`, pictures shrunk to `image.size`."""
import logging
import math

import soundfile
from PIL import Image

from ptm_mini.config import FRAME_LENGTH_MS, FRAME_SHIFT_MS
from ptm_mini.data import audio, image
from ptm_mini.data.decoding import decoding
from ptm_mini.errors import InputError
from ptm_mini.settings import with_settings

logger = logging.getLogger(__name__)
LOOKED_AT = 200                   # files of each kind, evenly spaced: their headers say enough
COVERED = 0.95                    # share of the files that the advised setting takes whole


def warn_of_what_is_cut(data, config):
    """Say so where most clips of a PreparedSet are longer, or most pictures larger, than what is used of them."""
    clips = [duration(data.root / row.audio) for row in spread([row for row in data.rows if row.audio])]
    if share_above(clips, config.audio.seconds) > 0.5:
        logger.warning("note: %.0f%% of the clips are longer than the %g s that are used of each%s",
                       100 * share_above(clips, config.audio.seconds), config.audio.seconds,
                       advice(config, "audio.seconds", seconds_for(clips, config.model.audio_patch), "takes nearly all whole"))
    sides = [shorter_side(data.root / row.image) for row in spread([row for row in data.rows if row.image])]
    if share_above(sides, config.image.size) > 0.5:
        logger.warning("note: %.0f%% of the pictures are larger than the %d pixels that they are shrunk to%s",
                       100 * share_above(sides, config.image.size), config.image.size,
                       advice(config, "image.size", size_for(sides, config.model.image_patch), "keeps nearly all"))


def advice(config, key, value, words):
    """The words for a setting that would take more; none where it is more than can be taken."""
    try:
        with_settings(config, {key: value})
    except InputError:
        return ""
    return f"; --set {key}={value:g} {words}"


def seconds_for(clips, patch):
    """The least valid audio.seconds that takes COVERED of the clips whole. clips: their seconds; patch: model.audio_patch"""
    overhang = FRAME_LENGTH_MS - FRAME_SHIFT_MS                        # n frames last FRAME_SHIFT_MS n + overhang
    frames = math.ceil((1000 * covering(clips) - overhang) / FRAME_SHIFT_MS / patch) * patch
    return (FRAME_SHIFT_MS * frames + overhang) / 1000


def size_for(sides, patch):
    """The least valid image.size that COVERED of the pictures' shorter sides don't exceed. patch: model.image_patch"""
    return math.ceil(covering(sides) / patch) * patch


def spread(rows):
    """At most LOOKED_AT of them, evenly spaced"""
    return rows[::math.ceil(len(rows) / LOOKED_AT)] if rows else []


def share_above(values, limit):
    return sum(value > limit for value in values) / max(1, len(values))


def covering(values):
    """The value that COVERED of the values do not exceed."""
    return sorted(values)[math.ceil(COVERED * len(values)) - 1]


@decoding()
def duration(path):
    """Seconds of a sound file, as its header says"""
    try:
        return soundfile.info(path).duration
    except audio.UNREADABLE as error:
        raise audio.unreadable(path, error) from error


@decoding()
def shorter_side(path):
    """Pixels of a picture's shorter side"""
    try:
        with Image.open(path, formats=image.FORMATS) as picture:
            return min(picture.size)
    except Exception as error:                                   # of any kind, as for read_image
        raise image.unreadable(path, error) from error
