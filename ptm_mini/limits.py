"""Which settings go together, and how large a model and its inputs can be: what is too much is said before it is allocated."""
from ptm_mini.settings import expect, get

NUMBERS = 10**9                   # of a model: 4 GB; `base` has 178 million
TOKENS = 2**14                    # of a modality: `base` has 512 and 196
SAMPLES = 2**24                   # of a clip: 17 minutes at 16 kHz
BATCH = 4 * 10**9                 # bytes of a batch of inputs: of `base` 72 MB


def check_fit(config):
    """Raise InputError for the first setting that does not go with another one."""
    audio, model, prompts = config.audio, config.model, config.prompts
    for good, key, expected in (
            (audio.mels % model.audio_patch == 0, "audio.mels", f"a multiple of model.audio_patch={model.audio_patch}"),
            (audio.samples <= SAMPLES, "audio.seconds", f"at most {SAMPLES} samples at audio.sample_rate={audio.sample_rate}"),
            (audio.frames > 0 and audio.frames % model.audio_patch == 0, "audio.seconds",
             f"a number of frames that model.audio_patch={model.audio_patch} divides; this gives {audio.frames}, and n "
             f"frames last 10 n + 15 ms"),
            (config.image.size % model.image_patch == 0, "image.size", f"a multiple of model.image_patch={model.image_patch}"),
            (model.width % 4 == 0, "model.width", "a multiple of 4, for 2-D positions"),
            (model.width % model.heads == 0, "model.width", f"a multiple of model.heads={model.heads}"),
            (prompts.first_block + prompts.input_depth <= model.depth, "prompts.input_depth",
             f"0 to model.depth={model.depth} less prompts.first_block={prompts.first_block}")):
        expect(good, config, key, expected)


def check_size(config):
    """Raise InputError where the model or a batch of its inputs is too large, naming the setting that most of it is due to."""
    for key, count in (("audio.seconds", audio_tokens(config)), ("image.size", image_tokens(config))):
        expect(count <= TOKENS, config, key, f"at most {TOKENS} tokens, this gives {count}: less, or a larger patch")
    parts = numbers(config)
    expect(sum(parts.values()) <= NUMBERS, config, max(parts, key=parts.get), f"a model of at most {NUMBERS:.0e} numbers, 4 "
           f"GB, this has {sum(parts.values()):.1e}: a smaller one, or fewer blocks")
    sample = 4 * (config.audio.frames * config.audio.mels + 3 * config.image.size ** 2)
    for stage in (name for name in vars(config.train) if hasattr(getattr(config.train, name), "batch_size")):
        key = f"train.{stage}.batch_size"
        expect(get(config, key) * sample <= BATCH, config, key,
               f"at most {BATCH // sample}: of these audio.seconds, audio.mels and image.size a sample has {sample / 1e6:.1f} "
               f"MB, and a batch can have {BATCH / 1e9:.0f} GB")


def audio_tokens(config):
    return (config.audio.mels // config.model.audio_patch) * (config.audio.frames // config.model.audio_patch)


def image_tokens(config):
    return (config.image.size // config.model.image_patch) ** 2


def numbers(config):
    """How many numbers a Backbone has, but for its head, by the setting that they are most due to."""
    model, D = config.model, config.model.width
    updates = model.fusion_blocks * (model.audio_reads_image + model.image_reads_audio)
    blocks = 2 * model.depth + model.joint_depth
    return {"model.width": blocks * (12 * D * D + 13 * D) + updates * (12 * D * D + 15 * D) + 6 * D,
            "model.audio_patch": model.audio_patch ** 2 * D, "model.image_patch": 3 * model.image_patch ** 2 * D,
            "audio.seconds": audio_tokens(config) * D, "image.size": image_tokens(config) * D}
