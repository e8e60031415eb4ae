"""CAV-MAE's checkpoints (Gong et al., ICLR 2023) in and out: names and shapes (docs/cav-mae.md).

python -m ptm_mini.cav_mae RUN out.pth       write a run's backbone as CAV-MAE's own code loads it

Besides the norms of both modalities together, which are ours, a file has norms of each one alone.
"""
import logging
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ptm_mini.checkpoint import Run, load_tensors, read_run, restore
from ptm_mini.config import Config
from ptm_mini.errors import InputError, new_parser, run as run_command
from ptm_mini.files import refuse_existing, save_tensors
from ptm_mini.method.backbone import Backbone

logger = logging.getLogger(__name__)
PREFIX = "module."                # of every key, from the wrapper that the official code saves
NAMES = {"audio_encoder.patches": "patch_embed_a.proj",                  # ours: theirs
         "image_encoder.patches": "patch_embed_v.proj",
         "audio_encoder.positions": "pos_embed_a", "image_encoder.positions": "pos_embed_v",
         "audio_encoder.modality": "modality_a", "image_encoder.modality": "modality_v",
         "audio_encoder.blocks": "blocks_a", "image_encoder.blocks": "blocks_v",
         "joint.": "blocks_u.", "attention.": "attn.", "head.": "mlp_head."}
# The decoder of pretraining, and heads that the official code has for other kinds of training.
IGNORED = ("mask_token", "decoder_", "mlp_head2", "mlp_head_")
MELS = 128                        # of every official model: MELS / patch rows of audio patches
# --freeze-backbone: no fusion, no training, sounds padded and normalised as officially
AS_IT_IS = {"model.fusion": "none", "train.backbone.epochs": 0, "audio.pad_log_mel": True,
            "train.audio_mean": -5.081, "train.audio_std": 4.4849}
NORMS_FILE = "cav_mae_norms.pt"   # in a run folder: Start.norms


class Start(NamedTuple):
    """A checkpoint read for a backbone."""
    weights: dict[str, Tensor]    # by our names: all but the fusion blocks' and an unfit head's
    norms: dict[str, Tensor]      # by official names: of one modality alone, for the way back
    remarks: list[str]            # on what was ignored or resized


def read_start(path: Path, config: Config, classes: int, frozen: bool) -> Start:
    """Read a checkpoint for a backbone of these settings and K classes.

    frozen  whether the backbone is taken as it is, with its head
    raises  InputError where names or shapes do not fit
    """
    if config.model.fusion_blocks and not config.train.backbone.epochs:
        raise InputError(f"setting model.fusion={config.model.fusion}: untrained blocks stay zero, "
                         f"and prompts in them can't be trained; expected none")
    if frozen and config.audio.mels != MELS:
        raise InputError(f"--freeze-backbone: setting audio.mels={config.audio.mels}; expected "
                         f"{MELS}, which the checkpoint's patches cover")
    content = {str(key).removeprefix(PREFIX): x.float() if isinstance(x, Tensor) else x
               for key, x in load_tensors(path).items()}
    for key in ("model", "state_dict"):
        if isinstance(content.get(key), dict):
            raise InputError(f"{path}: holds a state dict under {key!r}; expected the state dict "
                             f"alone: save that part of it")
    if "patch_embed_a.proj.weight" not in content:
        raise InputError(f"{path}: has no {PREFIX}patch_embed_a.proj.weight; expected a CAV-MAE, "
                         f"with patches of audio and of images")
    head_classes = len(content.get("mlp_head.1.bias", ()))
    fresh, ignored = ("fusion.",), IGNORED
    if head_classes != classes:
        if frozen:
            raise InputError(f"--freeze-backbone: {path}: a head for {head_classes or 'no'} "
                             f"classes; expected the set's {classes}: leave out --freeze-backbone")
        fresh, ignored = ("fusion.", "head."), (*IGNORED, "mlp_head.")
    tensors = {name: x for name, x in content.items() if not name.startswith(ignored)}
    parts = dict.fromkeys(name.split(".")[0] for name in content if name not in tensors)
    remarks = [f"ignored: {', '.join(parts) or 'nothing'}", *fit_positions(tensors, config)]
    with torch.device("meta"):
        ours = Backbone(config, classes).state_dict()
    names = official_names(name for name in ours if not name.startswith(fresh))
    expected = {theirs: list(ours[name].shape) for theirs, name in names.items()}
    found = {name: list(x.shape) if isinstance(x, Tensor) else type(x).__name__
             for name, x in tensors.items()}
    for name in expected | found:
        shape, fit = (some.get(name, "no such tensor") for some in (found, expected))
        if shape != fit:
            raise InputError(f"{path}: {PREFIX}{name}: {shape}; expected {fit} with these settings "
                             f"(official models need --preset base)")
    norms = {theirs: tensors[theirs] for theirs in names if re.search(r"norm\d?_[av]", theirs)}
    weights = {name: tensors[theirs] for theirs, name in names.items() if theirs not in norms}
    return Start(weights, norms, remarks)


def load_start(run: Run, backbone: Backbone) -> dict[str, float]:
    """Copy the weights of the checkpoint run.init into the backbone, in place; the run keeps the
    norms that it has no place for.

    returns  {name of a loaded parameter: its share of the learning rate}
    """
    start = read_start(Path(run.init), run.config, len(run.classes), frozen=False)
    restore({name: backbone.get_parameter(name) for name in start.weights}, start.weights)
    save_tensors(run.folder / NORMS_FILE, start.norms)
    for remark in (f"{len(start.weights)} tensors loaded", *start.remarks):
        logger.info("%s: %s", run.init, remark)
    return dict.fromkeys(start.weights, run.config.train.loaded_rate)


def official_names(names: Iterable[str]) -> dict[str, str]:
    """Map official names without PREFIX to ours; three norms belong to each of ours."""
    found = {}
    for name in names:
        theirs = name
        for part in NAMES:
            theirs = theirs.replace(part, NAMES[part])
        found[theirs] = name
        if "norm" in theirs:
            for letter in "av":
                found[re.sub(r"(norm\d?)", rf"\1_{letter}", theirs)] = name
    return found


def fit_positions(tensors: dict[str, Tensor], config: Config) -> list[str]:
    """Fit positions [1, N, D] to another length of audio or size of image, in place.

    A shorter sound takes the first columns; else bicubic, without antialiasing: a function is read
    between its points. Returns remarks.
    """
    remarks, patch = [], config.model.audio_patch
    side = config.image.size // config.model.image_patch
    targets = {"pos_embed_a": (config.audio.mels // patch, config.audio.frames // patch),
               "pos_embed_v": (side, side)}
    for name, target in targets.items():
        if name not in tensors:
            continue
        count = tensors[name].shape[1]
        rows = MELS // patch if name == "pos_embed_a" else math.isqrt(count)
        grid = rows, count // rows
        if math.prod(grid) != count or grid == target:
            continue
        planes = tensors[name].unflatten(1, grid).permute(0, 3, 1, 2)        # [1, D, rows, columns]
        if name == "pos_embed_a" and rows == target[0] and grid[1] > target[1]:
            fitted, how = planes[..., :target[1]], "cut"
        else:
            fitted, how = F.interpolate(planes, target, mode="bicubic"), "resized, bicubic"
        tensors[name] = fitted.flatten(2).mT.contiguous()
        remarks.append(f"{name}: positions of {grid} patches for {target}: {how}")
    return remarks


def to_official(backbone: Backbone, config: Config, norms: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename a backbone's tensors, the inverse of read_start.

    norms   Start.norms, or {}: then each modality alone has the norms of both together
    raises  InputError where CAV-MAE has no place for what was trained
    """
    fusion, mels = config.model.fusion, config.audio.mels
    if config.model.fusion_blocks or mels != MELS:
        raise InputError(f"settings model.fusion={fusion}, audio.mels={mels}: CAV-MAE has no place "
                         f"for them; expected none and {MELS}")
    ours = backbone.state_dict()
    found = {theirs: ours[name] for theirs, name in official_names(ours).items()}
    return {PREFIX + name: tensor for name, tensor in (found | norms).items()}


def main(argv: list[str] | None = None) -> None:
    parser = new_parser(__doc__)
    parser.add_argument("run", type=Path, help="run folder that train.py made")
    parser.add_argument("out", type=Path, help="the new checkpoint")
    args = parser.parse_args(argv)
    refuse_existing(args.out)
    run = read_run(args.run)
    backbone = Backbone(run.config, len(run.classes))
    run.load("backbone", backbone)
    norms = load_tensors(run.folder / NORMS_FILE) if run.init else {}
    save_tensors(args.out, to_official(backbone, run.config, norms))
    logger.info("wrote %s", args.out)


if __name__ == "__main__":
    run_command(main)
