"""CAV-MAE's checkpoints: the same outputs as a plain reading of its formulas, nothing unaccounted for, and back again."""
import math

import pytest
import torch
from conftest import move, refusal
from plain_cav_mae import OUTPUTS, outputs
from torch.nn import functional as F

from ptm_mini.config import PRESETS
from ptm_mini.method.backbone import Backbone, initialise
from ptm_mini.runs import cav_mae
from ptm_mini.runs.checkpoint import Checkpoint, read
from ptm_mini.settings import with_settings

K, D, T, SIDE, PATCH, DEPTH, JOINT, HEADS = 7, 16, 32, 32, 16, 2, 2, 2
SIZES = {"audio.mels": 128, "audio.seconds": (10 * T + 15) / 1000, "image.size": SIDE, "model.width": D, "model.heads": HEADS,
         "model.depth": DEPTH, "model.joint_depth": JOINT, "model.image_patch": PATCH, "model.fusion": "none",
         "prompts.length": 2, "prompts.input_depth": 2}
CONFIG = with_settings(PRESETS["tiny"], SIZES)
DECODER_WIDTH = 8


def stack(name, depth, width):
    """{official name: shape} of a stack of blocks"""
    shapes = {}
    for i in range(depth):
        for part, out, fan_in in (("attn.qkv", 3, 1), ("attn.proj", 1, 1), ("mlp.fc1", 4, 1), ("mlp.fc2", 1, 4)):
            shapes |= {f"{name}.{i}.{part}.weight": (out * width, fan_in * width), f"{name}.{i}.{part}.bias": (out * width,)}
        for norm in ("norm1", "norm1_a", "norm1_v", "norm2", "norm2_a", "norm2_v"):
            shapes |= {f"{name}.{i}.{norm}.{part}": (width,) for part in ("weight", "bias")}
    return shapes


def official(pretraining=False, classes=K, columns=T // PATCH, side=SIDE // PATCH):
    """A state dict as the official code saves it, random in every tensor. columns, side: of its tables of positions"""
    shapes = {"modality_a": (1, 1, D), "modality_v": (1, 1, D),
              "pos_embed_a": (1, 8 * columns, D), "pos_embed_v": (1, side**2, D),
              "patch_embed_a.proj.weight": (D, 1, PATCH, PATCH), "patch_embed_a.proj.bias": (D,),
              "patch_embed_v.proj.weight": (D, 3, PATCH, PATCH), "patch_embed_v.proj.bias": (D,),
              **stack("blocks_a", DEPTH, D), **stack("blocks_v", DEPTH, D), **stack("blocks_u", JOINT, D)}
    shapes |= {f"{norm}.{part}": (D,) for norm in ("norm_a", "norm_v", "norm") for part in ("weight", "bias")}
    if pretraining:
        width = DECODER_WIDTH
        shapes |= {"mask_token": (1, 1, width), "decoder_embed.weight": (width, D), "decoder_embed.bias": (width,),
                   "decoder_norm.weight": (width,), "decoder_norm.bias": (width,), **stack("decoder_blocks", 2, width)}
        for letter, tokens, channels in (("a", 8 * columns, 1), ("v", side**2, 3)):
            shapes |= {f"decoder_modality_{letter}": (1, 1, width), f"decoder_pos_embed_{letter}": (1, tokens, width),
                       f"decoder_pred_{letter}.weight": (PATCH**2 * channels, width),
                       f"decoder_pred_{letter}.bias": (PATCH**2 * channels,)}
    else:
        shapes |= {"mlp_head.0.weight": (D,), "mlp_head.0.bias": (D,), "mlp_head.1.weight": (classes, D),
                   "mlp_head.1.bias": (classes,)}
    random = torch.Generator().manual_seed(0)
    return {f"module.{name}": (torch.randn(shape, generator=random) / math.sqrt(shape[-1] if len(shape) == 2 else 4)
                               + ("norm" in name and name.endswith("weight"))) for name, shape in shapes.items()}


def start(tensors, config=CONFIG, classes=K):
    found = Checkpoint("x.pth", "", {name.removeprefix("module."): tensor for name, tensor in tensors.items()})
    return cav_mae.as_ours(found, config, classes)


def loaded(found, config=CONFIG, classes=K):
    """A backbone, fresh but for what was found."""
    backbone = Backbone(config, classes)
    initialise(backbone, torch.Generator().manual_seed(1))
    backbone.load_state_dict({**backbone.state_dict(), **found.weights})
    return backbone


@pytest.mark.parametrize("fusion", ["none", "cross"])
def test_all_outputs_equal_the_plain_formulas(fusion):
    """Which equal the official ones: python tests/plain_cav_mae.py, on figures that are too large to keep here."""
    config = with_settings(CONFIG, {"model.fusion": fusion})
    random, tensors = torch.Generator().manual_seed(2), official()
    audio, image = torch.randn(3, T, 128, generator=random), torch.randn(3, 3, SIDE, SIDE, generator=random)
    found = start(tensors, config)
    backbone = loaded(found, config)
    with torch.no_grad():
        ours = {"multimodal": backbone(audio, image), **cav_mae.single_modality(backbone, found.norms, audio, image)}
        expected = outputs({name.removeprefix("module."): tensor for name, tensor in tensors.items()}, audio, image, HEADS)
    assert set(ours) == set(expected) == set(OUTPUTS)
    for name in OUTPUTS:
        assert torch.allclose(ours[name], expected[name], atol=1e-5), name
    spread = torch.stack([expected[name] for name in OUTPUTS if not name.startswith("feat")])
    assert (spread[:, None] - spread[None]).abs().amax(dim=(2, 3)).add(torch.eye(5)).min() > 0.01    # no two are alike


def test_a_file_of_pretraining_is_all_but_the_head(tmp_path):
    torch.save(official(pretraining=True), tmp_path / "with.pth")
    torch.save({name.removeprefix("module."): t for name, t in official(pretraining=True).items()}, tmp_path / "without.pth")
    found = [cav_mae.as_ours(read(tmp_path / name), CONFIG, K) for name in ("with.pth", "without.pth")]
    names = {name for name in Backbone(CONFIG, K).state_dict() if not name.startswith("head.")}
    for one in found:
        assert set(one.weights) == names and one.no_head == "it has no head"
        assert all(torch.equal(one.weights[name], found[0].weights[name]) for name in names)
        ignored, head = one.remarks
        assert "decoder_blocks" in ignored and "mask_token" in ignored and "(53 tensors)" in ignored and "a fresh one" in head
    assert len(official(pretraining=True)) == 53 + len(names) + len(found[0].norms)                   # all accounted for


def test_a_head_of_other_classes_is_dropped_and_said():
    found = start(official(), classes=3)
    assert found.no_head == "its head has 7 classes, the set 3" and found.remarks == [f"{found.no_head}: a fresh one is made"]
    assert not any(name.startswith("head.") for name in found.weights)
    assert start(official()).remarks == [] and start(official()).no_head == ""


@pytest.mark.parametrize("change, says", [
    (lambda t: t.pop("module.blocks_v.1.norm2.bias"), "module.blocks_v.1.norm2.bias is missing"),
    (lambda t: t.pop("module.blocks_u.0.norm1_a.weight"), "module.blocks_u.0.norm1_a.weight is missing"),
    (lambda t: t.pop("module.mlp_head.0.weight"), "module.mlp_head.0.weight is missing"),
    (lambda t: t.pop("module.patch_embed_v.proj.weight"), "module.patch_embed_v.proj.weight is missing"),
    (lambda t: t.update({"module.blocks_w.0.norm1.bias": torch.zeros(D)}), "'module.blocks_w.0.norm1.bias' is no tensor"),
    (lambda t: t.update({"module.mlp_head.1.bias": torch.zeros(K + 1)}), "module.mlp_head.1.weight has the shape [7, 16]"),
    (lambda t: t.update({"module.pos_embed_v": torch.zeros(1, 5, D)}), "module.pos_embed_v has the shape [1, 5, 16]"),
    (lambda t: t.update({"module.pos_embed_a": torch.zeros(1, 20, D)}), "module.pos_embed_a has the shape [1, 20, 16]"),
    (lambda t: t.update({"module.norm.weight": torch.zeros(1, D)}), "module.norm.weight has the shape [1, 16]; expected [16]"),
    (lambda t: t.update({"module.modality_a": torch.tensor(1.0)}), "module.modality_a has the shape []; expected [1, 1, 16]")])
def test_a_key_that_does_not_fit_is_named(change, says):
    tensors = official()
    change(tensors)
    message = refusal(start, tensors)
    assert message.startswith("x.pth: ") and says in message and "expected" in message


@pytest.mark.parametrize("changes, mend", [
    ({"model.width": 32}, "than model.width=32; expected --set model.width=16"),
    ({"model.depth": 3}, "--set model.depth=2"), ({"model.joint_depth": 1}, "--set model.joint_depth=2"),
    ({"model.image_patch": 8, "model.audio_patch": 8}, "--set model.audio_patch=16 --set model.image_patch=16")])
def test_settings_that_do_not_fit_are_named_with_those_that_would(changes, mend):
    assert mend in refusal(start, official(), with_settings(CONFIG, changes))


def test_the_size_of_the_official_models_is_base():
    with torch.device("meta"):
        backbone = Backbone(with_settings(PRESETS["base"], {"model.fusion": "none"}), K)
        tensors = {cav_mae.official_name(name): p for name, p in backbone.named_parameters()}
    assert "than model.width=128, model.image_patch=8, model.depth=4; expected --preset base" in refusal(
        start, tensors, PRESETS["tiny"])
    # as the official training code counts them: 164.500 million without a head, the decoder not among them
    count = sum(p.numel() for name, p in tensors.items() if not name.startswith("mlp_head"))
    count += 768 * len(cav_mae.norm_names(PRESETS["base"].model))
    assert round(count / 1e6, 3) == 164.500


def test_positions_are_resized_as_pictures_in_the_order_of_the_tokens():
    """Against torch's own, channel by channel, with rows and columns written out."""
    table = torch.randn(1, 8 * 6, 5, generator=torch.Generator().manual_seed(0))
    for target in ((8, 9), (4, 3), (8, 6)):
        found = cav_mae.resized(table, (8, 6), target)
        for channel in range(5):
            plane = torch.tensor([[table[0, row * 6 + column, channel] for column in range(6)] for row in range(8)])
            expected = F.interpolate(plane[None, None], target, mode="bicubic", align_corners=False)[0, 0]
            for row in range(target[0]):
                assert torch.allclose(found[0, row * target[1]:(row + 1) * target[1], channel], expected[row], atol=1e-6)
    assert torch.allclose(cav_mae.resized(table, (8, 6), (8, 6)), table, atol=1e-6)


def test_a_smooth_table_survives_a_larger_grid_and_back():
    row, column = torch.meshgrid(torch.arange(8.0), torch.arange(64.0), indexing="ij")
    table = torch.stack([(row / 5).sin(), (column / 9).cos()], dim=-1).view(1, -1, 2)
    there = cav_mae.resized(table, (8, 64), (8, 128))
    assert torch.allclose(cav_mae.resized(there, (8, 128), (8, 64)), table, atol=0.02)
    quarter = F.interpolate(table.view(8, 64, 2).permute(2, 0, 1)[None], (8, 128), mode="bilinear")[0].flatten(1).T
    assert torch.allclose(there[0], quarter, atol=0.02)              # nearly straight between two points


def test_positions_for_other_lengths_and_sizes_are_resized_and_said():
    tensors = official(columns=4, side=3)
    found = start(tensors)
    assert found.remarks == ["pos_embed_a: a table of 8 x 4 made 8 x 2, bicubic",
                             "pos_embed_v: a table of 3 x 3 made 2 x 2, bicubic"]
    expected = cav_mae.resized(tensors["module.pos_embed_a"], (8, 4), (8, 2))
    assert torch.equal(found.weights["audio_encoder.positions"], expected)
    half = with_settings(CONFIG, {"audio.mels": 64, "audio.seconds": 0.655})         # as many positions, laid out otherwise
    assert start(official(), half).remarks == ["pos_embed_a: a table of 8 x 2 made 4 x 4, bicubic"]


def test_there_and_back_gives_every_tensor():
    tensors = official()
    found = start(tensors)
    back = cav_mae.as_official(loaded(found), CONFIG, found.norms)
    assert back.keys() == tensors.keys() and all(torch.equal(back[name], tensors[name]) for name in tensors)


def test_a_backbone_that_never_was_cav_maes_is_whole_there():
    backbone = move(loaded(start(official(pretraining=True))), 0.1, torch.Generator().manual_seed(3))
    back = cav_mae.as_official(backbone, CONFIG, {})
    assert back.keys() == official().keys()
    assert torch.equal(back["module.blocks_u.1.norm2_v.bias"], backbone.joint[1].norm2.bias)
    again = start(back)
    assert again.remarks == []
    assert all(torch.equal(again.weights[name], tensor) for name, tensor in backbone.state_dict().items())


def test_what_cav_mae_has_no_place_for_is_not_exported(caplog):
    config = with_settings(CONFIG, {"model.fusion": "cross"})
    backbone = loaded(start(official(), config), config)
    with caplog.at_level("INFO"):
        assert cav_mae.as_official(backbone, config, {}).keys() == official().keys()
    assert "fusion blocks are left out" in caplog.text
    with torch.no_grad():
        backbone.fusion[0].update_image.mlp.fc2.bias[3] = 1e-3
    assert "setting model.fusion=cross: expected none" in refusal(cav_mae.as_official, backbone, config, {})
    tiny = PRESETS["tiny"]
    assert "setting audio.mels=64: expected 128" in refusal(cav_mae.as_official, Backbone(tiny, K), tiny, {})
