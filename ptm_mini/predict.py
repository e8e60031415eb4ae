"""Answers for a user's own files: one pair, or a CSV of pairs."""
import csv
import io
import logging
import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ptm_mini import plots
from ptm_mini.checkpoint import read_run
from ptm_mini.config import Situation
from ptm_mini.data.dataset import model_inputs, one_thread, read_log_mel
from ptm_mini.data.image import read_image
from ptm_mini.data.manifest import read_csv
from ptm_mini.errors import InputError
from ptm_mini.evaluation import window_places
from ptm_mini.files import refuse_existing, write_file
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
    audio: Tensor                 # [windows, T, M] float32, normalised; all 0 where missing
    image: Tensor                 # [3, H, W] float32, normalised; all 0 where missing


class Predictor:
    """The prompts, router and backbone of a run, for pairs in which either side may be missing.

    A sound is a path, or (wave, rate): floats [n] or [n, channels], as soundfile.read gives them,
    and Hz. An image is a path, a Pillow image, or an array that Image.fromarray takes. None is a
    missing one.
    """

    def __init__(self, folder: Path, device: str = "cpu", windows: int = 1):
        """Raises InputError where the run has no prompts."""
        self.places, self.device = window_places(windows), pick_device(device)
        self.run = read_run(folder)
        self.models = load_models(self.run, self.device, ["prompt"])

    def predict(self, audio: Any = None, image: Any = None) -> Answer:
        """Answer a pair. Raises InputError where a side can't be read, or both are missing."""
        return self.answer(self.prepare(audio, image))

    def prepare(self, audio: Any, image: Any) -> Prepared:
        """Decode and normalise a pair as for training."""
        if audio is None and image is None:
            raise InputError("neither audio nor image is given; expected at least one")
        audio, image = (Path(side) if isinstance(side, (str, os.PathLike)) else side
                        for side in (audio, image))
        if isinstance(audio, tuple):
            audio = convert_wave(*audio)
        if isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        config, log_mel, pixels, inputs = self.run.config, None, None, []
        with one_thread():
            if image is not None:
                pixels = read_image(image, config.image.size)
            for place in self.places:
                if audio is not None:
                    log_mel = read_log_mel(audio, config.audio, place)
                inputs.append(model_inputs(log_mel, pixels, config, self.run.normalisation))
        return Prepared(torch.stack([window for window, _ in inputs]), inputs[0][1])

    @torch.no_grad()
    def answer(self, pair: Prepared) -> Answer:
        """Answer a prepared pair with the prompts that the router picks; of several windows average
        the probabilities, and tell the first one's situation."""
        model, router = self.models.methods["prompt"], self.models.router
        audio = pair.audio.to(self.device)
        image = pair.image.to(self.device).expand(len(audio), -1, -1, -1)
        routes = router(*self.models.backbone.encode(audio, image))                # [windows, S]
        situations = pick_situations(routes, audio, image)
        logits = model.answer_each(audio, image, situations)                       # [windows, K]
        probabilities = logits.softmax(dim=1).mean(dim=0).tolist()
        ranked = sorted(zip(self.run.classes, probabilities), key=lambda item: -item[1])
        missing = not (audio.any() and image.any())
        shares = None if missing else dict(zip(Situation, routes[0].softmax(dim=0).tolist()))
        return Answer(dict(ranked), Situation(int(situations[0])), shares)


def convert_wave(wave: Any, rate: int) -> tuple[Tensor, int]:
    """Convert a sound in memory to what read_waveform takes."""
    wave = np.asarray(wave)
    if wave.dtype.kind != "f":
        raise InputError(f"audio: {wave.dtype}; expected a path, or (wave, rate) with floats "
                         f"between -1 and 1")
    return torch.from_numpy(np.ascontiguousarray(wave, dtype=np.float32)), int(rate)


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
    """Answer the pairs of a CSV file, whose paths are relative to it, into a new CSV file."""
    refuse_existing(out)
    rows = [cells for _, cells in read_csv(pairs, ["audio", "image"], optional=None)]
    ours = ["answer", "probability", "situation", *(f"p_{name}" for name in model.run.classes),
            "error"]                          # why a pair can't be answered
    given = list(rows[0]) if rows else ["audio", "image"]
    if taken := set(ours) & set(given):
        raise InputError(f"{pairs}: column {min(taken)!r} is one that {out} gets; rename it")
    results, failed = [], 0
    for cells in rows:
        files = [pairs.parent / cells[side] if cells[side] else None for side in ("audio", "image")]
        try:
            answer = model.predict(*files)
        except InputError as error:
            failed += 1
            results.append(cells | {"error": str(error)})
            continue
        p = {f"p_{name}": f"{p:.9g}" for name, p in answer.probabilities.items()}
        results.append({**cells, **p, "answer": answer.label, "probability": p[f"p_{answer.label}"],
                        "situation": answer.situation.label})
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*given, *ours], lineterminator="\n")
    writer.writeheader()
    writer.writerows(results)
    write_file(out, text.getvalue().encode())
    logger.info("wrote %s: %d pairs, %d failed", out, len(rows), failed)
