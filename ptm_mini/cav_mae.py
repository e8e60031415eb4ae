"""CAV-MAE's checkpoints (Gong et al., ICLR 2023) in and out: names and shapes (docs/cav-mae.md).

python -m ptm_mini.cav_mae RUN out.pth       write a run's backbone as CAV-MAE's own code loads it

An official file is a state dict: of pretraining, with a decoder and without a head, or fine-tuned,
with a head. Besides the norms of both modalities together, which are ours, each has norms of audio
alone and of image alone.
"""
import argparse
import logging
import math
import re
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ptm_mini.checkpoint import Run, load_tensors, read_run, restore
from ptm_mini.config import PRESETS, Config, flatten
from ptm_mini.errors import InputError, run as run_command
from ptm_mini.files import refuse_existing, save_tensors
from ptm_mini.method.backbone import Backbone

logger = logging.getLogger(__name__)
PREFIX = "module."                # of every key, from the wrapper that the official code saves
NAMES = {"audio_encoder.patches.": "patch_embed_a.proj.",                # ours: theirs
         "image_encoder.patches.": "patch_embed_v.proj.",
         "audio_encoder.positions": "pos_embed_a", "image_encoder.positions": "pos_embed_v",
         "audio_encoder.modality": "modality_a", "image_encoder.modality": "modality_v",
         "audio_encoder.blocks.": "blocks_a.", "image_encoder.blocks.": "blocks_v.",
         "joint.": "blocks_u.", "norm.": "norm.", "head.": "mlp_head."}
# The decoder of pretraining, and heads that the official code has for other kinds of training.
IGNORED = re.compile(r"(mask_token|decoder_(modality_.|pos_embed_.|pred_.|embed|blocks|norm)|"
                     r"mlp_head(2|_a|_v|_concat))(\..*)?")
MELS = 128                        # of every official model: MELS / patch rows of audio patches
# --freeze-backbone: no fusion, no training, inputs normalised with AudioSet's mean and std
AS_IT_IS = {"model.fusion": "none", "train.backbone.epochs": 0, "train.audio_mean": -5.081,
            "train.audio_std": 4.4849}
NORMS_FILE = "cav_mae_norms.pt"   # in a run folder: Start.norms


class Start(NamedTuple):
    """What a backbone starts from."""
    weights: dict[str, Tensor]    # by our names: all but the fusion blocks' and an unfit head's
    norms: dict[str, Tensor]      # by official names: of one modality alone, for the way back
    remarks: list[str]            # what was not taken as it is


def read_start(path: Path, config: Config, classes: int, frozen: bool) -> Start:
    """Read a checkpoint for a backbone of these settings and K classes.

    frozen  whether the backbone is taken as it is, with its head
    raises  InputError where sizes, names or shapes do not fit; no tensor is ignored but by name
    """
    epochs, fusion = config.train.backbone.epochs, config.model.fusion
    if frozen and epochs:
        raise InputError(f"setting train.backbone.epochs={epochs}: --freeze-backbone does not "
                         f"train it; expected 0: leave one of them out")
    if config.model.fusion_blocks and not epochs:
        raise InputError(f"setting model.fusion={fusion}: with train.backbone.epochs=0 its blocks "
                         f"stay zero, and prompts in them can't be trained; expected none")
    tensors, remarks = read_official(path)
    check_sizes(path, tensors, config)
    remarks += fit_positions(tensors, config)
    head = [name for name in tensors if name.startswith("mlp_head.")]
    bias, unfit = tensors.get("mlp_head.1.bias"), "" if head else "it has no head"
    if bias is not None and bias.numel() != classes:
        unfit = f"its head has {bias.numel()} classes, the set {classes}"
    if unfit and frozen:
        raise InputError(f"--freeze-backbone: {path}: {unfit}; expected a model fine-tuned on the "
                         f"set's classes: leave out --freeze-backbone to fine-tune it")
    with torch.device("meta"):
        ours = Backbone(config, classes).state_dict()
    if unfit:
        remarks.append(f"{unfit}: a fresh one is made")
        tensors = {name: tensor for name, tensor in tensors.items() if name not in head}
        ours = {name: tensor for name, tensor in ours.items() if not name.startswith("head.")}
    names = official_names(ours)
    norms = norms_alone(names)
    check_shapes(path, tensors, {theirs: list(ours[name].shape)
                                 for theirs, name in (names | norms).items()})
    return Start({name: tensors[theirs] for theirs, name in names.items()},
                 {theirs: tensors[theirs] for theirs in norms}, remarks)


def load_start(run: Run, backbone: Backbone) -> dict[str, float]:
    """Copy the weights of the checkpoint run.init into the backbone, in place.

    returns  {name of a loaded parameter: its share of the learning rate}
    """
    start = read_start(Path(run.init), run.config, len(run.classes), frozen=False)
    restore({name: backbone.get_parameter(name) for name in start.weights}, start.weights)
    logger.info("%s: %d tensors loaded, for model.heads=%d, which no checkpoint tells", run.init,
                len(start.weights), run.config.model.heads)
    for remark in start.remarks:
        logger.info("%s: %s", run.init, remark)
    return dict.fromkeys(start.weights, run.config.train.loaded_rate)


def read_official(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Read {official name without PREFIX: float32 tensor}, and remarks on what is ignored."""
    content = {str(key).removeprefix(PREFIX): value for key, value in load_tensors(path).items()}
    for name, value in content.items():
        if not isinstance(value, Tensor):
            raise InputError(f"{path}: {name!r} in it is no tensor; expected tensors by name, as "
                             f"CAV-MAE's code saves them")
    ignored = [name for name in content if IGNORED.fullmatch(name)]
    parts = ", ".join(dict.fromkeys(name.split(".")[0] for name in ignored))
    return ({name: value.float() for name, value in content.items() if name not in ignored},
            [f"ignored {len(ignored)} tensors of no use here: {parts}"] if ignored else [])


def official_names(ours: dict[str, Tensor]) -> dict[str, str]:
    """{official name without PREFIX: our name} of a state dict, except the fusion blocks"""
    names = {}
    for name in ours:
        if not name.startswith("fusion."):
            part = next(part for part in NAMES if name.startswith(part))
            rest = name.removeprefix(part).replace("attention.", "attn.")
            names[NAMES[part] + rest] = name
    return names


def norms_alone(names: dict[str, str]) -> dict[str, str]:
    """{official name of a norm of one modality alone: our name of that of both together}"""
    return {re.sub(r"(norm\d?)\.", rf"\1_{letter}.", theirs): name
            for theirs, name in names.items() if "norm" in theirs for letter in "av"}


def check_sizes(path: Path, tensors: dict[str, Tensor], config: Config) -> None:
    """Raise InputError, with the settings that would fit, where the model's sizes differ."""
    for name, dimensions in (("patch_embed_a.proj.weight", 4), ("patch_embed_v.proj.weight", 4),
                             ("pos_embed_a", 3), ("pos_embed_v", 3)):
        if name not in tensors or tensors[name].ndim != dimensions:
            raise InputError(f"{path}: {PREFIX}{name} is missing or has not {dimensions} "
                             f"dimensions; expected a file that CAV-MAE's code saved")
    audio, image = (tensors[f"patch_embed_{letter}.proj.weight"] for letter in "av")
    found = {"model.width": len(audio), "model.audio_patch": audio.shape[-1],
             "model.image_patch": image.shape[-1]}
    for key, stack in (("model.depth", "blocks_a"), ("model.joint_depth", "blocks_u")):
        found[key] = len({name.split(".")[1] for name in tensors if name.startswith(f"{stack}.")})
    settings = flatten(config)
    wrong = [key for key in found if found[key] != settings[key]]
    if wrong:
        given = ", ".join(f"{key}={settings[key]}" for key in wrong)
        mend = " ".join(f"--set {key}={found[key]}" for key in wrong)
        if found.items() <= flatten(PRESETS["base"]).items():
            mend = "--preset base"
        raise InputError(f"{path}: is for a model of another size than {given}; expected {mend}")


def fit_positions(tensors: dict[str, Tensor], config: Config) -> list[str]:
    """Resize positions for another length of audio or size of image, in place. Returns remarks."""
    remarks, patch = [], config.model.audio_patch
    side = config.image.size // config.model.image_patch
    targets = {"pos_embed_a": (config.audio.mels // patch, config.audio.frames // patch),
               "pos_embed_v": (side, side)}
    for name, target in targets.items():
        count = tensors[name].shape[1]
        rows = MELS // patch if name == "pos_embed_a" else math.isqrt(count)
        grid = rows, count // max(1, rows)
        if 0 < math.prod(grid) == count and grid != target:
            tensors[name] = resize_positions(tensors[name], grid, target)
            remarks.append(f"{name}: positions of {grid[0]} x {grid[1]} patches resized to "
                           f"{target[0]} x {target[1]}, bicubic")
    return remarks


def resize_positions(positions: Tensor, grid: tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Interpolate positions [1, rows * columns, D], row-major, from one grid of patches to another.

    Bicubic, as for other ViTs, without antialiasing: a function is read between its points.
    """
    planes = positions.unflatten(1, grid).permute(0, 3, 1, 2)            # [1, D, rows, columns]
    resized = F.interpolate(planes, target, mode="bicubic", align_corners=False)
    return resized.flatten(2).transpose(1, 2).contiguous()


def check_shapes(path: Path, tensors: dict[str, Tensor], expected: dict[str, list[int]]) -> None:
    """Raise InputError unless the tensors have just these names and shapes."""
    shapes = {name: list(tensor.shape) for name, tensor in tensors.items()}
    for name in expected | shapes:
        if name not in shapes:
            raise InputError(f"{path}: {PREFIX}{name} is missing; expected all tensors "
                             f"of CAV-MAE except a decoder and a head")
        if shapes[name] != expected.get(name):
            raise InputError(f"{path}: {PREFIX}{name} has the shape {shapes[name]}; expected "
                             f"{expected.get(name, 'no such tensor')}")


def to_official(backbone: Backbone, config: Config, norms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a backbone's tensors, the inverse of read_start.

    norms   Start.norms, or {} for a backbone that did not start from CAV-MAE: then each modality
            alone has the norms of both together
    raises  InputError where CAV-MAE has no place for what was trained
    """
    for key, expected, fits in (("audio.mels", MELS, config.audio.mels == MELS),
                                ("model.fusion", "none", not config.model.fusion_blocks)):
        if not fits:
            raise InputError(f"setting {key}={flatten(config)[key]}: CAV-MAE has no place for it; "
                             f"expected a run trained with --set {key}={expected}")
    ours = backbone.state_dict()
    names = official_names(ours)
    found = {theirs: ours[name] for theirs, name in (names | norms_alone(names)).items()}
    return {PREFIX + name: tensor for name, tensor in (found | norms).items()}


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run folder that train.py made")
    parser.add_argument("out", type=Path, help="the new checkpoint")
    args = parser.parse_args(argv)
    refuse_existing(args.out)
    run = read_run(args.run)
    backbone = Backbone(run.config, len(run.classes))
    run.load("backbone", backbone)
    norms = load_tensors(run.path("backbone").with_name(NORMS_FILE)) if run.init else {}
    save_tensors(args.out, to_official(backbone, run.config, norms))
    logger.info("wrote %s", args.out)


if __name__ == "__main__":
    run_command(main)
