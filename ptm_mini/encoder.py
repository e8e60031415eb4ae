"""One modality's encoder: patches to tokens, positions, and blocks that a few prompt tokens can join."""
import torch
from torch import nn

from ptm_mini.layers import Block, sincos_positions


class Encoder(nn.Module):
    """ViT encoder of one modality. [B, C, height, width in pixels] -> [B, N, D], N = height/patch * width/patch"""

    def __init__(self, channels, height, width, patch, model):
        super().__init__()
        rows, columns = height // patch, width // patch
        self.patches = nn.Conv2d(channels, model.width, kernel_size=patch, stride=patch)
        self.positions = nn.Parameter(sincos_positions(rows, columns, model.width)[None])      # [1, N, D]
        self.modality = nn.Parameter(torch.zeros(1, 1, model.width))
        self.blocks = nn.ModuleList(Block(model.width, model.heads) for _ in range(model.depth))

    def forward(self, pixels, prompts):
        """
        pixels   [B, C, height, width]
        prompts  [1 or B, L, P, D]  input-level prompts: each of the first L blocks gets P fresh ones before the
                 tokens. Behind block L the last ones flow on like any token; they leave at the end.
        returns  [B, N, D]
        """
        tokens = self.patches(pixels).flatten(2).transpose(1, 2)                   # [B, N, D], row-major
        tokens = tokens + self.positions + self.modality
        N, L = tokens.shape[1], prompts.shape[1]
        for i, block in enumerate(self.blocks):
            fresh = prompts[:, i] if i < L else None
            if i == L - 1 and L < len(self.blocks):                                # the last ones stay: now tokens too
                tokens, fresh = torch.cat([fresh.expand(len(tokens), -1, -1), tokens], dim=1), None     # [B, P+N, D]
            tokens = block(tokens, fresh)                                          # others are read by this block alone
        return tokens[:, -N:]
