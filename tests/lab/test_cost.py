"""The cost command: operations and memory by hand, answers that agree, and its figures."""
import json
from pathlib import Path

import pytest
import torch
from helpers import CONFIG, FLAGS, random_batch, refusal, shake
from torch import nn

from ptm_mini.config import Situation
from ptm_mini.lab import cost
from ptm_mini.lab.cost import (CACHED, CLASSES, FULL, TITLES, TrainingStep, answer_by_case,
                               build_answers, build_model, build_steps, measure_training)
from ptm_mini.method.backbone import Backbone, freeze, initialise
from ptm_mini.training import assemble

# Operations for a sample: N = 4 tokens a stream, width 16, 2 blocks an encoder.
D, N, B = 16, 4, 5


def count_block(tokens: int) -> int:
    """Projections and MLP, 12 D^2 a token; scores, and what is mixed by them."""
    return 2 * (12 * D * D * tokens + 2 * D * tokens * tokens)


PATCHES = 2 * (N * D * 16 * 16 + N * D * 3 * 8 * 8)
ENCODERS = 2 * 2 * count_block(N)
HEAD = 2 * D * CLASSES
FORWARD = PATCHES + ENCODERS + 2 * count_block(N) + count_block(2 * N) + HEAD


@pytest.fixture
def backbone() -> Backbone:
    backbone, generator = Backbone(CONFIG, CLASSES), torch.Generator().manual_seed(0)
    initialise(backbone, generator)
    return freeze(shake(backbone, generator))


@pytest.fixture
def steps(backbone: Backbone) -> dict[str, TrainingStep]:
    batch = random_batch(CONFIG, B)
    return build_steps(CONFIG, backbone, batch.audio, batch.image, batch.label)


def test_operations_by_hand() -> None:
    audio, image = (torch.empty(shape, device="meta") for shape in ((B, 32, 32), (B, 3, 16, 16)))
    labels = torch.empty(B, device="meta", dtype=torch.long)
    steps = build_steps(CONFIG, Backbone(CONFIG, CLASSES).to("meta"), audio, image, labels)
    count = {row: step.count_operations() for row, step in steps.items()}
    assert count[FULL] == B * (3 * FORWARD - PATCHES)   # forward; weights; inputs, but not pixels
    assert count["head"] == B * (FORWARD + 2 * HEAD)
    attention = 2 * 2 * D * (6 * N * N + (2 * N) ** 2)   # two factors, each with a gradient
    assert count["scale_shift"] == B * (2 * FORWARD - PATCHES + attention + HEAD)
    for row in ("head", "prompts attention"):
        assert count[row] - count[row + CACHED] == B * (PATCHES + ENCODERS)


def test_memory_by_hand() -> None:
    """A linear layer keeps its input, 5 x 4; the loss keeps log-probabilities, labels, a weight."""
    step = TrainingStep(nn.Linear(4, 3), (torch.randn(B, 4),), torch.arange(B) % 3)
    step()
    saved = 4 * B * 4 + 4 * B * 3 + 8 * B + 4
    weights = 4 * (4 * 3 + 3)
    assert step.measure_memory() == saved + 4 * weights + 2 * 4     # gradients, two moments; steps


def test_a_step_on_cached_tokens_is_the_step_on_their_samples(
        steps: dict[str, TrainingStep]) -> None:
    for row in ("head", "prompts attention"):
        whole, cached = steps[row], steps[row + CACHED]
        assert torch.equal(whole.model(*whole.inputs), cached.model(*cached.inputs))
        assert sum(map(torch.numel, whole.parameters)) == sum(map(torch.numel, cached.parameters))


def test_shares_are_of_full_fine_tuning(backbone: Backbone) -> None:
    batch = random_batch(CONFIG, B)
    tables = measure_training(CONFIG, backbone, batch.audio, batch.image, repeats=1)
    training, full = tables["training"], tables["training"][FULL]
    assert set(tables["shares"][FULL].values()) == {1.0}
    for row, share in list(tables["shares"].items())[1:]:
        assert share["equal"] == pytest.approx(training[row]["ms"] / full["ms"])
        assert share["paper"] == pytest.approx(0.3 * share["equal"])
        assert 0 < share["memory"] < 1 and 0 < share["operations"] < 1
    cached, own = tables["caching"]["head, cached"], training["head"]["ms"]
    assert cached["kB a sample"] == 2 * N * D * 2 / 1000
    assert cached["ms saved"] == pytest.approx(own - training["head, cached"]["ms"])


@torch.no_grad()
def test_every_way_to_answer_gives_the_answers_of_the_oracle(backbone: Backbone) -> None:
    batch = random_batch(CONFIG, 8)
    inputs = batch.audio, batch.image, batch.situation
    logits = {row: answer(*inputs) for row, answer in build_answers(CONFIG, backbone).items()}
    for name in ("input", "attention", "both"):
        oracle, routed = (logits[f"prompts {name} {way}"] for way in ("oracle", "routed"))
        assert torch.allclose(oracle, routed, atol=1e-6)
    assert all(x.shape == (8, CLASSES) for x in logits.values())
    lora = assemble([shake(build_model("lora", backbone, CONFIG), torch.Generator().manual_seed(s))
                     for s in Situation])
    by_case = answer_by_case(lora, *inputs)
    for row, situation in enumerate(batch.situation.tolist()):
        assert torch.allclose(by_case[row], lora.answer(*inputs[:2], situation)[row], atol=1e-5)


def test_the_command_prints_and_writes_its_figures(tmp_path: Path,
                                                   capsys: pytest.CaptureFixture) -> None:
    out = tmp_path / "cost.json"
    arguments = [*FLAGS, "--batch", "2", "--repeats", "1", "--device", "cpu", "--out", str(out)]
    cost.main([*arguments, "--serving", "1", "3"])
    printed, found = capsys.readouterr().out, json.loads(out.read_text())
    for name, title in TITLES.items():
        table = printed.split(title)[1].split("\n\n")[1].splitlines()
        assert [line.split("|")[1].strip() for line in table[2:]] == list(found[name])
    assert found["batch"] == 2 and list(found["serving"]["full_mixed"]) == ["ms, 1", "ms, 3"]
    assert "exists already" in refusal(cost.main, arguments)
    assert "expected 1 or more" in refusal(cost.main, ["--serving", "0"])
    assert "prompts attention: nothing is trainable" in refusal(cost.main, [
        *FLAGS, "--set", "prompts.tune_head=false", "--set", "model.fusion=none"])
