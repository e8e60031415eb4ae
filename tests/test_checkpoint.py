"""Run folders: whole, strict, and refusing whatever does not belong."""
import json

import pytest
import torch

from ptm_mini import checkpoint
from ptm_mini.baselines import MODELS
from ptm_mini.config import METHODS, PRESETS, InputError, Situation
from ptm_mini.cost import Cost
from ptm_mini.data import Normalisation
from ptm_mini.model import Backbone, CaseModels, PromptedModel, frozen, initialise
from ptm_mini.overrides import replace
from ptm_mini.router import Router

COSTS = [Cost("stage", 10, 1, 1.0, 1000, 0.5, "CPU")]


def make_models(method, backbone, config):
    """The models of a method with every learned weight away from its start."""
    random = torch.Generator().manual_seed(7)
    cases = len(checkpoint.files_of(method)) - (method == "prompt")
    models = [MODELS[method](backbone, config, random) for _ in range(cases)] + [Router(backbone)] * (method == "prompt")
    with torch.no_grad():
        for p in (p for model in models for p in model.parameters() if p.requires_grad):
            p += 0.1 * torch.randn(p.shape, generator=random)
    return models


def make_run(folder, config, seed=0, methods=("prompt",)):
    """A run of random weights. returns Backbone, {method: models}, Run"""
    run = checkpoint.Run(config, ["dog", "rain", "wind"], Normalisation(-5.0, 4.0), "/somewhere")
    backbone = Backbone(config, 3)
    initialise(backbone, torch.Generator().manual_seed(seed))
    run = checkpoint.save_backbone(folder, run, backbone, COSTS)
    models = {method: make_models(method, frozen(backbone), config) for method in methods}
    for method, own in models.items():
        run = checkpoint.save_method(folder, run, method, backbone, own, COSTS)
    return backbone, models, run


@pytest.mark.parametrize("tune_head", [False, True])
@pytest.mark.parametrize("method", METHODS[1:])
def test_a_loaded_run_gives_equal_scores(tmp_path, small, inputs, method, tune_head):
    config = replace(small, {f"{group}.tune_head": tune_head for group in ("prompts", "lora", "adapter")})
    backbone, models, run = make_run(tmp_path, config, methods=[method])
    assert checkpoint.load_run(tmp_path) == run
    _, found, router = checkpoint.load_models(tmp_path, run)
    audio, image, situations = inputs
    if method == "full_mixed":
        assert torch.equal(found[method](audio, image), models[method][0](audio, image))
        return
    saved = models[method]
    if method == "prompt":
        *saved, saved_router = saved
        model = PromptedModel(backbone, [one.set for one in saved])
        assert torch.equal(model.concat(audio, image), found[method].concat(audio, image))
        assert torch.equal(saved_router(audio, image), router(audio, image))
    else:
        model = CaseModels(saved)
    assert torch.allclose(model.situation(audio, image, situations), found[method].situation(audio, image, situations),
                          atol=1e-5)                                                 # LoRA is merged on loading


def test_the_same_run_gives_the_same_bytes(tmp_path, small):
    for name in "ab":
        make_run(tmp_path / name, small)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["backbone.pt", "config.json", "costs.json", *sorted(f"prompt-{s.label}.pt" for s in Situation), "router.pt"]
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


def refusal(call, *arguments):
    with pytest.raises(InputError) as caught:
        call(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_and_altered_files_are_named(tmp_path, small):
    make_run(tmp_path, small)
    for name in [path.name for path in tmp_path.glob("*.pt")]:
        path = tmp_path / name
        content = path.read_bytes()
        path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        assert f"{name}: was altered" in refusal(checkpoint.load_run, tmp_path)
        path.unlink()
        assert f"{name}: no such file" in refusal(checkpoint.load_run, tmp_path)
        path.write_bytes(content)
    checkpoint.load_run(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", None])
def test_an_altered_config_is_named(tmp_path, small, text):
    make_run(tmp_path, small)
    path = tmp_path / "config.json"
    facts = json.loads(path.read_text())
    facts["config"]["train"]["seed"] = 5
    path.write_text(json.dumps(facts) if text is None else text)
    assert "config.json: was altered" in refusal(checkpoint.load_run, tmp_path)
    path.unlink()
    assert "config.json: no such file" in refusal(checkpoint.load_run, tmp_path)


def test_a_run_that_broke_off_while_prompts_were_saved_is_the_backbone_still(tmp_path, small):
    backbone, models, run = make_run(tmp_path, small, methods=[])
    checkpoint.write_file(tmp_path / "prompt-complete.pt", b"half a run")
    loaded = checkpoint.load_run(tmp_path)
    assert loaded.trained == ("backbone",) and checkpoint.load_models(tmp_path, loaded)[1:] == ({}, None)


def test_a_prompt_set_refuses_another_backbone(tmp_path, small):
    make_run(tmp_path / "a", small)
    other, _, _ = make_run(tmp_path / "b", small, seed=1)
    path = tmp_path / "a" / "prompt-complete.pt"
    message = refusal(checkpoint.load_learned, path, other, checkpoint.fingerprint(other))
    assert "prompt-complete.pt: trained on backbone" in message and "expected the same" in message


def test_a_file_that_is_no_prompt_set_is_named(tmp_path, small):
    backbone, _, _ = make_run(tmp_path, small)
    (tmp_path / "text.pt").write_text("text")
    for name in ("text.pt", "backbone.pt"):
        assert f"{name}: holds no prompts" in refusal(checkpoint.load_learned, tmp_path / name, backbone, "")
    assert "gone.pt: no such file" in refusal(checkpoint.load_learned, tmp_path / "gone.pt", backbone, "")


def test_files_that_changed_places_are_named(tmp_path, small):
    """The paper's code saves two situations under each other's names."""
    _, _, run = make_run(tmp_path, small)
    one, other = tmp_path / "prompt-noisy_audio.pt", tmp_path / "prompt-noisy_image.pt"
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    assert "prompt-noisy_audio.pt: was saved as prompt-noisy_image.pt" in refusal(checkpoint.load_models, tmp_path, run)


def test_a_run_of_another_version_is_named(tmp_path, small):
    make_run(tmp_path, small, methods=[])
    facts = json.loads((tmp_path / "config.json").read_text())
    del facts["sha256"], facts["config"]["lora"]
    facts["sha256"] = checkpoint.digest_of(facts)
    (tmp_path / "config.json").write_text(json.dumps(facts))
    message = refusal(checkpoint.load_run, tmp_path)
    assert "config.json: saved by another version" in message and "lora is missing" in message


def test_costs_that_are_gone_are_named(tmp_path, small):
    make_run(tmp_path, small)
    (tmp_path / "costs.json").write_text("{}")
    assert "costs.json: not there or not whole" in refusal(checkpoint.load_costs, tmp_path, ["prompt"])


def test_the_fingerprint_tells_any_weight_apart(small):
    backbone = Backbone(small, 3)
    before = checkpoint.fingerprint(backbone)
    with torch.no_grad():
        backbone.head[1].bias[0] += 1e-6
    assert checkpoint.fingerprint(backbone) != before
