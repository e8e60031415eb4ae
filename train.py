"""Train a backbone on complete data, then prompts, or what they are compared with, on the frozen backbone; evaluate.

python train.py                                       the toy set, made if it is not there; minutes on two cores
python train.py --data sets/av_mnist --seed 1         another prepared set
python train.py --method all --seeds 3 --out runs/x   every method, three times
python train.py --method lora --out runs/toy-1        one more method for a run that is there
"""
import argparse
import dataclasses
import itertools
import logging
import math
import time
from pathlib import Path

import torch

from data_prep import toy
from ptm_mini import checkpoint
from ptm_mini.baselines import MODELS
from ptm_mini.command import run as run_command
from ptm_mini.config import DAMAGES, METHODS, PRESETS, STAGES, InputError, NonFiniteLoss, Situation, get, keys
from ptm_mini.cost import Cost, StepMemory, machine_of
from ptm_mini.data import PreparedSet, in_batches
from ptm_mini.degrade import seeded_generator
from ptm_mini.evaluate import routes
from ptm_mini.files import refuse_existing
from ptm_mini.model import Backbone, PromptedModel, initialise
from ptm_mini.overrides import override, reads, replace
from ptm_mini.results import evaluate_runs, open_set, runs_in
from ptm_mini.router import Router
from ptm_mini.task import Task, pick_device

logger = logging.getLogger("train")
TOY = Path("sets/toy")
EVERY = list(Situation)


def train_model(task, name, model, stage, situations, fraction):
    """Train a model with cross-entropy. Each sample is put into one of `situations`, drawn anew each epoch; with one of
    them this is the paper's case-wise training, with all four a mix.

    stage    StageConfig
    returns  Cost
    """
    def loss_of(indices, epoch):
        audio, image, _, labels = task.damaged(indices, task.drawn(indices, situations, epoch), epoch)
        with task.autocast():
            return task.loss(model(audio, image), labels)

    def validate():
        return task.validate({name: lambda audio, image, _: model(audio, image)}, situations)

    return fit(name, model, stage, task.indices(situations, fraction), task.config.train.seed, loss_of, validate)


def train_backbone(task):
    """Everything learns, on complete data only. returns Backbone, [Cost]"""
    backbone = Backbone(task.config, len(task.data.classes))
    initialise(backbone, torch.Generator().manual_seed(task.config.train.seed))
    backbone.to(task.device)
    return backbone, [train_model(task, "backbone", backbone, task.config.train.backbone, [Situation.COMPLETE], fraction=1.0)]


def train_method(task, backbone, method):
    """A method on the frozen backbone: a model for each situation, or for full_mixed one for all.

    returns  models in the order of checkpoint.files_of(method), list of Cost
    """
    train, models, costs = task.config.train, [], []
    cases = {method: EVERY} if method == "full_mixed" else {f"{method} {case.label}": [case] for case in Situation}
    for name, situations in cases.items():
        generator = torch.Generator().manual_seed(train.seed * len(Situation) + situations[0])
        model = MODELS[method](backbone, task.config, generator).to(task.device)
        costs.append(train_model(task, name, model, get(train, STAGES[method][0]), situations, train.fraction))
        models.append(model)
    if method == "prompt":
        router = Router(backbone)
        costs += [train_together(task, PromptedModel(backbone, [model.set for model in models])), train_router(task, router)]
        models.append(router)
    return models, costs


def train_together(task, model):
    """All prompt sets at once: each sample is put in a situation of its own and answered twice, with the set of that
    situation and with all sets side by side. Both losses reach the sets, so they learn to agree as well as to stand alone.
    """
    train = task.config.train

    def loss_of(indices, epoch):
        audio, image, situations, labels = task.damaged(indices, task.drawn(indices, EVERY, epoch), epoch)
        with task.autocast():
            alone = task.loss(model.situation(audio, image, situations), labels)
            return (alone + task.loss(model.concat(audio, image), labels)) / 2

    def validate():
        return task.validate({"situation": model.situation, "concat": lambda audio, image, _: model.concat(audio, image)},
                             EVERY)

    return fit("prompt together", model, train.together, task.indices(EVERY, train.fraction), train.seed, loss_of, validate)


def train_router(task, router):
    """The router learns to name the situation that each sample was put in; no class label is used. returns Cost"""
    train, settings, start = task.config.train, task.config.router, time.monotonic()
    indices = task.indices(EVERY, train.fraction)

    def batches():
        for epoch in range(1, settings.passes + 1):
            for some in in_batches(indices, train.prompts.batch_size):
                yield task.damaged(some, task.drawn(some, EVERY, epoch), epoch)[:3]

    router.fit(batches(), settings.shrinkage)
    counts = routes(router, task.data, "val", task.config, task.normalisation, task.device)
    seconds, accuracy = time.monotonic() - start, float(counts.trace() / counts.sum())
    logger.info("%-20s %d passes   validation %.4f   %5.1f s", "router", settings.passes, accuracy, seconds)
    return Cost("router", router.weight.numel() + router.bias.numel(), settings.passes, seconds, 0, accuracy,
                machine_of(task.device))


def fit(name, model, stage, indices, seed, loss_of, validate):
    """Train the parameters of `model` that have gradients and leave them at their best epoch on the validation split.

    stage     StageConfig
    indices   [n] long, the training samples
    loss_of   function(indices [B], epoch) -> loss
    validate  function() -> Score; the best epoch has the highest accuracy, of equal ones the lowest loss
    returns   Cost
    """
    parameters = {key: p for key, p in model.named_parameters() if p.requires_grad}
    count = sum(p.numel() for p in parameters.values())
    if not count:
        raise InputError(f"{name}: nothing can learn; expected prompts.length above 0, or prompts.tune_head=true")
    logger.info("%s: %s", name, describe(parameters))
    optimiser = torch.optim.AdamW(parameters.values(), lr=stage.learning_rate, weight_decay=stage.weight_decay)
    batches = math.ceil(len(indices) / stage.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, stage.learning_rate,
                                                   total_steps=max(1, batches * stage.epochs))
    device = next(iter(parameters.values())).device
    memory, best, best_weights, seconds, start = StepMemory(model, optimiser, device), None, {}, 0.0, time.monotonic()
    for epoch in range(1, stage.epochs + 1):
        total, epoch_start = 0.0, time.monotonic()
        for batch, some in enumerate(in_batches(indices, stage.batch_size, seeded_generator(seed, epoch, name))):
            with memory.counted(epoch == 1 and batch == 0):
                loss = loss_of(some, epoch)
                if not torch.isfinite(loss):
                    raise NonFiniteLoss(f"{name}: the loss became {loss.item()} in epoch {epoch}; lower the learning rate "
                                        f"({stage.learning_rate}) or check the data")
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
            schedule.step()
            total += loss.item() * len(some)
        seconds += time.monotonic() - epoch_start
        score = validate()
        if best is None or (score.accuracy, -score.loss) > (best.accuracy, -best.loss):
            best, best_weights = score, {key: p.detach().clone() for key, p in parameters.items()}
        now = time.monotonic()
        logger.info("%-20s epoch %3d/%d   loss %.4f   validation %.4f   %5.1f s   left %s", name, epoch, stage.epochs,
                    total / len(indices), score.accuracy, now - epoch_start,
                    minutes((now - start) / epoch * (stage.epochs - epoch)))
    with torch.no_grad():
        for key, weights in best_weights.items():
            parameters[key].copy_(weights)
    return Cost(name, count, stage.epochs, seconds, memory.bytes, best.accuracy if best else None, machine_of(device))


def describe(parameters):
    """What is about to learn, by count and, where that is a readable list, by name. parameters: {name: tensor}"""
    total = f"{sum(p.numel() for p in parameters.values()):,} numbers learn"
    if len(parameters) > 12:
        return f"{total}, in {len(parameters)} tensors"
    return total + ": " + ", ".join(f"{name} {'x'.join(map(str, p.shape))}" for name, p in parameters.items())


def minutes(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


def complete_run(folder, run, data, methods, device, bf16=False):
    """Train what a run lacks of these methods, save each as soon as it is trained, and leave alone what is there.

    The backbone's weights are compared before and after: it is frozen once it is trained. returns Run, as it is now
    """
    task = Task(run.config, data, run.normalisation, device, bf16)
    if "backbone" not in run.trained:
        backbone, costs = train_backbone(task)
        run = checkpoint.save_backbone(folder, run, backbone, costs)
    backbone = checkpoint.load_backbone(folder, run).to(device)
    before = checkpoint.fingerprint(backbone)
    for method in methods:
        if method in run.trained:
            logger.info("%s: %s is trained already", folder, method)
            continue
        models, costs = train_method(task, backbone, method)
        if checkpoint.fingerprint(backbone) != before:
            raise RuntimeError(f"the frozen backbone changed while {method} was trained: a bug in ptm_mini, please report it")
        run = checkpoint.save_method(folder, run, method, backbone, models, costs)
    return run


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", nargs="+", choices=[*METHODS, "all"], default=["prompt"],
                        help="what to train, besides the backbone where the run has none (default: prompt)")
    parser.add_argument("--data", type=Path, help="prepared set; default: sets/toy, made if it is not there")
    parser.add_argument("--out", type=Path, help="run folder, new or one that lacks some method; default: the first free "
                                                 "runs/SET-NUMBER")
    parser.add_argument("--preset", choices=PRESETS, help="sizes of model and inputs; default: tiny")
    parser.add_argument("--damage", choices=DAMAGES, help="severity to train and evaluate with; default: strong")
    parser.add_argument("--epochs", type=int, help="epochs of every stage that runs; default: each stage's own")
    parser.add_argument("--seed", type=int, help="of weights, order, augmentation and damage; default: 0")
    parser.add_argument("--seeds", type=int, default=1, metavar="N",
                        help="train N runs, with this seed and the next ones, in folders of their own in --out")
    parser.add_argument("--fraction", type=float, help="share of the training split for all but the backbone; default: 1")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE",
                        help="any other setting, such as prompts.length=4 (see ptm_mini/config.py); can be repeated")
    parser.add_argument("--device", choices=["auto", "cpu", "cuda"], default="auto",
                        help="auto takes a CUDA device if there is one (default: %(default)s)")
    parser.add_argument("--bf16", action="store_true", help="train in mixed bfloat16 precision; needs CUDA")
    options = parser.parse_args(argv)
    options.method = [method for method in METHODS[1:] if method in options.method or "all" in options.method]
    return options


def settings(options, config, seed, lacking):
    """`config` with what the command line changes; --set comes last. lacking: the methods that are to be trained"""
    if options.damage:
        config = dataclasses.replace(config, damage=DAMAGES[options.damage])
    changes = {"train.seed": seed, "train.fraction": options.fraction,
               **{f"train.{stage}.epochs": options.epochs for method in lacking for stage in STAGES[method]}}
    return override(replace(config, {key: value for key, value in changes.items() if value is not None}), options.set)


def new_run(options, folder, seed):
    """A run that is to be trained from the start, checked before any work. returns Run, PreparedSet"""
    refuse_existing(folder)
    config = settings(options, PRESETS[options.preset or "tiny"], seed, ["backbone", *options.method])
    if options.data is None and not TOY.exists():
        logger.info("making the toy set in %s", TOY)
        toy.make(TOY, toy.RECORDINGS, "grouped", seed=0)
    data = PreparedSet(options.data or TOY, config)
    return checkpoint.Run(config, data.classes, data.normalisation(), str(data.folder)), data


def extended_run(options, folder, seed):
    """A run that is there, with the settings of the methods that it lacks. returns Run, PreparedSet"""
    run = checkpoint.load_run(folder)
    if options.preset:
        raise InputError(f"--preset {options.preset}: belongs to the backbone in {folder}; leave it out")
    config = settings(options, run.config, seed, [method for method in options.method if method not in run.trained])
    for key in keys(config):
        if get(config, key) != get(run.config, key) and any(reads(method, key) for method in run.trained):
            raise InputError(f"setting {key}={get(config, key)}: {folder} was trained with {get(run.config, key)}; leave it "
                             f"out, or choose another --out for a new run")
    data = open_set(run, options.data)
    return dataclasses.replace(run, config=config, data=str(data.folder)), data


def main(argv=None):
    options = parse_arguments(argv)
    if options.seeds < 1:
        raise InputError(f"--seeds {options.seeds}: expected 1 or more")
    device = pick_device(options.device)
    if options.bf16 and device.type != "cuda":
        raise InputError(f"--bf16: needs a CUDA device, this is {device.type}; leave it out")
    numbered = (Path("runs", f"{(options.data or TOY).resolve().name}-{n}") for n in itertools.count(1))
    out = options.out or next(path for path in numbered if not path.exists())
    first = options.seed or 0
    runs = {out: options.seed} if options.seeds == 1 else {out / f"seed-{s}": s for s in range(first, first + options.seeds)}
    if options.seeds == 1 and runs_in(out) != [out]:
        raise InputError(f"--out {out}: holds the runs of several seeds; name one of them, or say --seeds N")
    if options.seeds > 1 and (out / "config.json").exists():
        raise InputError(f"--out {out}: is one run; expected a folder for --seeds {options.seeds} runs: choose another")
    for folder, seed in runs.items():
        run, data = (extended_run if (folder / "config.json").exists() else new_run)(options, folder, seed)
        complete_run(folder, run, data, options.method, device, options.bf16)
    evaluate_runs(out, list(runs), device)


if __name__ == "__main__":
    run_command(main)
