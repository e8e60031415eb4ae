"""Named intermediates: the dictionary holds what modules compute, and looking changes nothing."""
import torch
from conftest import make_prompted

from ptm_mini.trace import traced


def test_intermediates_are_what_the_next_step_reads(small, inputs):
    backbone, model = make_prompted(small)
    audio, image, _ = inputs
    with torch.no_grad(), traced(model) as trace:
        scores = model(audio, image)
    assert torch.equal(scores, model(audio, image))                               # looking changes nothing
    prefix = "backbone.audio_encoder."
    assert trace[prefix + "patches"].shape == trace[prefix + "tokens"].shape == (5, 4, 16)
    assert torch.equal(trace[prefix + "blocks.1.out"], trace[prefix + "out"])
    attention = trace["backbone.fusion.0.update_audio.attention.probabilities"]
    assert attention.shape == (5, 2, 4, 4 * 2 + 4) and torch.allclose(attention.sum(dim=-1), torch.ones(5, 2, 4))
    joint = trace["backbone.joint.0.out"]
    assert torch.equal(backbone.norm(joint).mean(dim=1), trace["backbone.features"])


def test_attention_probabilities_are_those_of_the_fused_kernel(small, inputs):
    backbone, _ = make_prompted(small)
    block = backbone.audio_encoder.blocks[0]
    tokens = torch.randn(3, 4, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), traced(block) as trace:
        out = block.attention(tokens)
        value = block.attention.qkv(tokens, slice(32, None)).unflatten(-1, (2, 8)).transpose(1, 2)
        mixed = (trace["attention.probabilities"] @ value).transpose(1, 2).reshape(3, 4, 16)
        assert torch.allclose(block.attention.proj(mixed), out, atol=1e-6)


def test_nothing_is_kept_behind(small, inputs):
    backbone, model = make_prompted(small)
    with traced(backbone) as trace:
        pass
    model(*inputs[:2])
    assert trace == {} and all(module.trace is None for module in (backbone, backbone.joint[0].attention))
