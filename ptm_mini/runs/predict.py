"""A trained model's answers about sounds and pictures of your own, prepared as in training.

    a sound -> waveform -> log-mel and a picture -> pixels; both normalised -> situation -> its prompts -> probabilities

What comes before the arrow to the situation is `features_of` and `normalised` of data/prepared.py, what comes behind it the
tables' strategy `routed`.
"""
import os
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from ptm_mini.config import Situation
from ptm_mini.data.prepared import features_of, normalised, situation_of, worked_ahead
from ptm_mini.errors import InputError
from ptm_mini.runs.folder import load_run
from ptm_mini.runs.models import load_models
from ptm_mini.settings import shown
from ptm_mini.training.measure import BATCH_SIZE, mean_answer, places


class Answer(NamedTuple):
    probabilities: dict           # {class name: probability}, the likeliest first
    situation: Situation          # whose prompts answered
    router: dict | None           # {Situation: probability}, of which that is the likeliest; None: something is missing, so
                                  # the situation is known

    @property
    def label(self):
        """The likeliest class's name."""
        return next(iter(self.probabilities))


class Prepared(NamedTuple):
    """A pair as the model takes it."""
    audio: torch.Tensor           # [windows, T, M] float32, normalised; all 0 where missing
    image: torch.Tensor           # [3, H, W] float32, normalised; all 0 where missing
    lacking: Situation            # what follows from what is missing


class Predictor:
    """The prompts, router and backbone of a run, for pairs of a sound and a picture, either of which can be missing.

    A sound is a path, or (wave, rate): floats [n] or [n, channels] as soundfile.read gives them, and Hz. A picture is a path,
    a Pillow Image, or uint8 [H, W, 3]. Arrays are of numpy or torch. None is a missing one.
    """

    def __init__(self, folder, device, windows=1):
        """folder: Path of a run with trained prompts; device: as torch names it, "cpu" or "cuda"; windows: as ptm_mini.load"""
        self.places = places(windows)
        seeds = sorted(folder.glob("seed-*/config.json"))
        if seeds and not (folder / "config.json").exists():
            raise InputError(f"{folder}: holds the runs of several seeds; name one of them, such as {seeds[0].parent}")
        self.run, self.device = load_run(folder), torch.device(device)
        _, models, self.router = load_models(folder, self.run, self.device)
        if self.router is None:
            raise InputError(f"{folder}: has no prompts; train them with  python train.py --out {folder} --method prompt")
        self.model = models["prompt"]

    def predict(self, audio=None, image=None):
        """The Answer for one pair; with lists, which are as long as each other, a list of Answers.

        raises  InputError for the first that can't be read, and where neither is given
        """
        lists = [given for given in (audio, image) if isinstance(given, list)]
        if not lists:
            return self.predict([audio], [image])[0]
        count = len(lists[0])
        audio, image = ([None] * count if given is None else given for given in (audio, image))
        if not (isinstance(audio, list) and isinstance(image, list) and len(audio) == len(image)):
            raise InputError("audio and image: expected a list of each, as long as each other, or one list alone")
        found = []
        for answer in self.answers(zip(audio, image)):
            if isinstance(answer, InputError):
                raise answer
            found.append(answer)
        return found

    def answers(self, pairs):
        """Yield for each (audio, image) its Answer, or the InputError that says why there is none; pairs can be endless."""
        prepared = worked_ahead(self.attempt, pairs, os.cpu_count())
        while batch := list(islice(prepared, BATCH_SIZE)):
            answers = iter(self.answer([pair for pair in batch if isinstance(pair, Prepared)]))
            yield from (next(answers) if isinstance(pair, Prepared) else pair for pair in batch)

    def attempt(self, pair):
        """(audio, image) -> Prepared, or the InputError that says why not"""
        try:
            return self.prepare(*pair)
        except InputError as error:
            return error

    def prepare(self, audio, image):
        """Decode one pair and normalise it, as for training. returns Prepared"""
        audio, image = audio if audio is None else as_sound(audio), image if image is None else as_picture(image)
        lacking = situation_of(audio, image)
        if lacking == Situation.NOISY_BOTH:
            raise InputError("neither audio nor image is given; expected at least one")
        log_mel, pixels = features_of(audio, image, self.run.config)
        later = [features_of(audio, None, self.run.config, place)[0] for place in self.places[1:]]
        windows = [normalised(window, pixels, lacking, self.run.normalisation) for window in (log_mel, *later)]
        return Prepared(torch.stack([window for window, _ in windows]), windows[0][1], lacking)

    @torch.no_grad()
    def answer(self, batch):
        """list of Prepared -> list of Answers; of several windows probabilities are averaged, and the first's situation told"""
        if not batch:
            return []
        # A batch of one takes other matrix routines, which end in other last bits: it is answered beside itself.
        beside = 2 * batch if len(batch) == 1 else batch
        audio = torch.stack([pair.audio for pair in beside]).to(self.device)
        image = torch.stack([pair.image for pair in beside]).to(self.device)
        routed = [self.model.routed(window, image, self.router) for window in audio.unbind(dim=1)]       # each [B, T, M]
        scores, (_, situations, logits) = mean_answer([scores for scores, _, _ in routed]), routed[0]
        if not scores.isfinite().all():
            raise InputError("the model gives no finite answer; expected finite inputs and weights: train the run again")
        probabilities, router = scores.softmax(dim=1), logits.softmax(dim=1)
        return [Answer(self.ranked(p), Situation(s), None if pair.lacking else dict(zip(Situation, r))) for pair, p, s, r
                in zip(batch, probabilities.tolist(), situations.tolist(), router.tolist())]

    def ranked(self, probabilities):
        return dict(sorted(zip(self.run.classes, probabilities), key=lambda pair: -pair[1]))


def as_sound(audio):
    """What read_waveform takes, from what a Predictor takes: a Path, or (wave, rate)"""
    if isinstance(audio, (str, os.PathLike)):
        return as_file(audio, "a sound")
    if not isinstance(audio, tuple) or len(audio) != 2:
        raise InputError(f"audio: {kind_of(audio)}; expected a path, or (wave, rate) as soundfile.read gives them")
    wave, rate = (as_array(part, "audio") for part in audio)
    if wave.dtype.kind != "f" or wave.ndim not in (1, 2) or wave.ndim == 2 and wave.shape[0] < wave.shape[1]:
        raise InputError(f"audio: {kind_of(wave)}; expected floats between -1 and 1, [n] or [n, channels]")
    if rate.dtype.kind not in "iuf" or rate.ndim or not (float(rate).is_integer() and rate > 0):
        raise InputError(f"audio: rate {shown(audio[1])}; expected a whole number of Hz")
    try:
        with np.errstate(over="ignore"):                          # what is too large becomes infinite, and is refused as that
            return torch.tensor(np.ascontiguousarray(wave, dtype=np.float32)), int(rate)
    except MemoryError as error:
        raise too_large("audio", wave) from error


def as_picture(image):
    """What read_image takes, from what a Predictor takes: a Path or a Pillow Image"""
    if isinstance(image, (str, os.PathLike)):
        return as_file(image, "a picture")
    if isinstance(image, Image.Image):
        return image
    pixels = as_array(image, "image")
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InputError(f"image: {kind_of(pixels)}; expected a path, a Pillow Image or uint8 [H, W, 3]")
    try:
        return Image.fromarray(pixels)
    except MemoryError as error:
        raise too_large("image", pixels) from error


def as_array(given, name):
    try:
        return np.asarray(given)
    except Exception as error:                                    # whatever the object's own conversion raises
        raise InputError(f"{name}: {kind_of(given)} can't be made an array; expected one of numpy, or of torch on the CPU"
                         ) from error


def as_file(path, expected):
    if not os.path.isfile(path):
        raise InputError(f"{path}: {'is a folder' if os.path.isdir(path) else 'no such file'}; expected {expected}")
    return Path(path)


def too_large(name, array):
    return InputError(f"{name}: {kind_of(array)} is more than the memory holds; expected a part of it")


def kind_of(given):
    """What was given, in words: an array's numbers and shape, else the type's name"""
    return f"{given.dtype} {list(given.shape)}" if hasattr(given, "dtype") else type(given).__name__
