"""Training: the table of methods, the one loop, and the stages that are calls of it."""
import logging
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptm_mini import cav_mae
from ptm_mini.checkpoint import (Run, copy_tensors, fingerprint, load_tensors, restore,
                                 trainable)
from ptm_mini.config import Situation, StageConfig
from ptm_mini.data.dataset import PreparedSet, TrainingSamples
from ptm_mini.errors import InputError, NonFiniteLoss
from ptm_mini.evaluation import CaseModels, EvalSplit, Models, score_split
from ptm_mini.files import save_tensors
from ptm_mini.method import baselines
from ptm_mini.method.backbone import Backbone, freeze, initialise
from ptm_mini.method.damage import Sample, weights_generator
from ptm_mini.method.prompts import PromptedBackbone, prompt
from ptm_mini.method.router import Router

logger = logging.getLogger(__name__)
# What is trained on the frozen backbone: (backbone, config, generator) -> a trainable model.
METHODS: dict[str, Callable[..., nn.Module]] = {
    "prompt": prompt, "head": baselines.head, "lora": baselines.lora, "adapter": baselines.adapter,
    "scale_shift": baselines.scale_shift, "full_per_situation": baselines.full,
    "full_mixed": baselines.full}


def cases_of(method: str) -> dict[str, tuple[Situation, ...]]:
    """{stage: its training situations}: a model for each situation, or one for all of them"""
    if method == "full_mixed":
        return {method: tuple(Situation)}
    return {f"{method} {situation.label}": (situation,) for situation in Situation}


def stages_of(method: str) -> list[str]:
    """Name all stages of a method; a run has it when it has a file for each."""
    later = ["prompt together", "router"] if method == "prompt" else []
    return [*cases_of(method), *later]


def private_settings(*methods: str) -> tuple[str, ...]:
    """List the prefixes of the settings that only these methods read."""
    prefixes = [f"{group}{method}." for method in methods for group in ("", "train.")]
    if "prompt" in methods:
        prefixes += "prompts.", "router.", "train.together."
    return tuple(prefixes)


def fit(run: Run, name: str, model: nn.Module, data: PreparedSet, situations: Sequence[Situation],
        answers: dict[str, Callable[[Sample], Tensor]],
        rate_shares: dict[str, float] | None = None) -> None:
    """Train the parameters that have gradients, then keep the best epoch on the validation split.

    Each training sample is put into one of the situations, drawn anew each epoch: with a single
    one this is the paper's case-wise training, with all four a mix. With a fraction of the samples
    the validation comes every few epochs, after about as many steps as with all samples.

    name         of the stage: "backbone", or a method and a case such as "prompt noisy_audio"
    answers      {name: function of a batch to logits [B, K]}, whose mean loss is trained
    rate_shares  {parameter: its share of the learning rate}, 1 for others
    """
    method, _, case = name.partition(" ")
    settings = run.config.train
    stage = getattr(settings, "together" if case == "together" else method)
    share = 1.0 if name == "backbone" else settings.fraction
    samples, validate_every = TrainingSamples(data, situations, share), round(1 / share)
    split, device = EvalSplit((data,), "val"), data.device
    parameters = trainable(model.to(device))        # no dropout: train and eval mode are alike
    steps = math.ceil(len(samples) / stage.batch_size) * stage.epochs
    optimizer, scheduler = make_optimizer(parameters, stage, steps, rate_shares or {})

    def answer(batch: Sample) -> dict[str, Tensor]:
        with torch.autocast(device.type, torch.bfloat16, enabled=settings.bf16):
            return {key: function(batch) for key, function in answers.items()}

    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    count = sum(p.numel() for p in parameters.values())
    logger.info("%s: %s trainable parameters", name, f"{count:,}")
    first, best, best_weights = 1, None, copy_tensors(parameters)
    state_path = run.path(name, ".state")
    if state_path.exists():                            # a killed run resumes, to the same bytes
        state = load_tensors(state_path)
        restore(parameters, state["weights"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        first, best, best_weights = state["epoch"] + 1, state["best"], state["best_weights"]
        logger.info("%s: resumes at epoch %d", name, first)
    for epoch in range(first, stage.epochs + 1):
        start, total = time.monotonic(), torch.zeros((), dtype=torch.double, device=device)
        for batch in data.loader(samples.items(epoch, order=name), stage.batch_size):
            batch = batch.to(device)
            losses = [F.cross_entropy(logits.float(), batch.label,
                                      label_smoothing=settings.label_smoothing)
                      for logits in answer(batch).values()]
            loss = sum(losses) / len(losses)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            scheduler.step()
            total += loss.detach() * len(batch.id)
        if epoch % validate_every and epoch < stage.epochs:
            continue
        mean_loss, seconds = float(total) / len(samples), time.monotonic() - start
        scores = [score for s in situations for score in score_split(answer, split, s).values()]
        accuracy = fmean(score.accuracy for score in scores)
        validation_loss = fmean(score.loss for score in scores)
        if not math.isfinite(mean_loss + validation_loss):
            state_path.unlink(missing_ok=True)                     # it would end here again
            raise NonFiniteLoss(f"{name}: the loss became {mean_loss} in training and "
                                f"{validation_loss} in validation, in epoch {epoch}; lower the "
                                f"learning rate ({stage.learning_rate}) or check the data")
        if best is None or (accuracy, -validation_loss) > best:    # of equal ones the lowest loss
            best, best_weights = (accuracy, -validation_loss), copy_tensors(parameters)
        logger.info("%-20s epoch %3d/%d   loss %.4f   validation %.4f   %5.1f s", name, epoch,
                    stage.epochs, mean_loss, accuracy, seconds)
        run.log_epoch({"stage": name, "epoch": epoch, "loss": mean_loss, "accuracy": accuracy,
                       "validation_loss": validation_loss, "seconds": seconds,
                       "peak_bytes": torch.cuda.max_memory_allocated() if device.type == "cuda"
                       else None})
        save_tensors(state_path, {
            "epoch": epoch, "weights": copy_tensors(parameters), "best": best,
            "best_weights": best_weights, "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict()})
    restore(parameters, best_weights)
    run.save(name, model)


def make_optimizer(parameters: dict[str, Tensor], stage: StageConfig, steps: int,
                   rate_shares: dict[str, float]) -> tuple[torch.optim.Optimizer,
                                                           torch.optim.lr_scheduler.LRScheduler]:
    """AdamW under a one-cycle schedule of its learning rate and beta1 (docs/porting.md)."""
    if not any(p.numel() for p in parameters.values()):
        raise InputError("nothing is trainable; expected prompts.length above 0 and a place for "
                         "prompts, or tune_head=true")
    groups = defaultdict(list)
    for name, parameter in parameters.items():
        groups[stage.learning_rate * rate_shares.get(name, 1.0)].append(parameter)
    optimizer = torch.optim.AdamW([{"params": group, "lr": rate} for rate, group in groups.items()],
                                  weight_decay=stage.weight_decay, fused=True)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, list(groups),
                                                    total_steps=max(1, steps))
    return optimizer, scheduler


def train(run: Run, name: str, model: nn.Module, data: PreparedSet, situations: Sequence[Situation],
          rate_shares: dict[str, float] | None = None) -> nn.Module:
    """Train one model, or load it where the run has it. Arguments as of `fit`."""
    if run.path(name).exists():
        run.load(name, model)
        return model.to(data.device)
    fit(run, name, model, data, situations,
        {"logits": lambda batch: model(batch.audio, batch.image)}, rate_shares)
    return model


def train_backbone(run: Run, data: PreparedSet) -> Backbone:
    """Train the backbone on complete data, from scratch or CAV-MAE's weights, and freeze it."""
    torch.use_deterministic_algorithms(run.config.train.deterministic)
    if run.config.train.deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")     # cuBLAS varies without it
    backbone, rate_shares = Backbone(run.config, len(run.classes)), {}
    initialise(backbone, weights_generator(run.config.train.seed))
    if run.init and not run.path("backbone").exists():
        rate_shares = cav_mae.load_start(run, backbone)
    train(run, "backbone", backbone, data, [Situation.COMPLETE], rate_shares)
    run.trained_on = fingerprint(freeze(backbone))
    return backbone


def train_cases(run: Run, method: str, backbone: Backbone, data: PreparedSet) -> list[nn.Module]:
    """Train a method's models on the frozen backbone, one for each of its cases."""
    models = []
    for stage, situations in cases_of(method).items():
        generator = weights_generator(run.config.train.seed, situations[0])
        model = METHODS[method](backbone, run.config, generator)
        models.append(train(run, stage, model, data, situations))
    return models


def train_together(run: Run, models: Sequence[PromptedBackbone], data: PreparedSet) -> None:
    """Train all prompt sets at once, since sets trained apart compete for the same attention.

    Each sample is answered twice, with the set of its situation and with all side by side, and the
    mean of both losses is trained.
    """
    model = assemble(models)
    if not run.path("prompt together").exists():
        fit(run, "prompt together", model, data, tuple(Situation), {
            "each": lambda batch: model.answer_each(batch.audio, batch.image, batch.situation),
            "concat": lambda batch: model(batch.audio, batch.image)})


def fit_router(run: Run, backbone: Backbone, data: PreparedSet) -> None:
    """Fit the router to name the situation that each training sample was put into."""
    if run.path("router").exists():
        return
    start, router = time.monotonic(), Router(run.config.model.width).to(data.device)
    samples = TrainingSamples(data, tuple(Situation), run.config.train.fraction)

    def batches() -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        for epoch in range(1, run.config.router.passes + 1):
            for batch in data.loader(samples.items(epoch), run.config.train.prompt.batch_size):
                batch = batch.to(data.device)
                yield *backbone.encode(batch.audio, batch.image), batch.situation

    router.fit(batches(), run.config.router.shrinkage)
    logger.info("%-20s %d passes   %.1f s", "router", run.config.router.passes,
                time.monotonic() - start)
    run.save("router", router)


def assemble(models: Sequence[nn.Module]) -> nn.Module:
    """Put a method's models, one a case, together to one for all samples."""
    if len(models) == 1:
        return models[0]
    if all(isinstance(model, PromptedBackbone) for model in models):
        return PromptedBackbone(models[0].backbone, [model.sets[0] for model in models])
    return CaseModels(list(models))


def trained_methods(run: Run) -> list[str]:
    return [name for name in METHODS if all(run.path(stage).exists() for stage in stages_of(name))]


def load_models(run: Run, device: torch.device, methods: Sequence[str] | None = None) -> Models:
    """Load a run's models for evaluation; methods None: all that are trained.

    Raises InputError where one is not trained, or a file is missing or another run's.
    """
    backbone = Backbone(run.config, len(run.classes))
    run.load("backbone", backbone)
    run.trained_on = fingerprint(backbone)
    freeze(backbone).to(device)
    trained, found, router = trained_methods(run), {}, None
    for method in trained if methods is None else methods:
        if method not in trained:
            raise InputError(f"--method {method}: {run.folder} has not trained it; train it with  "
                             f"python train.py --out {run.folder} --method {method}")
        models = {stage: METHODS[method](backbone, run.config, torch.Generator())
                  for stage in cases_of(method)}
        found[method] = assemble(list(models.values()))
        if method == "prompt":
            models = {"prompt together": found[method]}
        for stage, model in models.items():
            run.load(stage, model)
        freeze(found[method]).to(device)
    if "prompt" in trained:
        router = Router(run.config.model.width)
        run.load("router", router)
        freeze(router).to(device)
    return Models(backbone, found, router)


def pick_device(name: str) -> torch.device:
    """torch.device for "auto", "cpu" or "cuda", on which float32 is float32: without TF32."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: no CUDA device is available; expected one, or "
                         "--device cpu")
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
