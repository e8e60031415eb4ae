"""Train the backbone on complete data, then prompts for each situation on the frozen backbone, and evaluate.

python train.py                                   the toy set, made if it is not there; under three minutes on two cores
python train.py --data sets/av_mnist --seed 1     another prepared set
python train.py --stage prompts --out RUN         prompts for a run that has a backbone
"""
import argparse
import dataclasses
import itertools
import logging
import math
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn import functional as F

from data_prep import toy
from eval import evaluate_run, open_set, pick_device
from ptm_mini import checkpoint
from ptm_mini.config import DAMAGES, PRESETS, Config, InputError, NonFiniteLoss, Situation, get
from ptm_mini.command import run as run_command
from ptm_mini.data import Normalisation, PreparedSet, fraction_of, in_batches, shifted
from ptm_mini.degrade import degrade_batch, seeded_generator
from ptm_mini.evaluate import Score, measure, strategies_of
from ptm_mini.files import refuse_existing
from ptm_mini.model import Backbone, PromptedModel, initialise
from ptm_mini.overrides import override, replace
from ptm_mini.prompts import PromptSet

logger = logging.getLogger("train")
TOY = Path("sets/toy")
STAGES = {"backbone": ["backbone"], "prompts": ["prompts", "together"], "all": ["backbone", "prompts", "together"]}


class Task(NamedTuple):
    """What every stage trains on."""
    config: Config
    data: PreparedSet
    normalisation: Normalisation
    device: torch.device
    bf16: bool

    def indices(self, situation, fraction=1.0):
        """Training samples that can be in this situation, or a share of each class of them."""
        indices = self.data.indices("train", situation)
        return fraction_of(indices, self.data.labels, fraction, self.config.train.seed)

    def damaged(self, indices, situations, epoch):
        """A training batch, shifted and damaged: audio, image, situations and labels, on the device."""
        train = self.config.train
        batch = self.data.batch(indices, self.normalisation)
        batch = shifted(batch, train.audio_shift, train.image_shift, train.seed, epoch)
        inputs = degrade_batch(batch, situations, self.config.damage, train.seed, epoch)
        return [x.to(self.device) for x in (*inputs, batch.labels)]

    def autocast(self):
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16)

    def loss(self, scores, labels):
        return F.cross_entropy(scores, labels, label_smoothing=self.config.train.label_smoothing)

    def validate(self, strategies, situation):
        with self.autocast():
            return measure(strategies, self.data, "val", situation, self.config, self.normalisation, self.device)


def train_backbone(task):
    """Stage 1: everything learns, on complete data only."""
    backbone = Backbone(task.config, len(task.data.classes))
    initialise(backbone, torch.Generator().manual_seed(task.config.train.seed))
    backbone.to(task.device)

    def loss_of(indices, epoch):
        audio, image, _, labels = task.damaged(indices, torch.full_like(indices, Situation.COMPLETE), epoch)
        with task.autocast():
            return task.loss(backbone(audio, image), labels)

    def validate():
        plain = {"backbone": lambda audio, image, situations: backbone(audio, image)}
        return task.validate(plain, Situation.COMPLETE)["backbone"]

    fit("backbone", backbone, task.config.train.backbone, task.indices(Situation.COMPLETE), task.config.train.seed,
        loss_of, validate)
    return backbone


def train_case(task, backbone, situation):
    """Stage 2, case by case: fresh prompts for one situation, which every training sample is put in."""
    generator = torch.Generator().manual_seed(task.config.train.seed * len(Situation) + situation)
    prompt_set = PromptSet(task.config, backbone.head, generator).to(task.device)
    model = PromptedModel(backbone, [prompt_set])

    def scores_of(audio, image, situations):
        return model.situation(audio, image, torch.zeros_like(situations))        # the one set there is

    def loss_of(indices, epoch):
        audio, image, situations, labels = task.damaged(indices, torch.full_like(indices, situation), epoch)
        with task.autocast():
            return task.loss(scores_of(audio, image, situations), labels)

    def validate():
        return task.validate({"situation": scores_of}, situation)["situation"]

    train = task.config.train
    fit(f"prompts {situation.label}", model, train.prompts, task.indices(situation, train.fraction), train.seed, loss_of,
        validate)
    return prompt_set


def train_together(task, backbone, sets):
    """Stage 3, all cases at once: each sample is put in a situation of its own and answered twice, with the set of that
    situation and with all sets side by side. Both losses reach the sets, so they learn to agree as well as to stand alone.
    """
    model, train = PromptedModel(backbone, sets), task.config.train

    def loss_of(indices, epoch):
        names = [f"situation {task.data.rows[i].id}" for i in indices]
        drawn = torch.tensor([int(seeded_generator(train.seed, epoch, name).integers(len(Situation))) for name in names])
        audio, image, situations, labels = task.damaged(indices, drawn, epoch)
        with task.autocast():
            alone = task.loss(model.situation(audio, image, situations), labels)
            return (alone + task.loss(model.concat(audio, image), labels)) / 2

    def validate():
        strategies = {name: strategies_of(model)[name] for name in ("situation", "concat")}
        scores = [score for situation in Situation for score in task.validate(strategies, situation).values()]
        return Score(*(sum(values) / len(scores) for values in zip(*scores)))

    fit("prompts together", model, train.together, task.indices(Situation.NOISY_BOTH, train.fraction), train.seed, loss_of,
        validate)


def fit(name, module, settings, indices, seed, loss_of, validate):
    """Train the parameters of `module` and leave it at its best epoch on the validation split.

    settings  StageConfig
    indices   [n] long, the training samples
    loss_of   function(indices [B], epoch) -> loss
    validate  function() -> Score; the best epoch has the highest accuracy, of equal ones the lowest loss
    """
    parameters = {key: p for key, p in module.named_parameters() if p.requires_grad}
    if not sum(p.numel() for p in parameters.values()):
        raise InputError(f"{name}: nothing can learn; expected prompts.length above 0, or prompts.tune_head=true")
    logger.info("%s: %s", name, describe(parameters))
    optimiser = torch.optim.AdamW(parameters.values(), lr=settings.learning_rate, weight_decay=settings.weight_decay)
    batches = math.ceil(len(indices) / settings.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate,
                                                   total_steps=max(1, batches * settings.epochs))
    best, best_weights, start = None, None, time.monotonic()
    for epoch in range(1, settings.epochs + 1):
        total, epoch_start = 0.0, time.monotonic()
        module.train()
        for some in in_batches(indices, settings.batch_size, seeded_generator(seed, epoch, name)):
            loss = loss_of(some, epoch)
            if not torch.isfinite(loss):
                raise NonFiniteLoss(f"{name}: the loss became {loss.item()} in epoch {epoch}; lower the learning rate "
                                    f"({settings.learning_rate}) or check the data")
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.item() * len(some)
        module.eval()
        score = validate()
        if best is None or (score.accuracy, -score.loss) > (best.accuracy, -best.loss):
            best, best_weights = score, {key: value.clone() for key, value in module.state_dict().items()}
        now = time.monotonic()
        logger.info("%-20s epoch %3d/%d   loss %.4f   validation %.4f   %5.1f s   left %s", name, epoch, settings.epochs,
                    total / len(indices), score.accuracy, now - epoch_start,
                    minutes((now - start) / epoch * (settings.epochs - epoch)))
    if best_weights is not None:
        module.load_state_dict(best_weights)


def describe(parameters):
    """What is about to learn, by count and, where that is a readable list, by name. parameters: {name: tensor}"""
    total = f"{sum(p.numel() for p in parameters.values()):,} numbers learn"
    if len(parameters) > 12:
        return f"{total}, in {len(parameters)} tensors"
    return total + ": " + ", ".join(f"{name} {'x'.join(map(str, p.shape))}" for name, p in parameters.items())


def minutes(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def train_prompts(task, backbone):
    """Stages 2 and 3 on the frozen backbone, whose weights are compared before and after. returns the four sets"""
    before = checkpoint.fingerprint(backbone)
    sets = [train_case(task, backbone, situation) for situation in Situation]
    train_together(task, backbone, sets)
    if checkpoint.fingerprint(backbone) != before:
        raise RuntimeError("the frozen backbone changed while prompts were trained: a bug in ptm_mini, please report it")
    return sets


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stage", choices=STAGES, default="all",
                        help="what to train; prompts needs --out with a trained backbone (default: %(default)s)")
    parser.add_argument("--data", type=Path, help="prepared set; default: sets/toy, made if it is not there")
    parser.add_argument("--out", type=Path, help="run folder; default: the first free runs/SET-NUMBER")
    parser.add_argument("--preset", choices=PRESETS, help="sizes of model and inputs; default: tiny")
    parser.add_argument("--damage", choices=DAMAGES, help="severity to train and evaluate with; default: strong")
    parser.add_argument("--epochs", type=int, help="epochs of every stage that runs; default: each stage's own")
    parser.add_argument("--seed", type=int, help="of weights, order, augmentation and damage; default: 0")
    parser.add_argument("--fraction", type=float, help="share of the training split that prompts learn from; default: 1")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="any other setting, such as prompts.length=4 (see ptm_mini/config.py); can be repeated")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto",
                        help="auto takes a CUDA device if there is one (default: %(default)s)")
    parser.add_argument("--bf16", action="store_true", help="train in mixed bfloat16 precision; needs CUDA")
    return parser.parse_args(argv)


def settings(options, config):
    """`config` with what the command line changes; --set comes last."""
    if options.damage:
        config = dataclasses.replace(config, damage=DAMAGES[options.damage])
    changes = {"train.seed": options.seed, "train.fraction": options.fraction,
               **{f"train.{stage}.epochs": options.epochs for stage in STAGES[options.stage]}}
    return override(replace(config, {key: value for key, value in changes.items() if value is not None}), options.set)


def new_run(options):
    """The run that is to be trained from the start, checked before any work. returns Run, PreparedSet, its folder"""
    config = settings(options, PRESETS[options.preset or "tiny"])
    if options.data is None and not TOY.exists():
        logger.info("making the toy set in %s", TOY)
        toy.make(TOY, toy.RECORDINGS, "grouped", seed=0)
    source = options.data or TOY
    numbered = (Path("runs", f"{source.resolve().name}-{n}") for n in itertools.count(1))
    folder = options.out or next(path for path in numbered if not path.exists())
    refuse_existing(folder)
    data = PreparedSet(source, config)
    return checkpoint.Run(config, data.classes, data.normalisation(), str(data.folder), prompted=False), data, folder


def backbone_run(options):
    """The run in --out whose backbone is to get prompts, checked likewise. returns Run, PreparedSet, its folder"""
    folder = options.out
    if folder is None:
        raise InputError("--stage prompts: expected --out RUN, a run folder with a trained backbone")
    if options.preset:
        raise InputError(f"--preset {options.preset}: belongs to the backbone in {folder}; leave it out")
    run = checkpoint.load_run(folder)
    if run.prompted:
        raise InputError(f"--out {folder}: has prompts already; expected a run of --stage backbone: copy backbone.pt and "
                         f"config.json of such a run to a new folder")
    config = settings(options, run.config)
    for part in ("audio", "image", "model", "train.backbone"):
        if get(config, part) != get(run.config, part):
            raise InputError(f"--set {part}.*: belongs to the backbone in {folder}; train another with --stage backbone")
    data = open_set(run, options.data)
    return dataclasses.replace(run, config=config, data=str(data.folder)), data, folder


def main(argv=None):
    options = parse_arguments(argv)
    device = pick_device(options.device)
    if options.bf16 and device.type != "cuda":
        raise InputError(f"--bf16: needs a CUDA device, this is {device.type}; leave it out")
    run, data, folder = backbone_run(options) if options.stage == "prompts" else new_run(options)
    task = Task(run.config, data, run.normalisation, device, options.bf16)
    if options.stage == "prompts":
        backbone = checkpoint.load_backbone(folder, run).to(device)
    else:
        backbone = train_backbone(task)
        checkpoint.save_backbone(folder, run, backbone)
    if options.stage != "backbone":
        sets = train_prompts(task, backbone)
        checkpoint.save_prompts(folder, dataclasses.replace(run, prompted=True), backbone, sets)
    evaluate_run(folder, device)


if __name__ == "__main__":
    run_command(main)
