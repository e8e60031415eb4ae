"""A run's models: trained where they are not there yet, loaded, and handed on to others."""
import logging
from pathlib import Path

from ptm_mini.errors import InputError
from ptm_mini.files import refuse_existing, write_file
from ptm_mini.method.backbone import Backbone, freeze
from ptm_mini.runs import cav_mae, checkpoint
from ptm_mini.runs.folder import files_of, load_run, save_backbone, save_method
from ptm_mini.runs.sealed import digest_of
from ptm_mini.runs.weights import as_bytes, fingerprint, load_learned, read_tensors
from ptm_mini.training.methods import BACKBONE, METHODS, ROUTER, assembled
from ptm_mini.training.progress import Progress
from ptm_mini.training.stages import train_backbone, train_method

logger = logging.getLogger(__name__)


def train_and_save(folder, run, task, method):
    """Train BACKBONE or a member of METHODS, from where it broke off, and save it in the run folder; what is there already is
    left alone. The backbone's weights are compared before and after: it is frozen once it is trained.

    returns  Run, as it is now
    """
    if method in run.trained:
        logger.info("%s: %s is trained already", folder, method)
        return run
    if method == BACKBONE:
        start = start_of(run) if run.init else None
        task = task._replace(progress=Progress(folder, belongs_to(run, run.init and run.init.sha256)))
        run = save_backbone(folder, run, *train_backbone(task, start and start.weights), start and start.norms)
        task.progress.clear([BACKBONE])
        return run
    backbone = load_backbone(folder, run).to(task.device)
    before = fingerprint(backbone)
    task = task._replace(progress=Progress(folder, belongs_to(run, before)))
    models, costs = train_method(task, backbone, method)
    if fingerprint(backbone) != before:
        raise RuntimeError(f"the frozen backbone changed while {method} was trained: a bug in ptm_mini, please report it")
    run = save_method(folder, run, method, before, models, costs)
    task.progress.clear(cost.stage for cost in costs)
    return run


def belongs_to(run, start):
    """Digest of what the state of a stage depends on: settings, set, and the weights that it starts from"""
    return digest_of({**run.facts(), "set": run.set, "start": start})


def start_of(run):
    """What the backbone of a run with `init` starts from, read anew and said in a few lines. returns cav_mae.Start"""
    path = Path(run.init.file)
    if not path.exists():
        raise InputError(f"{path}: no such file; expected the checkpoint that the run started from: put it back there")
    found = checkpoint.read(path)
    if found.sha256 != run.init.sha256:
        raise InputError(f"{path}: is another file than the run started from; expected SHA-256 {run.init.sha256}")
    start = cav_mae.as_ours(found, run.config, len(run.classes))
    logger.info("%s (SHA-256 %s...): %d tensors loaded; attention has model.heads=%d, which no checkpoint tells",
                path, found.sha256[:12], len(start.weights), run.config.model.heads)
    for remark in start.remarks:
        logger.info("%s: %s", path, remark)
    return start


def export(folder, path):
    """Write the backbone of the run in `folder` as a CAV-MAE checkpoint."""
    refuse_existing(path)
    run = load_run(folder)
    norms = read_tensors(folder / run.norms) if run.init else {}
    write_file(path, as_bytes(cav_mae.as_official(load_backbone(folder, run), run.config, norms)))
    logger.info("wrote %s", path)


def load_backbone(folder, run):
    path = folder / run.backbone
    backbone = Backbone(run.config, len(run.classes))
    try:
        backbone.load_state_dict(read_tensors(path))
    except RuntimeError as error:
        raise InputError(f"{path}: its weights do not fit the run's settings; expected the files of one run") from error
    return backbone


def load_models(folder, run, device):
    """The run's models, ready for evaluation. returns Backbone, {method: model}, Router or None"""
    backbone = freeze(load_backbone(folder, run))
    trained_on, models, router = fingerprint(backbone), {}, None
    for method in (method for method in METHODS if method in run.trained):
        found = [load_learned(folder / name, backbone, trained_on) for name in files_of(method)]
        if ROUTER in METHODS[method].stages:
            *found, router = found
        models[method] = assembled(found).to(device)
    return backbone.to(device), models, None if router is None else router.to(device)
