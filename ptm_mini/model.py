"""The audio-visual transformer (CAV-MAE's shape plus fusion), and the same with prompts in it."""
import math

import torch
from torch import nn

from ptm_mini.encoder import Encoder
from ptm_mini.fusion import CrossUpdate, FusionBlock
from ptm_mini.layers import LAYER_NORM_EPS, Block
from ptm_mini.prompts import PromptSet, choose, no_prompts, side_by_side


class Backbone(nn.Module):
    """Tokens and encoders -> fusion -> joint blocks -> mean -> head. One path: without prompts they have length 0."""

    def __init__(self, config, classes):
        """config: Config; classes: K, how many"""
        super().__init__()
        audio, image, model = config.audio, config.image, config.model
        self.audio_encoder = Encoder(1, audio.mels, audio.frames, model.audio_patch, model)
        self.image_encoder = Encoder(3, image.size, image.size, model.image_patch, model)
        self.fusion = nn.ModuleList(FusionBlock(model) for _ in range(model.fusion_blocks))
        self.joint = nn.ModuleList(Block(model.width, model.heads) for _ in range(model.joint_depth))
        self.norm = nn.LayerNorm(model.width, eps=LAYER_NORM_EPS)
        self.head = nn.Sequential(nn.LayerNorm(model.width, eps=LAYER_NORM_EPS), nn.Linear(model.width, classes))
        self.audio_shape, self.image_shape = (audio.frames, audio.mels), (3, image.size, image.size)

    def no_prompts(self):
        return no_prompts(len(self.fusion), len(self.joint), like=self.norm.weight)

    def encode(self, audio, image, prompts=None):
        """
        audio    [B, T, M]     normalised log-mel
        image    [B, 3, H, W]  normalised pixels
        prompts  PromptTokens or None
        returns  [B, N_a, D], [B, N_v, D]  what each encoder makes of its modality
        """
        if audio.shape[1:] != self.audio_shape or image.shape[1:] != self.image_shape or len(audio) != len(image):
            raise ValueError(f"audio {list(audio.shape)} and image {list(image.shape)}; expected "
                             f"[B, {self.audio_shape}] and [B, {self.image_shape}]")
        prompts = prompts or self.no_prompts()
        return (self.audio_encoder(audio.transpose(1, 2)[:, None], prompts.audio_input),
                self.image_encoder(image, prompts.image_input))

    def features(self, audio, image, prompts=None):
        """As `encode`; returns [B, D], what the head sees: the mean over all tokens of both modalities"""
        prompts = prompts or self.no_prompts()
        audio, image = self.encode(audio, image, prompts)                                          # [B, N_a or N_v, D]
        for i, block in enumerate(self.fusion):
            audio, image = block(audio, image, prompts.audio_attention[:, i], prompts.image_attention[:, i])
        tokens = torch.cat([audio, image], dim=1)                                                  # [B, N_a+N_v, D]
        for i, block in enumerate(self.joint):
            tokens = block(tokens, prompts.joint[:, i])
        return self.norm(tokens).mean(dim=1)

    def forward(self, audio, image, prompts=None):
        """As `encode`; returns logits [B, K]"""
        return self.head(self.features(audio, image, prompts))


def initialise(backbone, generator):
    """Draw fresh weights: uniform within sqrt(6 / (fan in + fan out)), biases 0, a fusion block's outputs 0.

    So a fusion block put into a trained model changes nothing until it is trained.
    """
    with torch.no_grad():
        for module in backbone.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                bound = math.sqrt(6 / (module.weight[0].numel() + module.weight.shape[0]))
                module.weight.uniform_(-bound, bound, generator=generator)
                module.bias.zero_()
        for encoder in (backbone.audio_encoder, backbone.image_encoder):
            encoder.modality.normal_(0, 0.02, generator=generator)
        for update in (module for module in backbone.modules() if isinstance(module, CrossUpdate)):
            update.attention.proj.weight.zero_()
            update.mlp.fc2.weight.zero_()


def frozen(backbone):
    """The backbone itself, in eval mode and without gradients. Nothing in it behaves otherwise in training."""
    return backbone.eval().requires_grad_(False)


class Prompted(nn.Module):
    """A frozen backbone with one prompt set, called like the backbone; only the set has gradients."""

    def __init__(self, backbone, config, generator):
        """generator: torch.Generator that the fresh prompts are drawn from"""
        super().__init__()
        self.backbone, self.set = frozen(backbone), PromptSet(config, backbone.head, generator)

    def forward(self, audio, image):
        """audio [B, T, M], image [B, 3, H, W]; returns logits [B, K]"""
        return (self.set.head or self.backbone.head)(self.backbone.features(audio, image, self.set.tokens()))


class CaseModels(nn.Module):
    """One model for each situation, of whatever method."""

    def __init__(self, models):
        """models: functions of audio and image to logits, in the order of Situation"""
        super().__init__()
        self.models = nn.ModuleList(models)

    def situation(self, audio, image, situations):
        """Each sample goes through the model of its own situation. situations [B] long; returns logits [B, K]"""
        own = [(situations == situation).nonzero()[:, 0] for situation in situations.unique()]
        scores = [self.models[situations[some[0]]](audio[some], image[some]) for some in own]
        return torch.cat(scores)[torch.cat(own).argsort()]


class PromptedModel(nn.Module):
    """A frozen backbone with the prompt sets of the four situations; only the sets have gradients.

    Every method returns scores [B, K] whose softmax are the class probabilities.
    """

    def __init__(self, backbone, sets):
        """sets: PromptSets in the order of Situation"""
        super().__init__()
        self.backbone, self.sets = frozen(backbone), nn.ModuleList(sets)

    def per_head(self, features):
        """[B, D] -> [S, B, K], what each set's head says; the backbone's where the set has none"""
        return torch.stack([(s.head or self.backbone.head)(features) for s in self.sets])

    def situation(self, audio, image, situations):
        """Each sample with the set of its own situation, all in one pass. situations [B] long, in the order of the sets"""
        features = self.backbone.features(audio, image, choose(self.sets, situations))
        return self.per_head(features)[situations, torch.arange(len(audio), device=situations.device)]

    def concat(self, audio, image):
        """All sets side by side: nothing needs to be known. Tuned heads are averaged as probabilities."""
        features = self.backbone.features(audio, image, side_by_side(self.sets))
        if self.sets[0].head is None:
            return self.backbone.head(features)
        probabilities = self.per_head(features).softmax(dim=-1).mean(dim=0)
        return probabilities.clamp(min=torch.finfo(probabilities.dtype).tiny).log()        # finite where all heads say 0
