"""A run folder's files: what is saved, what is read, and what is refused."""
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import CONFIG, random_models, refusal
from pytest import MonkeyPatch

from ptm_mini.checkpoint import fingerprint, load_tensors, read_run, run_folders
from ptm_mini.data.dataset import PreparedSet
from ptm_mini.method.backbone import Backbone
from ptm_mini.training import METHODS, load_models, trained_methods


def test_config_json_gives_the_same_run(run_folder: Path, data: PreparedSet) -> None:
    run = read_run(run_folder)
    assert run.classes == data.classes and run.data == data.folder
    assert run.fingerprint == data.fingerprint() and run.normalisation == data.normalisation
    assert run.methods == list(METHODS) and run.init is None
    before = (run_folder / "config.json").read_bytes()
    run.write()
    assert (run_folder / "config.json").read_bytes() == before


def test_all_that_is_loaded_is_frozen_and_on_the_device(run_folder: Path) -> None:
    run = read_run(run_folder)
    models = load_models(run, torch.device("meta"))
    assert models.methods.keys() == METHODS.keys() == set(trained_methods(run))
    for model in (models.backbone, models.router, *models.methods.values()):
        assert not model.training and not any(p.requires_grad for p in model.parameters())
        assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}


def test_only_what_was_trained_is_saved(run_folder: Path) -> None:
    """With the fingerprint of its backbone, the settings, the classes and the normalisation."""
    backbone = Backbone(CONFIG, 3)
    read_run(run_folder).load("backbone", backbone)
    names = backbone.state_dict().keys()
    for path in run_folder.glob("*.pt"):
        content = torch.load(path, weights_only=True)
        assert content.keys() == {"stage", "backbone", "config", "classes", "normalisation",
                                  "weights"}
        if path.name == "backbone.pt":
            assert content["weights"].keys() == names
            continue
        assert content["backbone"] == fingerprint(backbone)
        if not path.name.startswith("full"):
            assert all(name.startswith("head.") for name in content["weights"] if name in names)


@torch.no_grad()
def test_a_fingerprint_counts_every_weight() -> None:
    one, other = (random_models(CONFIG, []).backbone for _ in range(2))
    assert fingerprint(one) == fingerprint(other)
    for name, parameter in other.named_parameters():
        number = parameter.view(-1)[-1]
        before = number.clone()
        number += 1e-3
        assert fingerprint(one) != fingerprint(other), name
        number.copy_(before)


class RunsCode:
    """Pickled, it makes a folder when it is read."""

    def __reduce__(self) -> tuple:
        return os.mkdir, ("made-by-the-file",)


def test_no_code_in_a_file_is_run(tmp_path: Path, monkeypatch: MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(RunsCode()))
    torch.save({"weights": RunsCode()}, tmp_path / "archive.pt")
    for path in (tmp_path / "plain.pt", tmp_path / "archive.pt"):
        assert f"{path}: is no file of tensors" in refusal(load_tensors, path)
    assert not (tmp_path / "made-by-the-file").exists()


OTHER_BACKBONE = "was trained on another backbone than that in"


@pytest.mark.parametrize("name, change, message", [
    ("full_mixed", lambda c: c.update(stage="router"), "is not the file of stage 'full_mixed'"),
    ("full_mixed", lambda c: c.pop("weights"), "is not the file of stage"),
    ("full_mixed", lambda c: c["weights"].popitem(), "its parameters do not fit"),
    ("full_mixed", lambda c: c["weights"].update({"norm.bias": torch.zeros(4)}), "do not fit"),
    ("full_mixed", lambda c: c.update(backbone="0" * 64), OTHER_BACKBONE),
    ("backbone", lambda c: c["weights"]["norm.bias"].add_(1e-3), OTHER_BACKBONE)])
def test_a_file_that_does_not_fit_the_run_is_refused(copied: Path, name: str, message: str,
                                                     change: Callable[[dict], object]) -> None:
    path = copied / f"{name}.pt"
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    assert message in refusal(load_models, read_run(copied), torch.device("cpu"), ["full_mixed"])


def test_the_runs_of_several_seeds_are_found_in_their_order(tmp_path: Path) -> None:
    for seed in (10, 9, 0):
        (tmp_path / f"seed-{seed}").mkdir()
        (tmp_path / f"seed-{seed}" / "config.json").touch()
    (tmp_path / "seed-3").mkdir()
    shutil.copytree(tmp_path / "seed-0", tmp_path / "seed-old")
    assert run_folders(tmp_path) == [tmp_path / f"seed-{seed}" for seed in (0, 9, 10)]
    assert run_folders(tmp_path / "seed-9") == [tmp_path / "seed-9"]
    assert run_folders(tmp_path / "seed-3") == run_folders(tmp_path / "nowhere") == []
    assert f"expected the folder of one run that train.py made: {tmp_path / 'seed-0'}" in refusal(
        read_run, tmp_path)
