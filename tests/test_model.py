"""The model against torch's own attention, and the properties that the method rests on."""
import pytest
import torch
from torch import nn

from ptm_mini.config import FUSION_KINDS, PRESETS, Situation
from ptm_mini.layers import Attention, Block, sincos_positions
from ptm_mini.model import Backbone, CaseModels, Prompted, PromptedModel, initialise
from ptm_mini.overrides import replace
from ptm_mini.prompts import PromptSet, PromptTokens, choose, side_by_side

CLASSES = 10


def make(config, seed=0):
    """A backbone with every weight away from its start, and four prompt sets."""
    backbone = Backbone(config, CLASSES)
    random = torch.Generator().manual_seed(seed)
    initialise(backbone, random)
    with torch.no_grad():
        for p in backbone.parameters():
            p += 0.05 * torch.randn(p.shape, generator=random)
    sets = [PromptSet(config, backbone.head, torch.Generator().manual_seed(s)) for s in Situation]
    with torch.no_grad():
        for prompt_set in sets:
            for p in prompt_set.parameters():
                p += torch.randn(p.shape, generator=random)
    return backbone, PromptedModel(backbone, sets)


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
    backbone, _ = make(small)
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


@pytest.mark.parametrize("fusion", FUSION_KINDS)
@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("tune_head", [False, True])
def test_a_sample_alone_and_in_a_batch_of_mixed_situations(small, inputs, fusion, depth, tune_head):
    config = replace(small, {"model.fusion": fusion, "prompts.input_depth": depth, "prompts.tune_head": tune_head})
    backbone, model = make(config)
    audio, image, situations = inputs
    with torch.no_grad():
        together = (backbone(audio, image), model.situation(audio, image, situations), model.concat(audio, image))
        for i in range(len(audio)):
            a, v, s = audio[i:i + 1], image[i:i + 1], situations[i:i + 1]
            alone = (backbone(a, v), model.situation(a, v, s), model.concat(a, v))
            for one, many in zip(alone, together):
                assert torch.allclose(one[0], many[i], atol=1e-5)


def test_no_prompts_are_the_backbone_exactly(small, inputs):
    audio, image, situations = inputs
    backbone, model = make(replace(small, {"prompts.length": 0}))
    with torch.no_grad():
        plain = backbone(audio, image)
        assert torch.equal(model.situation(audio, image, situations), plain)
        assert torch.equal(model.concat(audio, image), plain)


@pytest.mark.parametrize("place", PromptTokens._fields)
def test_prompts_of_each_place_change_the_answer_and_get_gradients(small, inputs, place):
    backbone, model = make(replace(small, {"prompts.joint": True}))
    audio, image, situations = inputs
    tokens = choose(model.sets, situations)
    other = tokens._replace(**{place: getattr(tokens, place).flip(-1)})           # LayerNorm would undo an added constant
    assert not torch.allclose(backbone(audio, image, tokens), backbone(audio, image, other), atol=1e-4)
    model.situation(audio, image, situations).sum().backward()
    for s, prompt_set in enumerate(model.sets):
        assert getattr(prompt_set, place).grad.abs().sum(dim=(1, 2)).gt(0).all(), (place, s)
    assert all(p.grad is None for p in backbone.parameters())


def test_a_sample_reaches_only_its_own_set(small, inputs):
    _, model = make(small)
    audio, image, _ = inputs
    model.situation(audio, image, torch.full((5,), 2)).sum().backward()
    moved = [prompt_set.audio_input.grad.abs().sum() > 0 for prompt_set in model.sets]
    assert moved == [False, False, True, False]


def test_gradients_of_prompts_are_the_same_bits_each_time():
    """At the size of a real batch: a small one is summed by one thread, which hides an order that is left open."""
    config = replace(PRESETS["tiny"], {"prompts.tune_head": False})
    sets = [PromptSet(config, None, torch.Generator().manual_seed(s)) for s in Situation]
    situations = torch.arange(64) % 4
    weights = torch.randn(64, 4, 8, 128, generator=torch.Generator().manual_seed(0))
    gradients = [torch.autograd.grad((choose(sets, situations).audio_input * weights).sum(), sets[1].audio_input)[0]
                 for _ in range(20)]
    assert all(torch.equal(gradients[0], gradient) for gradient in gradients)


def test_one_set_for_all_is_the_same_as_one_a_sample(small, inputs):
    """Prompts that every sample shares are projected once; each sample's own go through a batch of them."""
    audio, image, _ = inputs
    config = replace(small, {"prompts.tune_head": True})
    backbone, _ = make(config)
    prompted = Prompted(backbone, config, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for p in prompted.set.parameters():
            p += 0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1))
    four = PromptedModel(backbone, [prompted.set] * 4)
    cases = CaseModels([prompted] * 4)
    for situations in (torch.tensor([0, 1, 2, 3, 1]), torch.full((5,), 3)):
        assert torch.allclose(four.situation(audio, image, situations), prompted(audio, image), atol=1e-5)
        assert torch.allclose(cases.situation(audio, image, situations), prompted(audio, image), atol=1e-5)


def test_case_models_keep_the_order_of_samples(inputs):
    audio, image, situations = inputs

    class Constant(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, audio, image):
            return audio[:, :1, 0] + self.value

    expected = audio[:, :1, 0] + 10 * situations[:, None]
    assert torch.equal(CaseModels([Constant(10 * s) for s in range(4)]).situation(audio, image, situations), expected)


def test_attention_prompts_join_the_other_stream(small, inputs):
    """Image prompts are read by audio queries and the reverse: with one direction left, only those matter."""
    for fusion, used in (("image_to_audio", "image_attention"), ("audio_to_image", "audio_attention")):
        _, model = make(replace(small, {"model.fusion": fusion}))
        shapes = {place: getattr(model.sets[0], place).shape for place in ("audio_attention", "image_attention")}
        assert [place for place, shape in shapes.items() if shape[1] > 0] == [used]


def test_deep_and_shallow_prompts_against_a_slow_form(small, inputs):
    """Every prompt as a full token in every block, those of a block with fresh ones thrown away before it."""
    audio, image, _ = inputs
    for depth in (1, 2, 3):
        config = replace(small, {"model.depth": 3, "prompts.input_depth": depth})
        backbone, model = make(config)
        prompts = side_by_side(model.sets).image_input.expand(len(audio), -1, -1, -1)
        encoder = backbone.image_encoder
        N = encoder.positions.shape[1]
        tokens = encoder.patches(image).flatten(2).transpose(1, 2) + encoder.positions + encoder.modality
        for i, block in enumerate(encoder.blocks):
            if i < depth:
                tokens = torch.cat([prompts[:, i], tokens[:, -N:]], dim=1)
            tokens = tokens + block.attention(block.norm1(tokens))
            tokens = tokens + block.mlp(block.norm2(tokens))
        assert torch.allclose(encoder(image, prompts), tokens[:, -N:], atol=1e-5)


def test_fusion_starts_as_nothing_and_keeps_its_residual(small, inputs):
    audio, image, _ = inputs
    fused = Backbone(small, CLASSES)
    initialise(fused, torch.Generator().manual_seed(0))
    plain = Backbone(replace(small, {"model.fusion": "none"}), CLASSES)
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


def test_the_backbone_is_in_eval_mode_and_frozen(small):
    backbone, model = make(small)
    assert not backbone.training
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {f"sets.{s}.{place}" for s in range(4) for place in PromptTokens._fields}


def test_a_tuned_head_starts_as_the_backbones_and_is_a_copy(small, inputs):
    audio, image, situations = inputs
    backbone, model = make(replace(small, {"prompts.tune_head": True}))
    fresh = PromptSet(replace(small, {"prompts.tune_head": True}), backbone.head, torch.Generator())
    features = torch.randn(3, 16)
    assert torch.equal(fresh.head(features), backbone.head(features))
    assert all(p.requires_grad for p in fresh.head.parameters()) and fresh.head[1].weight is not backbone.head[1].weight
    probabilities = model.concat(audio, image).exp().sum(dim=1)
    assert torch.allclose(probabilities, torch.ones(5), atol=1e-5)


def test_wrong_shapes_are_named(small, inputs):
    backbone, _ = make(small)
    audio, image, _ = inputs
    with pytest.raises(ValueError, match=r"audio \[5, 31, 32\].*expected"):
        backbone(audio[:, :-1], image)
    with pytest.raises(ValueError, match="expected"):
        backbone(audio.transpose(1, 2)[:, :, :16], image)


def test_situations_combine_as_bits():
    assert Situation(Situation.NOISY_AUDIO | Situation.NOISY_IMAGE) is Situation.NOISY_BOTH
    assert [int(situation) for situation in Situation] == [0, 1, 2, 3]
