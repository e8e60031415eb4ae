"""A run's models: trained where they are not there yet, and loaded."""
import logging

import torch

from ptm_mini.errors import InputError
from ptm_mini.method.backbone import Backbone, freeze
from ptm_mini.runs.folder import files_of, save_backbone, save_method
from ptm_mini.runs.weights import fingerprint, load_learned
from ptm_mini.training.methods import BACKBONE, METHODS, ROUTER, assembled
from ptm_mini.training.stages import train_backbone, train_method

logger = logging.getLogger(__name__)


def train_and_save(folder, run, task, method):
    """Train BACKBONE or a member of METHODS and save it in the run folder; what is there already is left alone.

    The backbone's weights are compared before and after: it is frozen once it is trained. returns Run, as it is now
    """
    if method in run.trained:
        logger.info("%s: %s is trained already", folder, method)
        return run
    if method == BACKBONE:
        return save_backbone(folder, run, *train_backbone(task))
    backbone = load_backbone(folder, run).to(task.device)
    before = fingerprint(backbone)
    models, costs = train_method(task, backbone, method)
    if fingerprint(backbone) != before:
        raise RuntimeError(f"the frozen backbone changed while {method} was trained: a bug in ptm_mini, please report it")
    return save_method(folder, run, method, before, models, costs)


def load_backbone(folder, run):
    path = folder / run.backbone
    backbone = Backbone(run.config, len(run.classes))
    try:
        backbone.load_state_dict(torch.load(path, weights_only=True))
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
