"""A run's weight files that somebody made: well sealed, and holding what no such file does."""
import io
import zipfile

import pytest
import torch
from conftest import COSTS, make_backbone, move, refusal

from ptm_mini.config import Situation
from ptm_mini.data.prepared import Normalisation
from ptm_mini.method.prompts import prompted
from ptm_mini.method.router import Router
from ptm_mini.runs.folder import Run, save_backbone, save_method
from ptm_mini.runs.weights import as_bytes, fingerprint, load_learned, read_tensors

PROMPTS = "prompt-complete.pt"


@pytest.fixture(scope="module")
def saved(small, tmp_path_factory):
    """A run's folder, its backbone and the backbone's fingerprint"""
    folder, random = tmp_path_factory.mktemp("saved"), torch.Generator().manual_seed(0)
    backbone = make_backbone(small, random)
    run = save_backbone(folder, Run(small, list("abcdefghij"), Normalisation(0.0, 1.0), "/set"), backbone, COSTS)
    models = [move(prompted(backbone, small, random), 1.0, random) for _ in Situation] + [Router(backbone)]
    save_method(folder, run, "prompt", fingerprint(backbone), models, COSTS)
    return folder, backbone, fingerprint(backbone)


def first(content):
    return next(iter(content))


def repeated(content):
    """One number, repeated a billion times without taking any room"""
    content[first(content)] = torch.zeros(1).expand(10**9)



TENSORS = {
    "NaN": lambda content: content[first(content)].view(-1)[0].fill_(float("nan")),
    "infinite": lambda content: content[first(content)].view(-1)[0].fill_(float("inf")),
    "complex": lambda content: content.update({first(content): content[first(content)] * 1j}),
    "sparse": lambda content: content.update({first(content): content[first(content)].reshape(1, -1).to_sparse()}),
    "double": lambda content: content.update({first(content): content[first(content)].double()}),
    "half": lambda content: content.update({first(content): content[first(content)].half()}),
    "8 bits": lambda content: content.update({first(content): content[first(content)].to(torch.float8_e4m3fn)}),
    "whole numbers": lambda content: content.update({first(content): content[first(content)].int()}),
    "meta": lambda content: content.update({first(content): content[first(content)].to("meta")}),
    "list": lambda content: content.update({first(content): [1.0, 2.0]}),
    "None": lambda content: content.update({first(content): None}),
    "number by name": lambda content: content.update({5: torch.zeros(3)}),
    "long name": lambda content: content.update({"x" * 10**5: torch.zeros(3)}),
    "repeated": repeated}


@pytest.mark.parametrize("change", TENSORS.values(), ids=TENSORS)
def test_tensors_that_are_not_plain_finite_float32_are_refused(saved, tmp_path, change):
    folder, backbone, trained_on = saved
    content = torch.load(folder / "backbone.pt", weights_only=True)
    change(content)
    (tmp_path / "backbone.pt").write_bytes(as_bytes(content))
    assert "backbone.pt: " in refusal(read_tensors, tmp_path / "backbone.pt")
    for name in (PROMPTS, "router.pt"):
        content = torch.load(folder / name, weights_only=True)
        change(content["weights"])
        (tmp_path / name).write_bytes(as_bytes(content))
        assert f"{name}: " in refusal(load_learned, tmp_path / name, backbone, trained_on)


def test_what_is_saved_is_read(saved):
    folder, backbone, trained_on = saved
    found = read_tensors(folder / "backbone.pt")
    assert all(torch.equal(tensor, found[name]) for name, tensor in backbone.state_dict().items())
    assert isinstance(load_learned(folder / "router.pt", backbone, trained_on), Router)


@pytest.mark.parametrize("content", [
    [], [torch.zeros(3)], torch.zeros(3), None, 5, "text", {}, {"method": 5}, {"method": "prompt"}])
def test_other_contents_are_refused(saved, tmp_path, content):
    _, backbone, trained_on = saved
    for name in ("backbone.pt", PROMPTS, "router.pt"):
        (tmp_path / name).write_bytes(as_bytes(content))
    assert "backbone.pt: " in refusal(read_tensors, tmp_path / "backbone.pt")
    for name in (PROMPTS, "router.pt"):
        assert f"{name}: holds no prompts or other method" in refusal(load_learned, tmp_path / name, backbone, trained_on)


@pytest.mark.parametrize("change, says", [
    (lambda c: c.pop("weights"), "holds no tensors by name but a NoneType"),
    (lambda c: c.pop("config"), "setting (all)=None: expected"), (lambda c: c.pop("file"), "holds no prompts"),
    (lambda c: c.update(method="prompts"), "'prompts'; did you mean prompt?"),
    (lambda c: c.update(method=["prompt"]), "holds no prompts"),
    (lambda c: c.update(backbone=torch.zeros(3)), "holds no prompts"),
    (lambda c: c.update(backbone="x\ny"), r"trained on backbone 'x\ny'"),
    (lambda c: c.update(file="../x.pt"), "saved as '../x.pt'"), (lambda c: c.update(weights={}), "holds no tensors by name"),
    (lambda c: c["config"].update({5: 5}), "setting 5: no such setting"),
    (lambda c: c["config"]["model"].update(width=10**50), "setting model.width: expected a number below"),
    (lambda c: c["config"]["prompts"].update(length=10**9), "setting prompts.length=1000000000: expected 0 to 1024"),
    (lambda c: c["config"]["prompts"].update(length=3), "do not fit its settings"),
    (lambda c: c["config"]["model"].update(width=32), "are for another backbone's sizes"),
    (lambda c: c["config"]["model"].update(depth=3), "are for another backbone's sizes"),
    (lambda c: c["weights"].popitem(), "do not fit its settings"),
    (lambda c: c.update(method="lora"), "do not fit its settings")])
def test_prompts_that_lack_something_or_say_what_can_not_be_are_refused(saved, tmp_path, change, says):
    folder, backbone, trained_on = saved
    content = torch.load(folder / PROMPTS, weights_only=True)
    change(content)
    (tmp_path / PROMPTS).write_bytes(as_bytes(content))
    assert says in refusal(load_learned, tmp_path / PROMPTS, backbone, trained_on)


def test_a_router_may_never_pick_a_situation(saved, tmp_path):
    """What was not among the training samples has the bias -inf."""
    folder, backbone, trained_on = saved
    content = torch.load(folder / "router.pt", weights_only=True)
    content["weights"]["bias"][3] = -torch.inf
    (tmp_path / "router.pt").write_bytes(as_bytes(content))
    assert load_learned(tmp_path / "router.pt", backbone, trained_on).bias[3] == -torch.inf


def test_a_file_that_unpacks_to_a_thousand_times_its_size_is_refused(tmp_path):
    stored, packed = zipfile.ZipFile(io.BytesIO(as_bytes({"x": torch.zeros(10**6)}))), io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for part in stored.infolist():
            archive.writestr(part.filename, stored.read(part))
    (tmp_path / "x.pt").write_bytes(packed.getvalue())
    assert len(packed.getvalue()) < 10**4 and torch.load(tmp_path / "x.pt", weights_only=True)["x"].shape == (10**6,)
    assert "x.pt: is not a whole file of tensors" in refusal(read_tensors, tmp_path / "x.pt")
