"""The audio-visual transformer: CAV-MAE's shape plus fusion, from attention to logits.

Tokens are [B, N, D]; nothing mixes two samples. Prompts are extra context tokens: an argument.
Every LayerNorm has torch's eps, 1e-5.
"""
import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptm_mini.config import Config, ModelConfig

MLP_RATIO = 4


class Prompts(NamedTuple):
    """Extra context tokens for a batch, n = B or, the same for every sample, n = 1: a group for
    each of the first L blocks of an encoder (input level), for each of the F fusion blocks
    (attention level) and, beyond the paper, for each of the J joint blocks."""
    audio_input: Tensor         # [n, L, P, D]
    image_input: Tensor         # [n, L, P, D]
    audio_attention: Tensor     # [n, F, P, D]
    image_attention: Tensor     # [n, F, P, D]
    joint: Tensor               # [n, J, P, D]


class Attention(nn.Module):
    """Multi-head attention, softmax(q k^T / sqrt(D / heads)) v, to the tokens or a context."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)    # rows: queries, keys, values; in each, by head
        self.proj = nn.Linear(width, width)

    def project(self, tokens: Tensor, context: Tensor | None = None,
                prompts: Tensor | None = None) -> list[Tensor]:
        """Arguments as of `forward`. Returns queries [B, heads, N, D / heads], and keys and values
        [B, heads, P+N_c, D / heads]."""
        (B, _, D), weight, bias = tokens.shape, self.qkv.weight, self.qkv.bias
        if context is None:
            query, key_value = self.qkv(tokens).split([D, 2 * D], dim=-1)
        else:
            query = F.linear(tokens, weight[:D], bias[:D])
            key_value = F.linear(context, weight[D:], bias[D:])
        if prompts is not None and prompts.shape[1] > 0:
            extra = F.linear(prompts, weight[D:], bias[D:]).expand(B, -1, -1)
            key_value = torch.cat([extra, key_value], dim=1)          # [B, P+N_c, 2 D]
            query = query.contiguous()    # a view would keep the whole projection until backward
        return [x.unflatten(-1, (self.heads, D // self.heads)).transpose(1, 2)
                for x in (query, *key_value.chunk(2, dim=-1))]

    def forward(self, tokens: Tensor, context: Tensor | None = None,
                prompts: Tensor | None = None) -> Tensor:
        """
        tokens   [B, N, D]       queries
        context  [B, N_c, D]     keys and values; None: the tokens themselves
        prompts  [1 or B, P, D]  join the keys and values, before those of the context; with 1 they
                                 are projected once for the whole batch
        returns  [B, N, D]
        """
        query, key, value = self.project(tokens, context, prompts)
        mixed = F.scaled_dot_product_attention(query, key, value)     # [B, heads, N, D / heads]
        return self.proj(mixed.transpose(1, 2).flatten(2))            # [B, N, D]


class Mlp(nn.Module):
    """Two linear layers with GELU between, each token by itself: [B, N, D] -> [B, N, D]."""

    def __init__(self, width: int):
        super().__init__()
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(tokens)))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width)

    def forward(self, tokens: Tensor, prompts: Tensor | None = None) -> Tensor:
        """
        tokens   [B, N, D]
        prompts  [1 or B, P, D]  are read but not updated: the next block has fresh ones
        returns  [B, N, D]
        """
        prompts = None if prompts is None else self.norm1(prompts)
        tokens = tokens + self.attention(self.norm1(tokens), prompts=prompts)
        return tokens + self.mlp(self.norm2(tokens))


class Encoder(nn.Module):
    """ViT encoder of one modality; input-level prompts join its blocks."""

    def __init__(self, channels: int, rows: int, columns: int, patch: int, model: ModelConfig):
        """rows, columns: of the grid of N patches; patch: the side of one."""
        super().__init__()
        self.patches = nn.Conv2d(channels, model.width, kernel_size=patch, stride=patch)
        positions = sincos_positions(rows, columns, model.width)
        self.positions = nn.Parameter(positions[None])                        # [1, N, D]
        self.modality = nn.Parameter(torch.zeros(1, 1, model.width))
        self.blocks = nn.ModuleList(Block(model.width, model.heads) for _ in range(model.depth))

    def forward(self, pixels: Tensor, prompts: Tensor | None = None) -> Tensor:
        """
        pixels   [B, channels, rows * patch, columns * patch]
        prompts  [1 or B, L, P, D]  each of the first L blocks gets P fresh ones. With L < depth,
                 those of block L then flow on as tokens, and leave at the end.
        returns  [B, N, D]
        """
        tokens = self.patches(pixels).flatten(2).transpose(1, 2)              # [B, N, D], row-major
        tokens = tokens + self.positions + self.modality
        N, L = tokens.shape[1], 0 if prompts is None else prompts.shape[1]
        for i, block in enumerate(self.blocks):
            fresh = prompts[:, i] if i < L else None                          # [1 or B, P, D]
            if i == L - 1 and L < len(self.blocks):
                fresh = fresh.expand(tokens.shape[0], -1, -1)
                tokens, fresh = torch.cat([fresh, tokens], dim=1), None       # [B, P+N, D]
            tokens = block(tokens, fresh)
        return tokens[:, -N:]


class CrossUpdate(nn.Module):
    """One direction of fusion: update one stream from the other, residuals included."""

    def __init__(self, model: ModelConfig):
        super().__init__()
        self.norm_tokens, self.norm_context = nn.LayerNorm(model.width), nn.LayerNorm(model.width)
        self.norm_mlp = nn.LayerNorm(model.width)
        self.attention = Attention(model.width, model.heads)
        self.mlp = Mlp(model.width)

    def forward(self, tokens: Tensor, context: Tensor, prompts: Tensor | None = None) -> Tensor:
        """
        tokens   [B, N, D]       the stream being updated: queries
        context  [B, N_c, D]     the other stream: keys and values
        prompts  [1 or B, P, D]  attention-level prompts: join the context, projected like it
        returns  [B, N, D]       the updated stream
        """
        context = self.norm_context(context)
        tokens = tokens + self.attention(self.norm_tokens(tokens), context, prompts)
        return tokens + self.mlp(self.norm_mlp(tokens))


class FusionBlock(nn.Module):
    """Both directions at once, each from the streams as they enter; model.fusion can omit one."""

    def __init__(self, model: ModelConfig):
        super().__init__()
        self.update_audio = CrossUpdate(model) if model.audio_reads_image else None
        self.update_image = CrossUpdate(model) if model.image_reads_audio else None

    def forward(self, audio: Tensor, image: Tensor, audio_prompts: Tensor | None = None,
                image_prompts: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Update both streams, [B, N_a, D] and [B, N_v, D]. The audio prompts, [1 or B, P, D], join
        the audio tokens that the image's queries read, and the reverse."""
        fused_audio, fused_image = audio, image
        if self.update_audio is not None:
            fused_audio = self.update_audio(audio, image, image_prompts)
        if self.update_image is not None:
            fused_image = self.update_image(image, audio, audio_prompts)
        return fused_audio, fused_image


class Backbone(nn.Module):
    """Encoders -> fusion -> joint blocks -> mean over tokens -> head. One path, prompts or not."""

    def __init__(self, config: Config, classes: int):
        super().__init__()
        audio, image, model = config.audio, config.image, config.model
        rows, columns = audio.mels // model.audio_patch, audio.frames // model.audio_patch
        side, D = image.size // model.image_patch, model.width
        self.audio_encoder = Encoder(1, rows, columns, model.audio_patch, model)
        self.image_encoder = Encoder(3, side, side, model.image_patch, model)
        self.fusion = nn.ModuleList(FusionBlock(model) for _ in range(model.fusion_blocks))
        self.joint = nn.ModuleList(Block(D, model.heads) for _ in range(model.joint_depth))
        self.norm = nn.LayerNorm(D)
        self.head = nn.Sequential(nn.LayerNorm(D), nn.Linear(D, classes))
        self.audio_shape = audio.frames, audio.mels
        self.image_shape = 3, image.size, image.size

    def encode(self, audio: Tensor, image: Tensor,
               prompts: Prompts | None = None) -> tuple[Tensor, Tensor]:
        """
        audio    [B, T, M]     normalised log-mel
        image    [B, 3, H, W]  normalised pixels
        returns  [B, N_a, D], [B, N_v, D]  each modality's tokens
        """
        if audio.shape[1:] != self.audio_shape or image.shape[1:] != self.image_shape:
            raise ValueError(f"audio {list(audio.shape)} and image {list(image.shape)}; expected "
                             f"[B, {self.audio_shape}] and [B, {self.image_shape}]")
        spectrogram = audio.transpose(1, 2)[:, None]                          # [B, 1, M, T]
        return (self.audio_encoder(spectrogram, prompts and prompts.audio_input),
                self.image_encoder(image, prompts and prompts.image_input))

    def join(self, audio: Tensor, image: Tensor, prompts: Prompts | None = None) -> Tensor:
        """Fuse and pool what `encode` returns: [B, N_a, D], [B, N_v, D] -> [B, D]."""
        for i, block in enumerate(self.fusion):
            audio, image = block(audio, image, prompts and prompts.audio_attention[:, i],
                                 prompts and prompts.image_attention[:, i])
        tokens = torch.cat([audio, image], dim=1)                             # [B, N_a+N_v, D]
        for i, block in enumerate(self.joint):
            tokens = block(tokens, prompts and prompts.joint[:, i])
        return self.norm(tokens).mean(dim=1)                                  # [B, D]

    def features(self, audio: Tensor, image: Tensor, prompts: Prompts | None = None) -> Tensor:
        """Arguments as of `encode`; returns [B, D], what the head classifies."""
        return self.join(*self.encode(audio, image, prompts), prompts)

    def forward(self, audio: Tensor, image: Tensor, prompts: Prompts | None = None) -> Tensor:
        """Arguments as of `encode`; returns logits [B, K]."""
        return self.head(self.features(audio, image, prompts))


def sincos_positions(rows: int, columns: int, width: int) -> Tensor:
    """Fixed 2-D positions [rows * columns, width], row-major: half of the width for the row, half
    for the column. With q = width / 4 and w_i = 10000^(-i / q), a coordinate c becomes
    [sin(c w_0) .. sin(c w_q-1), cos(c w_0) .. cos(c w_q-1)]."""
    frequencies = 10000.0 ** -(torch.arange(width // 4).double() / (width // 4))
    row = torch.arange(rows).repeat_interleave(columns)[:, None] * frequencies
    column = torch.arange(columns).repeat(rows)[:, None] * frequencies
    return torch.cat([row.sin(), row.cos(), column.sin(), column.cos()], dim=1).float()


def initialise(backbone: Backbone, generator: torch.Generator) -> None:
    """Draw weights, uniform within sqrt(6 / (fan in + fan out)); biases 0, fusion outputs 0, so
    that a fusion block in a trained model changes nothing until it is trained."""
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


def freeze(module: nn.Module) -> nn.Module:
    """Put a module into eval mode and take its gradients away, in place. Returns it."""
    return module.eval().requires_grad_(False)
