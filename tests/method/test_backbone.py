"""The backbone against torch's own attention, and what it starts as."""
import pytest
import torch
from conftest import CLASSES, make_backbone
from torch import nn

from ptm_mini.config import PRESETS
from ptm_mini.method.backbone import Backbone, initialise, sincos_positions
from ptm_mini.method.layers import Attention, Block
from ptm_mini.settings import with_settings


def test_attention_equals_torch():
    ours, theirs = Attention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    theirs.load_state_dict({"in_proj_weight": ours.qkv.weight, "in_proj_bias": ours.qkv.bias,
                            "out_proj.weight": ours.proj.weight, "out_proj.bias": ours.proj.bias})
    tokens, context = torch.randn(3, 7, 16), torch.randn(3, 11, 16)
    for other in (tokens, context):
        expected = theirs(tokens, other, other, need_weights=False)[0]
        assert torch.allclose(ours(tokens, other), expected, atol=1e-6)
    assert torch.allclose(ours(tokens), ours(tokens, tokens), atol=1e-6)


def test_block_equals_torch():
    ours = Block(16, 4)
    theirs = nn.TransformerEncoderLayer(16, 4, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=True).train()
    names = {"self_attn.in_proj_": "attention.qkv.", "self_attn.out_proj.": "attention.proj.", "linear1.": "mlp.fc1.",
             "linear2.": "mlp.fc2.", "norm1.": "norm1.", "norm2.": "norm2."}
    state = ours.state_dict()
    theirs.load_state_dict({their + kind: state[our + kind] for their, our in names.items() for kind in ("weight", "bias")})
    tokens = torch.randn(3, 7, 16)
    assert torch.allclose(ours(tokens), theirs(tokens), atol=1e-6)


def test_positions_equal_the_formula():
    table = sincos_positions(3, 5, 8)
    assert table.shape == (15, 8)
    q, row, column = 2, 2, 4
    expected = [f(c * 10000 ** (-i / q)) for c in (row, column) for f in (torch.sin, torch.cos)
                for i in range(q) for c in [torch.tensor(float(c))]]
    assert torch.allclose(table[row * 5 + column], torch.stack(expected), atol=1e-6)


def test_audio_tokens_run_mel_major_then_time(small):
    backbone = make_backbone(small, torch.Generator().manual_seed(0))
    audio = torch.zeros(1, small.audio.frames, small.audio.mels)
    audio[0, 16:, :16] = 1                                                        # late and low
    tokens = backbone.audio_encoder.patches(audio.transpose(1, 2)[:, None]).flatten(2)[0].T
    silent = backbone.audio_encoder.patches(torch.zeros(1, 1, 16, 16)).flatten()
    assert [not torch.allclose(token, silent) for token in tokens] == [False, True, False, False]


@pytest.mark.parametrize("name, tokens", [("tiny", (16, 16)), ("base", (512, 196))])
def test_presets_have_the_stated_tokens(name, tokens):
    with torch.device("meta"):
        backbone = Backbone(PRESETS[name], CLASSES)
    assert (backbone.audio_encoder.positions.shape[1], backbone.image_encoder.positions.shape[1]) == tokens


def test_fusion_starts_as_nothing_and_keeps_its_residual(small, inputs):
    audio, image, _ = inputs
    fused = Backbone(small, CLASSES)
    initialise(fused, torch.Generator().manual_seed(0))
    plain = Backbone(with_settings(small, {"model.fusion": "none"}), CLASSES)
    kept = {name: value for name, value in fused.state_dict().items() if not name.startswith("fusion.")}
    plain.load_state_dict(kept)
    assert torch.equal(plain(audio, image), fused(audio, image))


def test_initialisation_is_seeded_alone(small):
    def weights(seed):
        backbone = Backbone(small, CLASSES)
        initialise(backbone, torch.Generator().manual_seed(seed))
        return backbone.state_dict()

    torch.manual_seed(1)
    first = weights(0)
    torch.manual_seed(2)
    assert all(torch.equal(a, b) for a, b in zip(first.values(), weights(0).values()))
    assert not torch.equal(first["head.1.weight"], weights(1)["head.1.weight"])


def test_wrong_shapes_are_named(small, inputs):
    backbone = make_backbone(small, torch.Generator().manual_seed(0))
    audio, image, _ = inputs
    with pytest.raises(ValueError, match=r"audio \[5, 31, 32\].*expected"):
        backbone(audio[:, :-1], image)
    with pytest.raises(ValueError, match="expected"):
        backbone(audio.transpose(1, 2)[:, :, :16], image)
