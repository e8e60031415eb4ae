"""The router against discriminants made by hand; it sees no class and needs every situation."""
import numpy as np
import pytest
import torch
from helpers import CONFIG, shake
from torch import Tensor

from ptm_mini.config import Situation
from ptm_mini.method.backbone import Backbone
from ptm_mini.method.router import Router, pick_situations

Inputs = tuple[Tensor, Tensor, Tensor]


def feature_router(width: int) -> Router:
    """A router of features [B, 4 width] that are given in the place of audio tokens."""
    router = Router(width)
    router.pool = lambda audio, image: audio
    return router


def test_the_router_is_the_linear_discriminant() -> None:
    """By NumPy, with unequal counts, a feature that is constant, and shrinkage."""
    generator, shrinkage = np.random.default_rng(0), 0.1
    counts, width = (30, 40, 50, 60), 8
    groups = [generator.normal(size=(n, width)) @ generator.normal(size=(width, width))
              + 3 * generator.normal(size=width) for n in counts]
    for group in groups:
        group[:, 5] = 0            # as the deviation of a single token is
    means = np.stack([group.mean(axis=0) for group in groups])
    covariance = sum((group - mean).T @ (group - mean)
                     for group, mean in zip(groups, means)) / sum(counts)
    covariance += np.diag(np.maximum(shrinkage * np.diag(covariance), 1e-6))
    weight = means @ np.linalg.inv(covariance)
    bias = -np.einsum("sd,sd->s", weight, means) / 2
    order = generator.permutation(sum(counts))
    x = torch.from_numpy(np.concatenate(groups)[order])
    situations = torch.from_numpy(np.repeat(range(4), counts)[order])
    router = feature_router(width // 4)
    router.fit([(part, part, own) for part, own in zip(x.split(25), situations.split(25))],
               shrinkage)
    logits, expected = router(x.float(), x.float()).detach().numpy(), x.numpy() @ weight.T + bias
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()


def test_the_router_sees_frozen_features_and_no_class(backbone: Backbone, inputs: Inputs) -> None:
    audio, image, situations = inputs
    tokens, router = backbone.encode(audio, image), Router(CONFIG.model.width)
    pooled = router.pool(*tokens)
    expected = [part for x in tokens for part in (x.mean(dim=1), x.var(dim=1, correction=0).sqrt())]
    assert torch.allclose(pooled, torch.cat(expected, dim=1), atol=1e-6)
    router.fit([(*tokens, situations)], shrinkage=0.1)               # five samples, 64 dimensions
    assert torch.equal(pick_situations(router(*tokens), audio, image), situations)


def test_an_unseen_situation_is_never_picked(backbone: Backbone, inputs: Inputs) -> None:
    audio, image, situations = inputs
    tokens, router = backbone.encode(audio, image), Router(CONFIG.model.width)
    seen = situations != Situation.NOISY_BOTH
    router.fit([(tokens[0][seen], tokens[1][seen], situations[seen])], shrinkage=0.1)
    assert router(*tokens)[:, Situation.NOISY_BOTH].eq(-torch.inf).all()
    assert torch.equal(pick_situations(router(*tokens), audio, image)[seen], situations[seen])
    assert router.weight.isfinite().all()


def test_one_token_has_a_deviation_of_0() -> None:
    pooled = Router(16).pool(torch.randn(2, 1, 16), torch.randn(2, 1, 16))
    assert pooled.isfinite().all() and not pooled[:, 16:32].any() and not pooled[:, 48:].any()


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
