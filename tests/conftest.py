"""Small prepared sets and small models that several tests share."""
import csv

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from data_prep import toy
from ptm_mini.config import PRESETS, Situation
from ptm_mini.data.manifest import Row, write_set
from ptm_mini.data.prepared import PreparedSet
from ptm_mini.errors import InputError
from ptm_mini.golden import __main__ as golden
from ptm_mini.method.backbone import Backbone, initialise
from ptm_mini.method.prompts import Prompted, PromptSet, prompted
from ptm_mini.method.router import Router
from ptm_mini.runs.folder import Run, save_backbone, save_method
from ptm_mini.runs.weights import fingerprint
from ptm_mini.settings import with_assignments
from ptm_mini.training.cost import Cost

torch.set_num_threads(1)          # for models this small more of them cost time

CLASSES = 10
COSTS = [Cost("stage", 10, 1, 1.0, 1000, 0.5, "CPU")]
SMALL = ["audio.mels=32", "audio.seconds=0.335", "image.size=16", "model.width=16", "model.heads=2", "model.depth=2",
         "prompts.length=2", "prompts.input_depth=2", "train.backbone.epochs=1", "train.prompts.epochs=1",
         "train.together.epochs=1", "router.passes=1"]


@pytest.fixture(scope="session")
def small():
    """Config whose model is made in an instant: 32 frames x 32 mels, 16 x 16 pixels, width 16, prompts without a head."""
    return with_assignments(PRESETS["tiny"], [*SMALL, "prompts.tune_head=false"])


@pytest.fixture(scope="session")
def toy_set(tmp_path_factory):
    """Folder of a toy set of 10 recordings a class: 140 training, 20 validation, 40 test samples."""
    folder = tmp_path_factory.mktemp("sets") / "toy"
    toy.make(folder, recordings=10, split="grouped", seed=0)
    return folder


@pytest.fixture(scope="session")
def kit(tmp_path_factory):
    """Path of a golden.npz, made by the command."""
    path = tmp_path_factory.mktemp("golden") / "golden.npz"
    golden.main([str(path)])
    return path


@pytest.fixture
def tiny_set(tmp_path):
    return write_tiny_set(tmp_path)


def write_tiny_set(folder):
    """Six samples of two classes; sample 4 lacks its audio and sample 5 its image. returns the folder"""
    folder.mkdir(exist_ok=True)
    rows = []
    for i in range(6):
        soundfile.write(folder / f"{i}.wav", 0.1 * np.random.default_rng(i).standard_normal(6000), 16000)
        Image.new("RGB", (20, 20), (40 * i, 0, 0)).save(folder / f"{i}.png")
        rows.append(Row(f"s{i}", "" if i == 4 else f"{i}.wav", "" if i == 5 else f"{i}.png", "ab"[i % 2],
                        ["train", "train", "val", "test", "train", "test"][i]))
    write_set(folder, rows, ["a", "b"])
    return folder


def edit(folder, line, **cells):
    """Change cells of the manifest; line 2 is the first sample."""
    with open(folder / "manifest.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[line - 2].update(cells)
    with open(folder / "manifest.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


@pytest.fixture
def inputs(small):
    """audio [5, T, M], image [5, 3, H, W], situations [5]"""
    random = torch.Generator().manual_seed(0)
    return (torch.randn(5, small.audio.frames, small.audio.mels, generator=random),
            torch.randn(5, 3, small.image.size, small.image.size, generator=random), torch.tensor([0, 1, 2, 3, 1]))


def move(model, by, random):
    """Every weight that has a gradient away from its start."""
    with torch.no_grad():
        for p in (p for p in model.parameters() if p.requires_grad):
            p += by * torch.randn(p.shape, generator=random)
    return model


def make_backbone(config, random):
    """A backbone with every weight away from its start."""
    backbone = Backbone(config, CLASSES)
    initialise(backbone, random)
    return move(backbone, 0.05, random)


def make_prompted(config):
    """A backbone and the four prompt sets on it, all weights away from their start."""
    random = torch.Generator().manual_seed(0)
    backbone = make_backbone(config, random)
    model = Prompted(backbone, [PromptSet(config, backbone.head, torch.Generator().manual_seed(s)) for s in Situation])
    return backbone, move(model, 1.0, random)


def save_random_run(folder, set_folder, config, prompts=True):
    """A run of random weights on a set, with or without prompts and a router, saved in `folder`. returns PreparedSet, Run"""
    data, random = PreparedSet(set_folder, config), torch.Generator().manual_seed(0)
    backbone, costs = make_backbone(config, random), [Cost("stage", 10, 1, 1.0, 1000, 0.5, "CPU")]
    run = save_backbone(folder, Run(config, data.classes, data.normalisation(), str(set_folder)), backbone, costs)
    if prompts:
        models = [move(prompted(backbone, config, random), 1.0, random) for _ in Situation]
        models.append(move(Router(backbone), 1.0, random))
        run = save_method(folder, run, "prompt", fingerprint(backbone), models, costs)
    return data, run


@pytest.fixture(scope="session")
def asked(toy_set, small, tmp_path_factory):
    """The folder of a run of random weights on the toy set, the set, and the Run. Nothing may be written there."""
    folder = tmp_path_factory.mktemp("asked") / "run"
    return folder, *save_random_run(folder, toy_set, small)


def refusal(call, *arguments, **keywords):
    """What an InputError says, which is one line."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)
