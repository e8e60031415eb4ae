"""A small set and runs on it that several tests share; nobody writes into them."""
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
from helpers import CONFIG, FLAGS, train, train_only, write_small_set
from PIL import Image
from pytest import TempPathFactory

from ptm_mini import plots, report
from ptm_mini.data.dataset import PreparedSet

torch.set_num_threads(1)          # for models this small more of them cost time


@pytest.fixture(scope="session", autouse=True)
def quick_pictures() -> Iterator[None]:
    """One sample in gallery.png, hardly compressed: else it takes longer than an evaluation."""
    def encode(picture: Image.Image) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, "PNG", compress_level=1)
        return buffer.getvalue()

    with mock.patch.object(report, "EXAMPLES", 1), mock.patch.object(plots, "as_png", encode):
        yield


@pytest.fixture(scope="session")
def small_set(tmp_path_factory: TempPathFactory) -> Path:
    """24 training, 9 validation and 15 test samples."""
    return write_small_set(tmp_path_factory.mktemp("sets") / "small")


@pytest.fixture(scope="session")
def few_set(tmp_path_factory: TempPathFactory) -> Path:
    """9 training, 3 validation and 6 test samples."""
    return write_small_set(tmp_path_factory.mktemp("sets") / "few", counts=(3, 1, 2))


@pytest.fixture(scope="session")
def missing_set(tmp_path_factory: TempPathFactory) -> Path:
    """The small set with missing modalities: a quarter lacks its audio, a quarter its image."""
    return write_small_set(tmp_path_factory.mktemp("sets") / "missing", missing=True)


@pytest.fixture(scope="session")
def data(small_set: Path) -> PreparedSet:
    return PreparedSet(small_set, CONFIG)


@pytest.fixture(scope="session")
def run_folder(small_set: Path, tmp_path_factory: TempPathFactory) -> Path:
    """A run of every method, an epoch a stage, not evaluated."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train_only("--data", small_set, "--out", folder, "--method", "all", "--epochs", 1, *FLAGS)
    return folder


@pytest.fixture
def copied(run_folder: Path, tmp_path: Path) -> Path:
    """That run, to write into."""
    return shutil.copytree(run_folder, tmp_path / "run")


@pytest.fixture(scope="session")
def seeds_folder(small_set: Path, tmp_path_factory: TempPathFactory) -> Path:
    """Two seeds' runs of prompts and LoRA, an epoch a stage, evaluated."""
    folder = tmp_path_factory.mktemp("runs") / "seeds"
    train("--data", small_set, "--out", folder, "--method", "prompt", "lora", "--epochs", 1,
          "--seeds", 2, *FLAGS)
    return folder
