"""The router finds the known discriminant and sees no class; the strategies choose as they say."""
import pytest
import torch
from conftest import CLASSES, make_backbone, make_prompted, move

from ptm_mini.config import Situation
from ptm_mini.method.backbone import Backbone
from ptm_mini.method.router import STRATEGIES, Router, lowest_entropy, told
from ptm_mini.settings import with_assignments, with_settings


def test_the_router_is_the_discriminant_that_makes_the_fewest_errors(small):
    """Two normal clouds of one covariance, far apart along a direction in which each is wide: their discriminant is known."""
    router = Router(Backbone(small, CLASSES))
    random = torch.Generator().manual_seed(0)
    width = router.weight.shape[1]
    root = torch.randn(width, width, generator=random) / width ** 0.5 + torch.eye(width)
    centres = 2 * torch.randn(4, width, generator=random)
    situations = torch.arange(40_000) % 4
    x = centres[situations] + torch.randn(40_000, width, generator=random) @ root
    router.pooled = lambda audio, image: audio
    router.fit([(part, None, own) for part, own in zip(x.split(5000), situations.split(5000))], shrinkage=1e-6)
    covariance = (root.T @ root).double()
    weight = torch.linalg.solve(covariance, centres.double().T).T
    expected = x.double() @ weight.T - (weight * centres).sum(dim=1) / 2
    logits = torch.nn.functional.linear(x, router.weight, router.bias)
    assert torch.allclose(logits.double(), expected, atol=0.02 * expected.abs().max())
    assert (logits.argmax(dim=1) == expected.argmax(dim=1)).float().mean() > 0.99


def test_one_token_a_modality_has_a_spread_of_0(small):
    config = with_assignments(small, ["audio.mels=16", "audio.seconds=0.175", "image.size=8"])
    router = Router(Backbone(config, CLASSES))
    pooled = router.pooled(torch.randn(2, 16, 16), torch.randn(2, 3, 8, 8))
    assert pooled.isfinite().all() and pooled[:, 16:32].eq(0).all()


def test_a_missing_modality_is_seen_not_guessed(small, inputs):
    router = move(Router(make_backbone(small, torch.Generator().manual_seed(0))), 1.0, torch.Generator().manual_seed(0))
    audio, image, _ = inputs
    for lacking in (Situation.NOISY_AUDIO, Situation.NOISY_IMAGE):
        some = [x.clone() for x in (audio, image)]
        some[lacking - 1][[0, 3]] = 0
        picks = router.pick(*some)
        assert picks[[0, 3]].tolist() == [lacking] * 2 and torch.equal(picks[[1, 2, 4]], router.pick(audio, image)[[1, 2, 4]])


def test_the_router_sees_frozen_features_and_no_class(small, inputs):
    backbone = make_backbone(small, torch.Generator().manual_seed(0))
    audio, image, situations = inputs
    router = Router(backbone)
    pooled = router.pooled(audio, image)
    audio_tokens, image_tokens = backbone.early(audio, image)
    assert torch.equal(pooled[:, :16], audio_tokens.mean(dim=1)) and torch.equal(pooled[:, 48:], image_tokens.std(dim=1, correction=0))
    router.fit([(audio[:3], image[:3], situations[:3])], shrinkage=0.1)
    assert router.bias[3] == -torch.inf and router.pick(audio, image).max() <= 2      # noisy_both was never seen
    router.fit([(audio, image, situations)], shrinkage=0.1)
    assert torch.equal(router.pick(audio, image), situations)                         # five samples in 64 dimensions


def test_the_surest_answer_is_taken():
    class Fixed:
        def by_situation(self, audio, image, situations):
            return torch.tensor([[0.0, 0.1], [3.0, 0.0], [0.0, 1.0], [1.0, 0.0]])[situations]

    answers = lowest_entropy(Fixed(), None)(torch.zeros(2, 1), torch.zeros(2, 1), torch.zeros(2, dtype=torch.long))
    assert torch.equal(answers, torch.tensor([[3.0, 0.0], [3.0, 0.0]]))


def test_each_strategy_answers_with_the_sets_that_it_names(small, inputs):
    audio, image, situations = inputs
    backbone, model = make_prompted(small)
    router = Router(backbone)
    router.fit([inputs], shrinkage=0.1)
    answers = {name: strategy(model, router)(audio, image, situations) for name, strategy in STRATEGIES.items()}
    assert torch.equal(answers["situation"], model.by_situation(audio, image, situations))
    assert torch.equal(answers["concat"], model(audio, image))
    assert torch.equal(answers["routed"], model.by_situation(audio, image, router.pick(audio, image)))
    for s in Situation:
        assert torch.equal(told(model, s)(audio, image, situations), model.by_situation(audio, image, torch.full((5,), s)))


@pytest.mark.parametrize("place, runs", [({}, [2, 2]), ({"prompts.input_depth": 0}, [1, 1]),
                                         ({"prompts.input_depth": 1, "prompts.first_block": 1}, [1, 2])])
def test_blocks_before_the_first_prompts_run_once_for_router_and_prompts(small, inputs, place, runs):
    audio, image, _ = inputs
    backbone, model = make_prompted(with_settings(small, place))
    router = Router(backbone)
    router.fit([inputs], shrinkage=0.1)
    expected = router(audio, image), router.pick(audio, image)
    blocks = [*backbone.audio_encoder.blocks, *backbone.image_encoder.blocks]
    counts = [0] * len(blocks)
    for i, block in enumerate(blocks):
        block.register_forward_hook(lambda *_, i=i: counts.__setitem__(i, counts[i] + 1))
    scores, situations, logits = model.routed(audio, image, router)
    assert counts == 2 * runs
    assert torch.equal(logits, expected[0]) and torch.equal(situations, expected[1])
    assert torch.equal(scores, model.by_situation(audio, image, situations))
