"""The exported program answers as the run does, in a process that has torch alone."""
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import FLAGS, refusal, train_only

from ptm_mini.config import Situation
from ptm_mini.data.dataset import PreparedSet
from ptm_mini.lab import export
from ptm_mini.predict import Predictor, Prepared

BATCHES = [(2, 3), (0, 3), (0, 64)]         # first sample and the one after the last
ANSWER = f"""
import sys
sys.modules["ptm_mini"] = None              # importing it raises
import torch
inputs = torch.load("inputs.pt")
program = torch.export.load("model.pt2").module()
answers = [program(*(x[first:end] for x in inputs)) for first, end in {BATCHES}]
torch.save(answers, "answers.pt")
"""


@pytest.fixture(scope="module")
def tiny_run(few_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of few layers, since tracing takes time for each, and of strong random prompts."""
    folder = tmp_path_factory.mktemp("export") / "run"
    settings = ["model.depth=2", "prompts.input_depth=1", "model.joint_depth=0",
                "model.fusion=image_to_audio", "prompts.initial_std=2"]
    train_only("--data", few_set, "--out", folder, *FLAGS, "--epochs", 0,
               *(word for setting in settings for word in ("--set", setting)),
               "--set", "train.backbone.epochs=1")
    return folder


@torch.no_grad()
@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["routed", "concat"])
def test_batches_are_answered_without_the_package(
        tiny_run: Path, data: PreparedSet, tmp_path: Path, strategy: str) -> None:
    batch, = data.loader([(row, 0, situation) for row in range(16) for situation in Situation], 64)
    audio, image = batch.audio.clone(), batch.image.clone()
    audio[::3], image[1::3] = 0, 0
    torch.save((audio, image), tmp_path / "inputs.pt")
    export.main([str(tiny_run), str(tmp_path / "model.pt2"), "--strategy", strategy])
    subprocess.run([sys.executable, "-c", ANSWER], cwd=tmp_path, check=True)
    answers, predictor = torch.load(tmp_path / "answers.pt"), Predictor(tiny_run)
    classes = json.loads((tmp_path / "model.json").read_text())["classes"]
    routed = [predictor.answer(Prepared(audio[i:i + 1], image[i])) for i in range(64)]
    expected = {"routed": torch.tensor([[answer.probabilities[name] for name in classes]
                                        for answer in routed]),
                "concat": predictor.models.methods["prompt"](audio, image).softmax(dim=1)}
    assert len({answer.situation for answer in routed}) == len(Situation)
    assert not torch.allclose(expected["routed"], expected["concat"], rtol=0, atol=0.01)
    for (first, end), part in zip(BATCHES, answers):
        assert torch.allclose(part, expected[strategy][first:end], rtol=0, atol=1e-6)


def test_a_run_without_prompts_or_a_file_that_exists_is_refused(
        copied: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.pt2"
    (copied / "router.pt").unlink()
    assert "has not trained it" in refusal(export.main, [str(copied), str(out)])
    out.write_text("mine")
    assert "exists already" in refusal(export.main, [str(copied), str(out)])
    assert out.read_text() == "mine" and not out.with_suffix(".json").exists()
