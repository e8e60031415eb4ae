"""What the backbone starts as, and its gradients; lab/test_golden.py has it against NumPy."""
import math

import pytest
import torch
from helpers import CLASSES, CONFIG
from torch import Tensor

from ptm_mini.config import FUSION_KINDS, Config, override
from ptm_mini.method.backbone import Backbone, FusionBlock, initialise, sincos_positions

Inputs = tuple[Tensor, Tensor, Tensor]


def fresh_backbone(config: Config, seed: int = 0) -> Backbone:
    backbone = Backbone(config, len(CLASSES))
    initialise(backbone, torch.Generator().manual_seed(seed))
    return backbone


@pytest.mark.parametrize("fusion", ["audio_to_image", "image_to_audio"])
def test_fusion_in_one_direction_updates_one_stream(fusion: str) -> None:
    block = FusionBlock(override(CONFIG, f"model.fusion={fusion}").model)
    audio, image = torch.randn(3, 7, 16), torch.randn(3, 11, 16)
    audio_prompts, image_prompts = torch.randn(3, 2, 16), torch.randn(3, 2, 16)
    fused_audio, fused_image = block(audio, image, audio_prompts, image_prompts)
    if fusion == "audio_to_image":
        assert fused_audio is audio
        assert torch.equal(fused_image, block.update_image(image, audio, audio_prompts))
    else:
        assert fused_image is image
        assert torch.equal(fused_audio, block.update_audio(audio, image, image_prompts))


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


def test_wrong_shapes_are_named(backbone: Backbone, inputs: Inputs) -> None:
    audio, image, _ = inputs
    with pytest.raises(ValueError, match=r"audio \[5, 31, 32\].*expected"):
        backbone(audio[:, :-1], image)
    with pytest.raises(ValueError, match=r"image \[5, 3, 15, 16\].*expected"):
        backbone(audio, image[:, :, 1:])
