"""Run folders: whole, strict, and refusing whatever does not belong."""
import json
import logging
from dataclasses import replace

import pytest
import torch
from conftest import move, refusal

from ptm_mini.config import PRESETS, Situation
from ptm_mini.data.prepared import Normalisation
from ptm_mini.files import write_file
from ptm_mini.method.backbone import Backbone, freeze, initialise
from ptm_mini.method.router import Router
from ptm_mini.runs import folder as run_folder
from ptm_mini.runs.models import load_models
from ptm_mini.runs.sealed import sealed
from ptm_mini.runs.weights import fingerprint, load_learned
from ptm_mini.settings import with_settings
from ptm_mini.training.cost import Cost
from ptm_mini.training.methods import METHODS, ROUTER, assembled

CPU = torch.device("cpu")
COSTS = [Cost("stage", 10, 1, 1.0, 1000, 0.5, "CPU")]


def make_models(method, backbone, config):
    """The models of a method with every learned weight away from its start."""
    random = torch.Generator().manual_seed(7)
    models = [METHODS[method].build(backbone, config, random) for _ in METHODS[method].cases]
    if ROUTER in METHODS[method].stages:
        models.append(Router(backbone))
    return [move(model, 0.1, random) for model in models]


def make_run(folder, config, seed=0, methods=("prompt",)):
    """A run of random weights. returns Backbone, {method: models}, Run"""
    run = run_folder.Run(config, ["dog", "rain", "wind"], Normalisation(-5.0, 4.0), "/somewhere")
    backbone = Backbone(config, 3)
    initialise(backbone, torch.Generator().manual_seed(seed))
    run = run_folder.save_backbone(folder, run, backbone, COSTS)
    models = {method: make_models(method, freeze(backbone), config) for method in methods}
    for method, own in models.items():
        run = run_folder.save_method(folder, run, method, fingerprint(backbone), own, COSTS)
    return backbone, models, run


@pytest.mark.parametrize("tune_head", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_a_loaded_run_gives_equal_scores(tmp_path, small, inputs, method, tune_head):
    config = with_settings(small, {f"{group}.tune_head": tune_head for group in ("prompts", "lora", "adapter")})
    backbone, models, run = make_run(tmp_path, config, methods=[method])
    assert run_folder.load_run(tmp_path) == run
    _, found, router = load_models(tmp_path, run, CPU)
    audio, image, situations = inputs
    saved = models[method]
    if ROUTER in METHODS[method].stages:
        *saved, saved_router = saved
        assert torch.equal(saved_router(audio, image), router(audio, image))
    model = assembled(saved)
    if "concat" in METHODS[method].strategies or not METHODS[method].strategies:
        assert torch.equal(model(audio, image), found[method](audio, image))
    if METHODS[method].strategies:
        assert torch.allclose(model.by_situation(audio, image, situations), found[method].by_situation(audio, image, situations),
                              atol=1e-5)                                             # LoRA is merged on loading


def test_the_same_run_gives_the_same_bytes(tmp_path, small):
    for name in "ab":
        make_run(tmp_path / name, small)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["backbone.pt", "config.json", *sorted(f"prompt-{s.label}.pt" for s in Situation), "router.pt"]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_only_what_was_trained_is_saved(tmp_path):
    """Prompts, LoRA and Adapter at tiny are well under a megabyte; their files hold no weight of the backbone."""
    backbone, _, _ = make_run(tmp_path, PRESETS["tiny"], methods=["prompt", "head", "lora", "adapter"])
    names = dict(backbone.named_parameters())
    for path in tmp_path.glob("*-noisy_both.pt"):
        assert path.stat().st_size < 250_000
        content = torch.load(path, weights_only=True)
        assert {"config", "classes", "normalisation", "file", "backbone", "weights"} <= set(content)
        assert content["file"] == path.name
        assert all(name.startswith("head") for name in content["weights"] if name in names)


def test_missing_and_altered_files_are_named(tmp_path, small):
    make_run(tmp_path, small)
    for name in [path.name for path in tmp_path.glob("*.pt")]:
        path = tmp_path / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert f"{name}: was altered" in refusal(run_folder.load_run, tmp_path)
        path.unlink()
        assert f"{name}: no such file" in refusal(run_folder.load_run, tmp_path)
        path.write_bytes(content)
    run_folder.load_run(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", None])
def test_an_altered_config_is_named(tmp_path, small, text):
    make_run(tmp_path, small)
    path = tmp_path / "config.json"
    facts = json.loads(path.read_text())
    facts["config"]["train"]["seed"] = 5
    path.write_text(json.dumps(facts) if text is None else text)
    assert "config.json: was altered" in refusal(run_folder.load_run, tmp_path)
    path.unlink()
    assert "config.json: no such file" in refusal(run_folder.load_run, tmp_path)


def test_a_run_that_broke_off_while_prompts_were_saved_is_the_backbone_still(tmp_path, small):
    backbone, models, run = make_run(tmp_path, small, methods=[])
    write_file(tmp_path / "prompt-complete.pt", b"half a run")
    loaded = run_folder.load_run(tmp_path)
    assert loaded.trained == ("backbone",) and load_models(tmp_path, loaded, CPU)[1:] == ({}, None)


def test_a_prompt_set_refuses_another_backbone(tmp_path, small):
    make_run(tmp_path / "a", small)
    other, _, _ = make_run(tmp_path / "b", small, seed=1)
    path = tmp_path / "a" / "prompt-complete.pt"
    message = refusal(load_learned, path, other, fingerprint(other))
    assert "prompt-complete.pt: trained on backbone" in message and "expected the same" in message


def test_a_file_that_is_no_prompt_set_is_named(tmp_path, small):
    backbone, _, _ = make_run(tmp_path, small)
    (tmp_path / "text.pt").write_text("text")
    assert "text.pt: is not a whole file of tensors" in refusal(load_learned, tmp_path / "text.pt", backbone, "")
    assert "backbone.pt: holds no prompts" in refusal(load_learned, tmp_path / "backbone.pt", backbone, "")
    assert "gone.pt: no such file" in refusal(load_learned, tmp_path / "gone.pt", backbone, "")


def test_files_that_changed_places_are_named(tmp_path, small):
    """The paper's code saves two situations under each other's names."""
    _, _, run = make_run(tmp_path, small)
    one, other = tmp_path / "prompt-noisy_audio.pt", tmp_path / "prompt-noisy_image.pt"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    assert "prompt-noisy_audio.pt: was saved as 'prompt-noisy_image.pt'" in refusal(load_models, tmp_path, run, CPU)


def change(folder, edit):
    """Edit what config.json says and seal it again."""
    facts = json.loads((folder / "config.json").read_text())
    del facts["sha256"]
    edit(facts)
    (folder / "config.json").write_bytes(sealed(facts))


def as_of_version_03(folder):
    """What that version wrote: the costs in a file of their own, and no fingerprint of the set."""
    def edit(facts):
        (folder / "costs.json").write_text(json.dumps(facts["costs"]))
        facts["trained"] = list(facts.pop("costs"))
        del facts["format"], facts["set"]

    change(folder, edit)


def test_a_run_of_another_version_is_named(tmp_path, small):
    make_run(tmp_path, small, methods=[])
    change(tmp_path, lambda facts: facts["config"].pop("lora"))
    message = refusal(run_folder.load_run, tmp_path)
    assert "config.json: saved by another version" in message and "lora is missing" in message
    make_run(tmp_path / "more", small)
    change(tmp_path / "more", lambda facts: facts["costs"].update(prompt_scale_shift=facts["costs"]["prompt"]))
    message = refusal(run_folder.load_run, tmp_path / "more")                         # versions 0.4 and 0.5 had it
    assert "config.json: has the method 'prompt_scale_shift', of another ptm_mini; expected some of prompt, head" in message
    for version in (3, 0, "2", None, [2]):
        change(tmp_path, lambda facts: facts.update(format=version))
        assert "of another ptm_mini; expected 1 to 2" in refusal(run_folder.load_run, tmp_path)


@pytest.mark.parametrize("edit", [
    lambda facts: facts.pop("files"), lambda facts: facts.pop("classes"), lambda facts: facts.update(classes=3),
    lambda facts: facts.update(classes=[1, 2]), lambda facts: facts.update(normalisation={"mean": 0.0}),
    lambda facts: facts.update(normalisation={"mean": "0", "std": 1.0}), lambda facts: facts.update(data=None),
    lambda facts: facts.update(costs=[]), lambda facts: facts["costs"].update(magic=[]),
    lambda facts: facts["costs"].update(prompt=[{"stage": "prompt"}]), lambda facts: facts.update(init=5),
    lambda facts: facts.update(files=[1]), lambda facts: facts.update(config=None), lambda facts: facts.update(backbone=7),
    lambda facts: facts["files"].update({"a\0b": ""}), lambda facts: facts["files"].update({"n" * 300: ""})])
def test_a_config_that_is_sealed_and_wrong_is_refused(tmp_path, small, edit):
    make_run(tmp_path, small)
    change(tmp_path, edit)
    assert str(tmp_path) in refusal(run_folder.load_run, tmp_path)


def test_a_run_of_version_01_is_read(tmp_path, small):
    """It named a situation's prompts set.audio_input and so on."""
    backbone, models, run = make_run(tmp_path, small)
    for path in tmp_path.glob("prompt-*.pt"):
        content = torch.load(path, weights_only=True)
        assert all(name.startswith("sets.0.") for name in content["weights"])
        content["weights"] = {name.replace("sets.0.", "set."): tensor for name, tensor in content["weights"].items()}
        torch.save(content, path)
        model = load_learned(path, backbone, fingerprint(backbone))
        saved = models["prompt"][run_folder.files_of("prompt").index(path.name)]
        assert torch.equal(model.sets[0].audio_input, saved.sets[0].audio_input)


def test_a_run_of_version_02_is_read(tmp_path, small):
    """It knew of no checkpoints that a backbone can start from."""
    _, _, run = make_run(tmp_path, small)

    def edit(facts):
        assert facts.pop("init") is None
        for setting in ("loaded_rate", "audio_mean", "audio_std"):
            del facts["config"]["train"][setting]

    change(tmp_path, edit)
    as_of_version_03(tmp_path)
    assert run_folder.load_run(tmp_path) == replace(run, config=with_settings(small, {"train.loaded_rate": 1.0}), set=None)


def test_a_run_of_version_03_is_read_and_becomes_one_of_this(tmp_path, small, caplog):
    backbone, models, run = make_run(tmp_path, small, methods=["head", "lora"])
    as_of_version_03(tmp_path)
    with caplog.at_level(logging.INFO):
        found = run_folder.load_run(tmp_path)
    assert found == replace(run, set=None) and f"{tmp_path}: saved by version 0.3 or earlier" in caplog.text
    run_folder.write_index(tmp_path, found)
    caplog.clear()
    (tmp_path / "costs.json").unlink()
    assert run_folder.load_run(tmp_path) == found and caplog.text == ""


@pytest.mark.parametrize("content", ["{}", "[]", "", "[" * 100_000, None])
def test_costs_that_are_gone_are_named(tmp_path, small, content):
    make_run(tmp_path, small)
    as_of_version_03(tmp_path)
    (tmp_path / "costs.json").unlink()
    if content is not None:
        (tmp_path / "costs.json").write_text(content)
    assert "costs.json: not there or not whole; expected the costs of backbone, prompt" in refusal(run_folder.load_run, tmp_path)


def test_the_fingerprint_tells_any_weight_apart(small):
    backbone = Backbone(small, 3)
    before = fingerprint(backbone)
    with torch.no_grad():
        backbone.head[1].bias[0] += 1e-6
    assert fingerprint(backbone) != before
