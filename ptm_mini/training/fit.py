"""The training loop, one for everything that learns."""
import logging
import math
import time
from collections import defaultdict
from contextlib import nullcontext

import torch

from ptm_mini.errors import InputError, NonFiniteLoss
from ptm_mini.training.cost import Cost, StepMemory, machine_of

logger = logging.getLogger(__name__)


def fit(name, model, stage, samples, loss_of, validate, shares=None):
    """Train the parameters of `model` that have gradients and leave them at their best epoch on the validation split.

    stage     StageConfig
    samples   Samples: how many, and the batches of an epoch in the order that belongs to the name
    loss_of   function(batch, a Sample of B) -> loss
    validate  function() -> Score; the best epoch has the highest accuracy, of equal ones the lowest loss
    shares    {name of a parameter: its share of the learning rate}, the whole of it for others; None: for all
    returns   Cost
    """
    parameters = {key: p for key, p in model.named_parameters() if p.requires_grad}
    count = sum(p.numel() for p in parameters.values())
    if not count:
        raise InputError(f"{name}: nothing can learn; expected prompts.length above 0, or prompts.tune_head=true")
    logger.info("%s: %s", name, describe(parameters))
    steps = math.ceil(len(samples) / stage.batch_size) * stage.epochs
    optimiser, schedule = optimiser_and_schedule(parameters, stage, steps, shares)
    device = next(iter(parameters.values())).device
    memory = StepMemory(model, optimiser, device)
    best, best_weights = None, {}
    seconds, start = 0.0, time.monotonic()
    for epoch in range(1, stage.epochs + 1):
        total, epoch_start = 0.0, time.monotonic()
        for step, batch in enumerate(samples.batches(stage.batch_size, epoch, name)):
            with memory.counted() if epoch == 1 and step == 0 else nullcontext():
                loss = loss_of(batch)
                if not torch.isfinite(loss):
                    raise NonFiniteLoss(f"{name}: the loss became {loss.item()} in epoch {epoch}; lower the learning rate "
                                        f"({stage.learning_rate}) or check the data")
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
            schedule.step()
            total += loss.item() * len(batch.label)
        seconds += time.monotonic() - epoch_start
        score = validate()
        if best is None or (score.accuracy, -score.loss) > (best.accuracy, -best.loss):
            best, best_weights = score, {key: p.detach().clone() for key, p in parameters.items()}
        now = time.monotonic()
        logger.info("%-20s epoch %3d/%d   loss %.4f   validation %.4f   %5.1f s   left %s", name, epoch, stage.epochs,
                    total / len(samples), score.accuracy, now - epoch_start,
                    minutes((now - start) / epoch * (stage.epochs - epoch)))
    with torch.no_grad():
        for key, weights in best_weights.items():
            parameters[key].copy_(weights)
    return Cost(name, count, stage.epochs, seconds, memory.bytes, best.accuracy if best else None, machine_of(device))


def optimiser_and_schedule(parameters, stage, steps, shares=None):
    """AdamW under a one-cycle schedule of its learning rate, for a StageConfig (docs/porting.md writes both out).

    parameters  {name: tensor}
    shares      as in `fit`
    """
    by_rate = defaultdict(list)
    for name, p in parameters.items():
        by_rate[stage.learning_rate * (shares or {}).get(name, 1.0)].append(p)
    optimiser = torch.optim.AdamW([{"params": group, "lr": rate} for rate, group in by_rate.items()],
                                  weight_decay=stage.weight_decay)
    return optimiser, torch.optim.lr_scheduler.OneCycleLR(optimiser, list(by_rate), total_steps=max(1, steps))


def describe(parameters):
    """What is about to learn, by count and, where that is a readable list, by name. parameters: {name: tensor}"""
    total = f"{sum(p.numel() for p in parameters.values()):,} numbers learn"
    if len(parameters) > 12:
        return f"{total}, in {len(parameters)} tensors"
    return total + ": " + ", ".join(f"{name} {'x'.join(map(str, p.shape))}" for name, p in parameters.items())


def minutes(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"
