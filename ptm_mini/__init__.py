"""Prompts that make a frozen audio-visual transformer robust to missing and damaged modalities.

    model = ptm_mini.load("runs/toy-1")
    answer = model.predict(audio="clip.wav", image="frame.jpg")
"""
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

    from ptm_mini.predict import Predictor


def load(run: "str | PathLike[str]", device: str = "cpu", windows: int = 1) -> "Predictor":
    """Load the prompts, router and backbone of a run that train.py made (predict.Predictor).

    windows  average the answers to so many parts of a sound longer than the run's audio.seconds
    """
    from pathlib import Path

    from ptm_mini.predict import Predictor    # here, so that a part of the package imports no more

    return Predictor(Path(run), device, windows)
