"""What the tests of data_prep share."""
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from ptm_mini.data.manifest import read_set
from ptm_mini.errors import InputError


@pytest.fixture
def prepare(tmp_path: Path) -> Callable:
    """Run a script; return the rows and the report of tmp_path/sets/OUT."""
    def run(script, *flags, out="set"):
        folder = tmp_path / "sets" / out
        script.main([*map(str, flags), "--out", str(folder)])
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
        return read_set(folder)[1], report
    return run


@pytest.fixture
def refuse(prepare: Callable, tmp_path: Path) -> Callable:
    """Run a script that must refuse its input in one line and write nothing; return the line."""
    def run(script, *flags):
        with pytest.raises(InputError) as caught:
            prepare(script, *flags, out="refused")
        assert "\n" not in str(caught.value) and not (tmp_path / "sets" / "refused").exists()
        return str(caught.value)
    return run
