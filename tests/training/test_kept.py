"""A step on kept tokens is the step on their inputs."""
import pytest
import torch
from conftest import make_backbone, make_prompted

from ptm_mini.config import Situation
from ptm_mini.data.prepared import PreparedSet
from ptm_mini.method.baselines import head
from ptm_mini.method.prompts import Prompted
from ptm_mini.runs.weights import learned
from ptm_mini.settings import with_settings
from ptm_mini.training.kept import Kept, Late, forget_kept
from ptm_mini.training.progress import Progress
from ptm_mini.training.samples import Samples, Task
from ptm_mini.training.stages import train_method

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


VIEWS = 3
METHODS_OF_LATE = {"head": ("head", {}), "attention": ("prompt", {"prompts.input_depth": 0}),
                   "late": ("prompt", {"prompts.input_depth": 1, "prompts.first_block": 1})}


def trained(folder, data, config, method):
    """The weights that a method learns on a backbone of random weights, as one vector for each of its models."""
    backbone = make_backbone(config, torch.Generator().manual_seed(0))
    task = Task(config, data, data.normalisation(), torch.device("cpu"), False, Progress(folder, "belongs"))
    models, _ = train_method(task, backbone, method)
    return [torch.cat([tensor.flatten() for tensor in learned(model).values()]) for model in models]


@pytest.mark.parametrize("place", METHODS_OF_LATE)
def test_training_on_kept_tokens_is_training(toy_set, small, tmp_path, place, monkeypatch):
    """With as many copies as epochs, in full precision, nothing but the order of sums differs."""
    method, changes = METHODS_OF_LATE[place]
    epochs = {f"train.{stage}.epochs": VIEWS for stage in ("head", "prompts", "together")}
    config = with_settings(small, {**changes, **epochs, "train.fraction": 0.4})
    data = PreparedSet(toy_set, config)
    whole = trained(tmp_path / "whole", data, config, method)
    kept_config = with_settings(config, {"train.views": VIEWS})
    half = trained(tmp_path / "half", data, kept_config, method)
    monkeypatch.setattr(Kept.__init__, "__defaults__", ("<f4",))
    full = trained(tmp_path / "full", data, kept_config, method)
    for before, after, rough in list(zip(whole, full, half))[:4]:                     # behind them comes the router
        assert torch.allclose(before, after, rtol=0, atol=1e-5)
        assert torch.allclose(before, rough, rtol=0, atol=0.05) and not torch.equal(before, rough)
    folders = sorted(path.name for path in (tmp_path / "full" / "unfinished").glob("kept-*/*"))
    situations = [situation.label for situation in Situation]
    mixed = ["train-complete-noisy_audio-noisy_image-noisy_both"] if method == "prompt" else []
    assert folders == sorted([*mixed, *(f"train-{name}" for name in situations), *(f"val-{name}" for name in situations)])
    forget_kept(tmp_path / "full")
    assert not list((tmp_path / "full" / "unfinished").glob("kept-*"))


def test_epochs_cycle_through_the_copies_and_keep_what_was_made(toy_set, small, tmp_path):
    config = with_settings(small, {"train.views": 2, "train.fraction": 0.2})
    data, backbone = PreparedSet(toy_set, config), make_backbone(config, torch.Generator().manual_seed(0))
    task = Task(config, data, data.normalisation(), torch.device("cpu"), False, Progress(tmp_path, "belongs"))
    kept = Kept(task, backbone, 1, "<f4")
    samples = kept.samples((Situation.NOISY_IMAGE, Situation.COMPLETE), 0.2)
    first, second, third = (torch.cat([batch.image for batch in samples.batches(7, epoch)]) for epoch in (1, 2, 3))
    assert torch.equal(first, third) and not torch.equal(first, second)
    [damaged] = Samples(task, (Situation.NOISY_IMAGE, Situation.COMPLETE), 0.2).batches(1000, 2)
    [again] = samples.batches(1000, 2)
    assert torch.equal(again.situation, damaged.situation) and torch.equal(again.label, damaged.label) and again.id == damaged.id
    assert torch.allclose(again.audio, backbone.early(damaged.audio, damaged.image, 1)[0], atol=1e-6)
    with torch.no_grad():
        backbone.audio_encoder.modality += 1                       # what is there is not made again
    [later] = Kept(task, backbone, 1, "<f4").samples((Situation.NOISY_IMAGE, Situation.COMPLETE), 0.2).batches(1000, 2)
    assert torch.equal(later.audio, again.audio)
