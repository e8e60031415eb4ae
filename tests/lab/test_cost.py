"""The cost command: operations and memory by hand, answers that agree, and its tables."""
import pytest
import torch
from helpers import CONFIG, FLAGS, refusal, shake
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ptm_mini.lab import cost
from ptm_mini.lab.cost import (CLASSES, FULL, build_answers, draw_inputs, measure_memory,
                               measure_training)
from ptm_mini.method.backbone import Backbone, freeze, initialise

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


def test_operations_by_hand_and_shares_of_full_fine_tuning(backbone: Backbone) -> None:
    table, making = measure_training(CONFIG, backbone, B, repeats=1)
    count = {row: round(1e9 * costs["Gop"]) for row, costs in table.items()}
    assert count[FULL] == B * (3 * FORWARD - PATCHES)   # forward; weights; inputs, but not pixels
    assert count["head"] == B * (FORWARD + 2 * HEAD)
    attention = 2 * 2 * D * (6 * N * N + (2 * N) ** 2)   # two factors, each with a gradient
    assert count["scale_shift"] == B * (2 * FORWARD - PATCHES + attention + HEAD)
    for row in ("head", "prompts attention"):
        assert count[row] - count[f"{row}, cached"] == B * (PATCHES + ENCODERS)
    full = table.pop(FULL)
    assert full["equal"] == full["paper"] == 1 and making > 0
    for costs in table.values():
        assert costs["equal"] == pytest.approx(costs["ms"] / full["ms"])
        assert costs["paper"] == pytest.approx(0.3 * costs["equal"])
        assert 0 < costs["step MB"] < full["step MB"] and 0 < costs["Gop"] < full["Gop"]


def test_memory_by_hand() -> None:
    """A linear layer keeps its input, 5 x 4; the loss keeps log-probabilities, labels, a weight."""
    saved = 4 * B * 4 + 4 * B * CLASSES + 8 * B + 4
    weights = 4 * (4 * CLASSES + CLASSES)
    memory = measure_memory(nn.Linear(4, CLASSES), (torch.randn(B, 4),))
    assert memory == saved + 4 * weights                               # a gradient, two moments


def test_the_router_reads_tokens_that_attention_level_prompts_share(backbone: Backbone) -> None:
    counts = {}
    for row, answer in build_answers(CONFIG, backbone, draw_inputs(backbone, B)).items():
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            answer()
        counts[row] = counter.get_total_flops()
    routing = counts["prompts attention, routed"] - counts["prompts attention, oracle"]
    assert 0 < routing < B * ENCODERS / 2                   # a linear layer on pooled tokens
    assert counts["prompts both, routed"] == (counts["prompts both, oracle"] + routing
                                              + B * (PATCHES + ENCODERS))


@torch.no_grad()
def test_the_router_answers_from_the_tokens_it_has_read(backbone: Backbone) -> None:
    """All sets start alike, whichever the router picks."""
    answers = build_answers(CONFIG, backbone, draw_inputs(backbone, 8))
    logits = {row: answer() for row, answer in answers.items()}
    assert len(logits) == 6 and all(x.shape == (8, CLASSES) for x in logits.values())
    for level in ("both", "attention"):
        torch.testing.assert_close(logits[f"prompts {level}, oracle"],
                                   logits[f"prompts {level}, routed"])
    assert not torch.allclose(logits["prompts both, oracle"], logits["prompts attention, oracle"])


def test_the_command_prints_its_tables(capsys: pytest.CaptureFixture) -> None:
    arguments = [*FLAGS, "--batch", "2", "--repeats", "1", "--device", "cpu"]
    cost.main([*arguments, "--serving", "1", "3"])
    training, serving = capsys.readouterr().out.split("A training step:")[1].split("Answering")
    assert "| full fine-tuning " in training and "| head, cached " in training
    assert "ms, 1 |" in serving and "ms, 3 |" in serving and "| full_mixed " in serving
    assert "expected 1 or more" in refusal(cost.main, ["--serving", "0"])
