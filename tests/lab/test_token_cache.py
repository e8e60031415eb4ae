"""Training on cached tokens is training on their samples."""
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import CONFIG, break_off, files_of, random_backbone, random_batch, refusal

from ptm_mini.checkpoint import Run, fingerprint, load_tensors
from ptm_mini.config import Situation, change
from ptm_mini.data.dataset import PreparedSet, TrainingSamples
from ptm_mini.lab.token_cache import BackboneTail, CachedSet, train_cached
from ptm_mini.method.backbone import Backbone, freeze
from ptm_mini.training import METHODS, train_cases, train_together, trained_methods

EPOCHS = 3
ATTENTION = change(CONFIG, {
    "prompts.input_depth": 0, "train.fraction": 0.5, "train.prompt.batch_size": 4,
    **{f"train.{stage}.epochs": EPOCHS for stage in ("head", "prompt", "together")}})


@pytest.fixture
def backbone() -> Backbone:
    return freeze(random_backbone(CONFIG, torch.Generator().manual_seed(0)))


def new_run(folder: Path, data: PreparedSet, backbone: Backbone) -> Run:
    folder.mkdir()
    return Run(folder, data.config, data.classes, data.normalisation, data.folder,
               data.fingerprint(), trained_on=fingerprint(backbone))


@pytest.mark.parametrize("method", ["head", "prompt"])
def test_a_step_on_tokens_has_the_same_logits_and_gradients_to_the_bit(
        method: str, backbone: Backbone) -> None:
    batch, found = random_batch(ATTENTION), []
    tokens = backbone.encode(batch.audio, batch.image)
    for on, inputs in ((backbone, (batch.audio, batch.image)), (BackboneTail(backbone), tokens)):
        model = METHODS[method].build(on, ATTENTION, torch.Generator().manual_seed(0))
        logits = model(*inputs)
        logits.square().sum().backward()
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        found.append((logits, gradients))
    (whole, expected), (tail, gradients) = found
    assert torch.equal(whole, tail) and expected.keys() == gradients.keys() != set()
    assert all(torch.equal(gradients[name], expected[name]) for name in expected)


@pytest.mark.parametrize("method", ["head", "prompt"])
def test_with_as_many_views_as_epochs_training_is_the_same(
        method: str, small_set: Path, backbone: Backbone, tmp_path: Path) -> None:
    data = PreparedSet(small_set, ATTENTION)
    whole, full, half = (new_run(tmp_path / name, data, backbone)
                         for name in ("whole", "full", "half"))
    models = train_cases(whole, method, backbone, data)
    if method == "prompt":
        train_together(whole, models, data)
    train_cached(full, backbone, data, method, EPOCHS, np.float32)
    train_cached(half, backbone, data, method, EPOCHS)
    for path in whole.folder.glob("*.pt"):
        weights, in_full, in_half = (load_tensors(run.folder / path.name)["weights"]
                                     for run in (whole, full, half))
        for name, weight in weights.items():
            assert torch.allclose(weight, in_full[name], rtol=0, atol=1e-5)
            assert torch.allclose(weight, in_half[name], rtol=0, atol=0.05)
        assert any(not torch.equal(weights[name], in_half[name]) for name in weights)
    assert trained_methods(full) == [method] and not (full.folder / "tokens").exists()


def test_epochs_take_turns_with_the_views(missing_set: Path, backbone: Backbone,
                                          tmp_path: Path) -> None:
    data = PreparedSet(missing_set, CONFIG)
    cached = CachedSet(data, backbone, 2, tmp_path, np.float32)
    samples = TrainingSamples(cached, tuple(Situation))
    rows = samples.rows.tolist()

    def read(epoch: int) -> torch.Tensor:
        items = [(row, epoch, Situation.NOISY_IMAGE) for row in rows]
        return torch.cat([batch.image for batch in cached.loader(items, 7, augmented=True)])

    assert torch.equal(read(1), read(3)) and not torch.equal(read(1), read(2))
    batch, = samples.loader(100, 2, "head complete")
    damaged, = TrainingSamples(data, tuple(Situation)).loader(100, 2, "head complete")
    for found, tokens in zip(batch[:2], backbone.encode(damaged.audio, damaged.image)):
        assert torch.allclose(found, tokens, atol=1e-6)
    for found, expected in zip(batch[2:4], damaged[2:4]):          # situations and labels
        assert torch.equal(found, expected)
    assert batch.id == damaged.id
    with torch.no_grad():
        backbone.image_encoder.modality += 1                  # nobody asks the encoders again
    assert torch.equal(read(1), read(3))


def test_what_was_broken_off_resumes_to_the_same_bytes(
        small_set: Path, backbone: Backbone, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    data = PreparedSet(small_set, ATTENTION)
    whole, broken = (new_run(tmp_path / name, data, backbone) for name in ("whole", "broken"))
    train_cached(whole, backbone, data, "head", 2)
    break_off(monkeypatch, epochs=2)
    with pytest.raises(KeyboardInterrupt):
        train_cached(broken, backbone, data, "head", 2)
    assert not (broken.folder / "tokens").exists()
    train_cached(broken, backbone, data, "head", 2)
    assert files_of(whole.folder, "*.pt") == files_of(broken.folder, "*.pt")


@pytest.mark.parametrize("method", ["lora", "prompt"])         # prompts.input_depth is 2 there
def test_what_changes_tokens_is_refused(method: str, data: PreparedSet, backbone: Backbone,
                                        tmp_path: Path) -> None:
    run = new_run(tmp_path / "run", data, backbone)
    assert f"{method} with prompts.input_depth=" in refusal(
        train_cached, run, backbone, data, method, 1)
