"""The run folder: config.json, backbone.pt and, for each method, what it learned; written whole and read strictly."""
import hashlib
import io
import json
import os
import zipfile
from dataclasses import asdict, dataclass, replace

import torch

from ptm_mini.baselines import MODELS, merge
from ptm_mini.config import METHODS, Config, InputError, Situation
from ptm_mini.cost import Cost
from ptm_mini.data import Normalisation
from ptm_mini.files import write_file
from ptm_mini.model import Backbone, CaseModels, PromptedModel, frozen
from ptm_mini.overrides import from_dict
from ptm_mini.router import Router

BACKBONE_FILE, ROUTER_FILE, COSTS_FILE = "backbone.pt", "router.pt", "costs.json"


def files_of(method):
    """The names of the files that hold what a method learned; the prompts' come with the router's."""
    if method == "full_mixed":
        return ["full_mixed.pt"]
    return [f"{method}-{situation.label}.pt" for situation in Situation] + [ROUTER_FILE] * (method == "prompt")


@dataclass(frozen=True)
class Run:
    """What config.json says of a run."""
    config: Config
    classes: list                     # K names
    normalisation: Normalisation
    data: str                         # the set's folder, absolute
    trained: tuple = ()               # the members of METHODS that are there, as they were trained
    backbone: str = BACKBONE_FILE     # the backbone's file, seen from the run folder: a variant uses another run's

    def facts(self):
        """What weights need to be used, as JSON can hold it."""
        return {"config": asdict(self.config), "classes": self.classes, "normalisation": self.normalisation._asdict()}

    def files(self):
        """{method: names of its files}"""
        return {method: [self.backbone] if method == "backbone" else files_of(method) for method in self.trained}


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


def learned(model):
    """What a model learns, {name: tensor on the CPU}: the parameters that have gradients."""
    return {name: p.detach().cpu() for name, p in model.named_parameters() if p.requires_grad}


def save_backbone(folder, run, backbone, costs):
    """Write backbone.pt and config.json; `folder` is made if need be. returns Run, as it is now"""
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / BACKBONE_FILE, as_bytes({name: tensor.cpu() for name, tensor in backbone.state_dict().items()}))
    return add_to_index(folder, run, "backbone", costs)


def save_method(folder, run, method, backbone, models, costs):
    """Write what each model learned, a file each and of use alone, and config.json anew.

    models   in the order of files_of(method)
    costs    list of Cost, one a stage
    returns  Run, as it is now
    """
    trained_on = fingerprint(backbone)
    for name, model in zip(files_of(method), models, strict=True):
        content = {**run.facts(), "method": method, "file": name, "backbone": trained_on, "weights": learned(model)}
        write_file(folder / name, as_bytes(content))
    return add_to_index(folder, run, method, costs)


def new_variant(folder, run, target, config):
    """A new run folder `target` for other settings on the backbone of the run in `folder`, which stays where it is.

    returns  Run, with nothing but the backbone
    """
    target.mkdir(parents=True)
    variant = replace(run, config=config, trained=(), backbone=os.path.relpath(folder / run.backbone, target))
    return add_to_index(target, variant, "backbone", load_costs(folder, run.trained)["backbone"])


def add_to_index(folder, run, method, costs):
    """Add a method whose files are written to costs.json and config.json. returns Run, as it is now"""
    all_costs = {**load_costs(folder, run.trained), method: costs}
    content = {name: [cost._asdict() for cost in stages] for name, stages in all_costs.items()}
    write_file(folder / COSTS_FILE, (json.dumps(content, indent=1) + "\n").encode())
    run = replace(run, trained=(*run.trained, method))
    write_index(folder, run)
    return run


def write_index(folder, run):
    """config.json: what the run is, and the SHA-256 of every weight file and of itself, so that no change goes unseen.

    It is written last: a run that broke off while it was saved does not name the files of its last stage.
    """
    facts = {**run.facts(), "data": run.data, "trained": run.trained, "backbone": run.backbone,
             "files": {name: sha256((folder / name).read_bytes()) for names in run.files().values() for name in names}}
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
    try:
        config = from_dict(Config, facts["config"])
    except InputError as error:
        raise InputError(f"{path}: saved by another version of ptm_mini ({error}); train the run again") from error
    return Run(config, facts["classes"], Normalisation(**facts["normalisation"]), facts["data"], tuple(facts["trained"]),
               facts["backbone"])


def load_costs(folder, methods):
    """{method: list of Cost} of a run's methods, from costs.json"""
    path = folder / COSTS_FILE
    try:
        saved = json.loads(path.read_text(encoding="utf-8")) if methods else {}
        return {method: [Cost(**cost) for cost in saved[method]] for method in methods}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not there or not whole; expected the costs of {', '.join(methods)}: restore it") from error


def sizes(folder, run):
    """{method: bytes of its files}, the router's not counted"""
    return {method: sum((folder / name).stat().st_size for name in names if name != ROUTER_FILE)
            for method, names in run.files().items()}


def load_backbone(folder, run):
    path = folder / run.backbone
    backbone = Backbone(run.config, len(run.classes))
    try:
        backbone.load_state_dict(torch.load(path, weights_only=True))
    except RuntimeError as error:
        raise InputError(f"{path}: its weights do not fit the run's settings; expected the files of one run") from error
    return backbone


def load_learned(path, backbone, trained_on):
    """Read one file of a method for a backbone.

    trained_on  the backbone's fingerprint
    returns     the model, and the file's own name: whose situation it is
    raises      InputError where the file is missing, is of another kind or was trained on another backbone
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file; expected one that train.py saved")
    content = torch.load(path, weights_only=True) if zipfile.is_zipfile(path) else {}
    if "method" not in content:
        raise InputError(f"{path}: holds no prompts or other method; expected a file that train.py saved")
    if content["backbone"] != trained_on:
        raise InputError(f"{path}: trained on backbone {content['backbone'][:12]}, this one is {trained_on[:12]}; "
                         f"expected the same: train it again on this backbone")
    config = from_dict(Config, content["config"])
    model = (Router(backbone) if content["file"] == ROUTER_FILE
             else MODELS[content["method"]](backbone, config, torch.Generator()))
    own, weights = {name: p for name, p in model.named_parameters() if p.requires_grad}, content["weights"]
    if {name: p.shape for name, p in own.items()} != {name: p.shape for name, p in weights.items()}:
        raise InputError(f"{path}: its weights do not fit its settings; restore it or train it again")
    with torch.no_grad():
        for name, p in own.items():
            p.copy_(weights[name])
    return model.requires_grad_(False), content["file"]


def load_models(folder, run):
    """The run's models, ready for evaluation. returns Backbone, {method: model}, Router or None"""
    backbone = load_backbone(folder, run)
    trained_on, models, router = fingerprint(backbone), {}, None
    for method in (method for method in METHODS[1:] if method in run.trained):
        found = []
        for name in files_of(method):
            model, says = load_learned(folder / name, backbone, trained_on)
            if says != name:
                raise InputError(f"{folder / name}: was saved as {says}; give it back its name")
            found.append(model)
        if method == "prompt":
            *found, router = found
            models[method] = PromptedModel(backbone, [model.set for model in found])
        elif method == "full_mixed":
            models[method] = found[0]
        else:
            models[method] = CaseModels(map(merge, found))
    return frozen(backbone), models, router
