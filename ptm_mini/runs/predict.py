"""A trained model's answer about a clip and a picture of your own."""
from pathlib import Path
from typing import NamedTuple

import torch

from ptm_mini.config import Situation
from ptm_mini.data.prepared import features_of, normalised, situation_of
from ptm_mini.errors import InputError
from ptm_mini.runs.folder import load_run
from ptm_mini.runs.models import load_models


class Answer(NamedTuple):
    probabilities: dict           # {class name: probability}, the likeliest first
    situation: Situation          # whose prompts answered: what is missing, or, where nothing is, what the router picked


class Predictor:
    """The prompts, router and backbone of a run, for single pairs of files."""

    def __init__(self, folder, device):
        """folder: Path of a run with trained prompts; device: as torch names it, "cpu" or "cuda" """
        self.run, self.device = load_run(folder), torch.device(device)
        _, models, self.router = load_models(folder, self.run, self.device)
        if self.router is None:
            raise InputError(f"{folder}: has no prompts; train them with  python train.py --out {folder} --method prompt")
        self.model = models["prompt"]

    @torch.no_grad()
    def predict(self, audio=None, image=None):
        """The Answer for one pair, prepared as in training.

        audio, image  paths of a sound and a picture; one of them can be left out, it is missing then
        raises        InputError where a file can't be read, or neither is given
        """
        lacking = situation_of(audio, image)
        if lacking == Situation.NOISY_BOTH:
            raise InputError("neither audio nor image is given; expected at least one")
        log_mel, pixels = features_of(audio and Path(audio), image and Path(image), self.run.config)
        inputs = [x[None].to(self.device) for x in normalised(log_mel, pixels, lacking, self.run.normalisation)]
        picked = torch.tensor([lacking], device=self.device) if lacking else self.router.pick(*inputs)
        probabilities = self.model.by_situation(*inputs, picked)[0].softmax(dim=0)
        ranked = sorted(zip(self.run.classes, probabilities.tolist()), key=lambda pair: -pair[1])
        return Answer(dict(ranked), Situation(picked.item()))
