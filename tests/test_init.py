"""train.py --init and --freeze-backbone, eval.py --export-cav-mae: whole runs from a checkpoint, and what is refused."""
import json
import pickle
from pathlib import Path

import pytest
import torch
from runs.test_cav_mae import SIZES, official
from test_cli import refused

import eval as eval_script
import train as train_script
from ptm_mini.data.prepared import Normalisation
from ptm_mini.report import variants
from ptm_mini.runs.folder import load_run
from ptm_mini.runs.sealed import sha256_of
from ptm_mini.runs.models import load_backbone

SETTINGS = {**{key: value for key, value in SIZES.items() if key != "model.fusion"}, "prompts.input_depth": 1,
            "train.backbone.epochs": 2, "train.backbone.batch_size": 2, "train.head.epochs": 1, "train.prompts.epochs": 1,
            "train.together.epochs": 1, "router.passes": 1}


def train(*arguments, **changes):
    settings = [part for key, value in {**SETTINGS, **changes}.items() for part in ("--set", f"{key}={value}")]
    train_script.main([*settings, *map(str, arguments), "--device", "cpu"])


@pytest.fixture
def checkpoint(tmp_path):
    """A file like those that the official code saves: fine-tuned on the two classes of tiny_set."""
    torch.save(official(classes=2), tmp_path / "cav-mae.pth")
    return tmp_path / "cav-mae.pth"


def test_a_backbone_starts_from_a_checkpoint_and_the_run_knows_it(checkpoint, tiny_set, tmp_path, caplog, capsys, monkeypatch):
    torch.save(official(classes=527), checkpoint)
    run = tmp_path / "run"
    with caplog.at_level("INFO"):
        train("--data", tiny_set, "--out", run, "--init", checkpoint, "--method", "head")
    assert "its head has 527 classes, the set 2: a fresh one is made" in caplog.text
    assert "model.heads=2, which no checkpoint tells" in caplog.text
    init = json.loads((run / "config.json").read_text())["init"]
    assert init == {"file": str(checkpoint), "sha256": sha256_of(checkpoint)}
    norms = torch.load(run / "cav_mae_norms.pt", weights_only=True)
    assert torch.equal(norms["norm_a.bias"], official()["module.norm_a.bias"])
    before = (run / "results.json").read_bytes()
    checkpoint.rename(tmp_path / "elsewhere")                        # the run stands by itself
    eval_script.main([str(run), "--device", "cpu"])
    assert (run / "results.json").read_bytes() == before
    train_script.main(["--out", str(run), "--method", "lora", "--epochs", "1", "--device", "cpu"])
    assert load_run(run).trained == ("backbone", "head", "lora")
    line, _ = refused(lambda: eval_script.main([str(run), "--ablate", "fusion", "--device", "cpu"]), capsys)
    assert f"{checkpoint}: no such file; expected the checkpoint that the run started from" in line     # but for new backbones
    torch.save(official(classes=3), checkpoint)
    line, _ = refused(lambda: eval_script.main([str(run), "--ablate", "fusion", "--device", "cpu"]), capsys)
    assert f"{checkpoint}: is another file than the run started from" in line
    (tmp_path / "elsewhere").rename(checkpoint)
    monkeypatch.setattr(variants, "FUSION_KINDS", ("none", "cross"))
    eval_script.main([str(run), "--ablate", "fusion", "--device", "cpu"])
    assert load_run(run / "variants" / "prompt,model.fusion=none").init == load_run(run).init


def test_what_was_loaded_learns_more_slowly(checkpoint, tiny_set, tmp_path):
    """AdamW's first step is as long as the learning rate: two steps of a schedule of two, at a thousandth of it."""
    moved = {}
    for rate in (1.0, 1e-3):
        run = tmp_path / f"run-{rate}"
        train("--data", tiny_set, "--out", run, "--init", checkpoint, "--method", "backbone", **{"train.loaded_rate": rate})
        after = load_backbone(run, load_run(run)).state_dict()
        before = official()["module.blocks_u.0.mlp.fc1.weight"]
        moved[rate] = {"loaded": (after["joint.0.mlp.fc1.weight"] - before).abs().max(),
                       "fresh": after["fusion.0.update_audio.mlp.fc2.weight"].abs().max()}
    assert moved[1e-3]["loaded"] < 2e-3 * moved[1.0]["loaded"] and moved[1e-3]["fresh"] > 0.5 * moved[1.0]["fresh"]


def test_a_frozen_backbone_is_the_checkpoint_and_goes_back_to_it(checkpoint, tiny_set, tmp_path):
    run, again, exported = tmp_path / "run", tmp_path / "again", tmp_path / "exported.pth"
    train("--data", tiny_set, "--out", run, "--init", checkpoint, "--freeze-backbone", "--epochs", 1,
          **{"train.backbone.epochs": 0})
    saved = load_run(run)
    assert saved.normalisation == Normalisation(-5.081, 4.4849) and saved.config.model.fusion == "none"
    [cost] = saved.costs["backbone"]
    assert (cost.parameters, cost.epochs, cost.memory) == (0, 0, 0) and cost.validation in (0, 1)
    eval_script.main([str(run), "--export-cav-mae", str(exported)])
    content, there = torch.load(exported, weights_only=True), torch.load(checkpoint, weights_only=True)
    assert content.keys() == there.keys() and all(torch.equal(content[name], there[name]) for name in there)
    train("--data", tiny_set, "--out", again, "--init", exported, "--freeze-backbone", "--method", "head",
          **{"train.backbone.epochs": 0})
    for name in ("backbone.pt", "cav_mae_norms.pt"):
        assert (again / name).read_bytes() == (run / name).read_bytes()


class Payload:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def pickled(path, trace):
    path.write_bytes(pickle.dumps({"module.norm.weight": Payload(trace)}))


def in_a_checkpoint(path, trace):
    torch.save({**official(), "module.extra": Payload(trace)}, path)


def truncated(path, trace):
    torch.save(official(), path)
    path.write_bytes(path.read_bytes()[:-1000])


def with_nan(path, trace):
    torch.save({**official(), "module.norm.bias": torch.tensor([float("nan")] * 16)}, path)


def twice(path, trace):
    torch.save({**official(), "norm.bias": torch.zeros(16)}, path)


@pytest.mark.parametrize("make, says", [
    (pickled, "is not a whole file of tensors"), (in_a_checkpoint, "perhaps code, which was not run"),
    (truncated, "is not a whole file of tensors"), (lambda path, trace: path.write_text("hello " * 99), "is not a whole file"),
    (lambda path, trace: path.write_bytes(b""), "is not a whole file"),
    (lambda path, trace: path.mkdir(), "can't be read (Is a directory)"),
    (lambda path, trace: None, "can't be read (No such file"), (with_nan, "'module.norm.bias' is no tensor of finite numbers"),
    (lambda path, trace: torch.save({"epoch": 3}, path), "'epoch' is no tensor"),
    (lambda path, trace: torch.save({"a\nb": torch.eye(2).to_sparse()}, path), r"'a\nb' is no tensor"),
    (lambda path, trace: torch.save([torch.zeros(2)], path), "holds no tensors by name but a list"),
    (twice, "'norm.bias' stands in it with and without module."),
    (lambda path, trace: torch.save({"weight": torch.zeros(2)}, path), "module.pos_embed_a is missing")])
def test_a_file_that_is_no_checkpoint_is_named_and_leaves_nothing(tiny_set, tmp_path, capsys, make, says):
    path, trace = tmp_path / "bad.pth", tmp_path / "the-code-ran"
    make(path, trace)
    line, status = refused(lambda: train("--data", tiny_set, "--out", tmp_path / "run", "--init", path), capsys)
    assert status == 2 and f"{path}: " in line and says in line and "expected" in line
    assert not trace.exists() and not (tmp_path / "run").exists()


def test_flags_that_do_not_fit_are_named(checkpoint, tiny_set, tmp_path, capsys):
    def says(*arguments, **changes):
        line, status = refused(lambda: train("--data", tiny_set, *arguments, **changes), capsys)
        assert status == 2
        return line

    frozen = ("--out", tmp_path / "new", "--init", checkpoint, "--freeze-backbone")
    assert "expected --init FILE with it" in says("--freeze-backbone")
    assert "setting train.backbone.epochs=2: does not go with --freeze-backbone" in says(*frozen)
    as_it_is = {"train.backbone.epochs": 0}
    assert "setting model.fusion=cross: expected none" in says(*frozen, **as_it_is, **{"model.fusion": "cross"})
    assert "module.blocks_a.2.norm1.weight is missing" not in (line := says(*frozen, **as_it_is, **{"model.depth": 3}))
    assert "expected --set model.depth=2" in line
    for tensors, reason in ((official(), "its head has 7 classes, the set 2"), (official(pretraining=True), "it has no head")):
        torch.save(tensors, checkpoint)
        assert f"--freeze-backbone: {checkpoint}: {reason}; expected a model fine-tuned" in says(*frozen, **as_it_is)
    train("--data", tiny_set, "--out", tmp_path / "run", "--method", "backbone")
    assert f"--init: belongs to the backbone in {tmp_path / 'run'}" in says("--out", tmp_path / "run", "--init", checkpoint)
