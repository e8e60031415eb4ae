"""Cached tokens: run the frozen encoders once, and train on their tokens in every epoch.

A head, and prompts of the attention level alone, leave the encoders' tokens as they are. They can
train on a BackboneTail and a CachedSet in place of the backbone and the set. `python -m
ptm_mini.lab.ablate RUN views` compares the two.
"""
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from ptm_mini.config import Situation
from ptm_mini.data.dataset import PreparedSet, collate
from ptm_mini.evaluation import BATCH_SIZE
from ptm_mini.method.backbone import Backbone, Prompts
from ptm_mini.method.damage import FURTHER_DRAWS, Sample

DTYPE = torch.float16                         # of the cached tokens
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


class CachedSet(PreparedSet):
    """A PreparedSet whose batches hold tokens [B, N, D] in place of audio and image.

    An item's tokens are computed when it is first asked for, and stay in memory.
    """

    def __init__(self, data: PreparedSet, backbone: Backbone, views: int):
        """views: copies of each training sample, with damage of their own; epochs take turns"""
        vars(self).update(vars(data))         # all but its batches is shared
        self.data, self.backbone, self.views = data, backbone, views
        self.samples: dict[Item, Sample] = {}

    def loader(self, items: Sequence[Item], batch_size: int) -> Iterator[Sample]:
        """Yield the batches of items. Arguments as of PreparedSet.loader."""
        items = [(row, (epoch - 1) % self.views + 1 if 0 < epoch < FURTHER_DRAWS else epoch,
                  situation) for row, epoch, situation in items]
        self.compute(sorted(set(items) - self.samples.keys()))
        for start in range(0, len(items), batch_size):
            batch = collate([self.samples[item] for item in items[start:start + batch_size]])
            yield batch._replace(audio=batch.audio.float(), image=batch.image.float())

    @torch.no_grad()
    def compute(self, items: Sequence[Item]) -> None:
        """Compute the tokens of items."""
        device, samples = self.device, []
        for batch in self.data.loader(items, BATCH_SIZE):
            tokens = self.backbone.encode(batch.audio.to(device), batch.image.to(device))
            audio, image = (x.to("cpu", DTYPE) for x in tokens)
            samples += map(Sample, audio, image, batch.situation, batch.label, batch.id)
        self.samples.update(zip(items, samples))
