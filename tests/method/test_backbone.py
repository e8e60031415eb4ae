"""The backbone against torch's attention and plain formulas, and what it starts as.

The whole of it stands against NumPy in lab/test_golden.py.
"""
import math

import pytest
import torch
from helpers import CLASSES, CONFIG, shake
from torch import Tensor, nn

from ptm_mini.config import FUSION_KINDS, Config, override
from ptm_mini.method.backbone import (Attention, Backbone, FusionBlock, initialise,
                                      sincos_positions)

Inputs = tuple[Tensor, Tensor, Tensor]


def fresh_backbone(config: Config, seed: int = 0) -> Backbone:
    backbone = Backbone(config, len(CLASSES))
    initialise(backbone, torch.Generator().manual_seed(seed))
    return backbone


def test_attention_equals_torchs() -> None:
    ours, theirs = Attention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    nn.init.normal_(ours.qkv.bias)
    theirs.load_state_dict({"in_proj_weight": ours.qkv.weight, "in_proj_bias": ours.qkv.bias,
                            "out_proj.weight": ours.proj.weight, "out_proj.bias": ours.proj.bias})
    tokens, context, none, prompts = (torch.randn(3, n, 16) for n in (7, 11, 0, 2))
    for other in (None, context):
        for extra in (None, none, prompts):
            joined = torch.cat([none if extra is None else extra,
                                tokens if other is None else other], dim=1)
            expected = theirs(tokens, joined, joined, need_weights=False)[0]
            assert torch.allclose(ours(tokens, other, extra), expected, atol=1e-6)


@pytest.mark.parametrize("fusion", ["cross", "audio_to_image", "image_to_audio"])
def test_fusion_reads_the_streams_as_they_enter(fusion: str) -> None:
    block = FusionBlock(override(CONFIG, f"model.fusion={fusion}").model)
    audio, image = torch.randn(3, 7, 16), torch.randn(3, 11, 16)
    audio_prompts, image_prompts = torch.randn(3, 2, 16), torch.randn(3, 2, 16)
    fused_audio, fused_image = block(audio, image, audio_prompts, image_prompts)
    if fusion == "audio_to_image":
        assert block.update_audio is None and fused_audio is audio
    else:
        assert torch.equal(fused_audio, block.update_audio(audio, image, image_prompts))
    if fusion == "image_to_audio":
        assert block.update_image is None and fused_image is image
    else:
        assert torch.equal(fused_image, block.update_image(image, audio, audio_prompts))


def test_positions_equal_the_formula() -> None:
    expected = [[function(c / 10000 ** (i / 2)) for c in (row, column)
                 for function in (math.sin, math.cos) for i in range(2)]
                for row in range(3) for column in range(5)]
    assert torch.allclose(sincos_positions(3, 5, 8), torch.tensor(expected), atol=1e-6)


@pytest.mark.parametrize("fusion", FUSION_KINDS)
def test_fusion_starts_as_the_identity_and_can_leave_it(inputs: Inputs, fusion: str) -> None:
    audio, image, _ = inputs
    fused = fresh_backbone(override(CONFIG, f"model.fusion={fusion}", "model.fusion_depth=2"))
    assert len(fused.fusion) == (0 if fusion == "none" else 2)
    plain = Backbone(override(CONFIG, "model.fusion=none"), len(CLASSES))
    plain.load_state_dict({name: weight for name, weight in fused.state_dict().items()
                           if not name.startswith("fusion.")})
    logits = fused(audio, image)
    assert torch.equal(plain(audio, image), logits)
    logits.square().sum().backward()                   # what starts at 0 needn't stay there
    for name, weight in fused.fusion.named_parameters():
        if name.endswith(("attention.proj.weight", "mlp.fc2.weight")):
            assert weight.grad.any()


def test_initialisation_is_uniform_and_its_seed_decides_all() -> None:
    torch.manual_seed(1)
    first = fresh_backbone(CONFIG).state_dict()
    torch.manual_seed(2)
    again, other = fresh_backbone(CONFIG).state_dict(), fresh_backbone(CONFIG, 1).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["head.1.weight"], other["head.1.weight"])
    weight, bound = first["image_encoder.patches.weight"], math.sqrt(6 / (3 * 8 * 8 + 16))
    assert 0.99 * bound < weight.abs().max() <= bound
    assert weight.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)
    assert not any(first[name].any() for name in first if name.endswith("qkv.bias"))


def test_gradients_equal_differences() -> None:
    """Of the logits by every weight, in double."""
    config = override(CONFIG, "audio.mels=16", "audio.seconds=0.175", "image.size=8",
                      "prompts.input_depth=1", "model.depth=1")
    backbone = shake(fresh_backbone(config), torch.Generator().manual_seed(0)).double()
    audio, image = torch.randn(2, 16, 16).double(), torch.randn(2, 3, 8, 8).double()
    weights = tuple(backbone.parameters())
    assert torch.autograd.gradcheck(lambda *_: backbone(audio, image), weights, fast_mode=True)


def test_wrong_shapes_are_named(backbone: Backbone, inputs: Inputs) -> None:
    audio, image, _ = inputs
    with pytest.raises(ValueError, match=r"audio \[5, 31, 32\].*expected"):
        backbone(audio[:, :-1], image)
    with pytest.raises(ValueError, match=r"image \[5, 3, 15, 16\].*expected"):
        backbone(audio, image[:, :, 1:])
