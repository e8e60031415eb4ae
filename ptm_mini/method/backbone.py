"""The audio-visual transformer, CAV-MAE's shape plus fusion: the whole forward pass, with the places where prompts join."""
import math
from typing import NamedTuple

import torch
from torch import nn

from ptm_mini.method.layers import LAYER_NORM_EPS, Attention, Block, Mlp
from ptm_mini.trace import Module


class PromptTokens(NamedTuple):
    """Extra context tokens for a batch, n = B or, the same for every sample, n = 1. Input-level: one group a block of
    each encoder, for L = input_depth blocks on end. Attention-level: one group a fusion block, F of them; and, beyond the
    paper, one group a joint block, J of them. No prompts: P = 0."""
    audio_input: torch.Tensor         # [n, L, P, D]
    image_input: torch.Tensor         # [n, L, P, D]
    audio_attention: torch.Tensor     # [n, F, P, D]
    image_attention: torch.Tensor     # [n, F, P, D]
    joint: torch.Tensor               # [n, J, P, D]


def sincos_positions(rows, columns, width):
    """Fixed 2-D positions: half of the width for the row, half for the column, each sines then cosines.

    With q = width / 4 and w_i = 10000^(-i / q), a coordinate c becomes [sin(c w_0) .. sin(c w_q-1), cos(c w_0) ..].

    returns  [rows * columns, width], row-major
    """
    frequencies = 10000.0 ** -(torch.arange(width // 4).double() / (width // 4))

    def encode(coordinates):                                                       # [n] -> [n, width / 2]
        angles = coordinates[:, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1)

    row, column = encode(torch.arange(rows)), encode(torch.arange(columns))
    return torch.cat([row.repeat_interleave(columns, dim=0), column.repeat(rows, 1)], dim=1).float()


class Encoder(Module):
    """ViT encoder of one modality: patches to tokens, positions, and blocks that a few prompt tokens can join."""

    def __init__(self, channels, rows, columns, patch, model):
        """rows, columns: of the grid of patches, N of them; patch: the side of one; model: ModelConfig"""
        super().__init__()
        self.patches = nn.Conv2d(channels, model.width, kernel_size=patch, stride=patch)
        self.positions = nn.Parameter(sincos_positions(rows, columns, model.width)[None])      # [1, N, D]
        self.modality = nn.Parameter(torch.zeros(1, 1, model.width))
        self.blocks = nn.ModuleList(Block(model.width, model.heads) for _ in range(model.depth))

    def early(self, pixels, first):
        """[B, channels, rows * patch, columns * patch] -> [B, N, D], the tokens behind `first` blocks, without prompts"""
        tokens = self.note("patches", self.patches(pixels).flatten(2).transpose(1, 2))           # [B, N, D], row-major
        tokens = self.note("tokens", tokens + self.positions + self.modality)
        for block in self.blocks[:first]:
            tokens = block(tokens)
        return tokens

    def late(self, tokens, prompts, first):
        """
        tokens   [B, N, D]          as `early` gives them, behind `first` blocks
        prompts  [1 or B, L, P, D]  input-level prompts: each of the next L blocks gets P fresh ones before the
                 tokens. Behind the last of these they flow on like any token; they leave at the end.
        returns  [B, N, D]
        """
        N, L, blocks = tokens.shape[1], prompts.shape[1], self.blocks[first:]
        for i, block in enumerate(blocks):
            fresh = prompts[:, i] if i < L else None
            if i == L - 1 and L < len(blocks):                                     # the last ones stay: now tokens too
                tokens, fresh = torch.cat([fresh.expand(len(tokens), -1, -1), tokens], dim=1), None     # [B, P+N, D]
            tokens = block(tokens, fresh)                                          # others are read by this block alone
        return self.note("out", tokens[:, -N:])


class CrossUpdate(Module):
    """One direction of fusion: what a stream learns from the other one, residuals included."""

    def __init__(self, model):
        super().__init__()
        self.norm_tokens, self.norm_context, self.norm_mlp = (nn.LayerNorm(model.width, eps=LAYER_NORM_EPS)
                                                              for _ in range(3))
        self.attention = Attention(model.width, model.heads)
        self.mlp = Mlp(model.width)

    def forward(self, tokens, context, prompts):
        """
        tokens   [B, N, D]       the stream being updated: queries
        context  [B, N_c, D]     the other stream: keys and values
        prompts  [1 or B, P, D]  attention-level prompts, which join the context and are projected like it
        returns  [B, N, D]       the updated stream
        """
        tokens = self.note("attended",
                           tokens + self.attention(self.norm_tokens(tokens), self.norm_context(context), prompts))
        return self.note("out", tokens + self.mlp(self.norm_mlp(tokens)))


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


class Backbone(Module):
    """Tokens and encoders -> fusion -> joint blocks -> mean -> head. One path: without prompts they have length 0.
    It is cut where the first prompts enter: what `early` gives does not depend on them, and can be kept."""

    def __init__(self, config, classes):
        """config: Config; classes: K, how many"""
        super().__init__()
        audio, image, model = config.audio, config.image, config.model
        side = image.size // model.image_patch
        self.audio_encoder = Encoder(1, audio.mels // model.audio_patch, audio.frames // model.audio_patch,
                                     model.audio_patch, model)
        self.image_encoder = Encoder(3, side, side, model.image_patch, model)
        self.fusion = nn.ModuleList(FusionBlock(model) for _ in range(model.fusion_blocks))
        self.joint = nn.ModuleList(Block(model.width, model.heads) for _ in range(model.joint_depth))
        self.norm = nn.LayerNorm(model.width, eps=LAYER_NORM_EPS)
        self.head = nn.Sequential(nn.LayerNorm(model.width, eps=LAYER_NORM_EPS), nn.Linear(model.width, classes))
        self.audio_shape, self.image_shape = (audio.frames, audio.mels), (3, image.size, image.size)

    def no_prompts(self):
        """PromptTokens of length 0"""
        groups = (0, 0, len(self.fusion), len(self.fusion), len(self.joint))
        return PromptTokens(*(self.norm.weight.new_zeros(1, count, 0, len(self.norm.weight)) for count in groups))

    def early(self, audio, image, first=None):
        """
        audio    [B, T, M]     normalised log-mel
        image    [B, 3, H, W]  normalised pixels
        first    how many blocks of each encoder, without prompts; None: all
        returns  [B, N_a, D], [B, N_v, D]  each modality's tokens behind them
        """
        if audio.shape[1:] != self.audio_shape or image.shape[1:] != self.image_shape or len(audio) != len(image):
            raise ValueError(f"audio {list(audio.shape)} and image {list(image.shape)}; expected "
                             f"[B, {self.audio_shape}] and [B, {self.image_shape}]")
        spectrogram = audio.transpose(1, 2)[:, None]                                               # [B, 1, M, T]
        return self.audio_encoder.early(spectrogram, first), self.image_encoder.early(image, first)

    def encoded(self, audio, image, first):
        """What is left of the encoders behind `early`, without prompts: [B, N_a, D], [B, N_v, D] -> the same shapes"""
        none = self.no_prompts()
        return self.audio_encoder.late(audio, none.audio_input, first), self.image_encoder.late(image, none.image_input, first)

    def late(self, audio, image, prompts, first):
        """
        audio, image  [B, N_a, D], [B, N_v, D]  as `early` gives them
        prompts       PromptTokens, of which those of the input level enter at block `first`
        returns       [B, D]  what the head sees: the mean over all tokens of both modalities
        """
        audio = self.audio_encoder.late(audio, prompts.audio_input, first)                         # [B, N_a, D]
        image = self.image_encoder.late(image, prompts.image_input, first)                         # [B, N_v, D]
        for i, block in enumerate(self.fusion):
            audio, image = block(audio, image, prompts.audio_attention[:, i], prompts.image_attention[:, i])
        tokens = torch.cat([audio, image], dim=1)                                                  # [B, N_a+N_v, D]
        for i, block in enumerate(self.joint):
            tokens = block(tokens, prompts.joint[:, i])
        return self.note("features", self.norm(tokens).mean(dim=1))

    def features(self, audio, image, prompts=None, first=0):
        """As `early`, then `late`, with prompts or None; returns [B, D]"""
        return self.late(*self.early(audio, image, first), prompts or self.no_prompts(), first)

    def forward(self, audio, image, prompts=None):
        """As `features`, with prompts from the first block on; returns logits [B, K]"""
        return self.note("logits", self.head(self.features(audio, image, prompts)))


def initialise(backbone, generator):
    """Draw fresh weights: uniform within sqrt(6 / (fan in + fan out)), biases 0, a fusion block's outputs 0.

    So a fusion block put into a trained model changes nothing until it is trained.
    """
    with torch.no_grad():
        for module in backbone.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                bound = math.sqrt(6 / (module.weight[0].numel() + module.weight.shape[0]))
                module.weight.uniform_(-bound, bound, generator=generator)
                module.bias.zero_()
        for encoder in (backbone.audio_encoder, backbone.image_encoder):
            encoder.modality.normal_(0, 0.02, generator=generator)
        for update in (module for module in backbone.modules() if isinstance(module, CrossUpdate)):
            update.attention.proj.weight.zero_()
            update.mlp.fc2.weight.zero_()


def freeze(backbone):
    """Put the backbone into eval mode and take its gradients away, in place. returns it"""
    return backbone.eval().requires_grad_(False)
