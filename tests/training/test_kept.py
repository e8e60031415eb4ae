"""A step on kept tokens is the step on their inputs."""
import pytest
import torch
from conftest import make_backbone, make_prompted

from ptm_mini.method.baselines import head
from ptm_mini.method.prompts import Prompted
from ptm_mini.settings import with_settings
from ptm_mini.training.kept import Late

PLACES = {"attention": {"prompts.input_depth": 0}, "late": {"prompts.input_depth": 1, "prompts.first_block": 1},
          "first": {"prompts.joint": True}}


def gradients(model, scores):
    """{name: gradient} of what learns"""
    model.zero_grad()
    scores.square().sum().backward()
    return {name: p.grad for name, p in model.named_parameters() if p.requires_grad and p.numel()}


@pytest.mark.parametrize("place", PLACES)
def test_prompts_get_the_same_scores_and_gradients_to_the_bit(small, inputs, place):
    audio, image, situations = inputs
    backbone, model = make_prompted(with_settings(small, {**PLACES[place], "prompts.tune_head": True}))
    with torch.no_grad():
        kept = backbone.early(audio, image, model.first)
    on_kept = Prompted(Late(backbone, model.first), model.sets)
    for whole, late in ((model(audio, image), on_kept(*kept)),
                        (model.by_situation(audio, image, situations), on_kept.by_situation(*kept, situations))):
        assert torch.equal(whole, late)
        expected = gradients(model, whole)
        assert len(expected) > 4 * 4 and all(torch.equal(gradient, expected[name])
                                          for name, gradient in gradients(on_kept, late).items())


@pytest.mark.parametrize("first", [0, 1, 2])
def test_a_head_gets_the_same_gradients_to_the_bit(small, inputs, first):
    audio, image, _ = inputs
    backbone = make_backbone(small, torch.Generator().manual_seed(0))
    whole, late = head(backbone, small, None), head(Late(backbone, first), small, None)
    expected, found = gradients(whole, whole(audio, image)), gradients(late, late(*backbone.early(audio, image, first)))
    assert expected.keys() == found.keys() and all(torch.equal(gradient, found[name]) for name, gradient in expected.items())


def test_tokens_kept_at_another_block_are_refused(small, inputs):
    audio, image, _ = inputs
    backbone, model = make_prompted(with_settings(small, PLACES["late"]))
    with pytest.raises(ValueError, match="prompts enter at block 1; expected block 2"):
        Prompted(Late(backbone, 2), model.sets)(*backbone.early(audio, image, 2))
