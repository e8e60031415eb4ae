"""The run folder: config.json, backbone.pt and one prompt file a situation, written whole and read strictly."""
import hashlib
import io
import json
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from ptm_mini.config import Config, InputError, Situation
from ptm_mini.data import Normalisation
from ptm_mini.files import write_file
from ptm_mini.model import Backbone, PromptedModel
from ptm_mini.overrides import from_dict
from ptm_mini.prompts import PromptSet

BACKBONE_FILE = "backbone.pt"


def prompt_file(situation):
    return f"prompts-{situation.label}.pt"


@dataclass(frozen=True)
class Run:
    """What config.json says of a run."""
    config: Config
    classes: list                     # K names
    normalisation: Normalisation
    data: str                         # the set's folder, absolute
    prompted: bool                    # whether the prompt sets are trained too

    def facts(self):
        """What weights need to be used, as JSON can hold it."""
        return {"config": asdict(self.config), "classes": self.classes, "normalisation": self.normalisation._asdict()}

    def files(self):
        return [BACKBONE_FILE, *map(prompt_file, Situation)] if self.prompted else [BACKBONE_FILE]


def fingerprint(backbone):
    """SHA-256 over every weight of a backbone: name, shape, type and bytes, in the order of its state dict."""
    digest = hashlib.sha256()
    for name, tensor in backbone.state_dict().items():
        digest.update(f"{name} {list(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def as_bytes(content):
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def on_cpu(module):
    return {name: tensor.cpu() for name, tensor in module.state_dict().items()}


def save_backbone(folder, run, backbone):
    """Write backbone.pt and config.json; `folder` is made if need be."""
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / BACKBONE_FILE, as_bytes(on_cpu(backbone)))
    write_index(folder, run)


def save_prompts(folder, run, backbone, sets):
    """Write the four prompt files, each of use alone, and config.json anew. run: as it is with them, `prompted`"""
    trained_on = fingerprint(backbone)
    for situation, prompt_set in zip(Situation, sets):
        content = {**run.facts(), "situation": situation.label, "backbone": trained_on, "weights": on_cpu(prompt_set)}
        write_file(folder / prompt_file(situation), as_bytes(content))
    write_index(folder, run)


def write_index(folder, run):
    """config.json: what the run is, and the SHA-256 of every weight file and of itself, so that no change goes unseen.

    It is written last: a run that broke off while it was saved does not name the files of its last stage.
    """
    facts = {**run.facts(), "data": run.data, "files": {name: sha256((folder / name).read_bytes()) for name in run.files()}}
    facts["sha256"] = digest_of(facts)
    write_file(folder / "config.json", (json.dumps(facts, indent=1) + "\n").encode())


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def digest_of(facts):
    return sha256(json.dumps(facts, sort_keys=True).encode())


def load_run(folder):
    """Read config.json and check every file that it names.

    returns  Run
    raises   InputError where a file is missing or differs from what was saved
    """
    path = folder / "config.json"
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        saved = facts.pop("sha256")
        whole = saved == digest_of(facts)
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; expected a run folder that train.py made") from error
    except (ValueError, KeyError, TypeError, AttributeError):        # not JSON, or not an object with that key
        whole = False
    if not whole:
        raise InputError(f"{path}: was altered after it was saved; restore it, or train again for other settings")
    for name, digest in facts["files"].items():
        if not (folder / name).is_file():
            raise InputError(f"{folder / name}: no such file; expected it beside config.json: restore it or train again")
        if sha256((folder / name).read_bytes()) != digest:
            raise InputError(f"{folder / name}: was altered after it was saved; restore it or train again")
    return Run(from_dict(Config, facts["config"]), facts["classes"], Normalisation(**facts["normalisation"]), facts["data"],
               prompted=len(facts["files"]) > 1)


def load_backbone(folder, run):
    backbone = Backbone(run.config, len(run.classes))
    load_weights(backbone, torch.load(folder / BACKBONE_FILE, weights_only=True), folder / BACKBONE_FILE)
    return backbone


def load_prompt_set(path, backbone):
    """Read one prompt file for a backbone.

    returns  PromptSet, Situation
    raises   InputError where the file is missing, is no prompt file or was trained on another backbone
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; train it with  python train.py --stage prompts --out {path.parent}")
    content = torch.load(path, weights_only=True) if zipfile.is_zipfile(path) else {}
    if "situation" not in content:
        raise InputError(f"{path}: no prompt file; expected one that train.py saved")
    trained_on, situation = content["backbone"], Situation[content["situation"].upper()]
    this_one = fingerprint(backbone)
    if trained_on != this_one:
        raise InputError(f"{path}: trained on backbone {trained_on[:12]}, this one is {this_one[:12]}; "
                         f"expected the same: train the prompts again on this backbone")
    prompt_set = PromptSet(from_dict(Config, content["config"]), backbone.head, torch.Generator())
    load_weights(prompt_set, content["weights"], path)
    return prompt_set, situation


def load_weights(module, weights, path):
    try:
        module.load_state_dict(weights)
    except RuntimeError as error:
        raise InputError(f"{path}: its weights do not fit the run's settings; expected the files of one run") from error


def load_model(folder, run):
    """The run's backbone with its prompt sets, or with none where only the backbone was trained. returns PromptedModel"""
    backbone = load_backbone(folder, run)
    trained = Situation if run.prompted else []
    sets = [load_prompt_set(folder / prompt_file(situation), backbone)[0] for situation in trained]
    return PromptedModel(backbone, sets).eval()
