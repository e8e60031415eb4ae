"""Prompts: the few vectors that are learned for each situation, and the two ways to hand them to the backbone."""
import copy
from typing import NamedTuple

import torch
from torch import nn


class PromptTokens(NamedTuple):
    """Extra context tokens for a batch, n = B or, the same for every sample, n = 1. Input-level: one group a block of
    each encoder, L = input_depth. Attention-level: one group a fusion block, F of them; and, beyond the paper, one group
    a joint block, J of them. No prompts: P = 0."""
    audio_input: torch.Tensor         # [n, L, P, D]
    image_input: torch.Tensor         # [n, L, P, D]
    audio_attention: torch.Tensor     # [n, F, P, D]
    image_attention: torch.Tensor     # [n, F, P, D]
    joint: torch.Tensor               # [n, J, P, D]


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
        audio_is_read = prompts.attention and model.image_reads_audio          # prompts that no one reads are not made
        image_is_read = prompts.attention and model.audio_reads_image
        shapes = PromptTokens(audio_input=(prompts.input_depth, prompts.length),
                              image_input=(prompts.input_depth, prompts.length),
                              audio_attention=(model.fusion_blocks, prompts.length * audio_is_read),
                              image_attention=(model.fusion_blocks, prompts.length * image_is_read),
                              joint=(model.joint_depth, prompts.length * prompts.joint))
        for place, shape in shapes._asdict().items():
            tokens = torch.randn(*shape, model.width, generator=generator) * prompts.initial_std
            self.register_parameter(place, nn.Parameter(tokens))
        self.head = copy.deepcopy(head).requires_grad_(True) if prompts.tune_head else None

    def tokens(self):
        """PromptTokens with n = 1"""
        return PromptTokens(*(getattr(self, place)[None] for place in PromptTokens._fields))


def no_prompts(fusion_blocks, joint_blocks, like):
    """PromptTokens of length 0, of the width, type and device of `like`, a tensor [..., D]."""
    groups = (0, 0, fusion_blocks, fusion_blocks, joint_blocks)
    return PromptTokens(*(like.new_zeros(1, count, 0, like.shape[-1]) for count in groups))


def choose(sets, situations):
    """Each sample gets the set of its situation: P tokens in each place, n = B.

    sets        PromptSets in the order of Situation
    situations  [B] long
    """
    # index_select, since the gradient of plain indexing sums its threads in any order: no two runs would be alike
    return PromptTokens(*(torch.cat(place).index_select(0, situations) for place in zip(*(s.tokens() for s in sets))))


def side_by_side(sets):
    """Every sample gets all the sets at once, joined along the prompt axis: S * P tokens in each place, n = 1."""
    return PromptTokens(*(torch.cat(place, dim=2) for place in zip(*(s.tokens() for s in sets))))
