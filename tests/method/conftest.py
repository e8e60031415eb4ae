"""What the tests of the method share: inputs, a backbone, and prompt sets away from their start."""
from collections.abc import Callable

import pytest
import torch
from helpers import CONFIG, random_backbone, random_batch, shake
from torch import Tensor

from ptm_mini.config import Situation, override
from ptm_mini.method.backbone import Backbone
from ptm_mini.method.prompts import PromptedBackbone, PromptSet


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """Five whole samples: audio [5, T, M], image [5, 3, H, W], situations [5]."""
    batch = random_batch(CONFIG, 7)                        # the last two lack a modality
    return batch.audio[:5], batch.image[:5], torch.tensor([0, 1, 2, 3, 1])


@pytest.fixture
def backbone() -> Backbone:
    return random_backbone(CONFIG, torch.Generator().manual_seed(0)).eval()


@pytest.fixture
def make_prompted() -> Callable[..., PromptedBackbone]:
    """A function of settings: a model of four prompt sets, all weights away from their start."""
    def make(*assignments: str) -> PromptedBackbone:
        config = override(CONFIG, *assignments)
        generator = torch.Generator().manual_seed(0)
        backbone = random_backbone(config, generator)
        sets = [PromptSet(config, backbone.head, generator) for _ in Situation]
        return shake(PromptedBackbone(backbone, sets), generator, by=1.0)
    return make
