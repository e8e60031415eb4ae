"""A run's weights as arrays, read without torch."""
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import refusal

from ptm_mini.checkpoint import load_tensors, read_run
from ptm_mini.files import save_tensors
from ptm_mini.lab import weights

READ = """
import hashlib, json, sys
sys.modules["torch"] = sys.modules["ptm_mini"] = None              # importing them raises
import numpy
arrays = numpy.load("run.npz")
digests = {name: [arrays[name].shape, hashlib.sha256(arrays[name].tobytes()).hexdigest()]
           for name in arrays}
print(json.dumps([digests, json.load(open("run.json"))]))
"""


def test_every_tensor_and_setting_is_read_without_torch(run_folder: Path, tmp_path: Path) -> None:
    weights.main([str(run_folder), str(tmp_path / "run.npz")])
    child = subprocess.run([sys.executable, "-c", READ], cwd=tmp_path, capture_output=True,
                           check=True)
    digests, settings = json.loads(child.stdout)
    files, expected = [*run_folder.glob("*.pt")], {}
    for path in files:
        for name, tensor in load_tensors(path)["weights"].items():
            digest = hashlib.sha256(tensor.numpy().tobytes()).hexdigest()
            expected[path.stem, name.split(".")[-1], digest] = list(tensor.shape)
    found = {(name.split("/")[0], name.split("/")[-1].split(".")[-1], digest): shape
             for name, (shape, digest) in digests.items()}
    assert len(files) == 28 and found == expected
    assert {"backbone/audio_encoder.patches.weight", "prompt-together/sets.3.audio_input",
            "prompt-complete/sets.0.audio_input", "router/bias", "adapter-complete/head.1.weight",
            "lora-noisy_both/audio_encoder.blocks.0.attention.qkv.down"} <= digests.keys()
    assert not any("parametrizations" in name for name in digests)
    run = read_run(run_folder)
    assert settings["classes"] == run.classes and settings["config"]["model.heads"] == 2
    assert settings["normalisation"] == run.normalisation._asdict()


def test_what_is_there_is_written(copied: Path, tmp_path: Path) -> None:
    for path in (*copied.glob("lora-*.pt"), copied / "prompt-together.pt"):
        path.unlink()
    stems = {name.split("/")[0] for name in weights.read_arrays(read_run(copied))}
    assert len(stems) == 28 - 5 and "prompt-complete" in stems


@pytest.mark.parametrize("there, out, expected", [
    ("x.npz", "x.npz", "x.npz: exists already"), ("x.json", "x.npz", "x.json: exists already"),
    ("y", "x.json", "ends in .npz")])
def test_files_that_exist_or_another_suffix_are_refused(
        run_folder: Path, tmp_path: Path, there: str, out: str, expected: str) -> None:
    (tmp_path / there).write_text("mine")
    assert expected in refusal(weights.main, [str(run_folder), str(tmp_path / out)])
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_a_run_without_backbone_or_with_another_is_refused(copied: Path, tmp_path: Path) -> None:
    path, arguments = copied / "backbone.pt", [str(copied), str(tmp_path / "x.npz")]
    content = load_tensors(path)
    content["weights"]["norm.weight"] += 1
    save_tensors(path, content)
    assert "was trained on another backbone" in refusal(weights.main, arguments)
    path.unlink()
    assert "backbone.pt: no such file" in refusal(weights.main, arguments)
    assert [path.name for path in tmp_path.iterdir()] == [copied.name]
