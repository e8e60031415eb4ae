"""Every setting with its default and what it means, and the four situations. Nothing here needs torch."""
from dataclasses import MISSING, dataclass
from enum import IntEnum
from functools import cached_property

from ptm_mini.settings import (NOT_NEGATIVE, POSITIVE, Rule, above, at_least, between, check_rules, expect, later, one_of,
                               setting)

FRAME_LENGTH_MS, FRAME_SHIFT_MS = 25, 10          # Kaldi's analysis window and hop
FUSION_KINDS = ("cross", "audio_to_image", "image_to_audio", "none")


class Situation(IntEnum):
    """What is wrong with a sample. Bit 0: its audio is damaged or missing; bit 1: its image is. So a | b is the situation of
    a sample that suffers both, and a & b says what two have in common."""
    COMPLETE = 0
    NOISY_AUDIO = 1       # the paper's "vision only"
    NOISY_IMAGE = 2       # the paper's "audio only"
    NOISY_BOTH = 3

    @property
    def label(self):
        """The word used in files, tables and flags."""
        return self.name.lower()


def window_and_hop(sample_rate):
    """The analysis window and its step in samples, cut to whole ones as Kaldi does."""
    return sample_rate * FRAME_LENGTH_MS // 1000, sample_rate * FRAME_SHIFT_MS // 1000


@dataclass(frozen=True)
class AudioConfig:
    sample_rate: int = setting(16000, "Hz; every clip is resampled to it", at_least(1000))
    seconds: float = setting(0.655, "clips are cut or zero-padded to this length (0.655: 64 frames)", above(0, 3600))
    mels: int = setting(64, "M, bands of the spectrogram", POSITIVE)

    @cached_property
    def samples(self):
        """The clip's length in samples."""
        return round(self.seconds * self.sample_rate)

    @cached_property
    def frames(self):
        """T, the spectrogram's length: only whole windows count, as in Kaldi (snip_edges)."""
        window, hop = window_and_hop(self.sample_rate)
        return 1 + (self.samples - window) // hop


@dataclass(frozen=True)
class ImageConfig:
    size: int = setting(32, "H = W in pixels; pictures are resized and cropped to it", POSITIVE)


@dataclass(frozen=True)
class ModelConfig:
    width: int = setting(128, "D, of every token", POSITIVE)
    heads: int = setting(4, "of every attention", POSITIVE)
    depth: int = setting(4, "blocks per modality", NOT_NEGATIVE)
    fusion: str = setting("cross", "who reads whom in the fusion blocks", one_of(FUSION_KINDS))
    fusion_depth: int = setting(1, "fusion blocks", NOT_NEGATIVE)
    joint_depth: int = setting(1, "blocks on all tokens together", NOT_NEGATIVE)
    audio_patch: int = setting(16, "side of a patch in frames and mel bins", POSITIVE)
    image_patch: int = setting(8, "side of a patch in pixels", POSITIVE)

    @property
    def fusion_blocks(self):
        return 0 if self.fusion == "none" else self.fusion_depth

    @property
    def audio_reads_image(self):
        return self.fusion in ("cross", "image_to_audio")

    @property
    def image_reads_audio(self):
        return self.fusion in ("cross", "audio_to_image")


@dataclass(frozen=True)
class PromptConfig:
    length: int = setting(8, "P, tokens per modality and place", NOT_NEGATIVE)
    input_depth: int = setting(4, "encoder blocks with prompts of their own: 1 shallow, depth deep, 0 none", NOT_NEGATIVE)
    first_block: int = setting(0, "encoder block that the first of these enter, counted from 0", NOT_NEGATIVE, before=0)
    attention: bool = setting(True, "prompts in the fusion blocks' keys and values")
    joint: bool = setting(False, "prompts in the joint blocks too, which the paper has not")
    tune_head: bool = setting(True, "each set trains its own copy of the head, as the paper's code does")
    initial_std: float = setting(0.02, "of the normal distribution that fresh prompts are drawn from", NOT_NEGATIVE)


@dataclass(frozen=True)
class RouterConfig:
    passes: int = setting(10, "over the training samples, damaged anew each time", POSITIVE)
    shrinkage: float = setting(0.1, "share of its diagonal added to the covariance", POSITIVE)


@dataclass(frozen=True)
class LoraConfig:
    rank: int = setting(4, "of the update of each projection", POSITIVE)
    alpha: float = setting(8.0, "the update is scaled by alpha / rank", NOT_NEGATIVE)
    tune_head: bool = setting(True, "a head of its own learns too")


@dataclass(frozen=True)
class AdapterConfig:
    bottleneck: int = setting(4, "width inside the adapter", POSITIVE)
    tune_head: bool = setting(True, "a head of its own learns too")


@dataclass(frozen=True)
class Strengths:
    """How hard each kind of damage hits (functions in method/damage.py)."""
    audio_gaussian: float = setting(2.2, "std, added to the normalised log-mel", NOT_NEGATIVE)
    audio_shift: float = setting(0.5, "rolled by up to this share of the frames, either way", between(0, 1))
    audio_mask: float = setting(0.25, "up to this share of the frames set to 0", between(0, 1))
    image_gaussian: float = setting(5.0, "std, added to the normalised picture, which is then clamped to +-3", NOT_NEGATIVE)
    image_blur: float = setting(0.23, "box kernel's share of the side, made odd", between(0, 1))
    image_pixelate: float = setting(0.05, "share of the side that is left", between(0, 1))


@dataclass(frozen=True)
class DamageConfig:
    alone: Strengths = Strengths()      # in NOISY_AUDIO and NOISY_IMAGE, where a modality can also be missing
    both: Strengths = Strengths()       # in NOISY_BOTH


@dataclass(frozen=True)
class StageConfig:
    epochs: int = setting(MISSING, "passes over the training samples", NOT_NEGATIVE)
    learning_rate: float = setting(MISSING, "the peak of the one-cycle schedule", POSITIVE)
    weight_decay: float = setting(0.0, "AdamW's", NOT_NEGATIVE)
    batch_size: int = setting(64, "B, samples a step", POSITIVE)


@dataclass(frozen=True)
class TrainConfig:
    backbone: StageConfig = StageConfig(epochs=20, learning_rate=1e-3, weight_decay=0.05)
    prompts: StageConfig = StageConfig(epochs=8, learning_rate=1e-2)        # each set alone
    together: StageConfig = StageConfig(epochs=6, learning_rate=4e-3)       # then the four sets at once
    head: StageConfig = StageConfig(epochs=8, learning_rate=3e-2)
    lora: StageConfig = StageConfig(epochs=8, learning_rate=3e-3)
    adapter: StageConfig = StageConfig(epochs=8, learning_rate=1e-2)
    scale_shift: StageConfig = later(StageConfig(epochs=8, learning_rate=1e-2))
    full_per_situation: StageConfig = StageConfig(epochs=8, learning_rate=1e-3, weight_decay=0.05)
    full_mixed: StageConfig = StageConfig(epochs=16, learning_rate=1e-3, weight_decay=0.05)
    label_smoothing: float = setting(0.1, "of the training loss", Rule(lambda share: 0 <= share < 1, "0 or more, below 1"))
    audio_shift: float = setting(0.25, "augmentation: sounds move in time by up to this share of T", between(0, 0.5))
    image_shift: float = setting(0.04, "augmentation: pictures move by up to this share of H and W", between(0, 0.5))
    loaded_rate: float = setting(0.1, "share of the backbone's learning rate for what --init loaded", above(0, 1), before=1.0)
    audio_mean: float = setting(0.0, "of the log-mel, to normalise by where audio_std is set", between(-100, 100), before=0.0)
    audio_std: float = setting(0.0, "likewise; 0: the training split's mean and std", NOT_NEGATIVE, before=0.0)
    fraction: float = setting(1.0, "share of the training split for all but the backbone (the paper: 0.3)", above(0, 1))
    seed: int = setting(0, "of weights, order, augmentation and damage", NOT_NEGATIVE)


@dataclass(frozen=True)
class Config:
    audio: AudioConfig = AudioConfig()
    image: ImageConfig = ImageConfig()
    model: ModelConfig = ModelConfig()
    prompts: PromptConfig = PromptConfig()
    router: RouterConfig = RouterConfig()
    lora: LoraConfig = LoraConfig()
    adapter: AdapterConfig = AdapterConfig()
    damage: DamageConfig = DamageConfig()
    train: TrainConfig = TrainConfig()

    def __post_init__(self):
        """Raise InputError for the first value that can't work, naming its key, the value and what was expected."""
        check_rules(self)
        audio, image, model, prompts, D = self.audio, self.image, self.model, self.prompts, self.model.width
        for good, key, expected in (
                (audio.mels % model.audio_patch == 0, "audio.mels", f"a multiple of model.audio_patch={model.audio_patch}"),
                (audio.frames > 0 and audio.frames % model.audio_patch == 0, "audio.seconds",
                 f"a number of frames that model.audio_patch={model.audio_patch} divides; this gives {audio.frames}, and n "
                 f"frames last {FRAME_SHIFT_MS} n + {FRAME_LENGTH_MS - FRAME_SHIFT_MS} ms"),
                (image.size % model.image_patch == 0, "image.size", f"a multiple of model.image_patch={model.image_patch}"),
                (D % 4 == D % model.heads == 0, "model.width", f"a multiple of 4 and of model.heads={model.heads}"),
                (prompts.first_block + prompts.input_depth <= model.depth, "prompts.input_depth",
                 f"0 to model.depth={model.depth} less prompts.first_block={prompts.first_block}")):
            expect(good, self, key, expected)


PRESETS = {
    "tiny": Config(),
    "base": Config(AudioConfig(seconds=10.255, mels=128), ImageConfig(size=224),                  # CAV-MAE's shape
                   ModelConfig(width=768, heads=12, depth=11, image_patch=16), PromptConfig(length=16, input_depth=11)),
}

DAMAGES = {
    "strong": DamageConfig(),           # equally hard everywhere, so that the situations can be compared
    "paper": DamageConfig(both=Strengths(audio_gaussian=0.22, image_gaussian=0.5, image_blur=0.03, image_pixelate=0.30)),
}

REMARKS = {                                                                  # of PRESETS and DAMAGES
    "tiny": "0.655 s of sound, 32 x 32 pixels, 2.2 million numbers: trains on two CPU cores in minutes",
    "base": "CAV-MAE's size, 10.255 s, 224 x 224 pixels, 178 million numbers: for a GPU",
    "strong": "equally hard in all situations, so that they can be compared",
    "paper": "as strong in one modality, weak where both are damaged, as in the paper's code",
}
