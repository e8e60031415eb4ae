"""A run folder's files: what is saved, what is read, and what is refused."""
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import CONFIG, random_models, refusal
from pytest import MonkeyPatch

from ptm_mini.checkpoint import fingerprint, load_tensors, read_run, run_folders
from ptm_mini.method.backbone import Backbone
from ptm_mini.training import METHODS, load_models, trained_methods


def test_all_that_is_loaded_is_frozen_and_on_the_device(run_folder: Path) -> None:
    run = read_run(run_folder)
    models = load_models(run, torch.device("meta"))
    assert models.methods.keys() == METHODS.keys() == set(trained_methods(run))
    for model in (models.backbone, models.router, *models.methods.values()):
        assert not model.training and not any(p.requires_grad for p in model.parameters())
        assert {tensor.device.type for tensor in model.state_dict().values()} == {"meta"}


def test_only_what_was_trained_is_saved(run_folder: Path) -> None:
    """Of the methods that leave the backbone as it is, none of its weights but the head's."""
    names = Backbone(CONFIG, 3).state_dict().keys()
    for path in run_folder.glob("*.pt"):
        weights = torch.load(path, weights_only=True)["weights"]
        if path.name == "backbone.pt":
            assert weights.keys() == names
        elif not path.name.startswith("full"):
            assert all(name.startswith("head.") for name in weights if name in names)


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


@pytest.mark.parametrize("name, change, message", [
    ("full_mixed", lambda c: c.update(stage="router"), "is not the file of stage 'full_mixed'"),
    ("full_mixed", lambda c: c["weights"].popitem(), "its parameters do not fit"),
    ("full_mixed", lambda c: c["weights"].update({"norm.bias": torch.zeros(4)}), "do not fit"),
    ("backbone", lambda c: c["weights"]["norm.bias"].add_(1e-3), "on another backbone than that")])
def test_a_file_that_does_not_fit_the_run_is_refused(copied: Path, name: str, message: str,
                                                     change: Callable[[dict], object]) -> None:
    path = copied / f"{name}.pt"
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)
    assert message in refusal(load_models, read_run(copied), torch.device("cpu"), ["full_mixed"])


def test_the_runs_of_several_seeds_are_found_in_their_order(tmp_path: Path) -> None:
    for name in ("seed-10", "seed-9", "seed-0", "seed-old", "seed-3"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    (tmp_path / "seed-3" / "config.json").unlink()
    assert run_folders(tmp_path) == [tmp_path / f"seed-{seed}" for seed in (0, 9, 10)]
    assert run_folders(tmp_path / "seed-9") == [tmp_path / "seed-9"]
    assert run_folders(tmp_path / "seed-3") == run_folders(tmp_path / "nowhere") == []
    assert f"expected the folder of one run that train.py made: {tmp_path / 'seed-0'}" in refusal(
        read_run, tmp_path)
