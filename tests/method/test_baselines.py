"""The baselines start as the backbone, learn only what is theirs, and merged equal unmerged."""
import pytest
import torch
from conftest import CLASSES, make_backbone, move

from ptm_mini.method.baselines import LoraLinear, ScaleShift, merge
from ptm_mini.method.layers import Linear
from ptm_mini.settings import with_settings
from ptm_mini.training.methods import METHODS


def make(method, config, start=True):
    """A backbone away from its start, and the method's model on it, at its own start or away from it."""
    random = torch.Generator().manual_seed(0)
    backbone = make_backbone(config, random)
    model = METHODS[method].build(backbone, config, random)
    return backbone, model if start else move(model, 0.1, random)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "prompt"])
def test_each_starts_as_the_backbone(small, inputs, method):
    backbone, model = make(method, small)
    audio, image, _ = inputs
    assert torch.allclose(model(audio, image), backbone(audio, image), atol=1e-5)


def test_scale_and_shift_start_as_the_backbone_to_the_bit(small, inputs):
    backbone, model = make("scale_shift", small)
    audio, image, _ = inputs
    assert torch.equal(model(audio, image), backbone(audio, image))


@pytest.mark.parametrize("method", METHODS)
def test_each_trains_all_that_is_its_own_and_nothing_of_the_backbone(small, inputs, method):
    backbone, model = make(method, small, start=False)
    audio, image, _ = inputs
    model(audio, image).square().sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in backbone.parameters())
    assert not backbone.training
    assert all(p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad and p.numel())


@pytest.mark.parametrize("method", ["head", "lora", "adapter", "scale_shift", "prompt"])
def test_frozen_weights_are_shared_not_copied(small, method):
    backbone, model = make(method, with_settings(small, {"lora.tune_head": False, "adapter.tune_head": False}))
    own = {id(p) for p in backbone.parameters()}
    kept = {id(p) for p in model.parameters() if not p.requires_grad}
    assert kept == own - ({id(p) for p in backbone.head.parameters()} if method in ("head", "scale_shift") else set())


def test_the_backbones_own_modules_stay_as_they_are(small, inputs):
    backbone, _ = make("lora", small)
    for method in ("adapter", "scale_shift"):
        METHODS[method].build(backbone, small, torch.Generator())
    assert not any(isinstance(module, (LoraLinear, ScaleShift)) for module in backbone.modules())
    assert type(backbone.joint[0].attention.qkv) is Linear


@pytest.mark.parametrize("method", ["lora", "scale_shift"])
def test_merged_equals_unmerged(small, inputs, method):
    audio, image, _ = inputs
    backbone, model = make(method, small, start=False)
    before = model(audio, image)
    assert not torch.allclose(before, backbone(audio, image), atol=1e-2)               # the update does something
    weights = {name: p.clone() for name, p in backbone.named_parameters()}
    merged = merge(model)
    assert not any(isinstance(module, (LoraLinear, ScaleShift)) for module in merged.modules())
    assert torch.allclose(merged(audio, image), before, atol=1e-5)
    assert all(torch.equal(p, weights[name]) for name, p in backbone.named_parameters())


def test_lora_by_hand():
    linear = Linear(4, 6)
    lora = LoraLinear(linear, type("", (), {"rank": 2, "alpha": 6.0}), torch.Generator().manual_seed(0))
    with torch.no_grad():
        lora.up += torch.arange(12.0).view(6, 2)
    x = torch.randn(3, 4)
    expected = x @ linear.weight.T + linear.bias + 3.0 * (x @ lora.down.T) @ lora.up.T
    assert torch.allclose(lora(x), expected, atol=1e-5)
    assert torch.allclose(lora(x, slice(2, 4)), expected[:, 2:4], atol=1e-5)


def test_scale_and_shift_by_hand():
    norm = ScaleShift(torch.nn.LayerNorm(3))
    with torch.no_grad():
        norm.norm.weight.copy_(torch.tensor([1.0, 2.0, 3.0]))
        norm.norm.bias.copy_(torch.tensor([0.0, 0.0, 5.0]))
        norm.scale.copy_(torch.tensor([1.0, 10.0, 100.0]))
        norm.shift.copy_(torch.tensor([7.0, 0.0, 0.0]))
    x = torch.tensor([-1.0, 0.0, 1.0])                                                 # variance 2/3
    expected = torch.tensor([7 - 1.5 ** 0.5, 0.0, 100 * (3 * 1.5 ** 0.5 + 5)])
    assert torch.allclose(norm(x), expected, rtol=1e-4) and torch.allclose(norm.merged()(x), expected, rtol=1e-4)


@pytest.mark.parametrize("method, changes, expected", [
    # 2 + 2 encoder, 2 cross and 1 joint attention: 7, each r D + 3 D r + r D + D r = 6 D r; D = 16
    ("lora", {"lora.rank": 3, "lora.tune_head": False}, 7 * 6 * 16 * 3),
    # one after each attention and each MLP: 14, each 2 D b + b + D
    ("adapter", {"adapter.bottleneck": 3, "adapter.tune_head": False}, 14 * (2 * 16 * 3 + 3 + 16)),
    ("head", {}, 2 * 16 + 16 * CLASSES + CLASSES),
    # two norms in each of 2 + 2 + 1 blocks, three in each of 2 cross updates: 16, each 2 D; and the head
    ("scale_shift", {}, 16 * 2 * 16 + 2 * 16 + 16 * CLASSES + CLASSES),
    # 2 modalities x (2 blocks + 1 fusion block) x P x D
    ("prompt", {"prompts.length": 5}, 2 * 3 * 5 * 16)])
def test_numbers_that_learn_by_hand(small, method, changes, expected):
    _, model = make(method, with_settings(small, changes))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == expected
