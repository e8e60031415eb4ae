"""The baselines start as the backbone, learn only what is theirs, and LoRA merged equals LoRA unmerged."""
import pytest
import torch

from ptm_mini.baselines import MODELS, LoraLinear, merge
from ptm_mini.layers import Linear
from ptm_mini.model import Backbone, initialise
from ptm_mini.overrides import replace
from ptm_mini.router import Router

CLASSES = 10


def make(method, config, start=True):
    """A backbone away from its start, and the method's model on it, at its own start or away from it."""
    backbone, random = Backbone(config, CLASSES), torch.Generator().manual_seed(0)
    initialise(backbone, random)
    with torch.no_grad():
        for p in backbone.parameters():
            p += 0.05 * torch.randn(p.shape, generator=random)
    model = MODELS[method](backbone, config, random)
    if not start:
        with torch.no_grad():
            for p in model.parameters():
                if p.requires_grad:
                    p += 0.1 * torch.randn(p.shape, generator=random)
    return backbone, model


@pytest.mark.parametrize("method", [method for method in MODELS if method != "prompt"])
def test_each_starts_as_the_backbone(small, inputs, method):
    backbone, model = make(method, small)
    audio, image, _ = inputs
    assert torch.allclose(model(audio, image), backbone(audio, image), atol=1e-5)


@pytest.mark.parametrize("method", MODELS)
def test_each_trains_all_that_is_its_own_and_nothing_of_the_backbone(small, inputs, method):
    backbone, model = make(method, small, start=False)
    audio, image, _ = inputs
    model(audio, image).square().sum().backward()
    assert all(p.grad is None and not p.requires_grad for p in backbone.parameters())
    assert not backbone.training
    assert all(p.grad.abs().sum() > 0 for p in model.parameters() if p.requires_grad and p.numel())


@pytest.mark.parametrize("method", ["head", "lora", "adapter", "prompt"])
def test_frozen_weights_are_shared_not_copied(small, method):
    backbone, model = make(method, replace(small, {"lora.tune_head": False, "adapter.tune_head": False}))
    own = {id(p) for p in backbone.parameters()}
    kept = {id(p) for p in model.parameters() if not p.requires_grad}
    assert kept == own - ({id(p) for p in backbone.head.parameters()} if method == "head" else set())


def test_the_backbones_own_modules_stay_as_they_are(small, inputs):
    backbone, _ = make("lora", small)
    MODELS["adapter"](backbone, small, torch.Generator())
    assert not any(isinstance(module, LoraLinear) for module in backbone.modules())
    assert type(backbone.joint[0].attention.qkv) is Linear


def test_merged_lora_equals_unmerged(small, inputs):
    audio, image, _ = inputs
    backbone, model = make("lora", small, start=False)
    before = model(audio, image)
    assert not torch.allclose(before, backbone(audio, image), atol=1e-2)               # the update does something
    weights = {name: p.clone() for name, p in backbone.named_parameters()}
    merged = merge(model)
    assert not any(isinstance(module, LoraLinear) for module in merged.modules())
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


@pytest.mark.parametrize("method, changes, expected", [
    # 2 + 2 encoder, 2 cross and 1 joint attention: 7, each r D + 3 D r + r D + D r = 6 D r; D = 16
    ("lora", {"lora.rank": 3, "lora.tune_head": False}, 7 * 6 * 16 * 3),
    # one after each attention and each MLP: 14, each 2 D b + b + D
    ("adapter", {"adapter.bottleneck": 3, "adapter.tune_head": False}, 14 * (2 * 16 * 3 + 3 + 16)),
    ("head", {}, 2 * 16 + 16 * CLASSES + CLASSES),
    # 2 modalities x (2 blocks + 1 fusion block) x P x D
    ("prompt", {"prompts.length": 5}, 2 * 3 * 5 * 16)])
def test_numbers_that_learn_by_hand(small, method, changes, expected):
    _, model = make(method, replace(small, changes))
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == expected


def test_the_router_is_the_discriminant_that_makes_the_fewest_errors(small):
    """Two normal clouds of one covariance, far apart along a direction in which each is wide: their discriminant is known."""
    router = Router(Backbone(small, CLASSES))
    random = torch.Generator().manual_seed(0)
    width = router.weight.shape[1]
    root = torch.randn(width, width, generator=random) / width ** 0.5 + torch.eye(width)
    centres = 2 * torch.randn(4, width, generator=random)
    situations = torch.arange(40_000) % 4
    x = centres[situations] + torch.randn(40_000, width, generator=random) @ root
    router.pooled = lambda audio, image: audio
    router.fit([(part, None, own) for part, own in zip(x.split(5000), situations.split(5000))], shrinkage=1e-6)
    covariance = (root.T @ root).double()
    weight = torch.linalg.solve(covariance, centres.double().T).T
    expected = x.double() @ weight.T - (weight * centres).sum(dim=1) / 2
    assert torch.allclose(router(x, None).double(), expected, atol=0.02 * expected.abs().max())
    assert (router.pick(x, None) == expected.argmax(dim=1)).float().mean() > 0.99


def test_the_router_sees_frozen_features_and_no_class(small, inputs):
    backbone, _ = make("head", small)
    audio, image, situations = inputs
    router = Router(backbone)
    pooled = router.pooled(audio, image)
    audio_tokens, image_tokens = backbone.encode(audio, image)
    assert torch.equal(pooled[:, :16], audio_tokens.mean(dim=1)) and torch.equal(pooled[:, 48:], image_tokens.std(dim=1))
    router.fit([(audio[:3], image[:3], situations[:3])], shrinkage=0.1)
    assert router.bias[3] == -torch.inf and router.pick(audio, image).max() <= 2      # noisy_both was never seen
    router.fit([(audio, image, situations)], shrinkage=0.1)
    assert torch.equal(router.pick(audio, image), situations)                         # five samples in 64 dimensions
