"""CAV-MAE's checkpoints (Gong et al., ICLR 2023) and our backbone: names and shapes, there and back (docs/cav-mae.md).

Both kinds of official file are a state dict, every key with `module.` before it: one of pretraining has a decoder and no head,
a fine-tuned one has a head. Besides the norms that we have too, both have norms for audio alone and for image alone, which
`single_modality` uses.
"""
import logging
import math
import re
from typing import NamedTuple

import torch
from torch.func import functional_call
from torch.nn import functional as F

from ptm_mini.config import PRESETS
from ptm_mini.errors import InputError
from ptm_mini.method.backbone import Backbone, CrossUpdate
from ptm_mini.runs.checkpoint import PREFIX
from ptm_mini.settings import expect, get

logger = logging.getLogger(__name__)
NAMES = {"audio_encoder.patches.": "patch_embed_a.proj.", "image_encoder.patches.": "patch_embed_v.proj.",     # ours: theirs
         "audio_encoder.positions": "pos_embed_a", "image_encoder.positions": "pos_embed_v",
         "audio_encoder.modality": "modality_a", "image_encoder.modality": "modality_v",
         "audio_encoder.blocks.": "blocks_a.", "image_encoder.blocks.": "blocks_v.", "joint.": "blocks_u.",
         "norm.": "norm.", "head.": "mlp_head."}
IGNORED = {"the decoder, of use in pretraining alone": (
               "mask_token", "decoder_modality_a", "decoder_modality_v", "decoder_pos_embed_a", "decoder_pos_embed_v",
               "decoder_embed", "decoder_blocks", "decoder_norm", "decoder_pred_a", "decoder_pred_v"),
           "heads for other kinds of training": ("mlp_head2", "mlp_head_a", "mlp_head_v", "mlp_head_concat")}
MELS = 128                        # of every official model: its table of audio positions has MELS / patch rows
# What takes a model as it is: no fusion, no training, inputs normalised by AudioSet's mean and std as its authors do
AS_IT_IS = {"model.fusion": "none", "train.backbone.epochs": 0, "train.audio_mean": -5.081, "train.audio_std": 4.4849}


class Start(NamedTuple):
    """What a backbone starts from."""
    weights: dict                 # {our name: tensor}, all but the fusion blocks' and a head that doesn't fit
    norms: dict                   # {official name: tensor}, of one modality alone: Backbone has no place for them
    no_head: str                  # why there is no head among the weights; empty where there is one
    remarks: list                 # what was not taken as it stands in the file, a line each


def as_ours(checkpoint, config, classes):
    """What a backbone of these settings and K classes starts from. Every key is loaded, ignored by name, or refused.

    returns  Start
    raises   InputError where sizes, names or shapes don't fit
    """
    path, tensors = checkpoint.path, dict(checkpoint.tensors)
    expect_sizes(path, tensors, config)
    expect(config.train.backbone.epochs or not config.model.fusion_blocks, config, "model.fusion",
           "none where train.backbone.epochs=0: its blocks would stay at zero, and prompts in them could not learn")
    remarks = [*drop_ignored(tensors), *resize_positions(tensors, config)]
    has_head = any(name.startswith("mlp_head.") for name in tensors)
    bias = tensors.get("mlp_head.1.bias")
    in_file = bias.numel() if bias is not None and bias.numel() else classes
    with torch.device("meta"):
        ours = {name: list(tensor.shape) for name, tensor in common(Backbone(config, in_file)).items()
                if has_head or not name.startswith("head.")}
    norms = dict.fromkeys(norm_names(config.model), [config.model.width])
    expect_shapes(path, tensors, {official_name(name): shape for name, shape in ours.items()} | norms)

    if not has_head:
        no_head = "it has no head"
    else:
        no_head = "" if in_file == classes else f"its head has {in_file} classes, the set {classes}"
    if no_head:
        remarks.append(f"{no_head}: a fresh one is made")
    weights = {name: tensors[official_name(name)] for name in ours if not (no_head and name.startswith("head."))}
    return Start(weights, {name: tensors[name] for name in norms}, no_head, remarks)


def official_name(name):
    """The official name, without PREFIX, of a parameter of ours that is no fusion block's"""
    ours = next(ours for ours in NAMES if name.startswith(ours))
    return NAMES[ours] + name.removeprefix(ours).replace("attention.", "attn.")


def common(backbone):
    """{our name: tensor} of what a backbone has in common with CAV-MAE: all but the fusion blocks"""
    return {name: tensor for name, tensor in backbone.state_dict().items() if not name.startswith("fusion.")}


def norm_names(model):
    """Official names of the norms of one modality alone, of every block and the last ones. model: ModelConfig"""
    stacks = {"blocks_a": model.depth, "blocks_v": model.depth, "blocks_u": model.joint_depth}
    places = [f"{stack}.{i}.norm{n}" for stack, depth in stacks.items() for i in range(depth) for n in (1, 2)]
    return [f"{place}_{letter}.{part}" for place in (*places, "norm") for letter in "av" for part in ("weight", "bias")]


def expect_sizes(path, tensors, config):
    """Raise InputError, with the settings that would fit, where the model's sizes are not the checkpoint's."""
    kernels = [tensors.get(f"patch_embed_{letter}.proj.weight", torch.empty(0)) for letter in "av"]
    if any(kernel.ndim != 4 for kernel in kernels):
        return                                             # no such model at all: names and shapes will say so
    found = {"model.width": kernels[0].shape[0], "model.audio_patch": kernels[0].shape[-1],
             "model.image_patch": kernels[1].shape[-1]}
    for key, pattern in (("model.depth", r"blocks_[av]\.(\d{1,4})\."), ("model.joint_depth", r"blocks_u\.(\d{1,4})\.")):
        found[key] = 1 + max((int(match[1]) for match in map(re.compile(pattern).match, tensors) if match), default=-1)
    wrong = {key: value for key, value in found.items() if get(config, key) != value}
    if wrong:
        of_base = all(get(PRESETS["base"], key) == value for key, value in found.items())
        mend = "--preset base" if of_base else " ".join(f"--set {key}={value}" for key, value in wrong.items())
        given = ", ".join(f"{key}={get(config, key)}" for key in wrong)
        raise InputError(f"{path}: is for a model of another size than {given}; expected {mend}")


def expect_shapes(path, tensors, wanted):
    """Raise InputError unless the tensors have these names, all of them and no other, and these shapes."""
    for name, shape in wanted.items():
        if name not in tensors:
            raise InputError(f"{path}: {PREFIX}{name} is missing; expected all of CAV-MAE's but a decoder and a head")
        if list(tensors[name].shape) != shape:
            raise InputError(f"{path}: {PREFIX}{name} has the shape {list(tensors[name].shape)}; expected {shape}")
    for name in tensors:
        if name not in wanted:
            raise InputError(f"{path}: {PREFIX + name!r} is no tensor of CAV-MAE's; expected a file of its official code")


def drop_ignored(tensors):
    """Remove what has a reason to be ignored, in place. returns remarks"""
    remarks = []
    for reason, parts in IGNORED.items():
        names = [name for name in tensors if name.split(".")[0] in parts]
        for name in names:
            del tensors[name]
        if names:
            listed = ", ".join(part for part in parts if any(name.split(".")[0] == part for name in names))
            remarks.append(f"ignored {reason}: {listed} ({len(names)} tensors)")
    return remarks


def resize_positions(tensors, config):
    """Interpolate the tables that are for another length of sound or size of picture, in place. returns remarks"""
    remarks, model = [], config.model
    side = config.image.size // model.image_patch
    targets = {"pos_embed_a": (config.audio.mels // model.audio_patch, config.audio.frames // model.audio_patch),
               "pos_embed_v": (side, side)}
    for name, target in targets.items():
        table = tensors.get(name, torch.empty(0))
        count = table.shape[1] if table.ndim == 3 and table.numel() else 0
        rows = MELS // model.audio_patch if name == "pos_embed_a" else math.isqrt(count)
        grid = (rows, count // max(1, rows))
        if count and math.prod(grid) == count and grid != target:
            tensors[name] = resized(table, grid, target)
            remarks.append(f"{name}: a table of {grid[0]} x {grid[1]} made {target[0]} x {target[1]}, bicubic")
    return remarks


def resized(table, grid, target):
    """A table of positions for another grid of patches, interpolated in 2-D.

    Bicubic, as for other ViTs, without antialiasing: it is a function looked up between its points, not pixels to be mixed.

    table         [1, rows * columns, D], in the order of the tokens: row-major, a row being a band of mel bins
    grid, target  (rows, columns) as it is and as it shall be
    """
    planes = table.unflatten(1, grid).permute(0, 3, 1, 2)                                    # [1, D, rows, columns]
    return F.interpolate(planes, target, mode="bicubic", align_corners=False).flatten(2).transpose(1, 2).contiguous()


def as_official(backbone, config, norms):
    """Our backbone under the official names, {name: tensor}: the inverse of as_ours.

    norms   Start.norms, or {} for a backbone that never was CAV-MAE's: one modality alone is then normed as both together
    raises  InputError where CAV-MAE has no place for what was learned
    """
    expect(config.audio.mels == MELS, config, "audio.mels", f"{MELS}, as in every CAV-MAE, for the order of its positions")
    outputs = [part for update in backbone.modules() if isinstance(update, CrossUpdate)
               for part in (*update.attention.proj.parameters(), *update.mlp.fc2.parameters())]
    expect(not any(part.any() for part in outputs), config, "model.fusion", "none: CAV-MAE has no place for what was learned")
    if outputs:
        logger.info("the fusion blocks are left out: they are as they started and change nothing")
    found = {official_name(name): tensor.cpu() for name, tensor in common(backbone).items()}
    shared = {name: found[re.sub(r"(norm\d?)_[av]\.", r"\1.", name)] for name in norm_names(config.model)}
    return {PREFIX + name: tensor for name, tensor in (found | shared | norms).items()}


def single_modality(backbone, norms, audio, image):
    """What CAV-MAE gives for one modality alone, for comparisons: our backbone has one way, and what is missing is data.

    norms    Start.norms
    returns  {official name: [B, N_a or N_v, D] of feat_audio and feat_image, else logits [B, K]}
    """
    found = {}
    for tokens, letter, ours, theirs in zip(backbone.early(audio, image), "av", ("audio", "image"), ("audio", "video")):
        alone, shared = tokens, tokens
        for i, block in enumerate(backbone.joint):
            own = {f"{norm}.{part}": norms[f"blocks_u.{i}.{norm}_{letter}.{part}"]
                   for norm in ("norm1", "norm2") for part in ("weight", "bias")}
            alone, shared = functional_call(block, own, alone), block(shared)
        alone = functional_call(backbone.norm, {part: norms[f"norm_{letter}.{part}"] for part in ("weight", "bias")}, alone)
        alone_mean, shared_mean = alone.mean(dim=1), backbone.norm(shared).mean(dim=1)
        found |= {f"feat_{ours}": alone, f"{theirs}only": backbone.head(alone_mean),
                  f"missing{theirs}only": backbone.head((alone_mean + shared_mean) / 2)}
    return found
