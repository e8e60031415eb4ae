"""The backbone against torch's own modules and plain formulas, and what it starts as."""
import math

import pytest
import torch
from helpers import CLASSES, CONFIG, shake
from torch import Tensor, nn

from ptm_mini.config import FUSION_KINDS, Config, override
from ptm_mini.method.backbone import (Attention, Backbone, Block, FusionBlock, initialise,
                                      sincos_positions)

Inputs = tuple[Tensor, Tensor, Tensor]


def fresh_backbone(config: Config, seed: int = 0) -> Backbone:
    backbone = Backbone(config, len(CLASSES))
    initialise(backbone, torch.Generator().manual_seed(seed))
    return backbone


def test_attention_equals_torchs() -> None:
    ours, theirs = Attention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.load_state_dict({"in_proj_weight": ours.qkv.weight, "in_proj_bias": ours.qkv.bias,
                            "out_proj.weight": ours.proj.weight, "out_proj.bias": ours.proj.bias})
    nn.init.normal_(ours.qkv.bias)
    theirs.in_proj_bias.data.copy_(ours.qkv.bias)
    tokens, context, prompts = (torch.randn(3, n, 16) for n in (7, 11, 2))
    for other in (tokens, context):
        expected = theirs(tokens, other, other, need_weights=False)[0]
        assert torch.allclose(ours(tokens, other), expected, atol=1e-6)
        joined = torch.cat([prompts, other], dim=1)
        expected = theirs(tokens, joined, joined, need_weights=False)[0]
        assert torch.allclose(ours(tokens, other, prompts), expected, atol=1e-6)
    assert torch.allclose(ours(tokens), ours(tokens, tokens), atol=1e-6)
    assert torch.allclose(ours(tokens, None, prompts), ours(tokens, tokens, prompts), atol=1e-6)


def test_a_block_equals_torchs() -> None:
    ours = Block(16, 4)
    theirs = nn.TransformerEncoderLayer(16, 4, 64, dropout=0.0, activation="gelu",
                                        batch_first=True, norm_first=True)
    names = {"self_attn.in_proj_": "attention.qkv.", "self_attn.out_proj.": "attention.proj.",
             "linear1.": "mlp.fc1.", "linear2.": "mlp.fc2.", "norm1.": "norm1.", "norm2.": "norm2."}
    theirs.load_state_dict({their + kind: ours.state_dict()[our + kind]
                            for their, our in names.items() for kind in ("weight", "bias")})
    tokens = torch.randn(3, 7, 16)
    assert torch.allclose(ours(tokens), theirs(tokens), atol=1e-6)


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
    table = sincos_positions(3, 5, 8)
    assert table.shape == (15, 8)
    for row in range(3):
        for column in range(5):
            expected = [function(c / 10000 ** (i / 2)) for c in (row, column)
                        for function in (math.sin, math.cos) for i in range(2)]
            assert table[5 * row + column].tolist() == pytest.approx(expected, abs=1e-6)


def test_audio_tokens_run_along_time_within_a_band(backbone: Backbone) -> None:
    patches, audio = [], torch.zeros(1, CONFIG.audio.frames, CONFIG.audio.mels)
    backbone.audio_encoder.patches.register_forward_hook(lambda *x: patches.append(x[-1]))
    image = torch.zeros(1, 3, CONFIG.image.size, CONFIG.image.size)
    backbone(audio, image)
    audio[0, 16:, :16] = 1                                                       # late and low
    backbone(audio, image)
    changed = (patches[0] != patches[1]).flatten(2)[0].any(dim=0)
    assert changed.tolist() == [False, True, False, False]


@pytest.mark.parametrize("fusion", FUSION_KINDS)
def test_fusion_starts_as_the_identity(inputs: Inputs, fusion: str) -> None:
    audio, image, _ = inputs
    fused = fresh_backbone(override(CONFIG, f"model.fusion={fusion}", "model.fusion_depth=2"))
    plain = Backbone(override(CONFIG, "model.fusion=none"), len(CLASSES))
    plain.load_state_dict({name: weight for name, weight in fused.state_dict().items()
                           if not name.startswith("fusion.")})
    assert torch.equal(plain(audio, image), fused(audio, image))
    assert len(fused.fusion) == (0 if fusion == "none" else 2)


def test_fusion_can_leave_the_identity(inputs: Inputs) -> None:
    """What starts at 0 gets gradients, so it needn't stay there."""
    audio, image, _ = inputs
    backbone = fresh_backbone(CONFIG)
    backbone(audio, image).square().sum().backward()
    for update in (backbone.fusion[0].update_audio, backbone.fusion[0].update_image):
        assert update.attention.proj.weight.grad.any() and update.mlp.fc2.weight.grad.any()


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
    generator = torch.Generator().manual_seed(0)
    backbone = shake(fresh_backbone(config), generator).double()
    audio, image = torch.randn(2, 16, 16).double(), torch.randn(2, 3, 8, 8).double()
    weights = tuple(backbone.parameters())
    assert torch.autograd.gradcheck(lambda *_: backbone(audio, image), weights, fast_mode=True)


def test_wrong_shapes_are_named(backbone: Backbone, inputs: Inputs) -> None:
    audio, image, _ = inputs
    with pytest.raises(ValueError, match=r"audio \[5, 31, 32\].*expected"):
        backbone(audio[:, :-1], image)
    with pytest.raises(ValueError, match=r"image \[5, 3, 15, 16\].*expected"):
        backbone(audio, image[:, :, 1:])
