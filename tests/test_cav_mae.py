"""CAV-MAE's checkpoints: the outputs of a plain reading of its formulas, every tensor, and back."""
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import random_backbone, refusal, train_only
from plain_cav_mae import OUTPUTS, outputs
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from ptm_mini import cav_mae
from ptm_mini.cav_mae import PREFIX, Start
from ptm_mini.checkpoint import Run
from ptm_mini.config import PRESETS, AudioConfig, change, override
from ptm_mini.data.dataset import Normalisation, read_log_mel
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
    assert {name.split(".")[0] for name in fresh} == {"head"}
    assert set(rate_shares.values()) == {0.1}
    assert torch.equal(backbone.joint[1].mlp.fc2.bias, tensors["blocks_u.1.mlp.fc2.bias"])
    start = cav_mae.read_start(tmp_path / "x.pth", CONFIG, 2, frozen=False)
    assert "ignored: mask_token, decoder_modality_v" in start.remarks[0]
    assert len(tensors) == len(start.weights) + len(start.norms)


def test_a_head_of_other_classes_is_dropped_or_refused(read: Callable) -> None:
    start = read(official(), classes=9)
    assert start.remarks == ["ignored: mlp_head"]
    assert not any(name.startswith("head.") for name in start.weights)
    said = refusal(read, official(), classes=9, frozen=True)
    assert said.startswith("--freeze-backbone: ") and "a head for 3 classes" in said


@pytest.mark.parametrize("name, tensor, says", [
    ("blocks_u.0.norm1_a.weight", None, "blocks_u.0.norm1_a.weight: no such tensor; expected [16]"),
    ("blocks_a.0.extra", torch.zeros(D), "blocks_a.0.extra: [16]; expected no such tensor"),
    ("pos_embed_v", torch.zeros(1, 5, D), "pos_embed_v: [1, 5, 16]; expected [1, 4, 16]"),
    ("epoch", 25, "epoch: int; expected no such tensor")])
def test_a_tensor_that_does_not_fit_is_named(read: Callable, name: str, tensor: Tensor | None,
                                             says: str) -> None:
    tensors = official() | {PREFIX + name: tensor}
    if tensor is None:
        del tensors[PREFIX + name]
    assert says in refusal(read, tensors)


def test_the_official_models_have_the_size_of_base() -> None:
    """164.500 million numbers without a decoder and a head, as the official training code counts"""
    with torch.device("meta"):
        config = override(PRESETS["base"], "model.fusion=none")
        tensors = cav_mae.to_official(Backbone(config, K), config, {})
    assert round(sum(tensor.numel() for name, tensor in tensors.items()
                     if "mlp_head" not in name) / 1e6, 3) == 164.500


@pytest.mark.parametrize("columns", [1, 4])
def test_positions_are_fitted_in_the_order_of_tokens(read: Callable, columns: int) -> None:
    """For a shorter sound (2 columns) the first ones; a longer one and images as images are."""
    positions = torch.randn(1, 8 * columns, D, generator=torch.Generator().manual_seed(0))
    start = read(official() | {"module.pos_embed_a": positions,
                               "module.pos_embed_v": torch.zeros(1, 9, D)})
    how = "cut" if columns > 2 else "resized, bicubic"
    assert f"of (8, {columns}) patches for (8, 2): {how}" in start.remarks[1]
    assert "of (3, 3) patches for (2, 2): resized, bicubic" in start.remarks[2]
    plane = torch.stack([positions[0, row * columns:(row + 1) * columns, 5] for row in range(8)])
    plane = (plane[:, :2] if columns > 2 else
             F.interpolate(plane[None, None], (8, 2), mode="bicubic")[0, 0])       # of channel 5
    found = start.weights["audio_encoder.positions"][0, :, 5]
    assert torch.allclose(found, plane.flatten(), atol=1e-6)


@pytest.mark.parametrize("content, settings, says", [
    ({"state_dict": {}}, [], "holds a state dict under 'state_dict'; expected the state dict"),
    ({"patch_embed.proj.weight": torch.zeros(1)}, [], "has no module.patch_embed_a.proj.weight"),
    (None, ["audio.mels=64"], "setting audio.mels=64; expected 128"),
    (None, ["model.fusion=cross", "train.backbone.epochs=0"], "untrained blocks stay zero")])
def test_what_is_no_official_model_is_refused(read: Callable, content: dict | None,
                                              settings: list[str], says: str) -> None:
    assert says in refusal(read, content or official(), *settings, frozen=True)


def test_a_short_sound_is_padded_as_officially(tmp_path: Path) -> None:
    """The log-mel with zeros, which become (0 - mean) / std; not the waveform with silence."""
    wave = 0.1 * np.random.default_rng(0).standard_normal(2400)
    soundfile.write(tmp_path / "a.wav", wave, 16000)
    config = change(CONFIG, {"audio.pad_log_mel": True})
    log_mel = read_log_mel(tmp_path / "a.wav", config.audio)
    assert log_mel.shape == (config.audio.frames, 128) and not log_mel[13:].any()
    short = read_log_mel(tmp_path / "a.wav", AudioConfig(seconds=0.15, mels=128))
    assert torch.equal(log_mel[:13], short[:13])


def test_a_backbone_that_never_was_cav_mae_gets_whole_there(read: Callable) -> None:
    backbone = random_backbone(CONFIG, torch.Generator().manual_seed(3))
    exported = cav_mae.to_official(backbone, CONFIG, {})
    assert torch.equal(exported["module.blocks_u.1.norm2_v.bias"], backbone.joint[1].norm2.bias)
    weights = read(exported).weights
    assert all(torch.equal(weights[name], p) for name, p in backbone.named_parameters())
    for setting in ("model.fusion=cross", "audio.mels=64"):
        config = override(CONFIG, setting)
        assert setting in refusal(cav_mae.to_official, Backbone(config, K), config, {})


def test_a_frozen_backbone_is_exported_as_it_came(few_set: Path, tmp_path: Path) -> None:
    torch.save(official(), tmp_path / "in.pth")
    flags = [word for size in SIZES for word in ("--set", size)]
    train_only("--data", few_set, "--out", tmp_path / "run", "--init", tmp_path / "in.pth",
               "--freeze-backbone", "--method", "head", "--epochs", 1, *flags)
    cav_mae.main([str(tmp_path / "run"), str(tmp_path / "out.pth")])
    found = torch.load(tmp_path / "out.pth", weights_only=True)
    assert found.keys() == official().keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in official().items())
