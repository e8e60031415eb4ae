"""CAV-MAE's checkpoints: the outputs of a plain reading of its formulas, every tensor, and back."""
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import random_backbone, refusal, train
from plain_cav_mae import OUTPUTS, outputs
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from ptm_mini import cav_mae
from ptm_mini.cav_mae import PREFIX, Start
from ptm_mini.checkpoint import Run
from ptm_mini.config import PRESETS, override
from ptm_mini.data.dataset import Normalisation
from ptm_mini.method.backbone import Backbone, initialise

K, D, T, HEADS = 3, 16, 32, 2
SIZES = ("audio.mels=128", f"audio.seconds={(10 * T + 15) / 1000}", "image.size=32",
         "model.image_patch=16", f"model.width={D}", f"model.heads={HEADS}", "model.depth=2",
         "model.joint_depth=2", "model.fusion=none", "prompts.length=2", "prompts.input_depth=2")
CONFIG = override(PRESETS["tiny"], *SIZES)
DECODER = ("mask_token", "decoder_modality_v", "decoder_embed.weight", "decoder_blocks.0.attn.bias")


def official() -> dict[str, Tensor]:
    """A state dict as the official code saves it, random in every tensor"""
    random = torch.Generator().manual_seed(0)
    tensors = cav_mae.to_official(random_backbone(CONFIG, random), CONFIG, {})
    return {name: tensor + 0.1 * torch.randn(tensor.shape, generator=random)
            for name, tensor in tensors.items()}


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., Start]:
    """read_start of tensors in a file x.pth"""
    def read_tensors(tensors: dict[str, Tensor], *assignments: str, classes: int = K,
                     frozen: bool = False) -> Start:
        torch.save(tensors, tmp_path / "x.pth")
        config = override(CONFIG, *assignments)
        return cav_mae.read_start(tmp_path / "x.pth", config, classes, frozen)
    return read_tensors


def single_modality(backbone: Backbone, norms: dict[str, Tensor], audio: Tensor,
                    image: Tensor) -> dict[str, Tensor]:
    """CAV-MAE's other outputs, {official name: tensor}, from our backbone and Start.norms"""
    found, parts = {}, ("weight", "bias")
    names = zip(backbone.encode(audio, image), "av", ("audio", "image"), ("audio", "video"))
    for tokens, letter, ours, theirs in names:
        alone, shared = tokens, tokens
        for i, block in enumerate(backbone.joint):
            own = {f"{norm}.{part}": norms[f"blocks_u.{i}.{norm}_{letter}.{part}"]
                   for norm in ("norm1", "norm2") for part in parts}
            alone, shared = functional_call(block, own, alone), block(shared)
        own = {part: norms[f"norm_{letter}.{part}"] for part in parts}
        alone, shared = functional_call(backbone.norm, own, alone), backbone.norm(shared)
        both = (alone.mean(dim=1) + shared.mean(dim=1)) / 2
        found |= {f"feat_{ours}": alone, f"{theirs}only": backbone.head(alone.mean(dim=1)),
                  f"missing{theirs}only": backbone.head(both)}
    return found


@pytest.mark.parametrize("fusion", ["none", "cross"])
@torch.no_grad()
def test_all_outputs_equal_the_plain_formulas(read: Callable, fusion: str) -> None:
    """They equal the official ones: see python tests/plain_cav_mae.py"""
    tensors, random = official(), torch.Generator().manual_seed(2)
    audio = torch.randn(3, T, 128, generator=random)
    image = torch.randn(3, 3, 32, 32, generator=random)
    backbone = Backbone(override(CONFIG, f"model.fusion={fusion}"), K)
    initialise(backbone, random)
    start = read(tensors, f"model.fusion={fusion}")
    backbone.load_state_dict(backbone.state_dict() | start.weights)
    ours = {"multimodal": backbone(audio, image),
            **single_modality(backbone, start.norms, audio, image)}
    plain = outputs({name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()},
                    audio, image, HEADS)
    assert set(ours) == set(plain) == set(OUTPUTS)
    for name in OUTPUTS:
        assert torch.allclose(ours[name], plain[name], atol=1e-5), name


def test_pretraining_gives_all_but_the_head(tmp_path: Path) -> None:
    tensors = {name.removeprefix(PREFIX): x for name, x in official().items()}
    tensors = {name: x for name, x in tensors.items() if not name.startswith("mlp_head")}
    torch.save(tensors | dict.fromkeys(DECODER, torch.zeros(D)), tmp_path / "x.pth")
    run = Run(tmp_path, CONFIG, ["a", "b"], Normalisation(0.0, 1.0), tmp_path, "",
              init=str(tmp_path / "x.pth"))
    backbone = Backbone(CONFIG, 2)
    rate_shares = cav_mae.load_start(run, backbone)
    fresh = backbone.state_dict().keys() - rate_shares.keys()
    assert fresh == {"head.0.weight", "head.0.bias", "head.1.weight", "head.1.bias"}
    assert set(rate_shares.values()) == {0.1}
    assert torch.equal(backbone.joint[1].mlp.fc2.bias, tensors["blocks_u.1.mlp.fc2.bias"])
    start = cav_mae.read_start(tmp_path / "x.pth", CONFIG, 2, frozen=False)
    assert start.remarks == [
        "ignored: mask_token, decoder_modality_v, decoder_embed, decoder_blocks"]
    assert len(tensors) == len(start.weights) + len(start.norms)


def test_a_head_of_other_classes_is_dropped_or_refused(read: Callable) -> None:
    start = read(official(), classes=9)
    assert start.remarks == ["ignored: mlp_head"]
    assert not any(name.startswith("head.") for name in start.weights)
    said = refusal(read, official(), classes=9, frozen=True)
    assert said.startswith("--freeze-backbone: ") and "a head for 3 classes" in said


@pytest.mark.parametrize("name, tensor, says", [
    ("blocks_u.0.norm1_a.weight", None, "blocks_u.0.norm1_a.weight: no such tensor; expected [16]"),
    ("pos_embed_a", None, "pos_embed_a: no such tensor; expected [1, 16, 16]"),
    ("blocks_a.0.extra", torch.zeros(D), "blocks_a.0.extra: [16]; expected no such tensor"),
    ("pos_embed_v", torch.zeros(1, 5, D), "pos_embed_v: [1, 5, 16]; expected [1, 4, 16]"),
    ("epoch", 25, "epoch: int; expected no such tensor")])
def test_a_tensor_that_does_not_fit_is_named(read: Callable, name: str, tensor: Tensor | None,
                                             says: str) -> None:
    tensors = official() | {PREFIX + name: tensor}
    if tensor is None:
        del tensors[PREFIX + name]
    assert says in refusal(read, tensors)


def test_untrained_fusion_blocks_are_refused(read: Callable) -> None:
    said = refusal(read, official(), "model.fusion=cross", "train.backbone.epochs=0")
    assert said.startswith("setting model.fusion=cross: untrained blocks stay zero")


def test_the_official_models_have_the_size_of_base() -> None:
    """164.500 million numbers without a decoder and a head, as the official training code counts"""
    with torch.device("meta"):
        config = override(PRESETS["base"], "model.fusion=none")
        tensors = cav_mae.to_official(Backbone(config, K), config, {})
    assert round(sum(tensor.numel() for name, tensor in tensors.items()
                     if "mlp_head" not in name) / 1e6, 3) == 164.500


def test_positions_are_resized_as_images_in_the_order_of_tokens(read: Callable) -> None:
    positions = torch.randn(1, 32, D, generator=torch.Generator().manual_seed(0))
    start = read(official() | {"module.pos_embed_a": positions,
                               "module.pos_embed_v": torch.zeros(1, 9, D)})
    assert start.remarks[1:] == [
        "pos_embed_a: positions of (8, 4) patches resized to (8, 2), bicubic",
        "pos_embed_v: positions of (3, 3) patches resized to (2, 2), bicubic"]
    plane = torch.stack([positions[0, row * 4:row * 4 + 4, 5] for row in range(8)])    # channel 5
    plane = F.interpolate(plane[None, None], (8, 2), mode="bicubic")[0, 0]
    found = start.weights["audio_encoder.positions"][0, :, 5]
    assert torch.allclose(found, plane.flatten(), atol=1e-6)


def test_a_backbone_that_never_was_cav_mae_gets_whole_there(read: Callable) -> None:
    backbone = random_backbone(CONFIG, torch.Generator().manual_seed(3))
    exported = cav_mae.to_official(backbone, CONFIG, {})
    assert torch.equal(exported["module.blocks_u.1.norm2_v.bias"], backbone.joint[1].norm2.bias)
    weights = read(exported).weights
    assert all(torch.equal(weights[name], p) for name, p in backbone.named_parameters())
    for setting in ("model.fusion=cross", "audio.mels=64"):
        config = override(CONFIG, setting)
        assert setting in refusal(cav_mae.to_official, Backbone(config, K), config, {})


def test_a_frozen_backbone_is_exported_as_it_came(small_set: Path, tmp_path: Path) -> None:
    torch.save(official(), tmp_path / "in.pth")
    flags = [word for size in SIZES for word in ("--set", size)]
    train("--data", small_set, "--out", tmp_path / "run", "--init", tmp_path / "in.pth",
          "--freeze-backbone", "--method", "head", "--epochs", 1, *flags)
    cav_mae.main([str(tmp_path / "run"), str(tmp_path / "out.pth")])
    found = torch.load(tmp_path / "out.pth", weights_only=True)
    assert found.keys() == official().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in official().items())
