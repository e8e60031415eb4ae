"""The gpu command, on the CPU with a small model: its table, its data, and what it refuses."""
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from helpers import CONFIG, FLAGS, refusal

from ptm_mini.config import Situation
from ptm_mini.lab import gpu
from ptm_mini.lab.cost import CLASSES
from ptm_mini.training import METHODS


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORKERS": (0,), "SECONDS": 0.01, "WARM_UP": 1}.items():
        monkeypatch.setattr(gpu, name, value)


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.filterwarnings(
    "ignore:This process .* is multi-threaded:DeprecationWarning"))])
def test_batches_are_damaged_as_in_training_and_never_end(workers: int) -> None:
    data = gpu.NoiseSet(CONFIG, torch.device("cpu"))
    batches = data.batches(len(Situation), workers)
    for epoch in (1, 2):
        audio, image = next(batches)
        for situation in Situation:
            sample = data[0, epoch, situation]
            assert torch.equal(audio[situation], sample.audio)
            assert torch.equal(image[situation], sample.image)


def test_waiting_is_measured_and_the_warm_up_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock of its own: the first step takes 9 s, a step 1 s, a batch of the loader 3 s."""
    data, now, precisions = gpu.NoiseSet(CONFIG, torch.device("cpu")), [0.0], []

    def take_step(model: torch.nn.Module, batch: gpu.Inputs, bf16: bool, **_: object) -> None:
        now[0] += 1.0 if precisions else 9.0
        precisions.append(bf16)

    def batches(self: gpu.NoiseSet, size: int, workers: int) -> Iterator[int]:
        while True:
            now[0] += 3.0
            yield size

    monkeypatch.setattr(gpu, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    monkeypatch.setattr(gpu, "SECONDS", 5.0)
    monkeypatch.setattr(gpu, "take_step", take_step)
    monkeypatch.setattr(gpu.NoiseSet, "batches", batches)
    table = gpu.measure_method("head", data, 8)
    expected = {"samples/s": 8.0, "waits, 0 workers": 0.75}
    assert table == {"head": expected, "head, bf16": expected}
    assert precisions == sorted(precisions) and {False, True} == set(precisions)


def test_mixed_precision_is_bfloat16_as_far_as_the_logits() -> None:
    model, dtypes = torch.nn.Linear(4, CLASSES), []
    model.register_forward_hook(lambda module, inputs, logits: dtypes.append(logits.dtype))
    optimizer = torch.optim.SGD(model.parameters())
    for bf16 in (False, True):
        gpu.take_step(model, (torch.randn(3, 4),), optimizer, bf16)
    assert dtypes == [torch.float32, torch.bfloat16]
    assert all(parameter.grad.dtype == torch.float32 for parameter in model.parameters())


def test_the_command_prints_a_row_for_each_method_and_precision(
        capsys: pytest.CaptureFixture) -> None:
    gpu.main(["--preset", "tiny", *FLAGS, "--batch", "2", "--device", "cpu"])
    head, table = capsys.readouterr().out.split("\n\n")
    lines = table.splitlines()
    assert head.endswith("batch 2, CPU") and "peak GB" not in lines[0]      # of CUDA devices alone
    rows = [line.split("|")[1].strip() for line in lines[2:]]
    assert rows == [row for method in METHODS for row in (method, f"{method}, bf16")]
    assert "--batch 0: expected 1 or more" in refusal(gpu.main, ["--batch", "0"])
