"""The router against discriminants made by hand; it sees no class and needs every situation."""
import numpy as np
import pytest
import torch
from helpers import CONFIG, shake
from port_numpy import fit_router
from torch import Tensor

from ptm_mini.config import Situation
from ptm_mini.method.backbone import Backbone
from ptm_mini.method.router import Router, pick_situations

Inputs = tuple[Tensor, Tensor, Tensor]


def test_the_router_is_the_linear_discriminant() -> None:
    """By NumPy, in batches, with unequal counts and a feature that is constant."""
    generator = np.random.default_rng(0)
    situations = generator.permutation(np.repeat(range(4), (30, 40, 50, 60)))
    x = generator.normal(size=(180, 8)) @ generator.normal(size=(8, 8))
    x += 3 * generator.normal(size=(4, 8))[situations]
    x[:, 5] = 0                    # as the deviation of a single token is
    weight, bias = fit_router(x, situations, shrinkage=0.1)
    router = Router(2)
    router.pool = lambda audio, image: audio           # the features stand in the audio's place
    parts = torch.from_numpy(x).split(25), torch.from_numpy(situations).split(25)
    router.fit([(part, part, own) for part, own in zip(*parts)], shrinkage=0.1)
    features = torch.from_numpy(x).float()
    logits, expected = router(features, features).detach().numpy(), x @ weight.T + bias
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("unseen", [[], [Situation.NOISY_BOTH]])
def test_an_unseen_situation_is_never_picked(backbone: Backbone, inputs: Inputs,
                                             unseen: list[Situation]) -> None:
    audio, image, situations = inputs                                # five samples, 64 dimensions
    tokens, router = backbone.encode(audio, image), Router(CONFIG.model.width)
    seen = ~torch.isin(situations, torch.tensor(unseen))
    router.fit([(tokens[0][seen], tokens[1][seen], situations[seen])], shrinkage=0.1)
    logits = router(*tokens)
    assert logits[:, unseen].eq(-torch.inf).all() and router.weight.isfinite().all()
    assert torch.equal(pick_situations(logits, audio, image)[seen], situations[seen])


@pytest.mark.parametrize("lost", [Situation.NOISY_AUDIO, Situation.NOISY_IMAGE])
def test_a_missing_modality_is_seen_not_guessed(backbone: Backbone, inputs: Inputs,
                                                lost: Situation) -> None:
    audio, image, _ = inputs
    router = shake(Router(CONFIG.model.width), torch.Generator().manual_seed(0), by=1.0)
    logits = router(*backbone.encode(audio, image))
    whole = pick_situations(logits, audio, image)
    assert torch.equal(whole, logits.argmax(dim=1))
    (audio if lost == Situation.NOISY_AUDIO else image)[[0, 3]] = 0
    picked = pick_situations(logits, audio, image)
    assert picked[[0, 3]].tolist() == [lost, lost]
    assert torch.equal(picked[[1, 2, 4]], whole[[1, 2, 4]])
