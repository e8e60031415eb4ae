"""The training loop by itself, and what it counts."""
import logging
import re
from contextlib import nullcontext
from typing import NamedTuple

import pytest
import torch
from torch import nn

from ptm_mini.config import StageConfig
from ptm_mini.training.cost import StepMemory
from ptm_mini.training.fit import fit
from ptm_mini.training.measure import Score
from ptm_mini.training.progress import Progress


class FakeBatch(NamedTuple):
    label: torch.Tensor
    id: list


class FakeSamples:
    def __len__(self):
        return 8

    def batches(self, size, epoch, name, skip):
        yield FakeBatch(torch.arange(8), list("abcdefgh"))


def fit_scripted(scores):
    """Train one number, which every epoch changes, with validation scores as scripted. returns its value after each epoch,
    and at the end"""
    module = nn.Linear(1, 1, bias=False)
    values, remaining = [], list(scores)

    def validate():
        values.append(module.weight.item())
        return remaining.pop(0)

    fit("scripted", module, StageConfig(epochs=len(scores), learning_rate=0.1), FakeSamples(), lambda batch: module.weight.sum(),
        validate, Progress())
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


def test_what_a_step_keeps_is_counted_by_hand():
    """y = sum (x w)^2: autograd keeps x for the gradient of w, and x w for the square; w is counted as a parameter."""
    w = nn.Linear(8, 4, bias=False)
    x = torch.randn(16, 8)
    optimiser = torch.optim.SGD(w.parameters(), lr=0.1, momentum=0.9)
    memory = StepMemory(w, optimiser, torch.device("cpu"))
    for context in (nullcontext(), memory.counted(), nullcontext()):
        with context:
            loss = w(x).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    momentum = gradient = parameter = 8 * 4
    assert memory.peak() == 4 * (16 * 8 + 16 * 4 + parameter + gradient + momentum)
