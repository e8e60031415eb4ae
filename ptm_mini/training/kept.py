"""Kept tokens: what the frozen blocks before the first prompts give can be computed once and trained on many times."""
import logging
import shutil
import time

import numpy as np
import torch
from torch import nn

from ptm_mini.data.array_file import ArrayFile
from ptm_mini.files import new_folder
from ptm_mini.method.baselines import sharing
from ptm_mini.method.damage import Sample
from ptm_mini.training.measure import BATCH_SIZE
from ptm_mini.training.progress import UNFINISHED
from ptm_mini.training.samples import Samples

logger = logging.getLogger(__name__)
PREFIX = "kept-"                  # of the folders in RUN/unfinished


class Late(nn.Module):
    """What of a frozen backbone comes behind its first blocks, `first` of them, with the backbone's own weights. Prompts or a
    head are put on it as on the backbone, and get the tokens that Backbone.early gave, [B, N_a, D] and [B, N_v, D], in place of
    audio and image."""

    def __init__(self, backbone, first):
        super().__init__()
        self.backbone, self.first = sharing(backbone, tune_head=False), first
        self.head, self.norm = self.backbone.head, self.backbone.norm
        for encoder in (self.backbone.audio_encoder, self.backbone.image_encoder):
            encoder.patches = encoder.positions = encoder.modality = None
            encoder.blocks = encoder.blocks[first:]

    def early(self, audio, image, first):
        """The tokens, as they are; raises ValueError where prompts enter at another block than they were kept before"""
        if first != self.first:
            raise ValueError(f"prompts enter at block {first}; expected block {self.first}, before which the tokens were kept")
        return audio, image

    def late(self, audio, image, prompts, first):
        """As Backbone.late, of tokens that `early` let through"""
        return self.backbone.late(audio, image, prompts, 0)

    def features(self, audio, image, prompts, first):
        """As Backbone.features"""
        return self.late(*self.early(audio, image, first), prompts, first)

    def forward(self, audio, image):
        """returns logits [B, K]"""
        return self.head(self.features(audio, image, self.backbone.no_prompts(), self.first))


class Kept:
    """Where models on Late get their samples from, as others get them from the Task: the tokens behind the first blocks,
    computed when they are first asked for and then read from RUN/unfinished.

    A training sample has `train.views` copies, damaged as in as many passes, and the passes cycle through them.
    """

    def __init__(self, task, backbone, first, dtype="<f2"):
        """dtype: that the tokens are kept in, half precision by default"""
        self.task, self.backbone, self.first, self.dtype, self.data = task, backbone, first, dtype, task.data
        self.split = "val"        # as a View has it
        self.folder = task.progress.folder / UNFINISHED / f"{PREFIX}{first}-{task.progress.belongs[:16]}"

    def samples(self, situations, fraction):
        """KeptSamples of the training split"""
        return KeptSamples(self, situations, fraction)

    def validation(self):
        """What `measure` takes in place of a View of the validation split: itself"""
        return self

    def windows(self, situation, rows=None):
        """As View.windows, of all rows"""
        return [self.batches(situation)]

    def batches(self, situation):
        """As View.batches, with tokens in place of audio and image"""
        indices = self.data.indices("val", situation)
        view = self.task.validation()
        kept = self.tokens(f"val-{situation.label}", len(indices), lambda: view.batches(situation))
        for rows in torch.arange(len(indices)).split(BATCH_SIZE):
            yield *self.read(kept, rows), self.data.labels[indices[rows]].to(self.task.device)

    def read(self, kept, rows):
        """audio, image [B, N, D] and situations [B] of these rows, on the device"""
        audio, image, situations = (torch.from_numpy(array[rows.numpy()]) for array in kept)
        return [x.to(self.task.device) for x in (audio.float(), image.float(), situations)]

    @torch.no_grad()
    def tokens(self, name, count, batches):
        """Memory maps of audio and image tokens [count, N, D] and situations [count]; made where they are not there.

        batches  function() -> audio [B, T, M], image [B, 3, H, W], situations [B] and more, `count` in all
        """
        encoders, D = (self.backbone.audio_encoder, self.backbone.image_encoder), len(self.backbone.norm.weight)
        files = [ArrayFile(f"{modality}.npy", self.dtype, (count, encoder.positions.shape[1], D))
                 for modality, encoder in zip(("audio", "image"), encoders)] + [ArrayFile("situations.npy", "<i8", (count,))]
        folder, start, row = self.folder / name, time.monotonic(), 0
        if not folder.exists():
            with new_folder(folder) as unfinished, self.task.autocast():
                for file in files:
                    file.make(unfinished)
                for audio, image, situations, *_ in batches():
                    for file, x in zip(files, (*self.backbone.early(audio, image, self.first), situations)):
                        with file.open_at(unfinished, row) as out:
                            out.write(np.ascontiguousarray(x.cpu(), file.dtype))
                    row += len(audio)
            logger.info("kept the tokens behind block %d of %d samples (%s): %.1f MB, %.1f s", self.first, count, name,
                        sum(file.offset(count) for file in files) / 1e6, time.monotonic() - start)
        return [file.mapped(folder) for file in files]


class KeptSamples(Samples):
    """As Samples, with tokens in place of audio and image, in `train.views` copies of each."""

    def __init__(self, source, situations, fraction):
        super().__init__(source.task, situations, fraction)
        damaged, views = Samples(source.task, situations, fraction), range(1, self.task.config.train.views + 1)
        name = f"train-{'-'.join(situation.label for situation in situations)}"
        self.source, self.kept = source, source.tokens(name, len(views) * len(self.indices), lambda: (
            damaged.batch(rows, torch.full_like(rows, view)) for view in views for rows in self.indices.split(BATCH_SIZE)))

    def batch(self, indices, passes):
        """As Samples.batch, of the copies whose turn it is in these passes"""
        views, data = (passes - 1) % self.task.config.train.views, self.task.data
        rows = views * len(self.indices) + torch.searchsorted(self.indices, indices)
        audio, image, situations = self.source.read(self.kept, rows)
        return Sample(audio, image, situations, data.labels[indices].to(situations.device), [data.rows[i].id for i in indices])


def forget_kept(folder):
    """Remove what was kept for the run in `folder`."""
    for kept in (folder / UNFINISHED).glob(f"{PREFIX}*"):
        shutil.rmtree(kept)
