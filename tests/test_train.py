"""The training loop by itself."""
import logging
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from ptm_mini.config import METHODS, PRESETS, InputError, StageConfig, keys
from ptm_mini.cost import StepMemory
from ptm_mini.data import PreparedSet
from ptm_mini.evaluate import Score
from ptm_mini.model import Backbone
from ptm_mini.overrides import reads, replace
from ptm_mini.task import Task
from train import fit, parse_arguments, settings, train_method

ROOT = Path(__file__).parent.parent


def fit_scripted(scores):
    """Train one number, which every epoch changes, with validation scores as scripted. returns its value after each epoch,
    and at the end"""
    module = nn.Linear(1, 1, bias=False)
    values, remaining = [], list(scores)

    def validate():
        values.append(module.weight.item())
        return remaining.pop(0)

    fit("scripted", module, StageConfig(epochs=len(scores), learning_rate=0.1), torch.arange(8), 0,
        lambda indices, epoch: module.weight.sum(), validate)
    return values, module.weight.item()


@pytest.mark.parametrize("scores, best", [
    ([(0.2, 1.0), (0.9, 1.0), (0.5, 0.1)], 1),                                    # by accuracy, not by loss
    ([(0.9, 1.0), (0.9, 0.5), (0.9, 0.7)], 1),                                    # of equal ones the lowest loss
    ([(0.1, 1.0), (0.2, 1.0), (0.3, 1.0)], 2)])
def test_the_best_epoch_is_kept_by_validation(scores, best):
    values, kept = fit_scripted([Score(accuracy, accuracy, loss, 10) for accuracy, loss in scores])
    assert len(set(values)) == 3 and kept == values[best]


def test_a_progress_line_for_each_epoch(caplog):
    with caplog.at_level(logging.INFO):
        fit_scripted([Score(0.25, 0.25, 1.0, 10)] * 2)
    assert "scripted: 1 numbers learn: weight 1x1" in caplog.text
    assert re.search(r"scripted +epoch +1/2 +loss -?[\d.]+ +validation 0\.2500 +[\d.]+ s +left 0:00", caplog.text)


def test_prompts_of_no_length_and_no_head_are_refused(toy_set, small):
    config = replace(small, {"prompts.length": 0})
    data = PreparedSet(toy_set, config)
    task = Task(config, data, data.normalisation(), torch.device("cpu"), False)
    with pytest.raises(InputError, match="nothing can learn; expected prompts.length above 0"):
        train_method(task, Backbone(config, 10), "prompt")


def test_what_a_step_keeps_is_counted_by_hand():
    """y = sum (x w)^2: autograd keeps x for the gradient of w, and x w for the square; w is counted as a parameter."""
    w = nn.Linear(8, 4, bias=False)
    x = torch.randn(16, 8)
    optimiser = torch.optim.SGD(w.parameters(), lr=0.1, momentum=0.9)
    memory = StepMemory(w, optimiser, torch.device("cpu"))
    for wanted in (False, True, False):
        with memory.counted(wanted):
            loss = w(x).square().sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    momentum = gradient = parameter = 8 * 4
    assert memory.bytes == 4 * (16 * 8 + 16 * 4 + parameter + gradient + momentum)


def test_every_flag_is_read():
    for script in ("train.py", "eval.py"):
        code = (ROOT / script).read_text()
        for flag in re.findall(r'add_argument\("(?:--)?(\w+)"', code):
            assert f"options.{flag}" in code, (script, flag)


def test_epochs_are_set_for_the_stages_that_run():
    for lacking, expected in ((["backbone"], (3, 8, 6, 8)), (["prompt"], (20, 3, 3, 8)), (["backbone", "lora"], (3, 8, 6, 3))):
        train = settings(parse_arguments(["--epochs", "3"]), PRESETS["tiny"], None, lacking).train
        assert tuple(stage.epochs for stage in (train.backbone, train.prompts, train.together, train.lora)) == expected


def test_what_a_method_reads():
    assert reads("lora", "lora.rank") and reads("lora", "train.lora.epochs") and reads("lora", "damage.both.audio_mask")
    assert not reads("lora", "prompts.length") and not reads("lora", "train.together.epochs")
    assert reads("prompt", "prompts.length") and reads("prompt", "router.passes")
    assert not reads("backbone", "damage.alone.audio_mask") and not reads("backbone", "train.fraction")
    assert all(reads(method, key) for method in METHODS for key in ("model.width", "train.seed", "audio.mels"))
    assert not any(reads("head", key) for key in keys(PRESETS["tiny"]) if key.startswith(("lora.", "adapter.", "prompts.")))
