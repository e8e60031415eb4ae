"""A small prepared set and a small config that several tests share."""
import pytest
import torch

from data_prep import toy
from ptm_mini.config import PRESETS
from ptm_mini.overrides import override

SMALL = ["audio.mels=32", "audio.seconds=0.335", "image.size=16", "model.width=16", "model.heads=2", "model.depth=2",
         "prompts.length=2", "prompts.input_depth=2", "train.backbone.epochs=1", "train.prompts.epochs=1",
         "train.together.epochs=1", "router.passes=1"]


@pytest.fixture
def small():
    """Config whose model is made in an instant: 32 frames x 32 mels, 16 x 16 pixels, width 16, prompts without a head."""
    return override(PRESETS["tiny"], [*SMALL, "prompts.tune_head=false"])


@pytest.fixture(scope="session")
def toy_set(tmp_path_factory):
    """Folder of a toy set of 10 recordings a class: 140 training, 20 validation, 40 test samples."""
    folder = tmp_path_factory.mktemp("sets") / "toy"
    toy.make(folder, recordings=10, split="grouped", seed=0)
    return folder


@pytest.fixture
def inputs(small):
    """audio [5, T, M], image [5, 3, H, W], situations [5]"""
    random = torch.Generator().manual_seed(0)
    return (torch.randn(5, small.audio.frames, small.audio.mels, generator=random),
            torch.randn(5, 3, small.image.size, small.image.size, generator=random), torch.tensor([0, 1, 2, 3, 1]))
