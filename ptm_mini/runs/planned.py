"""From the options of train.py to a run that can be trained: all that can be known before training is checked before it."""
import dataclasses

from ptm_mini.config import DAMAGES, PRESETS, Config, Situation
from ptm_mini.data.manifest import read_classes
from ptm_mini.data.prepared import Normalisation, PreparedSet
from ptm_mini.data.used import warn_of_what_is_cut
from ptm_mini.errors import InputError
from ptm_mini.runs import cav_mae, checkpoint
from ptm_mini.runs.folder import Origin, Run, load_run, open_set
from ptm_mini.settings import get, keys, with_assignments, with_settings
from ptm_mini.training.methods import BACKBONE, reads, refuse_nothing_to_learn, stages_of


def settings(options, config, seed, lacking):
    """`config` with what the command line changes; --set comes last. lacking: the methods that are to be trained"""
    if options.damage:
        config = dataclasses.replace(config, damage=DAMAGES[options.damage])
    stages = {f"train.{stage}.epochs" for method in lacking for stage in stages_of(method)} & set(keys(config))
    changes = {"train.seed": seed, "train.fraction": options.fraction, **dict.fromkeys(stages, options.epochs)}
    changes = {key: value for key, value in changes.items() if value is not None}
    if options.freeze_backbone:
        changes |= cav_mae.AS_IT_IS
    return with_assignments(with_settings(config, changes), options.set)


def new_run(options, folder, seed):
    """A run that is to be trained from the start on the prepared set in `folder`. returns Run, PreparedSet"""
    config = settings(options, PRESETS[options.preset or "tiny"], seed, [BACKBONE, *options.method])
    if options.freeze_backbone and not options.init:
        raise InputError("--freeze-backbone: there is nothing to freeze yet; expected --init FILE with it")
    if options.freeze_backbone and config.train.backbone.epochs:
        raise InputError(f"setting train.backbone.epochs={config.train.backbone.epochs}: does not go with --freeze-backbone; "
                         f"leave one of them out")
    found = checkpoint.read(options.init) if options.init else None
    init = origin(found, config, folder, options.freeze_backbone) if found else None
    data = PreparedSet(folder, config, options.storage)
    warn_of_what_is_cut(data, config)
    run = Run(config, data.classes, normalisation_of(data, config.train), str(data.folder), data.fingerprint(), init=init)
    refuse_what_can_not_be_trained(run, data, options.method)
    return run, data


def normalisation_of(data, train):
    """The Normalisation of a new run: what TrainConfig fixes, or else a PreparedSet's own"""
    return Normalisation(train.audio_mean, train.audio_std) if train.audio_std else data.normalisation()


def origin(found, config, folder, frozen):
    """The Origin of a backbone that starts from a Checkpoint, tried on the settings and the classes of the set in `folder`.

    The run reads the file again when its time has come, rather than keep what it holds.
    """
    start = cav_mae.as_ours(found, config, len(read_classes(folder / "classes.json")))
    if frozen and start.no_head:
        raise InputError(f"--freeze-backbone: {found.path}: {start.no_head}; expected a model fine-tuned on the set's "
                         f"classes: leave out --freeze-backbone, and it will be")
    return Origin(str(found.path.resolve()), found.sha256)


def extended_run(options, folder, seed):
    """A run that is there, with the settings of the methods that it lacks. returns Run, PreparedSet"""
    run = load_run(folder)
    for flag in ("preset", "init", "freeze_backbone"):
        if getattr(options, flag) and not options.resume:
            raise InputError(f"--{flag.replace('_', '-')}: belongs to the backbone in {folder}; leave it out")
    lacking = [method for method in options.method if method not in run.trained]
    config = settings(options, with_settings(run.config, fresh_stages(run)), seed, lacking)
    for key in keys(config):
        if get(config, key) != get(run.config, key) and any(reads(method, key) for method in run.trained):
            raise InputError(f"setting {key}={get(config, key)}: {folder} was trained with {get(run.config, key)}; leave it "
                             f"out, or choose another --out for a new run")
    data = open_set(run, options.data, options.storage)
    if run.set not in (None, data.fingerprint()):
        raise InputError(f"--data {options.data}: is not the set that {folder} was trained on; leave it out, or choose another "
                         f"--out for a new run")
    run = dataclasses.replace(run, config=config, data=str(data.folder))
    refuse_what_can_not_be_trained(run, data, options.method)
    return run, data


def fresh_stages(run):
    """{key: default} of the stages of training that have not been: what an earlier command said of them does not stay"""
    stages = [key for key in keys(run.config) if key.startswith("train.") and key.count(".") == 2]
    return {key: get(Config(), key) for key in stages if not any(reads(method, key) for method in run.trained)}


def refuse_what_can_not_be_trained(run, data, asked):
    """Raise InputError for what would else come to light when the backbone has been trained. asked: methods"""
    for split in ("train", "val"):
        data.indices(split, Situation.COMPLETE)             # refuses a split without: no stage could do its work
    data.indices("test")
    if "prompt" in asked and "prompt" not in run.trained:
        refuse_nothing_to_learn(run.config)
