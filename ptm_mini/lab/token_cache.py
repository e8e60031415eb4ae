"""Cached tokens: run the frozen encoders once, and train on their tokens in every epoch.

Neither a head nor prompts of the attention level change the encoders' tokens. The first epochs
compute them, in each another view of the samples: damaged and augmented as in that epoch. Later
epochs take turns with these views. `python -m ptm_mini.lab.ablate RUN views` compares them.
"""
import shutil
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import DTypeLike
from torch import Tensor, nn

from ptm_mini.checkpoint import Run
from ptm_mini.config import Situation
from ptm_mini.data.dataset import PreparedSet
from ptm_mini.errors import InputError
from ptm_mini.evaluation import BATCH_SIZE
from ptm_mini.method.backbone import Backbone, Prompts
from ptm_mini.method.damage import KINDS, Sample
from ptm_mini.training import fit_router, train_cases, train_together

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
        situations = torch.tensor(situations) | self.data.missing[rows]
        return Sample(*(x.float() for x in tokens), situations, self.data.labels[rows],
                      [self.data.rows[row].id for row in rows])


def train_cached(run: Run, backbone: Backbone, data: PreparedSet, method: str, views: int,
                 dtype: DTypeLike = np.float16) -> None:
    """Train a head or attention-level prompts on cached tokens, and the router on the set itself.

    backbone  frozen; run.trained_on is its fingerprint
    views     arguments as of CachedSet
    raises    InputError where the method's training changes the encoders' tokens
    """
    if method != "head" and (method != "prompt" or run.config.prompts.input_depth):
        raise InputError(f"{method} with prompts.input_depth={run.config.prompts.input_depth}: "
                         f"trains inside the encoders; expected head, or prompt with 0")
    folder = run.folder / "tokens"
    shutil.rmtree(folder, ignore_errors=True)             # of a process that was killed
    folder.mkdir()
    try:
        cached = CachedSet(data, backbone, views, folder, dtype)
        models = train_cases(run, method, BackboneTail(backbone), cached)
        if method == "prompt":
            train_together(run, models, cached)
    finally:
        shutil.rmtree(folder)
    if method == "prompt":
        fit_router(run, backbone, data)
