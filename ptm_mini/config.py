"""Every setting with its default, the four situations, and the errors a user can cause. Nothing here needs torch."""
from dataclasses import dataclass, fields, is_dataclass
from enum import IntEnum

FRAME_LENGTH_MS, FRAME_SHIFT_MS = 25, 10          # Kaldi's analysis window and hop
FUSION_KINDS = ("cross", "audio_to_image", "image_to_audio", "none")
METHODS = ("backbone", "prompt", "head", "lora", "adapter", "full_per_situation", "full_mixed")     # rows of the tables


class InputError(ValueError):
    """Something a user gave can't be used: one line that names it, its value, what was expected and the mend."""


class NonFiniteLoss(RuntimeError):
    """The training loss became infinite or not a number."""


class Situation(IntEnum):
    """What is wrong with a sample. Bit 0: its audio is damaged or missing; bit 1: its image is.

    So a | b is the situation of a sample that suffers both, and a & b says what two have in common.
    """
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
    sample_rate: int = 16000      # Hz; every clip is resampled to it
    seconds: float = 0.655        # clips are cut or zero-padded to this length: 64 frames
    mels: int = 64                # M

    @property
    def samples(self):
        """The clip's length in samples."""
        return round(self.seconds * self.sample_rate)

    @property
    def frames(self):
        """T, the spectrogram's length: only whole windows count, as in Kaldi (snip_edges)."""
        window, hop = window_and_hop(self.sample_rate)
        return 1 + (self.samples - window) // hop


@dataclass(frozen=True)
class ImageConfig:
    size: int = 32                # H = W in pixels


@dataclass(frozen=True)
class ModelConfig:
    width: int = 128              # D
    heads: int = 4
    depth: int = 4                # blocks per modality
    fusion: str = "cross"         # one of FUSION_KINDS
    fusion_depth: int = 1
    joint_depth: int = 1
    audio_patch: int = 16         # frames and mel bins
    image_patch: int = 8          # pixels

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
    length: int = 8               # P, tokens per modality and place
    input_depth: int = 4          # encoder blocks with prompts of their own: 1 shallow, depth deep, 0 none
    attention: bool = True        # prompts in the fusion blocks' keys and values
    joint: bool = False           # prompts in the joint blocks too, which the paper has not
    tune_head: bool = True        # each set trains its own copy of the head, as the paper's code does
    initial_std: float = 0.02     # of the normal distribution that fresh prompts are drawn from


@dataclass(frozen=True)
class RouterConfig:
    passes: int = 10              # over the training samples, damaged anew each time
    shrinkage: float = 0.1        # share of its diagonal added to the covariance


@dataclass(frozen=True)
class LoraConfig:
    rank: int = 4
    alpha: float = 8.0            # the update is scaled by alpha / rank
    tune_head: bool = True


@dataclass(frozen=True)
class AdapterConfig:
    bottleneck: int = 4
    tune_head: bool = True


@dataclass(frozen=True)
class Strengths:
    """How hard each kind of damage hits (functions in degrade.py); shares are of the clip's length or the picture's side."""
    audio_gaussian: float = 2.2   # std, added to the normalised log-mel
    audio_shift: float = 0.5      # rolled by up to this share of the frames, either way
    audio_mask: float = 0.25      # up to this share of the frames set to 0
    image_gaussian: float = 5.0   # std, added to the normalised picture, which is then clamped to +-3
    image_blur: float = 0.23      # side of the box kernel, made odd
    image_pixelate: float = 0.05  # side of the picture that is left


@dataclass(frozen=True)
class DamageConfig:
    alone: Strengths = Strengths()      # in NOISY_AUDIO and NOISY_IMAGE, where a modality can also be missing
    both: Strengths = Strengths()       # in NOISY_BOTH


DAMAGES = {
    "strong": DamageConfig(),           # equally hard everywhere, so that the situations can be compared
    "paper": DamageConfig(both=Strengths(audio_gaussian=0.22, image_gaussian=0.5, image_blur=0.03,
                                         image_pixelate=0.30)),
}


@dataclass(frozen=True)
class StageConfig:
    epochs: int
    learning_rate: float          # the peak of the one-cycle schedule
    weight_decay: float = 0.0
    batch_size: int = 64          # B


@dataclass(frozen=True)
class TrainConfig:
    backbone: StageConfig = StageConfig(epochs=20, learning_rate=1e-3, weight_decay=0.05)
    prompts: StageConfig = StageConfig(epochs=8, learning_rate=1e-2)        # each set alone
    together: StageConfig = StageConfig(epochs=6, learning_rate=4e-3)       # then the four sets at once
    head: StageConfig = StageConfig(epochs=8, learning_rate=3e-2)
    lora: StageConfig = StageConfig(epochs=8, learning_rate=3e-3)
    adapter: StageConfig = StageConfig(epochs=8, learning_rate=1e-2)
    full_per_situation: StageConfig = StageConfig(epochs=8, learning_rate=1e-3, weight_decay=0.05)
    full_mixed: StageConfig = StageConfig(epochs=16, learning_rate=1e-3, weight_decay=0.05)
    label_smoothing: float = 0.1
    audio_shift: float = 0.25     # augmentation: sounds move in time by up to this share of T,
    image_shift: float = 0.04     # pictures by up to this share of H and W
    fraction: float = 1.0         # share of the training split for all but the backbone (the paper: 0.3)
    seed: int = 0                 # of weights, order, augmentation and damage


STAGES = {"backbone": ("backbone",), "prompt": ("prompts", "together"),
          **{method: (method,) for method in METHODS[2:]}}       # the fields of TrainConfig that a method reads


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
        check(self)


POSITIVE = ("mels", "size", "width", "heads", "audio_patch", "image_patch", "rank", "bottleneck", "passes",
            "shrinkage", "batch_size", "learning_rate")
NOT_NEGATIVE = ("depth", "fusion_depth", "joint_depth", "length", "initial_std", "epochs", "seed", "weight_decay", "alpha")


def check(config):
    """Raise InputError for the first value that can't work, naming its key, the value and what was expected."""
    def expect(good, key, expected):
        if not good:
            raise InputError(f"setting {key}={get(config, key)}: expected {expected}")

    for key in keys(config):
        name, value = key.split(".")[-1], get(config, key)
        if name in POSITIVE:
            expect(0 < value < float("inf"), key, "more than 0")
        if name in NOT_NEGATIVE:
            expect(0 <= value < float("inf"), key, "0 or more")
    for where, strengths in (("alone", config.damage.alone), ("both", config.damage.both)):
        for name, value in vars(strengths).items():
            most, range_of = (float("inf"), "0 or more") if "gaussian" in name else (1, "0 to 1")
            expect(0 <= value <= most, f"damage.{where}.{name}", range_of)
    audio, image, model, train = config.audio, config.image, config.model, config.train
    expect(audio.sample_rate >= 1000, "audio.sample_rate", "1000 Hz or more")
    expect(audio.mels % model.audio_patch == 0, "audio.mels", f"a multiple of model.audio_patch={model.audio_patch}")
    expect(0 < audio.seconds <= 3600, "audio.seconds", "more than 0, at most 3600")
    expect(audio.frames > 0 and audio.frames % model.audio_patch == 0, "audio.seconds",
           f"a number of frames that model.audio_patch={model.audio_patch} divides; this gives {audio.frames}, and n "
           f"frames last {FRAME_SHIFT_MS} n + {FRAME_LENGTH_MS - FRAME_SHIFT_MS} ms")
    expect(image.size % model.image_patch == 0, "image.size", f"a multiple of model.image_patch={model.image_patch}")
    expect(model.width % 4 == 0, "model.width", "a multiple of 4, for 2-D positions")
    expect(model.width % model.heads == 0, "model.width", f"a multiple of model.heads={model.heads}")
    expect(model.fusion in FUSION_KINDS, "model.fusion", f"one of {', '.join(FUSION_KINDS)}")
    expect(0 <= config.prompts.input_depth <= model.depth, "prompts.input_depth", f"0 to model.depth={model.depth}")
    expect(0 < train.fraction <= 1, "train.fraction", "more than 0, at most 1")
    expect(0 <= train.label_smoothing < 1, "train.label_smoothing", "0 or more, below 1")
    expect(0 <= train.audio_shift <= 0.5, "train.audio_shift", "0 to 0.5")
    expect(0 <= train.image_shift <= 0.5, "train.image_shift", "0 to 0.5")


def keys(config, prefix=""):
    """All dotted keys of a config, in order."""
    for name in (field.name for field in fields(config)):
        value = getattr(config, name)
        if is_dataclass(value):
            yield from keys(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def get(config, key):
    """The value of a dotted key such as train.prompts.epochs."""
    for name in key.split("."):
        config = getattr(config, name)
    return config


PRESETS = {
    "tiny": Config(),
    "base": Config(audio=AudioConfig(seconds=10.255, mels=128), image=ImageConfig(size=224),      # CAV-MAE's shape
                   model=ModelConfig(width=768, heads=12, depth=11, image_patch=16),
                   prompts=PromptConfig(length=16, input_depth=11)),
}
