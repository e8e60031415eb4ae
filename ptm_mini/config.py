"""Every setting with its default and what it means, and the four situations. Nothing here needs torch."""
from dataclasses import MISSING, dataclass
from enum import IntEnum
from functools import cached_property

from ptm_mini.limits import check_fit, check_size
from ptm_mini.settings import Rule, above, between, check_rules, later, one_of, setting

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
    sample_rate: int = setting(16000, "Hz; every clip is resampled to it", between(1000, 500_000))
    seconds: float = setting(0.655, "clips are cut or zero-padded to this length (0.655: 64 frames)", above(0, 3600))
    mels: int = setting(64, "M, bands of the spectrogram", between(1, 2048))

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
    size: int = setting(32, "H = W in pixels; pictures are resized and cropped to it", between(1, 4096))


@dataclass(frozen=True)
class ModelConfig:
    width: int = setting(128, "D, of every token", between(4, 16_384))
    heads: int = setting(4, "of every attention", between(1, 256))
    depth: int = setting(4, "blocks per modality", between(0, 256))
    fusion: str = setting("cross", "who reads whom in the fusion blocks", one_of(FUSION_KINDS))
    fusion_depth: int = setting(1, "fusion blocks", between(0, 256))
    joint_depth: int = setting(1, "blocks on all tokens together", between(0, 256))
    audio_patch: int = setting(16, "side of a patch in frames and mel bins", between(1, 1024))
    image_patch: int = setting(8, "side of a patch in pixels", between(1, 1024))

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
    length: int = setting(8, "P, tokens per modality and place", between(0, 1024))
    input_depth: int = setting(4, "encoder blocks with prompts of their own: 1 shallow, depth deep, 0 none", between(0, 256))
    first_block: int = setting(0, "encoder block that the first of these enter, counted from 0", between(0, 256), before=0)
    attention: bool = setting(True, "prompts in the fusion blocks' keys and values")
    joint: bool = setting(False, "prompts in the joint blocks too, which the paper has not")
    tune_head: bool = setting(True, "each set trains its own copy of the head, as the paper's code does")
    initial_std: float = setting(0.02, "of the normal distribution that fresh prompts are drawn from", between(0, 100))


@dataclass(frozen=True)
class RouterConfig:
    passes: int = setting(10, "over the training samples, damaged anew each time", between(1, 1000))
    shrinkage: float = setting(0.1, "share of its diagonal added to the covariance", above(0, 1000))


@dataclass(frozen=True)
class LoraConfig:
    rank: int = setting(4, "of the update of each projection", between(1, 1024))
    alpha: float = setting(8.0, "the update is scaled by alpha / rank", between(0, 10_000))
    tune_head: bool = setting(True, "a head of its own learns too")


@dataclass(frozen=True)
class AdapterConfig:
    bottleneck: int = setting(4, "width inside the adapter", between(1, 1024))
    tune_head: bool = setting(True, "a head of its own learns too")


@dataclass(frozen=True)
class Strengths:
    """How hard each kind of damage hits (functions in method/damage.py)."""
    audio_gaussian: float = setting(2.2, "std, added to the normalised log-mel", between(0, 1000))
    audio_shift: float = setting(0.5, "rolled by up to this share of the frames, either way", between(0, 1))
    audio_mask: float = setting(0.25, "up to this share of the frames set to 0", between(0, 1))
    image_gaussian: float = setting(5.0, "std, added to the normalised picture, which is then clamped to +-3", between(0, 1000))
    image_blur: float = setting(0.23, "box kernel's share of the side, made odd", between(0, 1))
    image_pixelate: float = setting(0.05, "share of the side that is left", between(0, 1))


@dataclass(frozen=True)
class DamageConfig:
    alone: Strengths = Strengths()      # in NOISY_AUDIO and NOISY_IMAGE, where a modality can also be missing
    both: Strengths = Strengths()       # in NOISY_BOTH


@dataclass(frozen=True)
class StageConfig:
    epochs: int = setting(MISSING, "passes over the training samples", between(0, 10_000))
    learning_rate: float = setting(MISSING, "the peak of the one-cycle schedule", above(0, 10))
    weight_decay: float = setting(0.0, "AdamW's", between(0, 100))
    batch_size: int = setting(64, "B, samples a step", between(1, 16_384))


@dataclass(frozen=True)
class TrainConfig:
    backbone: StageConfig = StageConfig(epochs=20, learning_rate=1e-3, weight_decay=0.05)
    prompts: StageConfig = StageConfig(epochs=8, learning_rate=1e-2)        # each set alone
    together: StageConfig = StageConfig(epochs=6, learning_rate=4e-3)       # then the four sets at once
    head: StageConfig = StageConfig(epochs=8, learning_rate=3e-2)
    lora: StageConfig = StageConfig(epochs=8, learning_rate=3e-3)
    adapter: StageConfig = StageConfig(epochs=8, learning_rate=1e-2)
    scale_shift: StageConfig = later(StageConfig(epochs=8, learning_rate=3e-2))
    full_per_situation: StageConfig = StageConfig(epochs=8, learning_rate=1e-3, weight_decay=0.05)
    full_mixed: StageConfig = StageConfig(epochs=16, learning_rate=1e-3, weight_decay=0.05)
    label_smoothing: float = setting(0.1, "of the training loss", Rule(lambda share: 0 <= share < 1, "0 or more, below 1"))
    audio_shift: float = setting(0.25, "augmentation: sounds move in time by up to this share of T", between(0, 0.5))
    image_shift: float = setting(0.04, "augmentation: pictures move by up to this share of H and W", between(0, 0.5))
    loaded_rate: float = setting(0.1, "share of the backbone's learning rate for what --init loaded", above(0, 1), before=1.0)
    audio_mean: float = setting(0.0, "of the log-mel, to normalise by where audio_std is set", between(-100, 100), before=0.0)
    audio_std: float = setting(0.0, "likewise; 0: the training split's mean and std",
                               Rule(lambda std: std == 0 or 0.001 <= std <= 1000, "0, or 0.001 to 1000"), before=0.0)
    views: int = setting(0, "damaged copies of each sample whose tokens are kept, for what starts from frozen ones; 0: none",
                         between(0, 1000), before=0)
    fraction: float = setting(1.0, "share of the training split for all but the backbone (the paper: 0.3)", above(0, 1))
    full_length: bool = setting(False, "with a fraction an epoch takes as many samples as without: they come round again, "
                                "damaged anew", before=False)
    seed: int = setting(0, "of weights, order, augmentation and damage", between(0, 2**53))


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
        check_fit(self)
        check_size(self)


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
