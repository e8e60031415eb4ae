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
        self.weight = nn.Parameter(torch.zeros(len(Situation), 4 * len(backbone.norm.weight)))
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

    @torch.no_grad()
    def fit(self, batches, shrinkage):
        """Set the layer to the linear discriminant of the situations (Fisher 1936), in closed form: with the means m_s and
        the covariance C within situations, all held to be equally likely,

            weight_s = C^-1 m_s        bias_s = -m_s C^-1 m_s / 2        C <- C + shrinkage * diag(C)

        batches  iterable of audio, image, situations [B]
        """
        S, width = self.weight.shape
        counts, sums = torch.zeros(S, dtype=torch.double), torch.zeros(S, width, dtype=torch.double)
        products = torch.zeros(width, width, dtype=torch.double)
        for audio, image, situations in batches:
            x = self.pooled(audio, image).double().cpu()                       # sums of squares need the digits
            whose = F.one_hot(situations.cpu(), S).double()
            counts, sums, products = counts + whose.sum(dim=0), sums + whose.T @ x, products + x.T @ x
        means = sums / counts.clamp(min=1)[:, None]
        covariance = (products - means.T @ sums) / counts.sum()
        covariance += (shrinkage * covariance.diag()).clamp(min=1e-6).diag()      # a feature may never vary
        weight = torch.linalg.solve(covariance, means.T).T
        self.weight.copy_(weight)
        bias = -(weight * means).sum(dim=1) / 2
        self.bias.copy_(bias.masked_fill(counts == 0, -torch.inf))             # what was never seen is never picked
