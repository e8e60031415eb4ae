"""The porting kit: its arrays are all documented, are made anew alike, and say what the model says."""
import re
from pathlib import Path

import numpy as np

from ptm_mini.golden import __main__ as golden

ROOT = Path(__file__).parent.parent.parent


def documented():
    """Regular expressions of the names in the table at the end of docs/porting.md; `.x` stands for the last part of the name
    before it."""
    text = (ROOT / "docs" / "porting.md").read_text().split("## Names")[1].split("Intermediates:")[0]
    patterns, before = [], ""
    for line in text.splitlines():
        for name in re.findall(r"`([\w.{}]+)`", line.split("|")[1]) if line.startswith("| `") else []:
            before = before.rpartition(".")[0] + name if name.startswith(".") else name
            patterns.append(re.sub(r"\\{\w+\\}", ".+", re.escape(before)))
    return patterns


def test_every_array_is_documented_and_every_documented_name_is_there(kit):
    names, patterns = np.load(kit).files, documented()
    assert len(patterns) > 30
    assert [name for name in names if not any(re.fullmatch(pattern, name) for pattern in patterns)] == []
    assert [pattern for pattern in patterns if not any(re.fullmatch(pattern, name) for name in names)] == []
    assert f"writes {len(names)} arrays" in (ROOT / "docs" / "porting.md").read_text()


def test_the_kit_is_the_same_each_time_small_and_finite(kit, tmp_path):
    golden.main([str(tmp_path / "again.npz")])
    assert kit.read_bytes() == (tmp_path / "again.npz").read_bytes() and kit.stat().st_size < 1.2e6
    for name, array in np.load(kit).items():
        assert array.dtype.kind == "U" or np.isfinite(array).all(), name
