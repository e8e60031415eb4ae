"""Kept tokens: what the frozen blocks before the first prompts give can be computed once and trained on many times."""
from torch import nn

from ptm_mini.method.baselines import sharing


class Late(nn.Module):
    """What of a frozen backbone comes behind its first blocks, `first` of them, with the backbone's own weights. Prompts, a
    head or a router are put on it as on the backbone, and get the tokens that Backbone.early gave, [B, N_a, D] and
    [B, N_v, D], in place of audio and image."""

    def __init__(self, backbone, first):
        super().__init__()
        self.backbone, self.first = sharing(backbone, tune_head=False), first
        self.head, self.norm = self.backbone.head, self.backbone.norm
        for encoder in (self.backbone.audio_encoder, self.backbone.image_encoder):
            encoder.patches = encoder.positions = encoder.modality = None
            encoder.blocks = encoder.blocks[first:]

    def early(self, audio, image):
        """What is left of the encoders, without prompts: what a router reads. returns [B, N_a, D], [B, N_v, D]"""
        none = self.backbone.no_prompts()
        return (self.backbone.audio_encoder.late(audio, none.audio_input, 0),
                self.backbone.image_encoder.late(image, none.image_input, 0))

    def features(self, audio, image, prompts, first):
        """As Backbone.late; raises ValueError where prompts enter at another block than the tokens were kept before"""
        if first != self.first:
            raise ValueError(f"prompts enter at block {first}; expected block {self.first}, before which the tokens were kept")
        return self.backbone.late(audio, image, prompts, 0)

    def forward(self, audio, image):
        """returns logits [B, K]"""
        return self.head(self.features(audio, image, self.backbone.no_prompts(), self.first))
