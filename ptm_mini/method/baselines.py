"""What prompts are compared with: a tuned head, LoRA, Adapter, scale and shift, and full fine-tuning.

Each is a model that is called like the backbone and starts as the backbone, exactly. All but full fine-tuning, which learns a
copy, share the backbone's frozen weights and add parameters of their own, which alone have gradients; the backbone's code does
not know of them.
"""
import copy

import torch
from torch import nn
from torch.nn import functional as F

from ptm_mini.method.backbone import CrossUpdate, freeze
from ptm_mini.method.layers import Attention, Block


def uniform(fan_out, fan_in, generator):
    """[fan_out, fan_in], uniform within 1 / sqrt(fan_in)"""
    return torch.empty(fan_out, fan_in).uniform_(-1, 1, generator=generator) / fan_in ** 0.5


class LoraLinear(nn.Module):
    """A frozen linear layer and a low-rank update: W x + b + alpha / rank * up down x (Hu et al., ICLR 2022, sec. 4.1)."""

    def __init__(self, linear, settings, generator):
        super().__init__()
        self.linear, self.scale = linear, settings.alpha / settings.rank
        self.down = nn.Parameter(uniform(settings.rank, linear.in_features, generator))
        self.up = nn.Parameter(torch.zeros(linear.out_features, settings.rank))

    def forward(self, x, outputs=slice(None)):
        """As Linear.forward"""
        return self.linear(x, outputs) + self.scale * F.linear(F.linear(x, self.down), self.up[outputs])

    def merged(self):
        """One linear layer that computes the same."""
        merged = copy.deepcopy(self.linear)
        with torch.no_grad():
            merged.weight += self.scale * self.up @ self.down
        return merged


class Adapter(nn.Module):
    """A frozen layer, and behind it a bottleneck: y + W_up gelu(W_down y + b_down) + b_up, y what the layer says
    (Houlsby et al., ICML 2019, fig. 2)."""

    def __init__(self, layer, width, settings, generator):
        super().__init__()
        self.layer = layer
        self.down = nn.Parameter(uniform(settings.bottleneck, width, generator))
        self.down_bias = nn.Parameter(torch.zeros(settings.bottleneck))
        self.up = nn.Parameter(torch.zeros(width, settings.bottleneck))
        self.up_bias = nn.Parameter(torch.zeros(width))

    def forward(self, *inputs, **prompts):
        y = self.layer(*inputs, **prompts)
        return y + F.linear(F.gelu(F.linear(y, self.down, self.down_bias)), self.up, self.up_bias)


class ScaleShift(nn.Module):
    """A frozen norm, and behind it a scale and a shift of each feature: scale * norm(x) + shift (Lian et al., NeurIPS 2022,
    eq. 2)."""

    def __init__(self, norm):
        super().__init__()
        self.norm = norm
        self.scale, self.shift = nn.Parameter(torch.ones_like(norm.weight)), nn.Parameter(torch.zeros_like(norm.bias))

    def forward(self, x):
        return self.scale * self.norm(x) + self.shift

    def merged(self):
        """One norm that computes the same."""
        merged = copy.deepcopy(self.norm)
        with torch.no_grad():
            merged.weight *= self.scale
            merged.bias.copy_(self(torch.zeros_like(merged.bias)))                 # a norm makes its bias of zeros
        return merged


def sharing(backbone, tune_head):
    """A copy of the backbone's modules that holds the backbone's own weights, frozen, but for a head that learns."""
    model = copy.deepcopy(freeze(backbone), {id(tensor): tensor for tensor in backbone.parameters()})
    if tune_head:
        model.head = copy.deepcopy(backbone.head).requires_grad_(True)
    return model


def head(backbone, config, generator):
    """Only a head learns."""
    return sharing(backbone, tune_head=True)


def lora(backbone, config, generator):
    """Low-rank updates of every attention's projections: queries, keys, values and output."""
    model = sharing(backbone, config.lora.tune_head)
    for attention in [module for module in model.modules() if isinstance(module, Attention)]:
        attention.qkv = LoraLinear(attention.qkv, config.lora, generator)
        attention.proj = LoraLinear(attention.proj, config.lora, generator)
    return model


def merge(model):
    """Every LoRA update, and every scale and shift, made part of its layer, in place: at evaluation they cost nothing. Other
    models stay as they are."""
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, (LoraLinear, ScaleShift)):
                setattr(parent, name, child.merged())
    return model


def adapter(backbone, config, generator):
    """A bottleneck after every attention and after every MLP."""
    model = sharing(backbone, config.adapter.tune_head)
    for block in [module for module in model.modules() if isinstance(module, (Block, CrossUpdate))]:
        block.attention = Adapter(block.attention, config.model.width, config.adapter, generator)
        block.mlp = Adapter(block.mlp, config.model.width, config.adapter, generator)
    return model


def scale_shift(backbone, config, generator):
    """A scale and a shift behind every norm of every block; the last norm, before the head, stays."""
    model = sharing(backbone, tune_head=True)
    for block in [module for module in model.modules() if isinstance(module, (Block, CrossUpdate))]:
        for name, norm in [(name, child) for name, child in block.named_children() if isinstance(child, nn.LayerNorm)]:
            setattr(block, name, ScaleShift(norm))
    return model


def full(backbone, config, generator):
    """Everything learns, in a copy."""
    return copy.deepcopy(freeze(backbone)).requires_grad_(True)
