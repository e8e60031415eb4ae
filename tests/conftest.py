"""A small set and runs on it that several tests share; nobody writes into them."""
import shutil
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest
import torch
from helpers import CONFIG, FLAGS, read_manifest, train, write_manifest, write_small_set
from pytest import TempPathFactory

from ptm_mini import report
from ptm_mini.data.dataset import PreparedSet

torch.set_num_threads(1)          # for models this small more of them cost time


@pytest.fixture(scope="session", autouse=True)
def short_gallery() -> Iterator[None]:
    """One sample in gallery.png: each is answered by itself, longer than the whole evaluation."""
    with mock.patch.object(report, "EXAMPLES", 1):
        yield


@pytest.fixture(scope="session")
def small_set(tmp_path_factory: TempPathFactory) -> Path:
    """A set of 24 training, 9 validation and 15 test samples."""
    return write_small_set(tmp_path_factory.mktemp("sets") / "small")


@pytest.fixture(scope="session")
def few_set(small_set: Path, tmp_path_factory: TempPathFactory) -> Path:
    """A third of it: 8 training, 3 validation and 5 test samples."""
    folder = tmp_path_factory.mktemp("sets") / "few"
    folder.mkdir()
    shutil.copy(small_set / "classes.json", folder)
    rows = read_manifest(small_set)[::3]
    write_manifest(folder, rows)
    for row in rows:
        shutil.copy(small_set / row["audio"], folder)
        shutil.copy(small_set / row["image"], folder)
    return folder


@pytest.fixture(scope="session")
def missing_set(tmp_path_factory: TempPathFactory) -> Path:
    """The same with missing modalities: a quarter lacks its audio, a quarter its image."""
    return write_small_set(tmp_path_factory.mktemp("sets") / "missing", missing=True)


@pytest.fixture(scope="session")
def data(small_set: Path) -> PreparedSet:
    return PreparedSet(small_set, CONFIG)


@pytest.fixture(scope="session")
def run_folder(small_set: Path, tmp_path_factory: TempPathFactory) -> Path:
    """A run of every method, an epoch a stage."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train("--data", small_set, "--out", folder, "--method", "all", "--epochs", 1, *FLAGS)
    return folder


@pytest.fixture(scope="session")
def seeds_folder(small_set: Path, tmp_path_factory: TempPathFactory) -> Path:
    """Two seeds' runs of prompts and LoRA, an epoch a stage."""
    folder = tmp_path_factory.mktemp("runs") / "seeds"
    train("--data", small_set, "--out", folder, "--method", "prompt", "lora", "--epochs", 1,
          "--seeds", 2, *FLAGS)
    return folder
