"""Imports go downward only, seen from the imports themselves; and no file grows beyond what is read at once."""
import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Each may import from those before it and from its own; names without a folder are files.
ORDER = ["ptm_mini.errors", "ptm_mini.files", "ptm_mini.settings", "ptm_mini.limits", "ptm_mini.config", "ptm_mini.trace", "ptm_mini.method", "ptm_mini.data",
         "ptm_mini.training", "ptm_mini.runs", "ptm_mini.report", "ptm_mini", "data_prep", "train", "eval"]
RUN_TIME = {"torch", "numpy", "soundfile", "PIL"}
FILES = [*ROOT.glob("ptm_mini/**/*.py"), *ROOT.glob("data_prep/*.py"), ROOT / "train.py", ROOT / "eval.py"]


def place(module):
    """Where in ORDER a dotted module stands; None where it is not ours."""
    fitting = [name for name in ORDER if module == name or module.startswith(name + ".")]
    return ORDER.index(max(fitting, key=len)) if fitting else None


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports(path):
    """Modules that a file imports. `from a import b` counts as a.b where that is a module of ours, else as a."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            for alias in node.names:
                below = ROOT.joinpath(*node.module.split("."), f"{alias.name}.py")
                yield f"{node.module}.{alias.name}" if below.exists() else node.module


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_go_downward_and_to_four_packages_only(path):
    for module in imports(path):
        if place(module) is not None:
            assert place(module) <= place(module_of(path)), f"{module_of(path)} imports {module}"
            assert (place(module), module) != (ORDER.index("train"), "train"), "train.py is a command, not a library"
        else:
            assert module.split(".")[0] in RUN_TIME | set(__import__("sys").stdlib_module_names), module
        if module_of(path).startswith("ptm_mini.method"):
            assert module.split(".")[0] not in ("soundfile", "PIL"), "the method needs torch and numpy alone"


def test_within_a_folder_no_imports_go_in_circles():
    names = {module_of(path): [module for module in imports(path) if module.startswith("ptm_mini")] for path in FILES}
    done = set()

    def visit(module, above):
        assert module not in above, " -> ".join([*above, module])
        if module in names and module not in done:
            for other in names[module]:
                visit(other, [*above, module])
            done.add(module)

    for module in names:
        visit(module, [])


def test_files_can_be_read_at_once():
    lines = {path: len(path.read_text().splitlines()) for path in FILES}
    assert {module_of(path): count for path, count in lines.items() if count > 200} == {}
    assert sum(count for path, count in lines.items() if path.parent.name == "method") <= 780
