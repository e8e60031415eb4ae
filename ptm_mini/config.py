"""Every setting with its default and its meaning, the two presets, and the four situations."""
import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from enum import IntEnum
from typing import Any

from ptm_mini.errors import InputError, nearest

FRAME_LENGTH_MS, FRAME_SHIFT_MS = 25, 10          # Kaldi's analysis window and hop
LARGEST = sys.float_info.max                      # what is not bounded is finite
FUSION_KINDS = ("cross", "audio_to_image", "image_to_audio", "none")


class Situation(IntEnum):
    """Which modality is damaged or missing, bit 0 the audio, bit 1 the image: a | b is both."""
    COMPLETE = 0
    NOISY_AUDIO = 1       # the paper's "vision only"
    NOISY_IMAGE = 2       # the paper's "audio only"
    NOISY_BOTH = 3

    @property
    def label(self) -> str:
        """The word used in files, tables and flags."""
        return self.name.lower()


def setting(default: Any, help: str, least: float = 0, most: float = LARGEST) -> Any:
    """A dataclass field: its default, its meaning for `train.py --settings`, its range."""
    return field(default=default, metadata={"help": help, "range": (least, most)})


@dataclass(frozen=True)
class AudioConfig:
    sample_rate: int = setting(16000, "Hz; every clip is resampled to it", least=1000)
    seconds: float = setting(0.655, "clips are cut or zero-padded to so many (0.655: 64 frames)")
    mels: int = setting(64, "M, bands of the spectrogram", least=1)
    pad_log_mel: bool = setting(False, "pad with zeros of the log-mel, as CAV-MAE, not of silence")

    @property
    def samples(self) -> int:
        """The clip's length in samples."""
        return round(self.seconds * self.sample_rate)

    @property
    def window_and_hop(self) -> tuple[int, int]:
        """The analysis window and its step in samples, cut to whole ones as Kaldi does."""
        return self.sample_rate * FRAME_LENGTH_MS // 1000, self.sample_rate * FRAME_SHIFT_MS // 1000

    @property
    def frames(self) -> int:
        """T, the spectrogram's length: only whole windows count, as in Kaldi (snip_edges)."""
        window, hop = self.window_and_hop
        return 1 + (self.samples - window) // hop


@dataclass(frozen=True)
class ImageConfig:
    size: int = setting(32, "H = W in pixels; images are cropped and resized to it", least=1)


@dataclass(frozen=True)
class ModelConfig:
    width: int = setting(128, "D, of every token", least=1)
    heads: int = setting(2, "of every attention", least=1)
    depth: int = setting(4, "blocks per modality")
    fusion: str = setting("cross", f"who reads whom in fusion blocks: {', '.join(FUSION_KINDS)}")
    fusion_depth: int = setting(1, "fusion blocks")
    joint_depth: int = setting(1, "blocks on all tokens together")
    audio_patch: int = setting(16, "side of a patch in frames and mel bins", least=1)
    image_patch: int = setting(8, "side of a patch in pixels", least=1)

    @property
    def fusion_blocks(self) -> int:
        return 0 if self.fusion == "none" else self.fusion_depth

    @property
    def audio_reads_image(self) -> bool:
        return self.fusion in ("cross", "image_to_audio")

    @property
    def image_reads_audio(self) -> bool:
        return self.fusion in ("cross", "audio_to_image")


@dataclass(frozen=True)
class PromptConfig:
    length: int = setting(8, "P, tokens per modality and place")
    input_depth: int = setting(4, "encoder blocks with fresh prompts: 1 shallow, depth deep")
    attention: bool = setting(True, "prompts in the fusion blocks' keys and values")
    joint: bool = setting(False, "prompts in the joint blocks too, which the paper does not have")
    tune_head: bool = setting(True, "each set trains a copy of the head")
    initial_std: float = setting(0.02, "std of the fresh prompts, which are normal")


@dataclass(frozen=True)
class RouterConfig:
    passes: int = setting(5, "over the training samples, damaged anew each time", least=1)
    shrinkage: float = setting(0.1, "share of its diagonal added to the covariance")


@dataclass(frozen=True)
class LoraConfig:
    rank: int = setting(4, "of the update of each projection", least=1)
    alpha: float = setting(8.0, "the update is scaled by alpha / rank")
    tune_head: bool = setting(True, "trains a copy of the head too")


@dataclass(frozen=True)
class AdapterConfig:
    bottleneck: int = setting(4, "width inside the adapter", least=1)
    tune_head: bool = setting(True, "trains a copy of the head too")


@dataclass(frozen=True)
class Strengths:
    """How strong each kind of damage is (method/damage.py)."""
    audio_gaussian: float = setting(2.2, "std, added to the normalised log-mel")
    audio_shift: float = setting(0.5, "rolled by up to this share of the frames, either way")
    audio_mask: float = setting(0.25, "up to this share of the frames set to 0", most=1)
    image_gaussian: float = setting(5.0, "std, added to the normalised image; then clamped to +-3")
    image_blur: float = setting(0.23, "box kernel's share of the side, made odd")
    image_pixelate: float = setting(0.05, "share of the side that is left")


@dataclass(frozen=True)
class DamageConfig:
    alone: Strengths = Strengths()      # in NOISY_AUDIO and NOISY_IMAGE: or the modality is missing
    both: Strengths = Strengths()       # in NOISY_BOTH


@dataclass(frozen=True)
class StageConfig:
    epochs: int = setting(MISSING, "passes over the training samples")
    learning_rate: float = setting(MISSING, "the peak of the one-cycle schedule")
    weight_decay: float = setting(0.0, "AdamW's")
    batch_size: int = setting(32, "B, samples a step", least=1)


@dataclass(frozen=True)
class TrainConfig:
    backbone: StageConfig = StageConfig(epochs=14, learning_rate=1e-3, weight_decay=0.05)
    prompt: StageConfig = StageConfig(epochs=5, learning_rate=7e-3)      # each prompt set alone
    together: StageConfig = StageConfig(epochs=5, learning_rate=3e-3)    # then the four at once
    head: StageConfig = StageConfig(epochs=5, learning_rate=3e-2)
    lora: StageConfig = StageConfig(epochs=5, learning_rate=3e-3)
    adapter: StageConfig = StageConfig(epochs=5, learning_rate=1e-2)
    scale_shift: StageConfig = StageConfig(epochs=5, learning_rate=3e-2)
    # Where everything is trained, fewer epochs cost accuracy.
    full_per_situation: StageConfig = StageConfig(epochs=8, learning_rate=1e-3, weight_decay=0.05)
    full_mixed: StageConfig = StageConfig(epochs=16, learning_rate=1e-3, weight_decay=0.05)
    label_smoothing: float = setting(0.1, "of the training loss", most=1)
    audio_shift: float = setting(0.25, "augmentation: sounds move in time by up to this share of T")
    image_shift: float = setting(0.04, "augmentation: images move by up to this share of H and W")
    loaded_rate: float = setting(0.1, "share of the learning rate for what --init loaded")
    audio_mean: float = setting(0.0, "of the log-mel, used where audio_std is set", least=-100)
    audio_std: float = setting(0.0, "likewise; 0: the training split's mean and std")
    fraction: float = setting(1.0, "share of the data for all but the backbone (the paper: 0.3)")
    bf16: bool = setting(False, "mixed bfloat16 precision, the loss in float32")
    deterministic: bool = setting(False, "the same bytes each time on a GPU too, which is slower")
    seed: int = setting(0, "of weights, order, augmentation and damage", most=2**60)


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

    def __post_init__(self) -> None:
        """Raise InputError for the first value that can't work, with its key."""
        audio, image, model = self.audio, self.image, self.model
        for key, value, item in leaves(self):
            least, most = item.metadata["range"]
            if not isinstance(value, str) and not least <= value <= most:
                upper = "or more, and finite" if most == LARGEST else f"to {most:g}"
                raise InputError(f"setting {key}={value}: expected {least} {upper}")
        frames = max(1, round(audio.frames / model.audio_patch)) * model.audio_patch
        window, hop = audio.window_and_hop
        seconds = (window + hop * (frames - 1)) / audio.sample_rate
        for good, key, expected in (
                (audio.frames > 0 and audio.frames % model.audio_patch == 0, "audio.seconds",
                 f"a number of frames that model.audio_patch={model.audio_patch} divides; this "
                 f"gives {audio.frames}, and {seconds:.9g} gives {frames}"),
                (audio.mels % model.audio_patch == 0, "audio.mels",
                 f"a multiple of model.audio_patch={model.audio_patch}"),
                (image.size % model.image_patch == 0, "image.size",
                 f"a multiple of model.image_patch={model.image_patch}"),
                (model.width % 4 == 0, "model.width", "a multiple of 4, for 2-D positions"),
                (model.width % model.heads == 0, "model.width",
                 f"a multiple of model.heads={model.heads}"),
                (model.fusion in FUSION_KINDS, "model.fusion", f"one of {', '.join(FUSION_KINDS)}"),
                (self.prompts.input_depth <= model.depth, "prompts.input_depth",
                 f"0 to model.depth={model.depth}"),
                (0 < self.train.fraction <= 1, "train.fraction", "more than 0, at most 1")):
            if not good:
                raise InputError(f"setting {key}={flatten(self)[key]}: expected {expected}")


def leaves(group: Any, prefix: str = "") -> Iterator[tuple[str, Any, Field]]:
    """Yield (dotted key, value, field) for every setting in a group and the groups within it."""
    for item in fields(group):
        value = getattr(group, item.name)
        if is_dataclass(value):
            yield from leaves(value, f"{prefix}{item.name}.")
        else:
            yield prefix + item.name, value, item


def flatten(config: Config) -> dict[str, Any]:
    """{dotted key: value}, as config.json has it"""
    return {key: value for key, value, _ in leaves(config)}


def unflatten(values: dict[str, Any]) -> Config:
    """Invert `flatten`. Raises InputError for a missing or unknown key or a wrong type."""
    defaults = flatten(Config())
    for key in defaults | values:
        if key not in defaults:
            raise InputError(f"setting {key}: no such setting; {nearest(key, defaults)}")
        if key not in values:
            raise InputError(f"setting {key} is missing; expected every setting")
        if type(values[key]) is not type(defaults[key]):
            expected = type(defaults[key]).__name__
            raise InputError(f"setting {key}={values[key]!r}: expected {expected}")

    def build(group: type, prefix: str) -> Any:
        return group(**{item.name: build(item.type, f"{prefix}{item.name}.")
                        if is_dataclass(item.type) else values[prefix + item.name]
                        for item in fields(group)})

    return build(Config, "")


def change(config: Config, changes: dict[str, Any]) -> Config:
    """Copy with {dotted key: value}."""
    return unflatten(flatten(config) | changes)


def override(config: Config, *assignments: str) -> Config:
    """Copy with the command line's "key=value", such as "prompts.length=4"."""
    changes, values = {}, flatten(config)
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        if not equals:
            raise InputError(f"--set {assignment}: expected KEY=VALUE, such as prompts.length=4")
        kind = type(values.get(key, ""))
        try:
            changes[key] = {"true": True, "false": False}[text] if kind is bool else kind(text)
        except (KeyError, ValueError) as error:
            expected = "true or false" if kind is bool else kind.__name__
            raise InputError(f"setting {key}={text}: expected {expected}") from error
    return change(config, changes)


PRESETS = {
    # 2.2 million parameters: trains on two CPU cores in minutes
    "tiny": Config(),
    # CAV-MAE's shape, 178 million parameters: for a GPU
    "base": Config(AudioConfig(seconds=10.255, mels=128), ImageConfig(size=224),
                   ModelConfig(width=768, heads=12, depth=11, image_patch=16),
                   PromptConfig(length=16, input_depth=11)),
}

DAMAGES = {
    # equally strong in all situations, so that they can be compared
    "strong": DamageConfig(),
    # the paper's code: weak where both modalities are damaged; at 32 pixels its blur is none
    "paper": DamageConfig(both=Strengths(audio_gaussian=0.22, image_gaussian=0.5, image_blur=0.03,
                                         image_pixelate=0.30)),
}
