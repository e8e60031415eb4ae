"""Fusion: the two streams read each other by cross-attention, which prompts can join as further keys and values."""
from torch import nn

from ptm_mini.layers import LAYER_NORM_EPS, Attention, Mlp


class CrossUpdate(nn.Module):
    """One direction: what a stream learns from the other one, residuals included."""

    def __init__(self, model):
        super().__init__()
        self.norm_tokens, self.norm_context, self.norm_mlp = (nn.LayerNorm(model.width, eps=LAYER_NORM_EPS)
                                                              for _ in range(3))
        self.attention = Attention(model.width, model.heads)
        self.mlp = Mlp(model.width)

    def forward(self, tokens, context, prompts):
        """
        tokens   [B, N, D]       the stream being updated: queries
        context  [B, L, D]       the other stream: keys and values
        prompts  [1 or B, P, D]  attention-level prompts, which join the context and are projected like it
        returns  [B, N, D]       the updated stream
        """
        tokens = tokens + self.attention(self.norm_tokens(tokens), self.norm_context(context), prompts)
        return tokens + self.mlp(self.norm_mlp(tokens))


class FusionBlock(nn.Module):
    """Both directions at once, each from the streams as they enter; `model.fusion` can leave a direction out."""

    def __init__(self, model):
        super().__init__()
        self.update_audio = CrossUpdate(model) if model.audio_reads_image else None
        self.update_image = CrossUpdate(model) if model.image_reads_audio else None

    def forward(self, audio, image, audio_prompts, image_prompts):
        """audio, image [B, N_a, D], [B, N_v, D]; prompts [1 or B, P, D] of the modality they join; returns both streams"""
        fused_audio = audio if self.update_audio is None else self.update_audio(audio, image, image_prompts)
        fused_image = image if self.update_image is None else self.update_image(image, audio, audio_prompts)
        return fused_audio, fused_image
