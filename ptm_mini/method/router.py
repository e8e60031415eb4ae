"""Which model answers for a sample: the router, which learns without class labels, and what it is compared with."""
import torch
from torch import nn
from torch.nn import functional as F

from ptm_mini.config import Situation
from ptm_mini.method.backbone import freeze


def moments(audio, image):
    """[B, N_a, D], [B, N_v, D] -> [B, 4 D]: mean and standard deviation (over N, not N - 1) of the tokens of each modality, in
    the order audio mean, audio deviation, image mean, image deviation"""
    return torch.cat([part for tokens in (audio, image) for part in (tokens.mean(dim=1), tokens.std(dim=1, correction=0))],
                     dim=1)


class Router(nn.Module):
    """A linear layer on pooled features of the frozen backbone; the layer alone has gradients."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = freeze(backbone)
        self.weight = nn.Parameter(torch.zeros(len(Situation), 4 * len(backbone.norm.weight)))
        self.bias = nn.Parameter(torch.zeros(len(Situation)))

    def pooled(self, audio, image):
        """[B, T, M], [B, 3, H, W] -> [B, 4 D]: the moments of what the encoders give"""
        return moments(*self.backbone.early(audio, image))

    def forward(self, audio, image):
        """returns logits [B, S] of the situations"""
        return self.logits(*self.backbone.early(audio, image))

    def logits(self, audio, image):
        """As forward, of what the encoders gave, [B, N_a, D] and [B, N_v, D]"""
        return F.linear(moments(audio, image), self.weight, self.bias)

    def pick(self, audio, image, logits=None):
        """The situations whose models are to answer, [B] long: where a modality is all 0, which anyone can see, what follows
        from that; else the likeliest one. logits: as forward gives them, where they are known"""
        lacking = (Situation.NOISY_AUDIO * audio.flatten(1).eq(0).all(dim=1)
                   | Situation.NOISY_IMAGE * image.flatten(1).eq(0).all(dim=1))
        logits = self(audio, image) if logits is None else logits
        return logits.argmax(dim=1).where(lacking == 0, lacking)

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


# Strategies: how, of a method that has a model for each situation, one is chosen for each sample. Each makes, of a model and
# the router, a function(audio, image, situations [B]) -> scores [B, K]; but for the first, none looks at the situations.

def situation(model, router):
    """The true situation is known."""
    return model.by_situation


def plain(model):
    """No strategy: a model that answers for every sample."""
    return lambda audio, image, situations: model(audio, image)


def concat(model, router):
    """All prompt sets side by side."""
    return plain(model)


def routed(model, router):
    """The situations that the router picks."""
    return lambda audio, image, situations: model.routed(audio, image, router)[0]


def told(model, situation):
    """No strategy: the answers as if every sample were in this one situation."""
    return lambda audio, image, situations: model.by_situation(audio, image, torch.full_like(situations, situation))


def lowest_entropy(model, router):
    """Of the answers for all four situations, each sample's surest one: a reference that needs no router."""
    def scores_of(audio, image, situations):
        scores = torch.stack([told(model, each)(audio, image, situations) for each in Situation])              # [S, B, K]
        log_p = scores.log_softmax(dim=-1)
        surest = (log_p.exp() * log_p).sum(dim=-1).argmax(dim=0)                                               # [B]
        return scores[surest, torch.arange(len(audio), device=surest.device)]

    return scores_of


STRATEGIES = {strategy.__name__: strategy for strategy in (situation, concat, routed, lowest_entropy)}
