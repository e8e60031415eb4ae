"""Answers for a user's own files: one pair, or a CSV of pairs."""
import csv
import io
import logging
import os
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ptm_mini import plots
from ptm_mini.checkpoint import read_run
from ptm_mini.config import Situation
from ptm_mini.data.dataset import missing_situation, model_inputs, one_thread, read_log_mel
from ptm_mini.data.image import read_image
from ptm_mini.data.manifest import read_csv
from ptm_mini.errors import InputError
from ptm_mini.evaluation import BATCH_SIZE, window_places
from ptm_mini.files import refuse_existing, write_file
from ptm_mini.method.prompts import mean_probabilities
from ptm_mini.method.router import pick_situations
from ptm_mini.training import load_models, pick_device

logger = logging.getLogger(__name__)


class Answer(NamedTuple):
    probabilities: dict[str, float]             # by class, the likeliest first
    situation: Situation                        # whose prompts answered
    router: dict[Situation, float] | None       # its probabilities; None: a modality is missing

    @property
    def label(self) -> str:
        """The likeliest class."""
        return next(iter(self.probabilities))


class Prepared(NamedTuple):
    """A pair as the model takes it."""
    audio: Tensor                 # [windows, T, M] float32, normalised; all 0 where missing
    image: Tensor                 # [3, H, W] float32, normalised; all 0 where missing
    missing: Situation            # follows from what is missing


class Predictor:
    """The prompts, router and backbone of a run, for pairs in which either side may be missing.

    A sound is a path, or (wave, rate): floats [n] or [n, channels], as soundfile.read gives them,
    and Hz. An image is a path, a Pillow image, or uint8 [H, W, 3]. None is a missing one.
    """

    def __init__(self, folder: Path, device: str = "cpu", windows: int = 1):
        """Raises InputError where the run has no prompts."""
        self.places, self.device = window_places(windows), pick_device(device)
        self.run = read_run(folder)
        self.models = load_models(self.run, self.device, ["prompt"])

    def predict(self, audio: Any = None, image: Any = None) -> Answer:
        """Answer a pair. Raises InputError where a side can't be read, or both are missing."""
        return self.answer([self.prepare(audio, image)])[0]

    def predict_many(self, pairs: Iterable[tuple[Any, Any]]) -> Iterator[Answer | InputError]:
        """Yield for each pair its answer, or the error that says why there is none."""
        pairs = iter(pairs)
        while part := list(islice(pairs, BATCH_SIZE)):
            prepared: list[Prepared | InputError] = []
            for pair in part:
                try:
                    prepared.append(self.prepare(*pair))
                except InputError as error:
                    prepared.append(error)
            answers = iter(self.answer([x for x in prepared if isinstance(x, Prepared)]))
            yield from (x if isinstance(x, InputError) else next(answers) for x in prepared)

    def prepare(self, audio: Any, image: Any) -> Prepared:
        """Decode and normalise a pair as for training."""
        if audio is None and image is None:
            raise InputError("neither audio nor image is given; expected at least one")
        config, pixels, windows = self.run.config, None, [None] * len(self.places)
        with one_thread():
            if image is not None:
                pixels = read_image(as_image(image), config.image.size)
            if audio is not None:
                windows = [read_log_mel(as_sound(audio), config.audio, place)
                           for place in self.places]
        inputs = [model_inputs(window, pixels, config, self.run.normalisation)
                  for window in windows]
        return Prepared(torch.stack([audio for audio, _ in inputs]), inputs[0][1],
                        missing_situation(audio is not None, image is not None))

    @torch.no_grad()
    def answer(self, batch: list[Prepared]) -> list[Answer]:
        """Answer prepared pairs with the prompts that the router picks.

        Of several windows the probabilities are averaged, and the first one's situation is told.
        """
        if not batch:
            return []
        model, router = self.models.methods["prompt"], self.models.router
        image = torch.stack([pair.image for pair in batch]).to(self.device)
        logits, picks = [], []
        for audio in torch.stack([pair.audio for pair in batch], dim=1).to(self.device):
            routes = router(*self.models.backbone.encode(audio, image))            # [B, S]
            situations = pick_situations(routes, audio, image)
            logits.append(model.answer_each(audio, image, situations))
            picks.append((situations.tolist(), routes.softmax(dim=1).tolist()))
        answers = []
        for pair, p, situation, route in zip(
                batch, mean_probabilities(logits).softmax(dim=1).tolist(), *picks[0]):
            ranked = sorted(zip(self.run.classes, p), key=lambda item: -item[1])
            router_says = None if pair.missing else dict(zip(Situation, route))
            answers.append(Answer(dict(ranked), Situation(situation), router_says))
        return answers


def as_sound(audio: Any) -> Path | tuple[Tensor, int]:
    """Convert what a Predictor takes to what read_waveform takes."""
    if isinstance(audio, (str, os.PathLike)):
        return Path(audio)
    try:
        wave, rate = np.asarray(audio[0]), int(audio[1])
    except (TypeError, ValueError, IndexError) as error:
        raise InputError(f"audio: {type(audio).__name__}; expected a path or (wave, "
                         f"rate)") from error
    if wave.dtype.kind != "f" or wave.ndim not in (1, 2):
        raise InputError(f"audio: {wave.dtype} {list(wave.shape)}; expected a path, or floats "
                         f"between -1 and 1, [n] or [n, channels], and a rate")
    return torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32)), rate


def as_image(image: Any) -> Path | Image.Image:
    """Convert what a Predictor takes to what read_image takes."""
    if isinstance(image, (str, os.PathLike)):
        return Path(image)
    if isinstance(image, Image.Image):
        return image
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise InputError(f"image: {pixels.dtype} {list(pixels.shape)}; expected a path, a Pillow "
                         f"image or uint8 [H, W, 3]")
    return Image.fromarray(pixels)


def explain(answer: Answer) -> str:
    """Say whose prompts answered, and why."""
    if answer.router is None:
        missing = "audio" if answer.situation == Situation.NOISY_AUDIO else "image"
        return f"prompts: {answer.situation.label}, since no {missing} is given"
    shares = ", ".join(f"{situation.label} {p:.3f}" for situation, p in answer.router.items())
    return f"prompts: {answer.situation.label}, picked by the router ({shares})"


def draw(answer: Answer, pair: Prepared) -> bytes:
    """Draw what the model saw of a pair, with its answer. PNG"""
    lines = [f"{name} {p:.3f}" for name, p in list(answer.probabilities.items())[:5]]
    cell = plots.Cell([plots.draw_image(pair.image), plots.draw_audio(pair.audio[0])],
                      [(line, plots.INK) for line in lines])
    return plots.grid([("", {answer.label: cell})], explain(answer))


def predict_csv(model: Predictor, pairs: Path, out: Path) -> None:
    """Answer the pairs of a CSV file, whose paths are relative to it, into a new CSV file.

    A pair that can't be answered has the reason in its column `error`.
    """
    refuse_existing(out)
    rows = [cells for _, cells in read_csv(pairs, ["audio", "image"], optional=None)]
    shares = [f"p_{name}" for name in model.run.classes]
    ours = ["answer", "probability", "situation", *shares, "error"]
    given = list(rows[0]) if rows else ["audio", "image"]
    if taken := set(ours) & set(given):
        raise InputError(f"{pairs}: column {min(taken)!r} is one that {out} gets; rename it")
    files = ([pairs.parent / cells[side] if cells[side] else None for side in ("audio", "image")]
             for cells in rows)
    results, failed = [], 0
    for cells, answer in zip(rows, model.predict_many(files)):
        if isinstance(answer, InputError):
            failed += 1
            results.append(cells | {"error": str(answer)})
        else:
            p = [f"{answer.probabilities[name]:.9g}" for name in model.run.classes]
            results.append(cells | dict(zip(shares, p)) | {
                "answer": answer.label, "probability": f"{answer.probabilities[answer.label]:.9g}",
                "situation": answer.situation.label})
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*given, *ours], lineterminator="\n")
    writer.writeheader()
    writer.writerows(results)
    write_file(out, text.getvalue().encode())
    logger.info("wrote %s: %d pairs, %d failed", out, len(rows), failed)
