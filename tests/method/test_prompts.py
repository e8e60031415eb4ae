"""The properties that the method rests on: what prompts reach, what they leave alone, and that no sample sees another."""
import pytest
import torch
from conftest import make_prompted, move

from ptm_mini.config import FUSION_KINDS, PRESETS, Situation
from ptm_mini.method.backbone import PromptTokens
from ptm_mini.method.layers import Attention
from ptm_mini.method.prompts import Prompted, PromptSet, choose, prompted, side_by_side
from ptm_mini.settings import with_settings
from ptm_mini.training.methods import CaseModels


@pytest.mark.parametrize("fusion", FUSION_KINDS)
@pytest.mark.parametrize("depth", [0, 1, 2])
@pytest.mark.parametrize("tune_head", [False, True])
def test_a_sample_alone_and_in_a_batch_of_mixed_situations(small, inputs, fusion, depth, tune_head):
    config = with_settings(small, {"model.fusion": fusion, "prompts.input_depth": depth, "prompts.tune_head": tune_head})
    backbone, model = make_prompted(config)
    audio, image, situations = inputs
    with torch.no_grad():
        together = (backbone(audio, image), model.by_situation(audio, image, situations), model(audio, image))
        for i in range(len(audio)):
            a, v, s = audio[i:i + 1], image[i:i + 1], situations[i:i + 1]
            alone = (backbone(a, v), model.by_situation(a, v, s), model(a, v))
            for one, many in zip(alone, together):
                assert torch.allclose(one[0], many[i], atol=1e-5)


def test_no_prompts_are_the_backbone_exactly(small, inputs):
    audio, image, situations = inputs
    backbone, model = make_prompted(with_settings(small, {"prompts.length": 0}))
    with torch.no_grad():
        plain = backbone(audio, image)
        assert torch.equal(model.by_situation(audio, image, situations), plain)
        assert torch.equal(model(audio, image), plain)


@pytest.mark.parametrize("place", PromptTokens._fields)
def test_prompts_of_each_place_change_the_answer_and_get_gradients(small, inputs, place):
    backbone, model = make_prompted(with_settings(small, {"prompts.joint": True}))
    audio, image, situations = inputs
    tokens = choose(model.sets, situations)
    other = tokens._replace(**{place: getattr(tokens, place).flip(-1)})           # LayerNorm would undo an added constant
    assert not torch.allclose(backbone(audio, image, tokens), backbone(audio, image, other), atol=1e-4)
    model.by_situation(audio, image, situations).sum().backward()
    for s, prompt_set in enumerate(model.sets):
        assert getattr(prompt_set, place).grad.abs().sum(dim=(1, 2)).gt(0).all(), (place, s)
    assert all(p.grad is None for p in backbone.parameters())


def test_a_sample_reaches_only_its_own_set(small, inputs):
    _, model = make_prompted(small)
    audio, image, _ = inputs
    model.by_situation(audio, image, torch.full((5,), 2)).sum().backward()
    moved = [prompt_set.audio_input.grad.abs().sum() > 0 for prompt_set in model.sets]
    assert moved == [False, False, True, False]


def test_gradients_of_prompts_are_the_same_bits_each_time():
    """At the size of a real batch: a small one is summed by one thread, which hides an order that is left open."""
    config = with_settings(PRESETS["tiny"], {"prompts.tune_head": False})
    sets = [PromptSet(config, None, torch.Generator().manual_seed(s)) for s in Situation]
    situations = torch.arange(64) % 4
    weights = torch.randn(64, 4, 8, 128, generator=torch.Generator().manual_seed(0))
    torch.set_num_threads(2)
    gradients = [torch.autograd.grad((choose(sets, situations).audio_input * weights).sum(), sets[1].audio_input)[0]
                 for _ in range(20)]
    torch.set_num_threads(1)
    assert all(torch.equal(gradients[0], gradient) for gradient in gradients)


def test_one_set_for_all_is_the_same_as_one_a_sample(small, inputs):
    """Prompts that every sample shares are projected once; each sample's own go through a batch of them."""
    audio, image, _ = inputs
    config = with_settings(small, {"prompts.tune_head": True})
    backbone, _ = make_prompted(config)
    one = move(prompted(backbone, config, torch.Generator().manual_seed(0)), 0.3, torch.Generator().manual_seed(1))
    four, cases = Prompted(backbone, [one.sets[0]] * 4), CaseModels([one] * 4)
    for situations in (torch.tensor([0, 1, 2, 3, 1]), torch.full((5,), 3)):
        assert torch.allclose(four.by_situation(audio, image, situations), one(audio, image), atol=1e-5)
        assert torch.allclose(cases.by_situation(audio, image, situations), one(audio, image), atol=1e-5)


@pytest.mark.parametrize("tune_head", [False, True])
def test_sets_side_by_side_by_hand(small, inputs, tune_head):
    """Every place holds the four sets' tokens one behind the other; of own heads the probabilities are averaged."""
    audio, image, _ = inputs
    backbone, model = make_prompted(with_settings(small, {"prompts.tune_head": tune_head}))
    tokens = [torch.cat([getattr(s, place) for s in model.sets], dim=1)[None] for place in PromptTokens._fields]
    features = backbone.features(audio, image, PromptTokens(*tokens))
    if tune_head:
        expected = sum(s.head(features).softmax(dim=1) for s in model.sets) / 4
    else:
        expected = backbone.head(features).softmax(dim=1)
    assert torch.allclose(model(audio, image).softmax(dim=1), expected, atol=1e-6)


def test_attention_prompts_join_the_other_stream(small, inputs):
    """Image prompts are read by audio queries and the reverse: with one direction left, only those matter."""
    for fusion, used in (("image_to_audio", "image_attention"), ("audio_to_image", "audio_attention")):
        _, model = make_prompted(with_settings(small, {"model.fusion": fusion}))
        shapes = {place: getattr(model.sets[0], place).shape for place in ("audio_attention", "image_attention")}
        assert [place for place, shape in shapes.items() if shape[1] > 0] == [used]


def test_deep_and_shallow_prompts_against_a_slow_form(small, inputs):
    """Every prompt as a full token in every block, those of a block with fresh ones thrown away before it."""
    audio, image, _ = inputs
    for first, depth in ((0, 1), (0, 2), (0, 3), (1, 1), (1, 2), (2, 1)):
        config = with_settings(small, {"model.depth": 3, "prompts.input_depth": depth, "prompts.first_block": first})
        backbone, model = make_prompted(config)
        prompts = side_by_side(model.sets).image_input.expand(len(audio), -1, -1, -1)
        encoder = backbone.image_encoder
        N = encoder.positions.shape[1]
        tokens = encoder.patches(image).flatten(2).transpose(1, 2) + encoder.positions + encoder.modality
        for i, block in enumerate(encoder.blocks):
            if first <= i < first + depth:
                tokens = torch.cat([prompts[:, i - first], tokens[:, -N:]], dim=1)
            tokens = tokens + block.attention(block.norm1(tokens))
            tokens = tokens + block.mlp(block.norm2(tokens))
        assert model.first == first
        assert torch.allclose(encoder.late(encoder.early(image, first), prompts, first), tokens[:, -N:], atol=1e-5)


def test_where_the_pass_is_cut_changes_no_bit(small, inputs):
    """Without input-level prompts any cut will do; attention-level prompts enter behind all blocks."""
    audio, image, situations = inputs
    backbone, model = make_prompted(with_settings(small, {"prompts.input_depth": 0}))
    assert model.first == small.model.depth
    tokens = choose(model.sets, situations)
    whole = backbone.features(audio, image, tokens)
    for first in range(small.model.depth + 1):
        kept = [part.clone() for part in backbone.early(audio, image, first)]
        assert torch.equal(backbone.late(*kept, tokens, first), whole)


def test_attention_with_prompts_keeps_what_its_gradient_needs_and_no_more():
    """Queries, keys and values with the prompts', what is mixed of them, and a number a row of the softmax."""
    B, N, P, D, heads, saved = 3, 5, 2, 16, 4, {}
    attention = Attention(D, heads).requires_grad_(False)
    weights = {p.untyped_storage().data_ptr() for p in attention.parameters()}
    tokens, prompts = torch.randn(B, N, D), torch.randn(1, P, D, requires_grad=True)

    def keep(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        attention(tokens, prompts=prompts)
    assert sum(saved.values()) <= 4 * B * (N * D + 2 * (P + N) * D + N * D + heads * N)


@pytest.mark.parametrize("first", [0, 1, 2])
def test_blocks_before_the_first_prompts_keep_nothing_for_gradients(small, inputs, first):
    """Each block that has prompts, or comes behind one that has, keeps what its gradient needs; those before keep nothing."""
    audio, image, _ = inputs
    config = with_settings(small, {"model.depth": 3, "prompts.first_block": first, "prompts.input_depth": 1})
    _, model = make_prompted(config)
    kept, saved, weights = {}, [], {p.untyped_storage().data_ptr() for p in model.parameters()}
    blocks = model.backbone.image_encoder.blocks
    for i, block in enumerate(blocks):
        block.register_forward_pre_hook(lambda *_, i=i: kept.update({i: len(saved)}))
        block.register_forward_hook(lambda *_, i=i: kept.update({i: len(saved) - kept[i]}))

    def keep(tensor):
        if tensor.untyped_storage().data_ptr() not in weights:
            saved.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model(audio, image)
    assert [kept[i] > 0 for i in range(len(blocks))] == [i >= first for i in range(len(blocks))]


def test_the_backbone_is_in_eval_mode_and_frozen(small):
    backbone, model = make_prompted(small)
    assert not backbone.training
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == {f"sets.{s}.{place}" for s in range(4) for place in PromptTokens._fields}


def test_a_tuned_head_starts_as_the_backbones_and_is_a_copy(small, inputs):
    audio, image, situations = inputs
    backbone, model = make_prompted(with_settings(small, {"prompts.tune_head": True}))
    fresh = PromptSet(with_settings(small, {"prompts.tune_head": True}), backbone.head, torch.Generator())
    features = torch.randn(3, 16)
    assert torch.equal(fresh.head(features), backbone.head(features))
    assert all(p.requires_grad for p in fresh.head.parameters()) and fresh.head[1].weight is not backbone.head[1].weight
    probabilities = model(audio, image).exp().sum(dim=1)
    assert torch.allclose(probabilities, torch.ones(5), atol=1e-5)
