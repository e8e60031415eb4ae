"""The training loop by itself."""
import logging
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from ptm_mini.config import PRESETS, InputError, Situation, StageConfig
from ptm_mini.data import PreparedSet
from ptm_mini.evaluate import Score
from ptm_mini.model import Backbone
from ptm_mini.overrides import replace
from train import Task, fit, parse_arguments, settings, train_case

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
    values, kept = fit_scripted([Score(accuracy, loss, 10) for accuracy, loss in scores])
    assert len(set(values)) == 3 and kept == values[best]


def test_a_progress_line_for_each_epoch(caplog):
    with caplog.at_level(logging.INFO):
        fit_scripted([Score(0.25, 1.0, 10)] * 2)
    assert "scripted: 1 numbers learn: weight 1x1" in caplog.text
    assert re.search(r"scripted +epoch +1/2 +loss -?[\d.]+ +validation 0\.2500 +[\d.]+ s +left 0:00", caplog.text)


def test_prompts_of_no_length_and_no_head_are_refused(toy_set, small):
    config = replace(small, {"prompts.length": 0})
    data = PreparedSet(toy_set, config)
    task = Task(config, data, data.normalisation(), torch.device("cpu"), False)
    with pytest.raises(InputError, match="nothing can learn; expected prompts.length above 0"):
        train_case(task, Backbone(config, 10), Situation.COMPLETE)


def test_every_flag_is_read():
    for script in ("train.py", "eval.py"):
        code = (ROOT / script).read_text()
        for flag in re.findall(r'add_argument\("(?:--)?(\w+)"', code):
            assert f"options.{flag}" in code, (script, flag)


def test_epochs_are_set_for_the_stages_that_run():
    for stage, expected in (("backbone", (3, 8, 6)), ("prompts", (20, 3, 3)), ("all", (3, 3, 3))):
        config = settings(parse_arguments(["--stage", stage, "--epochs", "3"]), PRESETS["tiny"])
        assert (config.train.backbone.epochs, config.train.prompts.epochs, config.train.together.epochs) == expected
