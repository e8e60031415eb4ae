"""Run folders: whole, strict, and refusing whatever does not belong."""
import json
from dataclasses import replace as replace_field

import pytest
import torch

from ptm_mini import checkpoint
from ptm_mini.config import PRESETS, InputError, Situation
from ptm_mini.data import Normalisation
from ptm_mini.model import Backbone, PromptedModel, initialise
from ptm_mini.overrides import replace
from ptm_mini.prompts import PromptSet


def make_run(folder, config, seed=0):
    """A run of random weights. returns PromptedModel, Run"""
    run = checkpoint.Run(config, ["dog", "rain", "wind"], Normalisation(-5.0, 4.0), "/somewhere", prompted=True)
    backbone = Backbone(config, 3)
    initialise(backbone, torch.Generator().manual_seed(seed))
    sets = [PromptSet(config, backbone.head, torch.Generator().manual_seed(seed + s)) for s in Situation]
    checkpoint.save_backbone(folder, replace_field(run, prompted=False), backbone)
    checkpoint.save_prompts(folder, run, backbone, sets)
    return PromptedModel(backbone, sets).eval(), run


@pytest.mark.parametrize("tune_head", [False, True])
def test_a_loaded_run_gives_equal_scores(tmp_path, small, inputs, tune_head):
    model, run = make_run(tmp_path, replace(small, {"prompts.tune_head": tune_head}))
    loaded = checkpoint.load_run(tmp_path)
    assert loaded == run
    other = checkpoint.load_model(tmp_path, loaded)
    audio, image, situations = inputs
    assert torch.equal(model.situation(audio, image, situations), other.situation(audio, image, situations))
    assert torch.equal(model.concat(audio, image), other.concat(audio, image))


def test_the_same_run_gives_the_same_bytes(tmp_path, small):
    for name in "ab":
        make_run(tmp_path / name, small)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == ["backbone.pt", "config.json", *sorted(f"prompts-{s.label}.pt" for s in Situation)]
    assert all((tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes() for name in files)


def test_a_prompt_set_at_tiny_is_under_a_megabyte_and_holds_no_backbone(tmp_path):
    make_run(tmp_path, PRESETS["tiny"])
    path = tmp_path / "prompts-noisy_both.pt"
    assert path.stat().st_size < 200_000
    content = torch.load(path, weights_only=True)
    assert {"config", "classes", "normalisation", "situation", "backbone", "weights"} <= set(content)
    assert content["situation"] == "noisy_both"


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
    model, run = make_run(tmp_path, small)
    checkpoint.save_backbone(tmp_path, replace_field(run, prompted=False), model.backbone)
    (tmp_path / "prompts-noisy_both.pt").unlink()
    loaded = checkpoint.load_run(tmp_path)
    assert not loaded.prompted and not checkpoint.load_model(tmp_path, loaded).sets


def test_a_prompt_set_refuses_another_backbone(tmp_path, small):
    make_run(tmp_path / "a", small)
    other, _ = make_run(tmp_path / "b", small, seed=1)
    path = tmp_path / "a" / "prompts-complete.pt"
    message = refusal(checkpoint.load_prompt_set, path, other.backbone)
    assert "prompts-complete.pt: trained on backbone" in message and "expected the same" in message


def test_a_file_that_is_no_prompt_set_is_named(tmp_path, small):
    model, _ = make_run(tmp_path, small)
    (tmp_path / "text.pt").write_text("text")
    for name in ("text.pt", "backbone.pt"):
        assert f"{name}: no prompt file" in refusal(checkpoint.load_prompt_set, tmp_path / name, model.backbone)
    assert "gone.pt: no such file" in refusal(checkpoint.load_prompt_set, tmp_path / "gone.pt", model.backbone)


def test_situations_are_saved_under_their_own_names(tmp_path, small):
    model, _ = make_run(tmp_path, small)
    for situation in Situation:
        prompt_set, says = checkpoint.load_prompt_set(tmp_path / f"prompts-{situation.label}.pt", model.backbone)
        assert says is situation
        assert torch.equal(prompt_set.audio_input, model.sets[situation].audio_input)


def test_the_fingerprint_tells_any_weight_apart(small):
    backbone = Backbone(small, 3)
    before = checkpoint.fingerprint(backbone)
    with torch.no_grad():
        backbone.head[1].bias[0] += 1e-6
    assert checkpoint.fingerprint(backbone) != before
