"""The baselines: each starts as the backbone and trains only its own.

That each is its formula stands in lab/test_golden.py, with NumPy.
"""
import pytest
import torch
from helpers import CLASSES, CONFIG, shake
from torch import Tensor, nn

from ptm_mini.config import override
from ptm_mini.method.backbone import Backbone
from ptm_mini.training import METHODS

Inputs = tuple[Tensor, Tensor, Tensor]
HEAD = 2 * 16 + 16 * len(CLASSES) + len(CLASSES)        # its trainable parameters


def build(method: str, backbone: Backbone, *assignments: str) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    return METHODS[method](backbone, override(CONFIG, *assignments), generator)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "prompt"])
def test_each_starts_as_the_backbone(backbone: Backbone, inputs: Inputs, method: str) -> None:
    """And trains only what is its own."""
    audio, image, _ = inputs
    logits = backbone(audio, image)
    model = build(method, backbone)
    assert torch.equal(model(audio, image), logits)
    shake(model, torch.Generator().manual_seed(1), by=0.1)
    model(audio, image).square().sum().backward()
    assert all(p.grad.any() for p in model.parameters() if p.requires_grad)
    if method.startswith("full"):
        assert all(p.requires_grad for p in model.parameters())
    assert not torch.allclose(model(audio, image), logits, atol=1e-2)
    assert all(p.grad is None and not p.requires_grad for p in backbone.parameters())
    assert torch.equal(backbone(audio, image), logits) and not backbone.training


@pytest.mark.parametrize("method, settings, tunes_head, expected", [
    ("head", [], True, 0),
    # attentions: 2 + 2 in encoders, 2 cross, 1 joint = 7; each r D + 3 D r + r D + D r = 6 D r
    ("lora", ["lora.rank=3"], True, 7 * 6 * 16 * 3),
    # one after each attention and each MLP: 14, each 2 D b + b + D
    ("adapter", ["adapter.bottleneck=3", "adapter.tune_head=false"], False,
     14 * (2 * 16 * 3 + 3 + 16)),
    # norms: two in each of 5 blocks, three in each of 2 cross updates = 16, each 2 D
    ("scale_shift", [], True, 16 * 2 * 16),
    # 2 modalities x (2 blocks + 1 fusion block) x P x D
    ("prompt", ["prompts.length=5", "prompts.tune_head=false"], False, 2 * 3 * 5 * 16)])
def test_trainable_parameters_by_hand(backbone: Backbone, method: str, settings: list[str],
                                      tunes_head: bool, expected: int) -> None:
    """All others are the backbone's own."""
    model = build(method, backbone, *settings)
    trained = {p for p in model.parameters() if p.requires_grad}
    assert sum(p.numel() for p in trained) == expected + HEAD * tunes_head
    shared = set(backbone.parameters()) - (set(backbone.head.parameters()) if tunes_head else set())
    assert set(model.parameters()) - trained == shared


def test_lora_starts_uniform(backbone: Backbone) -> None:
    """Within 1 / sqrt(fan in)."""
    for name, weight in build("lora", backbone).named_parameters():
        if name.endswith(".down"):
            assert 0.8 / 4 < weight.abs().max() <= 1 / 4
