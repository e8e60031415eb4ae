"""The baselines: a tuned head, LoRA, Adapter, scale and shift, and full fine-tuning.

Each starts as the backbone, exactly, and is called like it. Full fine-tuning trains a copy; the
others share the backbone's frozen weights and add parameters, which alone have gradients.
"""
import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from ptm_mini.config import AdapterConfig, Config, LoraConfig
from ptm_mini.method.backbone import Attention, Backbone, Block, CrossUpdate, freeze


def uniform(fan_out: int, fan_in: int, generator: torch.Generator) -> Tensor:
    """Draw [fan_out, fan_in], uniform within 1 / sqrt(fan_in)."""
    return torch.empty(fan_out, fan_in).uniform_(-1, 1, generator=generator) / fan_in ** 0.5


class LowRankUpdate(nn.Module):
    """A weight W as W + alpha / rank * B A, B = 0 at first (Hu et al., ICLR 2022, sec. 4.1)."""

    def __init__(self, weight: Tensor, settings: LoraConfig, generator: torch.Generator):
        super().__init__()
        self.scale = settings.alpha / settings.rank
        self.down = nn.Parameter(uniform(settings.rank, weight.shape[1], generator))     # A
        self.up = nn.Parameter(torch.zeros(weight.shape[0], settings.rank))              # B

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.scale * self.up @ self.down


class Adapter(nn.Module):
    """A layer and a bottleneck after it: y + W_up gelu(W_down y + b_down) + b_up, y = layer(x)
    (Houlsby et al., ICML 2019, fig. 2)."""

    def __init__(self, layer: nn.Module, width: int, settings: AdapterConfig,
                 generator: torch.Generator):
        super().__init__()
        self.layer = layer
        self.down = nn.Parameter(uniform(settings.bottleneck, width, generator))
        self.down_bias = nn.Parameter(torch.zeros(settings.bottleneck))
        self.up = nn.Parameter(torch.zeros(width, settings.bottleneck))
        self.up_bias = nn.Parameter(torch.zeros(width))

    def forward(self, *inputs: Any, **prompts: Any) -> Tensor:
        y = self.layer(*inputs, **prompts)
        hidden = F.gelu(F.linear(y, self.down, self.down_bias))
        return y + F.linear(hidden, self.up, self.up_bias)


class ScaleShift(nn.Module):
    """A norm, then a scale and a shift of each feature: scale * norm(x) + shift
    (Lian et al., NeurIPS 2022, eq. 2)."""

    def __init__(self, norm: nn.LayerNorm):
        super().__init__()
        self.norm = norm
        self.scale = nn.Parameter(torch.ones_like(norm.weight))
        self.shift = nn.Parameter(torch.zeros_like(norm.bias))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.norm(x) + self.shift


def share_backbone(backbone: Backbone, tune_head: bool) -> Backbone:
    """Copy the modules but not the weights: the copy holds the backbone's own, frozen tensors and,
    with tune_head, a trainable head of its own."""
    shared = {id(tensor): tensor for tensor in freeze(backbone).parameters()}
    model = copy.deepcopy(backbone, shared)     # deepcopy takes what the memo holds, uncopied
    if tune_head:
        model.head = copy.deepcopy(backbone.head).requires_grad_(True)
    return model


def modules_of(model: nn.Module, kinds: type | tuple[type, ...]) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, kinds)]


def head(backbone: Backbone, config: Config, generator: torch.Generator) -> Backbone:
    """A copy of the head, for each situation."""
    return share_backbone(backbone, tune_head=True)


def lora(backbone: Backbone, config: Config, generator: torch.Generator) -> Backbone:
    """Low-rank updates of the attentions' projections and a head, for each situation."""
    model = share_backbone(backbone, config.lora.tune_head)
    for attention in modules_of(model, Attention):
        for layer in (attention.qkv, attention.proj):
            update = LowRankUpdate(layer.weight, config.lora, generator)
            # unsafe: without a trial on the weight, which may be on another device
            parametrize.register_parametrization(layer, "weight", update, unsafe=True)
    return model


def adapter(backbone: Backbone, config: Config, generator: torch.Generator) -> Backbone:
    """Bottlenecks after every attention and MLP and a head, for each situation."""
    model = share_backbone(backbone, config.adapter.tune_head)
    for block in modules_of(model, (Block, CrossUpdate)):
        for name in ("attention", "mlp"):
            layer = getattr(block, name)
            setattr(block, name, Adapter(layer, config.model.width, config.adapter, generator))
    return model


def scale_shift(backbone: Backbone, config: Config, generator: torch.Generator) -> Backbone:
    """A scale and a shift after every norm of a block and a head, for each situation."""
    model = share_backbone(backbone, tune_head=True)
    for block in modules_of(model, (Block, CrossUpdate)):
        for name, norm in list(block.named_children()):
            if isinstance(norm, nn.LayerNorm):
                setattr(block, name, ScaleShift(norm))
    return model


def full(backbone: Backbone, config: Config, generator: torch.Generator) -> Backbone:
    """A copy of everything."""
    return copy.deepcopy(freeze(backbone)).requires_grad_(True)
