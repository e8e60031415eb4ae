"""The run folder: config.json, backbone.pt and, for each method, what it learned; written whole and read strictly."""
import logging
import os
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path, PurePath
from typing import NamedTuple

from ptm_mini.config import Config
from ptm_mini.data.prepared import Normalisation, PreparedSet
from ptm_mini.data.storage import Storage
from ptm_mini.errors import InputError
from ptm_mini.files import write_file
from ptm_mini.runs.sealed import read_json, read_sealed, sealed, sha256_of
from ptm_mini.runs.weights import ROUTER_FILE, as_bytes, learned
from ptm_mini.settings import from_dict, shown
from ptm_mini.training.cost import Cost
from ptm_mini.training.methods import BACKBONE, METHODS, ROUTER

BACKBONE_FILE, NORMS_FILE = "backbone.pt", "cav_mae_norms.pt"
logger = logging.getLogger(__name__)
FORMAT = 2                        # of config.json. 1, of the versions to 0.3, had the costs in a file of their own


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
    set: str | None = None            # PreparedSet.fingerprint(); None: not known, as of runs of format 1
    backbone: str = BACKBONE_FILE     # the backbone's file, seen from the run folder: a variant uses another run's
    init: Origin | None = None        # None: the backbone was trained from scratch
    costs: dict = field(default_factory=dict)     # {what is trained, BACKBONE or of METHODS, in order: list of Cost}

    @property
    def trained(self):
        return tuple(self.costs)

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
    """A new run folder `target` for other settings on the backbone of the run in `folder`, which stays where it is. returns
    Run, with nothing but the backbone"""
    target.mkdir(parents=True, exist_ok=True)
    variant = replace(run, config=config, costs={}, backbone=os.path.relpath(folder / run.backbone, target))
    return add_to_index(target, variant, BACKBONE, run.costs[BACKBONE])


def add_to_index(folder, run, method, costs):
    """Add a method whose files are written to config.json. returns Run, as it is now"""
    run = replace(run, costs={**run.costs, method: costs})
    write_index(folder, run)
    return run


def write_index(folder, run):
    """config.json: what the run is, and the SHA-256 of every weight file and of itself, so that no change goes unseen.

    It is written last: a run that broke off while it was saved does not name the files of its last stage.
    """
    facts = {"format": FORMAT, **run.facts(), "data": run.data, "set": run.set, "backbone": run.backbone,
             "init": run.init and run.init._asdict(),
             "costs": {method: [cost._asdict() for cost in costs] for method, costs in run.costs.items()},
             "files": {name: sha256_of(folder / name) for names in run.files().values() for name in names}}
    write_file(folder / "config.json", sealed(facts))


def load_run(folder):
    """Read config.json and check every file that it names.

    returns  Run
    raises   InputError where a file is missing or differs from what was saved
    """
    path = folder / "config.json"
    facts = read_sealed(path)
    version = facts.get("format", 1)
    if version not in range(1, FORMAT + 1):
        raise InputError(f"{path}: has format {shown(version)}, of another ptm_mini; expected 1 to {FORMAT}: use that version")
    try:
        for name, digest in facts["files"].items():
            if not (folder / name).is_file():
                raise InputError(f"{folder / name}: no such file; expected it beside config.json: restore it or train again")
            if sha256_of(folder / name) != digest:
                raise InputError(f"{folder / name}: was altered after it was saved; restore it or train again")
        if version == 1:
            logger.info("%s: saved by version 0.3 or earlier, and read as it is; its costs are in costs.json", folder)
            facts["costs"] = costs_of_format_1(folder / "costs.json", facts["trained"])
        for method in (method for method in facts["costs"] if method not in (BACKBONE, *METHODS)):
            raise InputError(f"{path}: has the method {shown(method)}, of another ptm_mini; expected some of "
                             f"{', '.join(METHODS)}: use the version that trained it")
        init = facts.get("init")                                         # version 0.2 had no such thing
        run = Run(config_in(path, facts), facts["classes"], Normalisation(**facts["normalisation"]), facts["data"],
                  facts.get("set"), facts["backbone"], init and Origin(**init),
                  {method: [Cost(**cost) for cost in costs] for method, costs in facts["costs"].items()})
        if not is_of_its_types(run):
            raise TypeError("a value of another type")
    except InputError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise InputError(f"{path}: is not what train.py saves ({type(error).__name__}: {error}); restore it or train it "
                         f"again") from error
    return run


def is_of_its_types(run):
    """Whether what JSON can hold of any type is of the one that it was saved with."""
    costs = [cost for stages in run.costs.values() for cost in stages]
    texts = [run.data, run.backbone, *run.classes, *(text for cost in costs for text in (cost.stage, cost.machine))]
    numbers = [x for cost in costs for x in (cost.parameters, cost.epochs, cost.seconds, cost.memory, cost.validation or 0)]
    return (isinstance(run.classes, list) and all(isinstance(text, str) for text in texts)
            and all(isinstance(x, float) for x in run.normalisation) and all(type(x) in (int, float) for x in numbers)
            and BACKBONE in run.costs and all(run.costs.values()))


def config_in(path, facts):
    try:
        return from_dict(Config, facts["config"])
    except InputError as error:
        raise InputError(f"{path}: saved by another version of ptm_mini ({error}); train the run again") from error


def costs_of_format_1(path, methods):
    """{method: list of dicts} from a costs.json, as config.json holds them now"""
    try:
        saved = read_json(path)
        return {method: saved[method] for method in methods}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not there or not whole; expected the costs of {', '.join(methods)}: restore it") from error


def open_set(run, folder=None, storage=Storage(), place=0.0):
    """The PreparedSet of a run, or the one in `folder`, which must have the same classes. place: as PreparedSet takes it"""
    own, folder = folder is None, folder or Path(run.data)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; expected the run's set: say with --data where it is now")
    data = PreparedSet(folder, run.config, storage, place)
    if own and run.set not in (None, data.fingerprint()):
        raise InputError(f"{folder}: has other samples or files than when the run was trained on it; restore it, or say "
                         f"--data {folder} to take it as it is now")
    if data.classes != run.classes:
        raise InputError(f"{folder}: its classes differ from the run's; expected {', '.join(run.classes)}")
    return data


def sizes(folder, run):
    """{method: bytes of its files}, the router's not counted"""
    return {method: sum((folder / name).stat().st_size for name in names if name != ROUTER_FILE)
            for method, names in run.files().items()}
