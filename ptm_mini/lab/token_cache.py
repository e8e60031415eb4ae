"""Cached tokens: run the frozen encoders once, and train on their tokens in every epoch.

python -m ptm_mini.lab.token_cache runs/toy-1 runs/head --method head --views 4

Neither a head nor prompts of the attention level change the encoders' tokens. The first epochs
compute them, in each another view of the samples: damaged and augmented as in that epoch. Later
epochs take turns with these views.
"""
import argparse
import logging
import os
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor, nn

from ptm_mini.checkpoint import Run, read_run
from ptm_mini.config import Config, Situation, change
from ptm_mini.data.dataset import PreparedSet
from ptm_mini.errors import InputError, run as run_command
from ptm_mini.evaluation import BATCH_SIZE
from ptm_mini.files import locked, refuse_existing
from ptm_mini.method.backbone import Backbone, Prompts
from ptm_mini.method.damage import KINDS, Sample, weights_generator
from ptm_mini.report import OpenRun, open_runs, report_runs
from ptm_mini.training import METHODS, fit_router, pick_device, train, train_together

logger = logging.getLogger(__name__)
Item = tuple[int, int, Situation]             # row of the set, epoch, situation


class BackboneTail(Backbone):
    """A frozen backbone after its encoders: takes their tokens in place of audio and image.

    It shares the backbone's weights, and prompts or a head are built on it as on the backbone.
    """

    def __init__(self, backbone: Backbone):
        nn.Module.__init__(self)              # without the encoders that Backbone would make
        self.fusion, self.joint = backbone.fusion, backbone.joint
        self.norm, self.head = backbone.norm, backbone.head

    def encode(self, audio: Tensor, image: Tensor,
               prompts: Prompts | None = None) -> tuple[Tensor, Tensor]:
        """Return the tokens [B, N_a, D] and [B, N_v, D] as they are."""
        return audio, image


class CachedSet:
    """A PreparedSet whose batches hold tokens [B, N, D] in place of audio and image.

    Tokens are computed when an item is first asked for, and appended to a file a modality.
    """

    def __init__(self, data: PreparedSet, backbone: Backbone, views: int, folder: Path,
                 dtype: DTypeLike = np.float16):
        """
        views   damaged and augmented copies of each training sample, with which epochs take turns
        folder  of the files, which grow as items are asked for
        dtype   of the numbers in the files
        """
        self.data, self.backbone, self.views, self.dtype = data, backbone, views, np.dtype(dtype)
        encoders = backbone.audio_encoder, backbone.image_encoder
        self.shapes = [encoder.positions.shape[1:] for encoder in encoders]       # (N, D)
        self.paths = [folder / "audio.tokens", folder / "image.tokens"]
        self.slots: dict[Item, int] = {}      # where in the files an item's tokens are

    def __getattr__(self, name: str) -> Any:
        """Everything else is as in the set."""
        return getattr(self.data, name)

    def loader(self, items: Sequence[Item], batch_size: int, augmented: bool = False,
               kinds: Collection[str] = tuple(KINDS)) -> Iterator[Sample]:
        """Yield the batches of items. Arguments as of PreparedSet.loader; training is augmented."""
        if augmented:
            items = [(row, (epoch - 1) % self.views + 1, situation)
                     for row, epoch, situation in items]
        self.compute(sorted(set(items) - self.slots.keys()), augmented, kinds)
        for start in range(0, len(items), batch_size):
            yield self.read(items[start:start + batch_size])

    @torch.no_grad()
    def compute(self, items: Sequence[Item], augmented: bool, kinds: Collection[str]) -> None:
        """Append the tokens of items to the files."""
        for batch in self.data.loader(items, BATCH_SIZE, augmented, kinds):
            batch = batch.to(self.data.device)
            for path, tokens in zip(self.paths, self.backbone.encode(batch.audio, batch.image)):
                with open(path, "ab") as file:
                    file.write(tokens.cpu().numpy().astype(self.dtype).tobytes())
        for item in items:
            self.slots[item] = len(self.slots)

    def read(self, items: Sequence[Item]) -> Sample:
        """Read a batch."""
        rows, _, situations = zip(*items)
        rows, slots = torch.tensor(rows), [self.slots[item] for item in items]
        tokens = [torch.from_numpy(np.memmap(path, self.dtype, "r").reshape(-1, *shape)[slots])
                  for path, shape in zip(self.paths, self.shapes)]
        return Sample(*(x.float() for x in tokens), self.data.missing[rows]
                      | torch.tensor(situations), self.data.labels[rows],
                      [self.data.rows[row].id for row in rows])


def check_cacheable(config: Config, method: str, views: int) -> None:
    """Raise InputError where a method's training changes the encoders' tokens."""
    if method not in ("head", "prompt"):
        raise InputError(f"--method {method}: trains inside the encoders; expected head or prompt")
    if method == "prompt" and config.prompts.input_depth:
        raise InputError(f"setting prompts.input_depth={config.prompts.input_depth}: prompts in "
                         f"the encoders change their tokens; expected 0")
    if views < 1:
        raise InputError(f"--views {views}: expected 1 or more")


def train_method(run: Run, method: str, backbone: Backbone, data: PreparedSet) -> None:
    """Train a method's models as train.py does, case by case; then prompts together."""
    models = []
    for stage, case in zip(METHODS[method].stages(method), METHODS[method].cases):
        generator = weights_generator(run.config.train.seed, case[0])
        model = METHODS[method].build(backbone, run.config, generator)
        models.append(train(run, stage, model, data, case))
    if method == "prompt":
        train_together(run, models, data)


def train_cached(run: Run, backbone: Backbone, data: PreparedSet, method: str, views: int,
                 dtype: DTypeLike = np.float16) -> None:
    """Train a head or attention-level prompts on cached tokens, and the router on the set itself.

    backbone  frozen; run.trained_on is its fingerprint
    views     arguments as of CachedSet
    """
    check_cacheable(run.config, method, views)
    folder = run.folder / "tokens"
    shutil.rmtree(folder, ignore_errors=True)             # of a process that was killed
    folder.mkdir()
    try:
        cached = CachedSet(data, backbone, views, folder, dtype)
        train_method(run, method, BackboneTail(backbone), cached)
        logger.info("cached the tokens of %d samples: %.1f MB", len(cached.slots),
                    sum(path.stat().st_size for path in cached.paths) / 1e6)
    finally:
        shutil.rmtree(folder)
    if method == "prompt":
        fit_router(run, backbone, data)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that open_for_training reads."""
    add = parser.add_argument
    add("--data", type=Path, help="where the run's set is now; default: where it was")
    add("--features", type=Path, metavar="DIR", help="cache for decoded files; default: in the set")
    add("--workers", type=int, default=2, help="processes that decode a large set; default: 2")
    add("--device", choices=["auto", "cpu", "cuda"], default="auto",
        help="default: a CUDA device if there is one")


def open_for_training(args: argparse.Namespace, draws: int = 1) -> list[OpenRun]:
    """Open a run, or those of several seeds, with nothing but the backbone, on its own set."""
    opened = open_runs(args.run, args.data, draws=draws, methods=[], features=args.features,
                       workers=args.workers, device=pick_device(args.device))
    for run, _, split, _ in opened:
        if split.data.fingerprint() != run.fingerprint:
            raise InputError(f"--data {args.data}: is not the set that {run.folder} was trained "
                             f"on, or has changed since; expected the same rows and files")
    return opened


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("run", type=Path, help="run folder that train.py made")
    add("out", type=Path, help="new run folder, on that run's backbone")
    add("--method", choices=["head", "prompt"], default="head",
        help="prompt: of the attention level alone; default: head")
    add("--views", type=int, default=4, metavar="N",
        help="views of each training sample; default: 4")
    add_run_arguments(parser)
    args = parser.parse_args(argv)
    read_run(args.run)                        # one run, not a folder of several
    refuse_existing(args.out)
    (source, models, split, _), = open_for_training(args)
    data = split.data
    data.config = change(source.config, {"prompts.input_depth": 0})
    check_cacheable(data.config, args.method, args.views)
    run = replace(source, folder=args.out, config=data.config, data=data.folder,
                  methods=[args.method],
                  backbone=os.path.relpath(source.path("backbone"), args.out))
    args.out.mkdir(parents=True)
    with locked(args.out):
        run.write()
        train_cached(run, models.backbone, data, args.method, args.views)
        report_runs(args.out, [(run, data)])


if __name__ == "__main__":
    run_command(main)
