"""The transformer's parts: attention, MLP, pre-norm block. Tokens are [B, N, D]; nothing mixes two samples."""
import torch
from torch import nn
from torch.nn import functional as F

from ptm_mini.trace import Module

LAYER_NORM_EPS = 1e-5
MLP_RATIO = 4


class Linear(nn.Linear):
    """nn.Linear that can also compute a few of its outputs alone."""

    def forward(self, x, outputs=slice(None)):
        """x [..., fan in]; returns [..., fan out], or those of its columns that the slice `outputs` names"""
        return F.linear(x, self.weight[outputs], self.bias[outputs])


class Attention(Module):
    """Multi-head attention, softmax(q k^T / sqrt(D / heads)) v, of tokens to themselves or to a context."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.qkv = Linear(width, 3 * width)          # rows: queries, keys, values; within each, head after head
        self.proj = Linear(width, width)

    def forward(self, tokens, context=None, prompts=None):
        """
        tokens   [B, N, D]       queries
        context  [B, N_c, D]     keys and values; None: the tokens themselves
        prompts  [1 or B, P, D]  more keys and values before those of the context, with 1 the same for every sample,
                                 which are then projected once for the whole batch; None: none
        returns  [B, N, D]
        """
        B, N, D = tokens.shape
        if context is None:
            query, key_value = self.qkv(tokens).split([D, 2 * D], dim=-1)
        else:
            query, key_value = self.qkv(tokens, slice(D)), self.qkv(context, slice(D, None))
        if prompts is not None and prompts.shape[1] > 0:
            key_value = torch.cat([self.qkv(prompts, slice(D, None)).expand(B, -1, -1), key_value], dim=1)
            query = query.contiguous()             # a view would keep the whole projection in memory until the backward pass
        query, key, value = (x.unflatten(-1, (self.heads, D // self.heads)).transpose(1, 2)
                             for x in (query, *key_value.chunk(2, dim=-1)))       # [B, heads, N or P+N_c, D / heads]
        if self.trace is not None:                                                # the fused form below does not show them
            self.note("probabilities", (query @ key.mT / query.shape[-1] ** 0.5).softmax(dim=-1))
        mixed = F.scaled_dot_product_attention(query, key, value)                 # [B, heads, N, D / heads]
        return self.proj(mixed.transpose(1, 2).reshape(B, N, D))


class Mlp(nn.Module):
    """Two linear layers with GELU between, each token by itself. [B, N, D] -> same"""

    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Linear(width, MLP_RATIO * width)
        self.fc2 = nn.Linear(MLP_RATIO * width, width)

    def forward(self, tokens):
        return self.fc2(F.gelu(self.fc1(tokens)))


class Block(Module):
    """Pre-norm transformer block: what attention and MLP say is added to the stream that they read."""

    def __init__(self, width, heads):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=LAYER_NORM_EPS)
        self.mlp = Mlp(width)

    def forward(self, tokens, prompts=None):
        """
        tokens   [B, N, D]
        prompts  [1 or B, P, D]  tokens that are read but not updated, as what they would become is of no use; None: none
        returns  [B, N, D]
        """
        prompts = None if prompts is None else self.norm1(prompts)
        tokens = self.note("attended", tokens + self.attention(self.norm1(tokens), prompts=prompts))
        return self.note("out", tokens + self.mlp(self.norm2(tokens)))
