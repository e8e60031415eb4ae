"""What is kept of a stage: it goes on to the same bits from wherever it was broken off."""
import json
import os
import signal

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from conftest import refusal
from ptm_mini.config import StageConfig
from ptm_mini.errors import NonFiniteLoss
from ptm_mini.method.damage import Sample
from ptm_mini.training.fit import fit
from ptm_mini.training.measure import Score
from ptm_mini.training.progress import LOG, Progress, read_log, uninterrupted

STAGE, BATCHES = StageConfig(epochs=4, learning_rate=0.1, weight_decay=0.01, batch_size=4), 3


class Broken(KeyboardInterrupt):
    pass


class Batches:
    """12 samples in 3 batches an epoch, other ones each epoch; `breaks` is asked before each is given."""

    def __init__(self, breaks=lambda epoch, step: None):
        self.breaks = breaks

    def __len__(self):
        return 4 * BATCHES

    def batches(self, size, epoch, name, skip):
        for step in range(skip, BATCHES):
            self.breaks(epoch, step)
            random = torch.Generator().manual_seed(100 * epoch + step)
            yield Sample(torch.randn(4, 5, generator=random), None, None, torch.randint(3, (4,), generator=random), list("abcd"))


def trained(progress, samples=Batches(), validate=None):
    """The bytes of a small model's weights behind `fit`, and the Cost."""
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            p.copy_(torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))

    def score():
        loss = sum(p.sum().item() for p in model.parameters())
        return Score(round(abs(loss) % 1, 1), 0.5, loss, 10)

    cost = fit("it", model, STAGE, samples, lambda batch: F.cross_entropy(model(batch.audio), batch.label), validate or score,
               progress)
    return [p.detach().numpy().tobytes() for p in model.parameters()], cost


def test_it_goes_on_from_any_step_to_the_same_bits(tmp_path):
    whole, cost = trained(Progress(tmp_path / "whole", "x"))
    for at in [(epoch, step) for epoch in range(1, STAGE.epochs + 1) for step in range(BATCHES)]:
        def breaks(epoch, step):
            if (epoch, step) == at:
                raise Broken

        progress = Progress(tmp_path / str(at), "x")
        with pytest.raises(Broken):
            trained(progress, Batches(breaks))
        again, other = trained(progress)
        assert again == whole and other._replace(seconds=0) == cost._replace(seconds=0)
        without = [{**line, "seconds": 0, "left": 0, "samples_per_second": 0} for line in read_log(progress.folder / LOG)]
        assert without == [{**line, "seconds": 0, "left": 0, "samples_per_second": 0} for line in read_log(tmp_path / "whole" / LOG)]


def test_a_process_that_died_loses_what_came_behind_the_last_epoch_alone(tmp_path):
    """SIGKILL leaves no time to save: what stands there is from the end of an epoch. The log may be ahead of it."""
    whole, _ = trained(Progress(tmp_path / "whole", "x"))
    progress = Progress(tmp_path / "killed", "x")
    counted = []

    class Dies(Progress):
        def save(self, stage, state):
            if len(counted) == 2:
                raise SystemExit
            counted.append(state)
            super().save(stage, state)

    with pytest.raises(SystemExit):
        trained(Dies(tmp_path / "killed", "x"))
    steps = []
    assert trained(progress, Batches(lambda *step: steps.append(step)))[0] == whole
    assert steps[0] == (3, 0) and [line["epoch"] for line in read_log(tmp_path / "killed" / LOG)] == [1, 2, 3, 4]


def test_a_stage_that_is_done_is_not_trained_again(tmp_path):
    whole, cost = trained(Progress(tmp_path, "x"))

    def never(epoch, step):
        raise AssertionError

    assert trained(Progress(tmp_path, "x"), Batches(never)) == (whole, cost)


def test_a_state_of_something_else_or_damaged_is_refused(tmp_path):
    trained(Progress(tmp_path, "x"))
    assert "was begun with other settings" in refusal(Progress(tmp_path, "y").load, "it")
    path = Progress(tmp_path).path("it")
    for content in (b"", path.read_bytes()[:-30], b"PK" + bytes(100), path.read_bytes().replace(b"belongs", b"belonks")):
        path.write_bytes(content)
        assert f"{path}: is not as training saved it; remove it" in refusal(Progress(tmp_path, "x").load, "it")


def test_a_log_that_is_none_is_refused(tmp_path):
    path = tmp_path / LOG
    for content in ("[1]", '{"stage": "x"}', "[" * 100_000, "\x00", '{"stage": 1, "epoch": 2}'):
        path.write_text(content)
        assert f"{path}: is not the log" in refusal(read_log, path)


def test_the_log_has_a_line_an_epoch(tmp_path):
    trained(Progress(tmp_path, "x"))
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3, 4]
    assert lines[0].keys() == {"stage", "epoch", "epochs", "loss", "accuracy", "validation_loss", "macro_f1", "gradient_norm",
                               "learning_rate", "samples_per_second", "seconds", "left"}
    assert all(line["gradient_norm"] > 0 and line["samples_per_second"] > 0 for line in lines)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_waits_for_the_block_and_a_second_one_does_not(number):
    before = signal.signal(number, signal.default_int_handler)
    try:
        done = []
        with pytest.raises(KeyboardInterrupt):
            with uninterrupted():
                os.kill(os.getpid(), number)
                done.append(1)
        assert done == [1] and signal.getsignal(number) is signal.default_int_handler
        with pytest.raises(KeyboardInterrupt):
            with uninterrupted():
                os.kill(os.getpid(), number)
                os.kill(os.getpid(), number)
                done.append(2)
        assert done == [1] and signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("where, epoch", [("loss", 2), ("validation", 1)])
def test_a_number_that_is_not_finite_names_the_place_and_leaves_the_last_state(tmp_path, where, epoch):
    class Poisoned(Batches):
        def batches(self, size, epoch, name, skip):
            for step, batch in enumerate(super().batches(size, epoch, name, skip)):
                yield batch._replace(audio=batch.audio * (float("inf") if (epoch, step, where) == (2, 1, "loss") else 1))

    progress = Progress(tmp_path, "x")
    with pytest.raises(NonFiniteLoss) as caught:
        trained(progress, Poisoned(), (lambda: Score(0.5, 0.5, float("nan"), 10)) if where == "validation" else None)
    if where == "loss":
        assert "epoch 2, step 2, samples a, b, c, d;" in str(caught.value)
        assert progress.load("it")["position"]["epoch"] == 2 and progress.load("it")["position"]["step"] == 0
    else:
        assert "it: validation: the loss became nan" in str(caught.value) and progress.load("it") is None
