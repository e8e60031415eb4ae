"""The shape of the code, seen from its imports, and its style."""
import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Each line may import from those above it, and from its own.
LAYERS = [["ptm_mini.errors"], ["ptm_mini.files", "ptm_mini.config"], ["ptm_mini.method"],
          ["ptm_mini.data"], ["data_prep"], ["ptm_mini.checkpoint"],
          ["ptm_mini.evaluation", "ptm_mini.cav_mae"], ["ptm_mini.training"],
          ["ptm_mini.plots", "ptm_mini.report", "ptm_mini.predict"], ["ptm_mini"],
          ["train", "eval"], ["ptm_mini.lab"]]
LAYER_OF = {name: number for number, layer in enumerate(LAYERS) for name in layer}
RUN_TIME = {"torch", "numpy", "soundfile", "PIL"}
FILES = [*sorted(ROOT.glob("ptm_mini/**/*.py")), *sorted(ROOT.glob("data_prep/*.py")),
         ROOT / "train.py", ROOT / "eval.py"]


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def layer_of(module: str) -> int | None:
    """The layer of the longest name that fits; None where it is not ours."""
    fitting = [name for name in LAYER_OF if module == name or module.startswith(f"{name}.")]
    return LAYER_OF[max(fitting, key=len)] if fitting else None


def imports(path: Path) -> Iterator[str]:
    """Yield what a file imports; `from a import b` is a.b, which may be a module."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_go_downward(path: Path) -> None:
    ours = module_of(path)
    for module in imports(path):
        package = module.split(".")[0]
        if layer_of(module) is None:
            assert package in RUN_TIME | sys.stdlib_module_names, module
        else:
            assert layer_of(module) <= layer_of(ours), module
        if ours.startswith("ptm_mini.method"):
            assert package not in ("soundfile", "PIL"), "the method is torch's alone"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_public_functions_have_type_hints(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            untyped = [argument.arg for argument in arguments
                       if argument.annotation is None and argument.arg not in ("self", "cls")]
            assert not untyped and node.returns is not None, f"{path}:{node.lineno} {node.name}"


def test_lines_are_at_most_100_columns() -> None:
    long = [f"{path}:{number}" for path in [*FILES, *ROOT.glob("tests/**/*.py")]
            for number, line in enumerate(path.read_text().splitlines(), start=1)
            if len(line) > 100]
    assert long == []
