"""Where the fusion block looks: shares that sum to 1, each token's at its own patch."""
import io
from types import SimpleNamespace

import pytest
import torch
from conftest import make_prompted, refusal, save_random_run
from PIL import Image
from torch import nn

from ptm_mini.config import Situation
from ptm_mini.report import attention
from ptm_mini.report.gallery import heat
from ptm_mini.report.results import Selection
from ptm_mini.settings import with_assignments
from ptm_mini.trace import Module, traced

CPU = torch.device("cpu")


def hand_made(attention_of):
    """What looks like a prompted model with one fusion block, whose attention is {reader: [B, heads, N, P + N_c]}."""
    block = {f"update_{reader}": nn.ModuleDict({"attention": Module()}) for reader in attention_of}
    fusion = nn.ModuleList([nn.ModuleDict(block)])

    def by_situation(audio, image, situations):
        for reader, kept in attention_of.items():
            fusion[0][f"update_{reader}"]["attention"].note("probabilities", kept)

    return SimpleNamespace(backbone=SimpleNamespace(fusion=fusion), by_situation=by_situation)


def test_shares_sum_to_one_and_are_those_of_the_fusion_block(small, inputs):
    _, model = make_prompted(small)
    found = attention.gazes(model, small, *inputs)
    with torch.no_grad(), traced(model) as trace:
        model.by_situation(*inputs)
    for reader, gaze in found.items():
        assert gaze.prompts.shape == (5, 2) and gaze.patches.shape == (5, 2, 2)
        assert torch.allclose(gaze.prompts.sum(dim=1) + gaze.patches.sum(dim=(1, 2)), torch.ones(5))
        kept = trace[f"backbone.fusion.0.update_{reader}.attention.probabilities"]
        assert torch.allclose(gaze.prompts, kept[:, :, :, :2].mean(dim=(1, 2)))


def test_a_tokens_weight_lies_on_its_patch(small):
    """Two prompts, then 2 x 3 audio tokens: the fourth key is token 1, the lowest band's second stretch of time."""
    config = with_assignments(small, ["audio.seconds=0.495"])                     # 48 frames
    keys = torch.tensor([0.1, 0.2, 0.0, 0.7, 0.0, 0.0, 0.0, 0.0]).expand(1, 2, 4, 8)
    model = hand_made({"image": keys})                                            # one direction: the other one is left out
    found = attention.gazes(model, config, None, None, None)
    assert list(found) == ["image"] and found["image"].prompts.tolist() == [[pytest.approx(0.1), pytest.approx(0.2)]]
    assert found["image"].patches[0].tolist() == [[0, 0, 0], [0, pytest.approx(0.7), 0]]
    sound = torch.full((48, 32), -2.0)
    sound[16:32, :16] = 3.0                                                       # loud where that patch is
    drawn, side = Image.new("RGB", (attention.SIDE, 200)), attention.SIDE
    attention.panel(drawn, 0, 0, heat(sound), attention.Gaze(*(part[0] for part in found["image"])), peak=0.7)
    loud = heat(sound).resize((side, side), Image.Resampling.NEAREST)
    for x in range(5, side, 10):
        for y in range(5, side, 10):
            red, _, blue = drawn.getpixel((x, y))
            assert (red > blue + 50) == (max(loud.getpixel((x, y))) > 200), (x, y)
    blue_bar = [drawn.getpixel((x, side + 10)) == (26, 115, 232) for x in range(side)]
    assert sum(blue_bar) == pytest.approx(0.3 * side, abs=1.5)


def test_image_tokens_are_row_major(small):
    keys = torch.tensor([0.25, 0.75, 0.0, 0.0]).expand(1, 2, 4, 4)                # no prompts
    gaze = attention.gazes(hand_made({"audio": keys}), small, None, None, None)["audio"]
    assert gaze.prompts.shape == (1, 0) and gaze.patches[0].tolist() == [[0.25, 0.75], [0, 0]]


def test_samples_are_drawn_with_one_scale(small):
    gaze = attention.Gaze(torch.tensor([0.5]), torch.tensor([[0.5, 0.0]]))
    cells = {situation: (torch.randn(32, 32), torch.zeros(3, 16, 16), {"audio": gaze}) for situation in Situation}
    drawn = Image.open(io.BytesIO(attention.picture([("dog", cells), ("cat", cells)])))
    left, right = (drawn.getpixel((attention.LEFT + x, attention.TOP + 20)) for x in (20, attention.SIDE - 20))
    assert left[0] - left[2] > 100 and right[0] == right[2]                       # the mean colour in grey, and orange on it


def test_what_has_nothing_to_look_at_is_refused(toy_set, small, tmp_path):
    save_random_run(tmp_path / "bare", toy_set, small, prompts=False)
    says = refusal(attention.attention, [tmp_path / "bare"], CPU, Selection())
    assert "--attention" in says and f"train.py --out {tmp_path / 'bare'} --method prompt" in says
    save_random_run(tmp_path / "none", toy_set, with_assignments(small, ["model.fusion=none"]))
    says = refusal(attention.attention, [tmp_path / "none"], CPU, Selection())
    assert "no fusion block" in says and "model.fusion" in says and not (tmp_path / "none" / "attention.png").exists()
