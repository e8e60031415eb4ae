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
    router = Router(width // 4)
    router.pool = lambda audio, image: audio           # the features stand in the audio's place
    router.fit([(part, part, own) for part, own in zip(x.split(25), situations.split(25))],
               shrinkage)
    logits, expected = router(x.float(), x.float()).detach().numpy(), x.numpy() @ weight.T + bias
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()


def test_the_router_sees_the_mean_and_the_deviation_of_frozen_tokens() -> None:
    for N in (5, 1):                                   # one token has a deviation of 0
        tokens = torch.randn(2, N, 16), torch.randn(2, N, 16)
        expected = [part for x in tokens
                    for part in (x.mean(dim=1), x.var(dim=1, correction=0).sqrt())]
        assert torch.allclose(Router(16).pool(*tokens), torch.cat(expected, dim=1), atol=1e-6)


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
