"""What the tests of the data share: a set of six samples, which each test may alter."""
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import RATE, write_manifest
from PIL import Image

SPLITS = ["train", "train", "val", "test", "train", "test"]


@pytest.fixture
def six(tmp_path: Path) -> Path:
    """Samples s0 to s5 of two classes, in lines 2 to 7; s4 has no audio and s5 no image."""
    folder = tmp_path / "six"
    folder.mkdir()
    rows = []
    for i, split in enumerate(SPLITS):
        wave = 0.1 * np.random.default_rng(i).standard_normal(6000)
        soundfile.write(folder / f"{i}.wav", wave, RATE)
        Image.new("RGB", (20, 20), (40 * i, 0, 0)).save(folder / f"{i}.png")
        rows.append({"id": f"s{i}", "audio": "" if i == 4 else f"{i}.wav",
                     "image": "" if i == 5 else f"{i}.png", "label": "ab"[i % 2], "split": split,
                     "group": ""})
    write_manifest(folder, rows)
    (folder / "classes.json").write_text(json.dumps(["a", "b"]))
    return folder
