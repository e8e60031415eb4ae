"""What prompts reach, what they leave alone, and that no sample sees another."""
from collections.abc import Callable

import pytest
import torch
from helpers import CONFIG
from torch import Tensor
from torch.nn import functional as F

from ptm_mini.config import FUSION_KINDS, PRESETS, Situation, override
from ptm_mini.method.backbone import Backbone, Prompts
from ptm_mini.method.prompts import (PromptedBackbone, PromptSet, concat_prompts,
                                     mean_probabilities, select_answers, select_prompts)

Inputs = tuple[Tensor, Tensor, Tensor]
Make = Callable[..., PromptedBackbone]


@pytest.mark.parametrize("fusion", FUSION_KINDS)
@pytest.mark.parametrize("depth, tune_head", [(0, "true"), (1, "false"), (2, "true")])
@torch.no_grad()
def test_a_sample_alone_equals_it_in_a_mixed_batch(
        inputs: Inputs, make_prompted: Make, fusion: str, depth: int, tune_head: str) -> None:
    model = make_prompted(f"model.fusion={fusion}", f"prompts.input_depth={depth}",
                          f"prompts.tune_head={tune_head}", "prompts.joint=true")

    def answers(part: slice) -> Tensor:
        audio, image, situations = (x[part] for x in inputs)
        return torch.stack([model.backbone(audio, image), model(audio, image),
                            model.answer_each(audio, image, situations)])

    together = answers(slice(None))
    for i in range(5):
        assert torch.allclose(answers(slice(i, i + 1))[:, 0], together[:, i], atol=1e-5)


@torch.no_grad()
def test_no_prompts_are_the_backbone_exactly(inputs: Inputs, make_prompted: Make) -> None:
    audio, image, situations = inputs
    model = make_prompted("prompts.length=0", "prompts.tune_head=false")
    for answer in (model.answer_each(audio, image, situations), model(audio, image),
                   model.answer(audio, image, Situation.NOISY_BOTH)):
        assert torch.equal(answer, model.backbone(audio, image))


@pytest.mark.parametrize("place", Prompts._fields)
def test_prompts_of_each_place(inputs: Inputs, make_prompted: Make, place: str) -> None:
    """They change the answer, and a sample has gradients for the set of its situation alone."""
    model = make_prompted("prompts.joint=true")
    audio, image, situations = inputs
    prompts = select_prompts(model.sets, situations)
    # turned round: an added constant would be undone by LayerNorm
    other = prompts._replace(**{place: getattr(prompts, place).flip(-1)})
    logits = model.backbone(audio, image, prompts)
    assert not torch.allclose(logits, model.backbone(audio, image, other), atol=1e-4)
    model.answer_each(audio, image, torch.full((5,), Situation.NOISY_IMAGE)).sum().backward()
    for s, own in enumerate(model.sets):
        reached = getattr(own, place).grad.ne(0).any(dim=2)                       # [blocks, P]
        assert reached.all() if s == Situation.NOISY_IMAGE else not reached.any()
        assert own.head[1].weight.grad.any() == (s == Situation.NOISY_IMAGE)
    assert all(parameter.grad is None for parameter in model.backbone.parameters())
    assert not model.backbone.training


def test_gradients_of_prompts_are_the_same_bits_each_time() -> None:
    """At a real batch's size: a small one is summed by one thread, whose order is always one."""
    sets = [PromptSet(PRESETS["tiny"], torch.nn.Identity(), torch.Generator()) for _ in Situation]
    situations, weights = torch.arange(256) % 4, torch.randn(256, 4, 8, 128)
    torch.set_num_threads(2)
    gradients = [torch.autograd.grad(
        (select_prompts(sets, situations).audio_input * weights).sum(), sets[1].audio_input)[0]
        for _ in range(10)]
    torch.set_num_threads(1)
    assert all(torch.equal(gradients[0], gradient) for gradient in gradients)


def test_the_set_of_its_situation_answers(inputs: Inputs, make_prompted: Make) -> None:
    model, (audio, image, situations) = make_prompted(), inputs
    by_set = torch.stack([model.answer(audio, image, situation) for situation in Situation])
    selected = select_answers(by_set, situations)
    assert all(torch.equal(selected[i], by_set[s, i]) for i, s in enumerate(situations))
    assert torch.allclose(model.answer_each(audio, image, situations), selected, atol=1e-5)
    assert not torch.allclose(by_set[0], by_set[1], atol=1e-3)


def test_concat_with_the_backbones_head(inputs: Inputs, make_prompted: Make) -> None:
    """With tuned heads it stands in lab/test_golden.py, against NumPy."""
    model = make_prompted("prompts.tune_head=false")
    audio, image, _ = inputs
    logits = model.backbone(audio, image, concat_prompts(model.sets))
    assert torch.allclose(model(audio, image), logits, atol=1e-6)


def test_the_mean_of_probabilities_is_finite_and_learns_where_one_is_0() -> None:
    logits = torch.tensor([[[0.0, 1000.0, 0.0]], [[0.0, 1000.0, 0.0]]], requires_grad=True)
    mean = mean_probabilities(logits)
    F.cross_entropy(mean, torch.tensor([0])).backward()
    assert mean.isfinite().all() and mean.argmax() == 1 and logits.grad.isfinite().all()
    assert torch.equal(mean_probabilities(logits[:1]), logits[0])


@pytest.mark.parametrize("assignments, used", [
    (["model.fusion=cross"], ["audio_attention", "image_attention"]),
    (["model.fusion=image_to_audio"], ["image_attention"]),
    (["model.fusion=audio_to_image"], ["audio_attention"]),
    (["model.fusion=none"], []), (["prompts.attention=false"], []),
    (["prompts.attention=false", "prompts.joint=true"], ["joint"])])
def test_prompts_are_there_only_where_a_query_reads_them(
        make_prompted: Make, assignments: list[str], used: list[str]) -> None:
    """The image's queries read audio prompts and the reverse."""
    own = make_prompted(*assignments).sets[0]
    assert [place for place in Prompts._fields
            if getattr(own, place).numel()] == ["audio_input", "image_input", *used]


def test_a_fresh_set_is_normal_seeded_and_copies_the_head(backbone: Backbone) -> None:
    config = override(CONFIG, "prompts.length=200", "prompts.initial_std=0.5")
    head = backbone.head.requires_grad_(False)
    first, again, other = (PromptSet(config, head, torch.Generator().manual_seed(seed))
                           for seed in (0, 0, 1))
    tokens = first.audio_input
    assert torch.equal(tokens, again.audio_input) and not torch.equal(tokens, other.audio_input)
    assert tokens.std().item() == pytest.approx(0.5, rel=0.05) and abs(tokens.mean()) < 0.03
    for own, shared in zip(first.head.parameters(), head.parameters()):
        assert torch.equal(own, shared) and own is not shared and own.requires_grad
