"""The training loop, one for everything that learns."""
import logging
import math
import time
from collections import defaultdict
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch

from ptm_mini.errors import NonFiniteLoss
from ptm_mini.training.cost import Cost, StepMemory, machine_of
from ptm_mini.training.progress import uninterrupted

logger = logging.getLogger(__name__)


@dataclass
class Position:
    """How far a stage has come. With the weights, the optimiser and the schedule this is all that the rest depends on, as
    what is drawn belongs to the seed, the epoch and the sample."""
    epoch: int = 1                # that is under way
    step: int = 0                 # how many of it are done
    loss: float = 0.0             # summed over its samples
    gradient: float = 0.0         # norms, summed over its steps
    seconds: float = 0.0          # of its steps
    seconds_before: float = 0.0   # of the epochs before it
    memory: int = 0               # bytes at the peak of the first step
    best: tuple | None = None     # accuracy and minus the loss on the validation split, of the best epoch
    best_weights: dict = field(default_factory=dict)

    def step_done(self, loss, norm, seconds):
        self.step, self.loss, self.gradient = self.step + 1, self.loss + loss, self.gradient + norm
        self.seconds += seconds

    def epoch_done(self):
        self.seconds_before += self.seconds
        self.epoch, self.step, self.loss, self.gradient, self.seconds = self.epoch + 1, 0, 0.0, 0.0, 0.0


def fit(name, model, stage, samples, loss_of, validate, progress, shares=None):
    """Train the parameters of `model` that have gradients and leave them at their best epoch on the validation split.

    stage     StageConfig
    samples   Samples: how many, and the batches of an epoch in the order that belongs to the name
    loss_of   function(batch, a Sample of B) -> loss
    validate  function() -> Score; the best epoch has the highest accuracy, of equal ones the lowest loss
    progress  Progress: what it holds of this stage is where training goes on, and it gets the state behind every epoch and
              when training is interrupted
    shares    {name of a parameter: its share of the learning rate}, the whole of it for others; None: for all
    returns   Cost
    """
    parameters = {key: p for key, p in model.named_parameters() if p.requires_grad}
    count = sum(p.numel() for p in parameters.values())
    saved = progress.load(name)
    if saved and "cost" in saved:
        logger.info("%s: trained already", name)
        restore(parameters, saved["weights"])
        return Cost(**saved["cost"])
    logger.info("%s: %s", name, describe(parameters))
    steps = math.ceil(len(samples) / stage.batch_size) * stage.epochs
    optimiser, schedule = optimiser_and_schedule(parameters, stage, steps, shares)
    now = resumed(name, saved, parameters, optimiser, schedule) if saved else Position()
    device = next(iter(parameters.values())).device
    memory, first, start = StepMemory(model, optimiser, device), now.epoch, time.monotonic()
    try:
        while now.epoch <= stage.epochs:
            mark = time.monotonic()
            for batch in samples.batches(stage.batch_size, now.epoch, name, now.step):
                with nullcontext() if now.memory else memory.counted():
                    loss = loss_of(batch)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                value, norm = loss.item(), norm_of_gradients(parameters)
                refuse_non_finite(value, norm, name, now, batch.id, stage)
                with uninterrupted():
                    optimiser.step()
                    schedule.step()
                    now.memory = now.memory or memory.peak()
                    now.step_done(value * len(batch.label), norm, time.monotonic() - mark)
                mark = time.monotonic()
            score = validate()
            refuse_non_finite(score.loss, 0.0, f"{name}: validation", now, (), stage)
            with uninterrupted():
                if now.best is None or (score.accuracy, -score.loss) > now.best:
                    now.best, now.best_weights = (score.accuracy, -score.loss), copied(parameters)
                left = (time.monotonic() - start) / (now.epoch - first + 1) * (stage.epochs - now.epoch)
                progress.log(tell(name, stage, now, score, len(samples), max(schedule.get_last_lr()), left))
                now.epoch_done()
                progress.save(name, state_of(now, parameters, optimiser, schedule))
    except KeyboardInterrupt:
        progress.save(name, state_of(now, parameters, optimiser, schedule))
        raise
    restore(parameters, now.best_weights)
    cost = Cost(name, count, stage.epochs, now.seconds_before, now.memory, now.best and now.best[0], machine_of(device))
    progress.save(name, {"weights": copied(parameters), "cost": cost._asdict()})
    return cost


def tell(name, stage, now, score, samples, rate, left):
    """Print how an epoch went. returns the same and a little more, as a line of log.jsonl"""
    logger.info("%-20s epoch %3d/%d   loss %.4f   validation %.4f   %5.1f s   left %s", name, now.epoch, stage.epochs,
                now.loss / samples, score.accuracy, now.seconds, minutes(left))
    return {"stage": name, "epoch": now.epoch, "epochs": stage.epochs, "loss": now.loss / samples, "accuracy": score.accuracy,
            "validation_loss": score.loss, "macro_f1": score.macro_f1, "gradient_norm": now.gradient / now.step,
            "learning_rate": rate, "samples_per_second": samples / now.seconds, "seconds": now.seconds, "left": left}


def state_of(now, parameters, optimiser, schedule):
    """All that `resumed` needs, as Progress takes it."""
    return {"position": vars(now), "weights": copied(parameters), "optimiser": optimiser.state_dict(),
            "schedule": schedule.state_dict(), "threads": torch.get_num_threads()}


def resumed(name, saved, parameters, optimiser, schedule):
    """Put everything back to a saved state. returns Position"""
    restore(parameters, saved["weights"])
    optimiser.load_state_dict(saved["optimiser"])
    schedule.load_state_dict(saved["schedule"])
    now = Position(**saved["position"])
    logger.info("%s: goes on at epoch %d, step %d", name, now.epoch, now.step + 1)
    if saved["threads"] != torch.get_num_threads():
        logger.warning("note: %s began with torch on %d threads, now there are %d: the last digits may differ from those of an "
                       "uninterrupted run", name, saved["threads"], torch.get_num_threads())
    return now


def copied(parameters):
    """{name: copy of the tensor}"""
    return {key: p.detach().clone() for key, p in parameters.items()}


@torch.no_grad()
def restore(parameters, weights):
    for key, tensor in weights.items():
        parameters[key].copy_(tensor)


def norm_of_gradients(parameters):
    """Of all gradients as one vector"""
    return torch.stack([p.grad.norm() for p in parameters.values() if p.grad is not None]).norm().item()


def refuse_non_finite(loss, norm, name, now, ids, stage):
    """Raise NonFiniteLoss where one of them is not finite, naming the place and the samples."""
    if not math.isfinite(loss) or not math.isfinite(norm):
        of = f", samples {', '.join(ids)}" if ids else ""
        raise NonFiniteLoss(f"{name}: the loss became {loss}, the gradient's norm {norm} in epoch {now.epoch}, "
                            f"step {now.step + 1}{of}; lower the learning rate ({stage.learning_rate}) or check the data")


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
