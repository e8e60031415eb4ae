"""The run folder: config.json, backbone.pt and, for each method, what it learned; written whole and read strictly."""
import hashlib
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import PurePath
from typing import NamedTuple

from ptm_mini.config import Config
from ptm_mini.data.prepared import Normalisation
from ptm_mini.errors import InputError
from ptm_mini.files import write_file
from ptm_mini.runs.weights import ROUTER_FILE, as_bytes, learned
from ptm_mini.settings import from_dict
from ptm_mini.training.cost import Cost
from ptm_mini.training.methods import BACKBONE, METHODS, ROUTER

BACKBONE_FILE, COSTS_FILE, NORMS_FILE = "backbone.pt", "costs.json", "cav_mae_norms.pt"


def files_of(method):
    """The names of the files that hold what a method learned, in the order of its cases; the router's comes behind."""
    files = [f"{name.replace(' ', '-')}.pt" for name in METHODS[method].model_names(method)]
    return files + [ROUTER_FILE] if ROUTER in METHODS[method].stages else files


class Origin(NamedTuple):
    """The checkpoint that a backbone started from."""
    file: str                     # its path, absolute
    sha256: str


@dataclass(frozen=True)
class Run:
    """What config.json says of a run."""
    config: Config
    classes: list                     # K names
    normalisation: Normalisation
    data: str                         # the set's folder, absolute
    trained: tuple = ()               # BACKBONE and members of METHODS that are there, as they were trained
    backbone: str = BACKBONE_FILE     # the backbone's file, seen from the run folder: a variant uses another run's
    init: Origin | None = None        # None: the backbone was trained from scratch

    def facts(self):
        """What weights need to be used, as JSON can hold it."""
        return {"config": asdict(self.config), "classes": self.classes, "normalisation": self.normalisation._asdict()}

    @property
    def norms(self):
        """The file beside the backbone's that holds what else of a checkpoint there was, seen from the run folder"""
        return str(PurePath(self.backbone).with_name(NORMS_FILE))

    def files(self):
        """{method: names of its files}"""
        of_backbone = [self.backbone, self.norms] if self.init else [self.backbone]
        return {method: of_backbone if method == BACKBONE else files_of(method) for method in self.trained}


def normalisation_of(data, train):
    """The Normalisation of a new run: what TrainConfig fixes, or else a PreparedSet's own"""
    return Normalisation(train.audio_mean, train.audio_std) if train.audio_std else data.normalisation()


def save_backbone(folder, run, backbone, costs, norms=None):
    """Write backbone.pt and config.json; `folder` is made if need be. returns Run, as it is now

    norms  of one modality alone, {name: tensor}, for a run that started from a checkpoint
    """
    folder.mkdir(parents=True, exist_ok=True)
    if run.init:
        write_file(folder / NORMS_FILE, as_bytes(norms))
    write_file(folder / BACKBONE_FILE, as_bytes({name: tensor.cpu() for name, tensor in backbone.state_dict().items()}))
    return add_to_index(folder, run, BACKBONE, costs)


def save_method(folder, run, method, trained_on, models, costs):
    """Write what each model learned, a file each and of use alone, and config.json anew.

    trained_on  the backbone's fingerprint
    models      in the order of files_of(method)
    costs       list of Cost, one a stage
    returns     Run, as it is now
    """
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
    return add_to_index(target, variant, BACKBONE, load_costs(folder, run.trained)[BACKBONE])


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
             "init": run.init and run.init._asdict(),
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
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror}); expected a run folder that train.py made") from error
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
    init = facts.get("init")                                         # version 0.2 had no such thing
    return Run(config, facts["classes"], Normalisation(**facts["normalisation"]), facts["data"], tuple(facts["trained"]),
               facts["backbone"], init and Origin(**init))


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
