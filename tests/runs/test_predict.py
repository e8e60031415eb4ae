"""Asking a run about files gives what its evaluation gives, bit for bit."""
import pytest
import torch
from conftest import refusal, save_random_run

import ptm_mini
from ptm_mini.config import Situation
from ptm_mini.method.router import routed
from ptm_mini.runs.models import load_models
from ptm_mini.training.measure import View

CPU = torch.device("cpu")


@pytest.fixture
def asked(toy_set, small, tmp_path):
    """The folder of a run of random weights on the toy set, the set, and the Run."""
    return tmp_path, *save_random_run(tmp_path, toy_set, small)


def test_a_pair_gives_the_evaluations_answer(asked):
    folder, data, run = asked
    model = ptm_mini.load(folder)
    _, models, router = load_models(folder, run, CPU)
    for index in (0, 57, 133):
        row = data.rows[index]
        answer = model.predict(audio=data.folder / row.audio, image=str(data.folder / row.image))
        sample = View(data, "test", run.config, run.normalisation, CPU).sample(index, Situation.COMPLETE)
        inputs = [part[None] for part in sample[:3]]
        with torch.no_grad():
            expected = routed(models["prompt"], router)(*inputs)[0].softmax(dim=0)
            assert answer.situation == router.pick(*inputs[:2]).item()
        assert {name: answer.probabilities[name] for name in run.classes} == dict(zip(run.classes, expected.tolist()))
        assert list(answer.probabilities.values()) == sorted(answer.probabilities.values(), reverse=True)


def test_a_file_left_out_is_missing_and_its_prompts_answer(asked):
    folder, data, run = asked
    model, row = ptm_mini.load(folder), data.rows[3]
    assert model.predict(audio=data.folder / row.audio).situation == Situation.NOISY_IMAGE
    assert model.predict(image=data.folder / row.image).situation == Situation.NOISY_AUDIO
    assert "expected at least one" in refusal(model.predict)
    assert "gone.wav: no such file" in refusal(model.predict, audio="gone.wav")


def test_a_run_without_prompts_says_how_to_train_them(tmp_path, toy_set, small):
    save_random_run(tmp_path, toy_set, small, prompts=False)
    assert f"train.py --out {tmp_path} --method prompt" in refusal(ptm_mini.load, tmp_path)
