"""Training on cached tokens is training on their samples."""
from pathlib import Path

import pytest
import torch
from helpers import CONFIG, random_backbone

from ptm_mini.checkpoint import Run, fingerprint, load_tensors
from ptm_mini.config import Situation, change
from ptm_mini.data.dataset import PreparedSet, TrainingSamples
from ptm_mini.lab import token_cache
from ptm_mini.lab.token_cache import BackboneTail, CachedSet
from ptm_mini.method.backbone import Backbone, freeze
from ptm_mini.training import train_cases, train_together

EPOCHS = 2
ATTENTION = change(CONFIG, {
    "prompts.input_depth": 0, "train.fraction": 0.5, "train.prompt.batch_size": 4,
    **{f"train.{stage}.epochs": EPOCHS for stage in ("head", "prompt", "together")}})


@pytest.fixture
def backbone() -> Backbone:
    return freeze(random_backbone(CONFIG, torch.Generator().manual_seed(0)))


@pytest.mark.parametrize("method", ["head", "prompt"])
def test_with_as_many_views_as_epochs_training_is_the_same(
        method: str, few_set: Path, backbone: Backbone, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch) -> None:
    data, trained = PreparedSet(few_set, ATTENTION), []
    for dtype in (None, torch.float32, torch.float16):                  # None: no cache
        run = Run(tmp_path / str(dtype), ATTENTION, data.classes, data.normalisation, data.folder,
                  data.fingerprint(), trained_on=fingerprint(backbone))
        base, samples = backbone, data
        if dtype:
            monkeypatch.setattr(token_cache, "DTYPE", dtype)
            base, samples = BackboneTail(backbone), CachedSet(data, backbone, EPOCHS)
        models = train_cases(run, method, base, samples)
        if method == "prompt":
            train_together(run, models, samples)
        trained.append({(path.name, name): weight for path in run.folder.glob("*.pt")
                        for name, weight in load_tensors(path)["weights"].items()})
    whole, full, half = trained
    assert whole.keys() == full.keys() == half.keys() != set()
    for key, weight in whole.items():
        assert torch.allclose(weight, full[key], rtol=0, atol=1e-5)
        assert torch.allclose(weight, half[key], rtol=0, atol=0.05)
    assert any(not torch.equal(weight, half[key]) for key, weight in whole.items())


def test_epochs_take_turns_with_the_views(missing_set: Path, backbone: Backbone,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_cache, "DTYPE", torch.float32)
    data = PreparedSet(missing_set, CONFIG)
    cached = CachedSet(data, backbone, views=2)
    samples = TrainingSamples(cached, tuple(Situation))

    def read(epoch: int) -> torch.Tensor:
        items = [(row, epoch, Situation.NOISY_IMAGE) for row in samples.rows.tolist()]
        return torch.cat([batch.image for batch in cached.loader(items, 7)])

    first = read(1)
    assert not torch.equal(first, read(2))
    batch, = cached.loader(samples.items(2, "head complete"), 100)
    damaged, = data.loader(samples.items(2, "head complete"), 100)
    for found, tokens in zip(batch[:2], backbone.encode(damaged.audio, damaged.image)):
        assert torch.allclose(found, tokens, atol=1e-6)
    assert torch.equal(batch.situation, damaged.situation) and batch.id == damaged.id
    with torch.no_grad():
        backbone.image_encoder.modality += 1                  # nobody asks the encoders again
    assert torch.equal(first, read(3))
