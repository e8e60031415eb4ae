"""What README shows: its model in Python runs as it stands, its links lead somewhere."""
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_forward_pass_runs_as_it_stands(capsys: pytest.CaptureFixture) -> None:
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    exec(block, {})
    assert capsys.readouterr().out == "torch.Size([2, 10])\n"


def test_links_and_commands_lead_to_files() -> None:
    for path in [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]:
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^):#]+)(?:#[^)]*)?\)", text):
            assert (path.parent / target).exists(), f"{path}: {target}"
        for module in re.findall(r"python -m (ptm_mini[\w.]*|data_prep[\w.]*)", text):
            assert Path(ROOT, *module.split(".")).with_suffix(".py").exists(), f"{path}: {module}"
