"""The baselines: each starts as the backbone, trains only its own, and is its formula."""
import math

import pytest
import torch
from helpers import CLASSES, CONFIG, shake
from torch import Tensor, nn
from torch.nn import functional as F

from ptm_mini.config import AdapterConfig, LoraConfig, override
from ptm_mini.method import baselines
from ptm_mini.method.backbone import Attention, Backbone
from ptm_mini.method.baselines import Adapter, LowRankUpdate, ScaleShift
from ptm_mini.training import METHODS

Inputs = tuple[Tensor, Tensor, Tensor]
BASELINES = [name for name in METHODS if name != "prompt"]


def build(method: str, backbone: Backbone, *assignments: str) -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    return METHODS[method].build(backbone, override(CONFIG, *assignments), generator)


@pytest.mark.parametrize("method", BASELINES)
def test_each_starts_as_the_backbone_exactly(backbone: Backbone, inputs: Inputs,
                                             method: str) -> None:
    audio, image, _ = inputs
    assert torch.equal(build(method, backbone)(audio, image), backbone(audio, image))


@pytest.mark.parametrize("method", BASELINES)
def test_nothing_of_the_backbone_changes_by_a_training_step(backbone: Backbone, inputs: Inputs,
                                                            method: str) -> None:
    audio, image, _ = inputs
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    logits = backbone(audio, image)
    model = shake(build(method, backbone), torch.Generator().manual_seed(1), by=0.1)
    trained = [p for p in model.parameters() if p.requires_grad]
    model(audio, image).square().sum().backward()
    assert all(p.grad.any() for p in trained)
    with torch.no_grad():
        for parameter in trained:
            parameter -= 0.1 * parameter.grad
    assert all(p.grad is None and not p.requires_grad for p in backbone.parameters())
    assert not backbone.training
    assert all(torch.equal(value, before[name]) for name, value in backbone.state_dict().items())
    assert torch.equal(backbone(audio, image), logits)               # nor are its modules replaced
    assert not torch.allclose(model(audio, image), logits, atol=1e-2)


@pytest.mark.parametrize("tune_head", ["true", "false"])
@pytest.mark.parametrize("method", ["head", "lora", "adapter", "scale_shift", "prompt"])
def test_frozen_weights_are_the_backbones_own(backbone: Backbone, method: str,
                                              tune_head: str) -> None:
    model = build(method, backbone, f"lora.tune_head={tune_head}", f"adapter.tune_head={tune_head}")
    frozen = {id(p) for p in model.parameters() if not p.requires_grad}
    expected = {id(p) for p in backbone.parameters()}
    if method in ("head", "scale_shift") or method != "prompt" and tune_head == "true":
        expected -= {id(p) for p in backbone.head.parameters()}
    assert frozen == expected


def test_full_fine_tuning_trains_a_copy_of_everything(backbone: Backbone) -> None:
    model = build("full_mixed", backbone)
    assert all(p.requires_grad for p in model.parameters())
    assert not {id(p) for p in model.parameters()} & {id(p) for p in backbone.parameters()}


def test_lora_by_hand() -> None:
    weight = torch.randn(6, 4)
    update = LowRankUpdate(weight, LoraConfig(rank=2, alpha=6.0), torch.Generator().manual_seed(0))
    assert torch.equal(update(weight), weight)
    assert update.down.abs().max() <= 0.5 and update.down.std() > 0.1    # uniform within 1 / sqrt 4
    shake(update, torch.Generator().manual_seed(0))
    x = torch.randn(3, 4)
    expected = x @ weight.T + 6.0 / 2 * x @ update.down.T @ update.up.T
    assert torch.allclose(F.linear(x, update(weight)), expected, atol=1e-5)


def test_lora_is_the_backbone_of_updated_weights(backbone: Backbone, inputs: Inputs) -> None:
    """In every attention's projections, queries' keys' and values' together, and nowhere else."""
    audio, image, _ = inputs
    lora = build("lora", backbone, "lora.rank=3", "lora.tune_head=false")
    shake(lora, torch.Generator().manual_seed(1), by=0.3)
    plain = baselines.full(backbone, CONFIG, torch.Generator())
    updated = dict(lora.named_modules())
    with torch.no_grad():
        for name, module in plain.named_modules():
            if isinstance(module, Attention):
                module.qkv.weight.copy_(updated[name].qkv.weight)
                module.proj.weight.copy_(updated[name].proj.weight)
                assert not torch.equal(module.proj.weight, backbone.get_submodule(name).proj.weight)
    assert torch.allclose(plain(audio, image), lora(audio, image), atol=1e-5)
    assert not torch.allclose(plain(audio, image), backbone(audio, image), atol=1e-2)


def test_adapter_by_hand() -> None:
    generator, layer = torch.Generator().manual_seed(0), nn.Linear(5, 4)
    adapter = Adapter(layer, 4, AdapterConfig(bottleneck=2), generator)
    x = torch.randn(3, 5)
    assert torch.equal(adapter(x), layer(x))
    shake(adapter, generator)
    for row, y in zip(adapter(x), layer(x)):
        hidden = adapter.down @ y + adapter.down_bias
        hidden = hidden * (1 + torch.erf(hidden / math.sqrt(2))) / 2
        assert torch.allclose(row, y + adapter.up @ hidden + adapter.up_bias, atol=1e-6)


def test_scale_and_shift_by_hand() -> None:
    norm = ScaleShift(nn.LayerNorm(3))
    with torch.no_grad():
        norm.norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        norm.norm.bias.copy_(torch.tensor([0.0, 0.0, 5.0]))
        norm.scale.copy_(torch.tensor([1.0, 10.0, 100.0]))
        norm.shift.copy_(torch.tensor([7.0, 0.0, 0.0]))
    x = torch.tensor([-1.0, 0.0, 1.0])                                        # variance 2/3
    expected = torch.tensor([7 - 1.5 ** 0.5, 0.0, 100 * (3 * 1.5 ** 0.5 + 5)])
    assert torch.allclose(norm(x), expected, rtol=1e-4)


@pytest.mark.parametrize("method, settings, expected", [
    # attentions: 2 + 2 in encoders, 2 cross, 1 joint = 7; each r D + 3 D r + r D + D r = 6 D r
    ("lora", ["lora.rank=3", "lora.tune_head=false"], 7 * 6 * 16 * 3),
    # one after each attention and each MLP: 14, each 2 D b + b + D
    ("adapter", ["adapter.bottleneck=3", "adapter.tune_head=false"], 14 * (2 * 16 * 3 + 3 + 16)),
    ("head", [], 2 * 16 + 16 * len(CLASSES) + len(CLASSES)),
    # norms: two in each of 5 blocks, three in each of 2 cross updates = 16, each 2 D; and the head
    ("scale_shift", [], 16 * 2 * 16 + 2 * 16 + 16 * len(CLASSES) + len(CLASSES)),
    # 2 modalities x (2 blocks + 1 fusion block) x P x D
    ("prompt", ["prompts.length=5", "prompts.tune_head=false"], 2 * 3 * 5 * 16)])
def test_trainable_parameters_by_hand(backbone: Backbone, method: str, settings: list[str],
                                      expected: int) -> None:
    model = build(method, backbone, *settings)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == expected
