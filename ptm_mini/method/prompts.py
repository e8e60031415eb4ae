"""Prompts: the few vectors that are learned for each situation, and the two ways to put several sets on the backbone."""
import copy

import torch
from torch import nn

from ptm_mini.method.backbone import PromptTokens, freeze


def blocks_before_prompts(config):
    """How many blocks of each encoder come before the first prompts: all of them, where none enter the encoders"""
    return config.prompts.first_block if config.prompts.input_depth else config.model.depth


class PromptSet(nn.Module):
    """What is learned for one situation: the prompts, and with `tune_head` a head of its own (else None)."""

    def __init__(self, config, head, generator):
        """
        config     Config
        head       the backbone's head, copied where the set is to tune one
        generator  torch.Generator that the fresh prompts are drawn from
        """
        super().__init__()
        prompts, model = config.prompts, config.model
        P = prompts.length
        self.first = blocks_before_prompts(config)
        shapes = PromptTokens(                                                 # prompts that no one reads are not made
            audio_input=(prompts.input_depth, P), image_input=(prompts.input_depth, P),
            audio_attention=(model.fusion_blocks, P if prompts.attention and model.image_reads_audio else 0),
            image_attention=(model.fusion_blocks, P if prompts.attention and model.audio_reads_image else 0),
            joint=(model.joint_depth, P if prompts.joint else 0))
        for place, shape in shapes._asdict().items():
            tokens = torch.randn(*shape, model.width, generator=generator) * prompts.initial_std
            self.register_parameter(place, nn.Parameter(tokens))
        self.head = copy.deepcopy(head).requires_grad_(True) if prompts.tune_head else None


def choose(sets, situations):
    """PromptTokens, n = B: each sample gets the set of its situation, P tokens in each place.

    sets        PromptSets in the order of Situation
    situations  [B] long
    """
    # index_select, since the gradient of plain indexing sums its threads in any order: no two runs would be alike
    return PromptTokens(*(torch.stack([getattr(s, place) for s in sets]).index_select(0, situations)
                          for place in PromptTokens._fields))


def side_by_side(sets):
    """PromptTokens, n = 1: every sample gets all S sets at once, joined along the prompt axis, S * P tokens in each place."""
    return PromptTokens(*(torch.cat([getattr(s, place) for s in sets], dim=1)[None] for place in PromptTokens._fields))


class Prompted(nn.Module):
    """A frozen backbone with one prompt set, or with those of the four situations; only the sets have gradients.

    All ways to answer give scores [B, K] whose softmax are the class probabilities.
    """

    def __init__(self, backbone, sets):
        """sets: PromptSets, several in the order of Situation"""
        super().__init__()
        self.backbone, self.sets = freeze(backbone), nn.ModuleList(sets)
        self.first = sets[0].first
        self.heads = [backbone.head if s.head is None else s.head for s in sets]

    def forward(self, audio, image):
        """All sets side by side, the paper's concat: nothing needs to be known. Tuned heads are averaged as probabilities."""
        features = self.backbone.features(audio, image, side_by_side(self.sets), self.first)
        scores = [head(features) for head in dict.fromkeys(self.heads)]        # a head that sets share answers once
        if len(scores) == 1:
            return scores[0]
        probabilities = torch.stack(scores).softmax(dim=-1).mean(dim=0)
        return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()        # finite where all heads say 0

    def by_situation(self, audio, image, situations):
        """Each sample with the set of its own situation, all in one pass. situations [B] long"""
        return self.late(*self.backbone.early(audio, image, self.first), situations)

    def routed(self, audio, image, router):
        """As by_situation, with the situations that a Router picks. It reads the encoders without prompts: what of them
        comes before the first prompts runs once for both. returns scores, situations [B], the router's logits [B, S]"""
        tokens = self.backbone.early(audio, image, self.first)
        logits = router.logits(*self.backbone.encoded(*tokens, self.first))
        situations = router.pick(audio, image, logits)
        return self.late(*tokens, situations), situations, logits

    def late(self, audio, image, situations):
        """As by_situation, of the tokens before the first prompts, [B, N_a, D] and [B, N_v, D]"""
        features = self.backbone.late(audio, image, choose(self.sets, situations), self.first)
        scores = torch.stack([head(features) for head in self.heads])          # [S, B, K]
        return scores[situations, torch.arange(len(audio), device=situations.device)]


def prompted(backbone, config, generator):
    """One situation's fresh prompts, and a head, on the frozen backbone."""
    return Prompted(backbone, [PromptSet(config, backbone.head, generator)])
