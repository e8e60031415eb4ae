"""Prompts: the few vectors that are trained for each situation, on the frozen backbone."""
import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ptm_mini.config import Config, Situation
from ptm_mini.method.backbone import Backbone, Prompts, freeze


class PromptSet(nn.Module):
    """The trainable parameters of one situation: prompts and, with tune_head, a head of its own."""

    def __init__(self, config: Config, head: nn.Module, generator: torch.Generator):
        """head: the backbone's, which is copied where the set tunes one"""
        super().__init__()
        settings, model = config.prompts, config.model
        P = settings.length
        shapes = Prompts(                                   # none where no query would read them
            audio_input=(settings.input_depth, P), image_input=(settings.input_depth, P),
            audio_attention=(model.fusion_blocks,
                             P if settings.attention and model.image_reads_audio else 0),
            image_attention=(model.fusion_blocks,
                             P if settings.attention and model.audio_reads_image else 0),
            joint=(model.joint_depth, P if settings.joint else 0))
        for place, shape in shapes._asdict().items():
            tokens = torch.randn(*shape, model.width, generator=generator) * settings.initial_std
            self.register_parameter(place, nn.Parameter(tokens))
        self.head = copy.deepcopy(head).requires_grad_(True) if settings.tune_head else None


def select_prompts(sets: Sequence[PromptSet], situations: Tensor) -> Prompts:
    """Give each sample the set of its situation: n = B, P tokens in each place.

    sets: in the order of Situation; situations: [B] long
    """
    # index_select: the gradient of plain indexing sums its threads in any order, no two runs alike
    return Prompts(*(torch.stack([getattr(s, place) for s in sets]).index_select(0, situations)
                     for place in Prompts._fields))


def concat_prompts(sets: Sequence[PromptSet]) -> Prompts:
    """Give every sample all S sets side by side: n = 1, S * P tokens in each place."""
    return Prompts(*(torch.cat([getattr(s, place) for s in sets], dim=1)[None]
                     for place in Prompts._fields))


class PromptedBackbone(nn.Module):
    """A frozen backbone with one prompt set or all four; only the sets have gradients."""

    def __init__(self, backbone: Backbone, sets: Sequence[PromptSet]):
        """sets: one, or four in the order of Situation"""
        super().__init__()
        self.backbone, self.sets = freeze(backbone), nn.ModuleList(sets)

    @property
    def heads(self) -> list[nn.Module]:
        return [self.backbone.head if s.head is None else s.head for s in self.sets]

    def forward(self, audio: Tensor, image: Tensor) -> Tensor:
        """Answer with all sets side by side, the paper's concat; a single set answers by itself.

        Tuned heads are averaged as probabilities. Returns logits [B, K].
        """
        features = self.backbone.features(audio, image, concat_prompts(self.sets))
        logits = [head(features) for head in dict.fromkeys(self.heads)]    # a shared head once
        return mean_probabilities(logits)

    def answer(self, audio: Tensor, image: Tensor, case: Situation) -> Tensor:
        """Answer every sample with the set of one situation; returns logits [B, K]."""
        features = self.backbone.features(audio, image, concat_prompts([self.sets[case]]))
        return self.heads[case](features)

    def answer_each(self, audio: Tensor, image: Tensor, situations: Tensor) -> Tensor:
        """Answer each sample with the set of its own situation, [B] long, in one pass."""
        features = self.backbone.features(audio, image, select_prompts(self.sets, situations))
        logits = torch.stack([head(features) for head in self.heads])      # [S, B, K]
        return select_answers(logits, situations)


def select_answers(logits: Tensor, situations: Tensor) -> Tensor:
    """Take each sample's answer from the set of its situation: [S, B, K], [B] long -> [B, K]."""
    return logits[situations, torch.arange(logits.shape[1], device=logits.device)]


def mean_probabilities(logits: Sequence[Tensor]) -> Tensor:
    """Average logits [B, K] as probabilities; returns logits of the mean, finite even at 0."""
    if len(logits) == 1:
        return logits[0]
    mean = torch.stack(list(logits)).softmax(dim=-1).mean(dim=0)
    return mean.clamp(min=torch.finfo(mean.dtype).tiny).log()


def prompt(backbone: Backbone, config: Config, generator: torch.Generator) -> PromptedBackbone:
    """Fresh prompts and a copy of the head, for one situation."""
    return PromptedBackbone(backbone, [PromptSet(config, backbone.head, generator)])
