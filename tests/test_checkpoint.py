"""A run folder's files: what is saved, what is read, and what is refused."""
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import CONFIG, files_of, random_models, refusal
from pytest import MonkeyPatch

from ptm_mini import training
from ptm_mini.checkpoint import (Run, fingerprint, load_tensors, read_run, run_folders, trainable)
from ptm_mini.config import PRESETS, Situation
from ptm_mini.data.dataset import PreparedSet
from ptm_mini.method.backbone import Backbone
from ptm_mini.training import METHODS, load_models, trained_methods


@pytest.fixture
def copied(run_folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(run_folder, tmp_path / "run")


def test_config_json_gives_the_same_run(run_folder: Path, data: PreparedSet) -> None:
    run = read_run(run_folder)
    assert run.classes == data.classes and run.data == data.folder
    assert run.fingerprint == data.fingerprint() and run.normalisation == data.normalisation
    assert run.methods == list(METHODS) and run.init is None
    before = (run_folder / "config.json").read_bytes()
    assert json.loads(before)["config"]["model.width"] == 16
    run.write()
    assert (run_folder / "config.json").read_bytes() == before


def test_what_is_saved_is_loaded(copied: Path) -> None:
    run, models = read_run(copied), load_models(read_run(copied), torch.device("cpu"))
    assert trained_methods(run) == list(METHODS)
    assert models.methods.keys() == METHODS.keys() and models.router is not None
    backbone = Backbone(CONFIG, len(run.classes))
    run.load("backbone", backbone)
    before = files_of(copied)
    run.save("backbone", backbone)
    assert files_of(copied) == before
    for name, model in models.methods.items():
        assert not any(p.requires_grad for p in model.parameters()), name
        assert not model.training


def test_only_what_was_trained_is_saved(run_folder: Path) -> None:
    """With the fingerprint of its backbone, the settings, the classes and the normalisation."""
    backbone = Backbone(CONFIG, 3)
    read_run(run_folder).load("backbone", backbone)
    names = dict(backbone.named_parameters())
    for path in run_folder.glob("*.pt"):
        content = torch.load(path, weights_only=True)
        assert content.keys() == {"stage", "backbone", "config", "classes", "normalisation",
                                  "weights"}
        if path.name == "backbone.pt":
            assert content["weights"].keys() == names.keys()
            continue
        assert content["backbone"] == fingerprint(backbone)
        if not path.name.startswith("full"):
            assert all(name.startswith("head.") for name in content["weights"] if name in names)
    assert not list(run_folder.glob("*.state"))


def test_a_prompt_set_is_small() -> None:
    """At the default size well under a megabyte, the head included."""
    with torch.device("meta"):
        backbone = Backbone(PRESETS["tiny"], 10)
    model = METHODS["prompt"].build(backbone, PRESETS["tiny"], torch.Generator())
    count = sum(p.numel() for name, p in trainable(model).items())
    assert count == 8 * 128 * 2 * (4 + 1) + 2 * 128 + 10 * 128 + 10
    assert 4 * count < 250_000


def test_a_fingerprint_counts_every_weight() -> None:
    models = [random_models(CONFIG, []).backbone for _ in range(2)]
    assert fingerprint(models[0]) == fingerprint(models[1])
    for name, parameter in models[1].named_parameters():
        before = parameter.detach().clone()
        with torch.no_grad():
            parameter.view(-1)[-1] += 1e-3
        assert fingerprint(models[0]) != fingerprint(models[1]), name
        with torch.no_grad():
            parameter.copy_(before)
    assert fingerprint(models[0]) == fingerprint(models[1])


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


def alter(path: Path, change: Callable[[dict], object]) -> None:
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


@pytest.mark.parametrize("change, message", [
    (lambda c: c.update(stage="router"), "is not the file of stage 'lora noisy_audio'"),
    (lambda c: c.pop("weights"), "is not the file of stage"),
    (lambda c: c.update(backbone="0" * 64), "was trained on another backbone than that in"),
    (lambda c: c["weights"].popitem(), "its parameters do not fit"),
    (lambda c: c["weights"].update(extra=torch.zeros(1)), "its parameters do not fit"),
    (lambda c: c["weights"].update({"head.1.bias": torch.zeros(4)}), "do not fit")])
def test_a_file_that_does_not_fit_the_run_is_refused(copied: Path, message: str,
                                                     change: Callable[[dict], object]) -> None:
    path = copied / "lora-noisy_audio.pt"
    alter(path, change)
    said = refusal(load_models, read_run(copied), torch.device("cpu"))
    assert said.startswith(f"{path}: ") and message in said


def test_another_backbone_is_noticed(copied: Path) -> None:
    alter(copied / "backbone.pt", lambda content: content["weights"]["norm.bias"].add_(1e-3))
    message = refusal(load_models, read_run(copied), torch.device("cpu"))
    assert f"was trained on another backbone than that in {copied / 'backbone.pt'}" in message


def test_the_runs_of_several_seeds_are_found_in_their_order(tmp_path: Path) -> None:
    for seed in (10, 9, 0):
        (tmp_path / f"seed-{seed}").mkdir()
        (tmp_path / f"seed-{seed}" / "config.json").touch()
    (tmp_path / "seed-3").mkdir()
    assert run_folders(tmp_path) == [tmp_path / f"seed-{seed}" for seed in (0, 9, 10)]
    assert run_folders(tmp_path / "seed-9") == [tmp_path / "seed-9"]
    assert run_folders(tmp_path / "seed-3") == run_folders(tmp_path / "nowhere") == []
    assert f"expected the folder of one run that train.py made: {tmp_path / 'seed-0'}" in refusal(
        read_run, tmp_path)


def test_the_log_has_a_line_an_epoch(run_folder: Path) -> None:
    lines = read_run(run_folder).read_log()
    epochs = {}
    for line in lines:
        epochs.setdefault(line["stage"], []).append(line["epoch"])
    assert epochs.pop("prompt together") == epochs.pop("full_mixed") == [1]
    assert set(epochs) == {"backbone", *(f"{method} {situation.label}" for situation in Situation
                                         for method in METHODS if method != "full_mixed")}
    assert all(numbers == [1] for numbers in epochs.values())
    assert lines[0].keys() == {"stage", "epoch", "loss", "accuracy", "validation_loss", "seconds",
                               "peak_bytes"}


def test_a_resumed_epoch_replaces_its_line(tmp_path: Path, data: PreparedSet) -> None:
    run = Run(tmp_path, CONFIG, data.classes, data.normalisation, data.folder, "")
    for stage, epoch, loss in (("a", 1, 9), ("a", 2, 8), ("b", 1, 7), ("a", 2, 6)):
        run.log_epoch({"stage": stage, "epoch": epoch, "loss": loss})
    assert [(line["stage"], line["epoch"], line["loss"]) for line in run.read_log()] == [
        ("a", 1, 9), ("b", 1, 7), ("a", 2, 6)]


def test_all_models_are_put_together_on_one_device(copied: Path, monkeypatch: MonkeyPatch) -> None:
    """Here on "meta", which any machine has."""
    run = read_run(copied)
    backbone = Backbone(CONFIG, len(run.classes))
    run.load("backbone", backbone)
    trained_on = fingerprint(backbone)
    monkeypatch.setattr(training, "fingerprint", lambda _: trained_on)    # meta has no weights
    models = load_models(run, torch.device("meta"))
    for model in (models.backbone, models.router, *models.methods.values()):
        tensors = [*model.parameters(), *model.buffers()]
        assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_all_but_the_saved_weights_are_the_backbones_own(run_folder: Path) -> None:
    """The same tensors, not copies: seven methods take little more memory than one."""
    models = load_models(read_run(run_folder), torch.device("cpu"))
    own = {id(parameter) for parameter in models.backbone.parameters()}
    for method in ("head", "lora", "adapter", "scale_shift"):
        weights = torch.load(run_folder / f"{method}-noisy_image.pt")["weights"]
        model = models.methods[method].models[Situation.NOISY_IMAGE]
        added = {name for name, p in model.named_parameters() if id(p) not in own}
        assert added == weights.keys(), method
    weights = torch.load(run_folder / "prompt-together.pt")["weights"]
    model = models.methods["prompt"]
    assert {name for name, p in model.named_parameters() if id(p) not in own} == weights.keys()
