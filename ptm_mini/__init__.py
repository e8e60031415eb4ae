"""ptm_mini: prompts that make a frozen audio-visual transformer robust to missing and damaged modalities.

    model = ptm_mini.load("runs/toy-1")
    answer = model.predict(audio="clip.wav", image="frame.jpg")
"""
from pathlib import Path


def load(folder, device="cpu"):
    """The prompted model of a run folder that train.py made. returns Predictor (runs/predict.py)"""
    from ptm_mini.runs.predict import Predictor        # here, so that importing a part of the package imports no more

    return Predictor(Path(folder), device)
