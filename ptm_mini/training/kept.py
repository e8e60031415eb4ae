"""Kept tokens: what the frozen blocks before the first prompts give can be computed once and trained on many times."""
from torch import nn

from ptm_mini.method.backbone import freeze


class Late(nn.Module):
    """A frozen backbone behind its first blocks: what prompts or a head are put on to be trained with the tokens that
    Backbone.early gave in place of audio and image."""

    def __init__(self, backbone, first):
        super().__init__()
        self.backbone, self.head, self.first = freeze(backbone), backbone.head, first

    def features(self, audio, image, prompts, first):
        """As Backbone.late"""
        if first != self.first:
            raise ValueError(f"prompts enter at block {first}; expected block {self.first}, before which the tokens were kept")
        return self.backbone.late(audio, image, prompts, first)

    def forward(self, audio, image):
        """audio, image [B, N_a, D], [B, N_v, D]; returns logits [B, K]"""
        return self.head(self.features(audio, image, self.backbone.no_prompts(), self.first))
