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
from ptm_mini.config import Config
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
IGNORED = ("mask_token", "decoder_", "mlp_head2", "mlp_head_")
MELS = 128                        # of every official model: MELS / patch rows of audio patches
# --freeze-backbone: no fusion, no training, inputs normalised with AudioSet's mean and std
AS_IT_IS = {"model.fusion": "none", "train.backbone.epochs": 0, "train.audio_mean": -5.081,
            "train.audio_std": 4.4849}
NORMS_FILE = "cav_mae_norms.pt"   # in a run folder: Start.norms


class Start(NamedTuple):
    """A checkpoint read for a backbone."""
    weights: dict[str, Tensor]    # by our names: all but the fusion blocks' and an unfit head's
    norms: dict[str, Tensor]      # by official names: of one modality alone, for the way back
    remarks: list[str]            # on what was ignored, resized or left out


def read_start(path: Path, config: Config, classes: int, frozen: bool) -> Start:
    """Read a checkpoint for a backbone of these settings and K classes.

    frozen  whether the backbone is taken as it is, with its head
    raises  InputError where names or shapes do not fit; only IGNORED tensors are ignored
    """
    if config.model.fusion_blocks and not config.train.backbone.epochs:
        raise InputError(f"setting model.fusion={config.model.fusion}: untrained blocks stay zero, "
                         f"and prompts in them can't be trained; expected none")
    tensors, ignored = read_official(path)
    remarks = [f"ignored: {', '.join(dict.fromkeys(ignored)) or 'nothing'}"]
    remarks += fit_positions(tensors, config)
    with torch.device("meta"):
        ours = Backbone(config, classes).state_dict()
    head_classes = len(tensors.get("mlp_head.1.bias", ()))
    if head_classes != classes:
        unfit = f"a head for {head_classes or 'no'} classes, and {classes} in the set"
        if frozen:
            raise InputError(f"--freeze-backbone: {path}: {unfit}; expected the set's classes: "
                             f"leave out --freeze-backbone to fine-tune it")
        remarks.append(f"{unfit}: a fresh head is made")
        tensors = {name: x for name, x in tensors.items() if not name.startswith("mlp_head.")}
        ours = {name: x for name, x in ours.items() if not name.startswith("head.")}
    names = official_names(ours)
    norms = norms_alone(names)
    check_shapes(path, tensors, {theirs: ours[name] for theirs, name in (names | norms).items()})
    return Start({name: tensors[theirs] for theirs, name in names.items()},
                 {theirs: tensors[theirs] for theirs in norms}, remarks)


def load_start(run: Run, backbone: Backbone) -> dict[str, float]:
    """Copy the weights of the checkpoint run.init into the backbone, in place.

    returns  {name of a loaded parameter: its share of the learning rate}
    """
    start = read_start(Path(run.init), run.config, len(run.classes), frozen=False)
    restore({name: backbone.get_parameter(name) for name in start.weights}, start.weights)
    for remark in (f"{len(start.weights)} tensors loaded", *start.remarks):
        logger.info("%s: %s", run.init, remark)
    return dict.fromkeys(start.weights, run.config.train.loaded_rate)


def read_official(path: Path) -> tuple[dict[str, Tensor], list[str]]:
    """Read {official name without PREFIX: float32 tensor}, and the names of ignored parts."""
    tensors, ignored = {}, []
    for key, value in load_tensors(path).items():
        name = str(key).removeprefix(PREFIX)
        if not isinstance(value, Tensor):
            raise InputError(f"{path}: {name!r} is no tensor; expected a state dict of CAV-MAE")
        if name.startswith(IGNORED):
            ignored.append(name.split(".")[0])
        else:
            tensors[name] = value.float()
    return tensors, ignored


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


def fit_positions(tensors: dict[str, Tensor], config: Config) -> list[str]:
    """Resize positions [1, N, D] for another length of audio or size of image, in place.

    Bicubic, without antialiasing: a function is read between its points. Returns remarks.
    """
    remarks, patch = [], config.model.audio_patch
    side = config.image.size // config.model.image_patch
    targets = {"pos_embed_a": (config.audio.mels // patch, config.audio.frames // patch),
               "pos_embed_v": (side, side)}
    for name, target in targets.items():
        count = tensors[name].shape[1] if name in tensors else 0
        rows = MELS // patch if name == "pos_embed_a" else math.isqrt(count)
        grid = rows, count // max(1, rows)
        if 0 < math.prod(grid) == count and grid != target:
            planes = tensors[name].unflatten(1, grid).permute(0, 3, 1, 2)    # [1, D, rows, columns]
            resized = F.interpolate(planes, target, mode="bicubic", align_corners=False)
            tensors[name] = resized.flatten(2).transpose(1, 2).contiguous()
            remarks.append(f"{name}: positions of {grid} patches resized to {target}, bicubic")
    return remarks


def check_shapes(path: Path, tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Raise InputError unless the tensors have just the expected names and shapes."""
    for name in expected | tensors:
        found, fit = (list(some[name].shape) if name in some else "no such tensor"
                      for some in (tensors, expected))
        if found != fit:
            raise InputError(f"{path}: {PREFIX}{name}: {found}; expected {fit} with these settings "
                             f"(official models need --preset base)")


def to_official(backbone: Backbone, config: Config, norms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a backbone's tensors, the inverse of read_start.

    norms   Start.norms, or {} for a backbone that did not start from CAV-MAE: then each modality
            alone has the norms of both together
    raises  InputError where CAV-MAE has no place for what was trained
    """
    fusion, mels = config.model.fusion, config.audio.mels
    if config.model.fusion_blocks or mels != MELS:
        raise InputError(f"settings model.fusion={fusion}, audio.mels={mels}: CAV-MAE has no place "
                         f"for them; expected none and {MELS}")
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
