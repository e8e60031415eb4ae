"""ptm_mini: prompts that make a frozen audio-visual transformer robust to missing and damaged modalities.

    model = ptm_mini.load("runs/toy-1")
    answer = model.predict(audio="clip.wav", image="frame.jpg")
"""
from pathlib import Path


def load(folder, device="cpu", windows=1):
    """The prompted model of a run folder that train.py made.

    windows  of clips longer than the run's audio.seconds: the answer is the mean over so many, from beginning to end
    returns  Predictor (runs/predict.py)
    """
    from ptm_mini.runs.predict import Predictor        # here, so that importing a part of the package imports no more

    return Predictor(Path(folder), device, windows)
