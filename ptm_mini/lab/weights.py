"""Weights without torch: a run's trained parameters as NumPy arrays, and its settings as JSON.

python -m ptm_mini.lab.weights runs/toy-1 toy.npz       toy.json gets what config.json says

An array is named FILE STEM/PARAMETER, such as router/weight, prompt-together/sets.0.audio_input or
backbone/audio_encoder.patches.weight; docs/porting.md explains the parameters.
"""
from pathlib import Path

import numpy as np
import torch

from ptm_mini.checkpoint import Run, load_tensors, read_run
from ptm_mini.errors import InputError, new_parser, run as run_command
from ptm_mini.files import refuse_existing, whole_file, write_file
from ptm_mini.training import METHODS, load_models, stages_of


def require_new(out: Path, suffix: str) -> None:
    """Raise InputError where `out` has another suffix, or it or the .json beside it exists."""
    if out.suffix != suffix:
        raise InputError(f"{out}: expected a name that ends in {suffix}")
    refuse_existing(out)
    refuse_existing(out.with_suffix(".json"))


def plain_name(name: str) -> str:
    """Drop from the name of a LoRA parameter what torch's parametrize puts into it."""
    return name.replace("parametrizations.weight.0.", "")


def read_arrays(run: Run) -> dict[str, np.ndarray]:
    """Read the arrays of every stage that a run has a file of. Raises InputError without a
    backbone."""
    load_models(run, torch.device("cpu"))                   # refuses files of another backbone
    stages = ["backbone", *(stage for method in METHODS for stage in stages_of(method))]
    paths = [path for path in map(run.path, stages) if path.exists()]
    return {f"{path.stem}/{plain_name(name)}": tensor.numpy()
            for path in paths for name, tensor in load_tensors(path)["weights"].items()}


def main(argv: list[str] | None = None) -> None:
    parser = new_parser(__doc__)
    parser.add_argument("run", type=Path, help="run folder that train.py made")
    parser.add_argument("out", type=Path, help="the new .npz file; a .json file is made beside it")
    args = parser.parse_args(argv)
    require_new(args.out, ".npz")
    run = read_run(args.run)
    arrays = read_arrays(run)
    with whole_file(args.out) as file:
        np.savez(file, **arrays)
    write_file(args.out.with_suffix(".json"), (run.folder / "config.json").read_bytes())


if __name__ == "__main__":
    run_command(main)
