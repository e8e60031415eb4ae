"""Variants of a run: the same with other settings, trained where they are not there yet and kept in the run's folder."""
import dataclasses
import logging
from typing import NamedTuple

from ptm_mini.errors import InputError
from ptm_mini.files import locked
from ptm_mini.runs.folder import load_run, new_variant, open_set
from ptm_mini.runs.models import train_and_save
from ptm_mini.settings import get, keys, with_settings
from ptm_mini.training.kept import forget_kept
from ptm_mini.training.methods import BACKBONE, reads
from ptm_mini.training.samples import Task

logger = logging.getLogger(__name__)
ALONE = {"train.together.epochs": 0, "router.passes": 1}            # variants are trained case by case, as in the paper


class Variant(NamedTuple):
    """A run with other settings: a row of an ablation's table."""
    label: str
    x: float                      # where it stands in the picture; None where the picture has bars
    method: str
    changes: dict                 # {dotted key: value}


def train_variant(folder, variant, device, storage):
    """The folder of a variant of the run in `folder`, trained as far as it is not; the run's own where it has trained just
    that. It uses the run's backbone, unless its settings make for another one. Another process that trains it is waited for."""
    run = load_run(folder)
    changes = {key: value for key, value in variant.changes.items() if value != get(run.config, key)}
    config, needed = with_settings(run.config, {**changes, **ALONE}), (BACKBONE, variant.method)
    if variant.method in run.trained and not differing(run.config, config, needed):
        return folder
    target = folder / "variants" / ",".join([variant.method, *(f"{key}={value}" for key, value in changes.items())])
    target.parent.mkdir(exist_ok=True)
    with locked(target.with_name(f".{target.name}.lock")):
        if (target / "config.json").exists():
            found = load_run(target)
            refuse_other_settings(target, found.config, config, needed)
        elif any(reads(BACKBONE, key) for key in changes):
            found = dataclasses.replace(run, config=config, costs={})
        else:
            found = new_variant(folder, run, target, config)
        lacking = [method for method in needed if method not in found.trained]
        if lacking:
            logger.info("training %s", target)
            task = Task(config, open_set(found, storage=storage), found.normalisation, device, bf16=False)
            for method in lacking:
                found = train_and_save(target, found, task, method)
            forget_kept(target)
    return target


def differing(there, config, methods):
    """The keys in which two configs differ, of those that one of the methods reads"""
    return [key for key in keys(config) if get(there, key) != get(config, key) and any(reads(method, key) for method in methods)]


def refuse_other_settings(target, there, config, methods):
    """Raise InputError where the variant in `target` was trained with other settings than `config`, of those that its
    methods read: the run may have got more methods meanwhile, and their settings."""
    for key in differing(there, config, methods):
        raise InputError(f"{target}: was trained with {key}={get(there, key)}; expected {get(config, key)}, as the run has "
                         f"it now: remove that folder")
