"""Named intermediates are what the formulas say, and leave nothing behind."""
import pytest
import torch
from helpers import CONFIG, random_batch, random_models
from torch.nn import functional as F

from ptm_mini.config import Config, override
from ptm_mini.lab.hooks import record
from ptm_mini.method.damage import Sample
from ptm_mini.method.prompts import PromptedBackbone, select_prompts


def random_model(config: Config = CONFIG) -> tuple[PromptedBackbone, Sample]:
    return random_models(config, ["prompt"]).methods["prompt"], random_batch(config)


def test_intermediates_follow_from_each_other() -> None:
    model, batch = random_model()
    backbone = model.backbone
    with record(backbone) as recorded:
        logits = backbone(batch.audio, batch.image)
    assert torch.equal(recorded["logits"], logits)
    assert torch.equal(backbone.head(recorded["features"]), logits)
    audio, image = recorded["audio_encoder.out"], recorded["image_encoder.out"]
    for encoded, expected in zip((audio, image), backbone.encode(batch.audio, batch.image)):
        assert torch.equal(encoded, expected)
    encoder, tokens = backbone.image_encoder, recorded["image_encoder.tokens"]
    torch.testing.assert_close(tokens - recorded["image_encoder.patches"],
                               (encoder.positions + encoder.modality).expand_as(tokens))
    assert torch.equal(encoder.blocks[0](tokens), recorded["image_encoder.blocks.0.out"])
    update = backbone.fusion[0].update_audio
    assert torch.equal(update(audio, image), recorded["fusion.0.update_audio.out"])
    for path, block, norm in (("image_encoder.blocks.1", encoder.blocks[1], "norm2"),
                              ("fusion.0.update_audio", update, "norm_mlp")):
        attended = recorded[f"{path}.attended"]
        torch.testing.assert_close(attended + block.mlp(getattr(block, norm)(attended)),
                                   recorded[f"{path}.out"])


def test_probabilities_are_those_of_the_attention() -> None:
    """Each sample has its own prompts, which stand before the other modality's tokens."""
    model, batch = random_model()
    with record(model.backbone) as recorded:
        model.answer_each(batch.audio, batch.image, batch.situation)
    probabilities = recorded["fusion.0.update_audio.attention.probabilities"]
    audio, image = recorded["audio_encoder.out"], recorded["image_encoder.out"]
    B, (N, _), (M, D) = len(audio), audio.shape[1:], image.shape[1:]
    P, heads = CONFIG.prompts.length, CONFIG.model.heads
    assert probabilities.shape == (B, heads, N, P + M)
    torch.testing.assert_close(probabilities.sum(dim=-1), torch.ones(B, heads, N))
    update = model.backbone.fusion[0].update_audio
    prompts = select_prompts(model.sets, batch.situation).image_attention[:, 0]
    context = torch.cat([prompts, update.norm_context(image)], dim=1)
    weight, bias = update.attention.qkv.weight[2 * D:], update.attention.qkv.bias[2 * D:]
    values = F.linear(context, weight, bias).unflatten(-1, (heads, -1)).transpose(1, 2)
    mixed = (probabilities @ values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(recorded["fusion.0.update_audio.attended"],
                               audio + update.attention.proj(mixed), atol=1e-5, rtol=1e-5)


def test_features_are_recorded_where_a_tuned_head_answers() -> None:
    model, batch = random_model()
    with record(model.backbone) as recorded:
        answer = model.answer(batch.audio, batch.image, 2)
    torch.testing.assert_close(model.sets[2].head(recorded["features"]), answer)
    assert "logits" not in recorded                            # the backbone's head had no part


def test_the_patches_tokens_are_without_the_prompts_that_flow_on() -> None:
    """With one block of prompts these enter the first block as tokens."""
    model, batch = random_model(override(CONFIG, "prompts.input_depth=1"))
    with record(model.backbone.audio_encoder) as recorded:
        model.answer_each(batch.audio, batch.image, batch.situation)
    N, P = model.backbone.audio_encoder.positions.shape[1], CONFIG.prompts.length
    lengths = [recorded[name].shape[1] for name in ("tokens", "blocks.0.out", "out")]
    assert lengths == [N, P + N, N]


def test_no_hook_stays() -> None:
    model, batch = random_model()
    with pytest.raises(ValueError), record(model.backbone) as recorded:
        model.backbone(batch.audio[:, 1:], batch.image)
    assert not recorded
    assert not any(module._forward_hooks for module in model.backbone.modules())
