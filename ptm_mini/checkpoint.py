"""A run folder: config.json, one file of trained parameters per stage, and what resuming takes.

A stage is named after what it trains, such as "backbone", "prompt noisy_audio", "prompt together"
or "router". It is done when its .pt file is there; until then a .state file has its last epoch.
"""
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ptm_mini.config import Config, flatten, unflatten
from ptm_mini.data.dataset import Normalisation
from ptm_mini.errors import InputError
from ptm_mini.files import save_tensors, write_file


@dataclass
class Run:
    """What config.json says: the run, and what was asked for."""
    folder: Path
    config: Config
    classes: list[str]                 # K names
    normalisation: Normalisation
    data: Path                         # the set's folder
    fingerprint: str                   # of the set
    methods: list[str] = field(default_factory=list)     # asked for
    init: str | None = None            # CAV-MAE checkpoint that the backbone starts from
    trained_on: str = ""               # fingerprint of the frozen backbone, once there is one

    def write(self) -> None:
        """Write config.json."""
        content = {"config": flatten(self.config), "classes": self.classes,
                   "normalisation": self.normalisation._asdict(), "data": str(self.data),
                   "fingerprint": self.fingerprint, "methods": self.methods, "init": self.init}
        write_file(self.folder / "config.json", (json.dumps(content, indent=1) + "\n").encode())

    def path(self, stage: str, suffix: str = ".pt") -> Path:
        """The file of a stage's trained parameters; suffix ".state": of its last whole epoch."""
        return self.folder / f"{stage.replace(' ', '-')}{suffix}"

    def save(self, stage: str, model: nn.Module) -> None:
        """Write what a stage has trained, with what it takes to use it, and forget its state."""
        save_tensors(self.path(stage), {
            "stage": stage, "backbone": self.trained_on, "config": flatten(self.config),
            "classes": self.classes, "normalisation": self.normalisation._asdict(),
            "weights": copy_tensors(trainable(model))})
        self.path(stage, ".state").unlink(missing_ok=True)

    def load(self, stage: str, model: nn.Module) -> None:
        """Read a stage's file into the model that it trained.

        Raises InputError where the file is missing, is another stage's, was trained on another
        backbone, or does not fit the model.
        """
        path = self.path(stage)
        content = load_tensors(path)
        if content.get("stage") != stage:
            raise InputError(f"{path}: is not the file of stage {stage!r}; expected a file that "
                             f"train.py saved under this name: restore it")
        if stage != "backbone" and content["backbone"] != self.trained_on:
            raise InputError(f"{path}: was trained on another backbone than that in "
                             f"{self.path('backbone')}; expected the same: train it again")
        try:
            restore(trainable(model), content["weights"])
        except ValueError as error:
            raise InputError(f"{path}: its parameters do not fit {self.folder / 'config.json'}; "
                             f"restore it or train it again") from error

    def log_epoch(self, record: dict[str, Any]) -> None:
        """Add a line to log.jsonl. A resumed epoch replaces its line and those after it."""
        lines = [line for line in self.read_log()
                 if line["stage"] != record["stage"] or line["epoch"] < record["epoch"]]
        text = "".join(json.dumps(line) + "\n" for line in (*lines, record))
        write_file(self.folder / "log.jsonl", text.encode())

    def read_log(self) -> list[dict[str, Any]]:
        """The lines of log.jsonl, one for each epoch of each stage."""
        path = self.folder / "log.jsonl"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return [json.loads(line) for line in text.splitlines()]


def read_run(folder: Path) -> Run:
    """Read config.json. Raises InputError where it is not a run's."""
    path = folder / "config.json"
    if run_folders(folder) != [folder]:
        raise InputError(f"{path}: no such file; expected the folder of one run that train.py made"
                         + "".join(f": {seed}" for seed in run_folders(folder)[:1]))
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Run(folder, unflatten(content["config"]), content["classes"],
                   Normalisation(**content["normalisation"]), Path(content["data"]),
                   content["fingerprint"], content["methods"], content["init"])
    except (InputError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is not as train.py wrote it ({error}); restore it or train the "
                         f"run again") from error


def run_folders(folder: Path) -> list[Path]:
    """List the run `folder` itself, or the runs seed-* in it by number; none of other folders."""
    if (folder / "config.json").exists():
        return [folder]
    seeds = [path.parent for path in folder.glob("seed-*/config.json")
             if path.parent.name.removeprefix("seed-").isdecimal()]
    return sorted(seeds, key=lambda path: int(path.name.removeprefix("seed-")))


def load_tensors(path: Path) -> dict[str, Any]:
    """Read what save_tensors wrote; no code in a file is run. Raises InputError for other files."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected a file of tensors") from error
    except Exception as error:                              # the unpickler raises nearly anything
        raise InputError(f"{path}: is no file of tensors, or a broken one "
                         f"({type(error).__name__}); restore or remove it") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds a {type(content).__name__}; expected tensors by name")
    return content


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """{name: parameter} of those that have gradients."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def copy_tensors(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Copy to the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}


@torch.no_grad()
def restore(parameters: dict[str, Tensor], saved: dict[str, Tensor]) -> None:
    """Copy saved tensors into parameters. Raises ValueError where names or shapes differ."""
    expected, found = ({name: x.shape for name, x in some.items()} for some in (parameters, saved))
    if expected != found:
        raise ValueError(f"expected {expected}, found {found}")
    for name, parameter in parameters.items():
        parameter.copy_(saved[name])


def fingerprint(module: nn.Module) -> str:
    """SHA-256 of every weight: name, shape and bytes, in the order of the state dict."""
    digest = hashlib.sha256()
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {list(tensor.shape)}\n".encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
