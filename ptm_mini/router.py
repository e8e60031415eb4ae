"""The router: which prompt set a sample needs, from what the frozen encoders make of it; it learns without class labels."""
import torch
from torch import nn
from torch.nn import functional as F

from ptm_mini.config import Situation
from ptm_mini.model import frozen


class Router(nn.Module):
    """A linear layer on pooled features of the frozen backbone; the layer alone has gradients."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = frozen(backbone)
        width = backbone.norm.weight.shape[0]
        self.weight = nn.Parameter(torch.zeros(len(Situation), 4 * width))        # convex: any start will do
        self.bias = nn.Parameter(torch.zeros(len(Situation)))

    def pooled(self, audio, image):
        """[B, T, M], [B, 3, H, W] -> [B, 4 D]: mean and standard deviation over tokens, audio's then image's"""
        streams = self.backbone.encode(audio, image)
        return torch.cat([part for tokens in streams for part in (tokens.mean(dim=1), tokens.std(dim=1))], dim=1)

    def forward(self, audio, image):
        """returns logits [B, S] of the situations"""
        return F.linear(self.pooled(audio, image), self.weight, self.bias)

    def pick(self, audio, image):
        """returns the likeliest situations, [B] long"""
        return self(audio, image).argmax(dim=1)
