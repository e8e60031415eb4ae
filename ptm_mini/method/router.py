"""The router: which situation is a sample in? Trained without class labels, on frozen features."""
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ptm_mini.config import Situation


class Router(nn.Module):
    """A linear layer on the pooled tokens of the frozen encoders (Backbone.encode, no prompts).

    All methods take those tokens, audio [B, N_a, D] and image [B, N_v, D].
    """

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(len(Situation), 4 * width))
        self.bias = nn.Parameter(torch.zeros(len(Situation)))

    def pool(self, audio: Tensor, image: Tensor) -> Tensor:
        """Mean and standard deviation (over N, not N - 1) of each modality's tokens: [B, 4 D]."""
        return torch.cat([part for tokens in (audio, image)
                          for part in (tokens.mean(dim=1), tokens.std(dim=1, correction=0))], dim=1)

    def forward(self, audio: Tensor, image: Tensor) -> Tensor:
        """returns logits [B, S] of the situations"""
        return F.linear(self.pool(audio, image), self.weight, self.bias)

    @torch.no_grad()
    def fit(self, batches: Iterable[tuple[Tensor, Tensor, Tensor]], shrinkage: float) -> None:
        """Set the layer to the linear discriminant of the situations (Fisher 1936), closed form.

        With the means m_s and the covariance C within situations, all equally likely,

            weight_s = C^-1 m_s      bias_s = -m_s C^-1 m_s / 2      C <- C + shrinkage * diag(C)

        batches  of audio and image tokens and situations [B] long
        """
        S, width = self.weight.shape
        counts, sums = torch.zeros(S, dtype=torch.double), torch.zeros(S, width, dtype=torch.double)
        products = torch.zeros(width, width, dtype=torch.double)
        for audio, image, situations in batches:
            x = self.pool(audio, image).double().cpu()           # sums of squares need the digits
            one_hot = F.one_hot(situations.cpu(), S).double()
            counts += one_hot.sum(dim=0)
            sums += one_hot.T @ x
            products += x.T @ x
        means = sums / counts.clamp(min=1)[:, None]
        covariance = (products - means.T @ sums) / counts.sum()
        covariance += (shrinkage * covariance.diag()).clamp(min=1e-6).diag()   # constant features
        weight = torch.linalg.solve(covariance, means.T).T
        bias = -(weight * means).sum(dim=1) / 2
        self.weight.copy_(weight)
        self.bias.copy_(bias.masked_fill(counts == 0, -torch.inf))   # never seen, never picked


def pick_situations(logits: Tensor, audio: Tensor, image: Tensor) -> Tensor:
    """Pick the likeliest situation; a modality that is all 0 is seen to be missing, not guessed.

    logits [B, S] of the router; audio [B, T, M], image [B, 3, H, W]; returns [B] long
    """
    missing = (Situation.NOISY_AUDIO * audio.flatten(1).eq(0).all(dim=1)
               | Situation.NOISY_IMAGE * image.flatten(1).eq(0).all(dim=1))
    return logits.argmax(dim=1).where(missing == 0, missing)
