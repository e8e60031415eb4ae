"""What the fusion blocks attend to: shares that sum to 1, each at its own patch."""
from pathlib import Path

import pytest
import torch
from helpers import CLASSES, CONFIG, FLAGS, random_batch, random_models, refusal, train_only
from PIL import Image

from ptm_mini.checkpoint import Run
from ptm_mini.config import Config, Situation, override
from ptm_mini.data.dataset import PreparedSet
from ptm_mini.evaluation import EvalSplit
from ptm_mini.lab import attention
from ptm_mini.lab.hooks import record
from ptm_mini.plots import SIDE
from ptm_mini.report import OpenRun


def open_random(data: PreparedSet, config: Config = CONFIG) -> OpenRun:
    """A run of random weights."""
    run = Run(Path("run"), config, CLASSES, data.normalisation, data.folder, "")
    return OpenRun(run, random_models(config, ["prompt"]), EvalSplit((data,), "test"))


@pytest.mark.parametrize("fusion, blocks, readers", [
    ("cross", 1, ["audio", "image"]), ("image_to_audio", 2, ["audio"])])
def test_shares_are_means_and_lie_where_their_patches_are_drawn(
        data: PreparedSet, fusion: str, blocks: int, readers: list[str]) -> None:
    config = override(CONFIG, f"model.fusion={fusion}", f"model.fusion_depth={blocks}")
    run, batch, P = open_random(data, config), random_batch(config), config.prompts.length
    maps, model = attention.map_attention(run, batch), run.models.methods["prompt"]
    with record(model.backbone.fusion) as recorded:
        model.answer_each(batch.audio, batch.image, batch.situation)
    assert list(maps) == readers
    for reader, patches in maps.items():
        keys = sum(recorded[f"{b}.update_{reader}.attention.probabilities"].mean(dim=(1, 2))
                   for b in range(blocks)) / blocks
        assert patches.shape[1:] == (2, 2)
        torch.testing.assert_close(1 - patches.sum(dim=(1, 2)), keys[:, :P].sum(dim=1))
        rows = patches.flip(1) if reader == "image" else patches     # low notes are drawn last
        torch.testing.assert_close(rows.flatten(1), keys[:, P:])


def test_the_table_holds_means_over_the_test_samples(data: PreparedSet) -> None:
    run, situation = open_random(data), Situation.NOISY_IMAGE
    table = attention.compute_shares(run)
    items = [run.split.item(row, situation) for row in data.indices("test").tolist()]
    shares = [1 - float(attention.map_attention(run, batch)["image"].sum())
              for batch in data.loader(items, 1)]
    mean = sum(shares) / len(shares)
    assert table["image queries"]["noisy_image"] == pytest.approx(mean, abs=1e-5)


def test_the_picture_is_orange_where_the_attention_is() -> None:
    grey = Image.new("RGB", (8, 8), "#808080")
    drawn = attention.cover(grey, torch.tensor([[0.0, 1.0], [0.0, 0.25]]))
    colours = [drawn.getpixel((x, y)) for y in (9, SIDE - 9) for x in (9, SIDE - 9)]
    strength = [red - blue for red, _, blue in colours]
    assert strength[0] == strength[2] == 0 and strength[1] > 100
    assert strength[3] == pytest.approx(strength[1] / 4, abs=3)


def test_the_command_prints_the_table_and_draws_or_refuses_a_run_without_fusion(
        copied: Path, small_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    attention.main([str(copied), "--device", "cpu"])
    assert "| audio queries |" in capsys.readouterr().out
    with Image.open(copied / "attention.png") as picture:
        assert picture.width > 8 * SIDE and picture.height > attention.SAMPLES * SIDE
    train_only("--data", small_set, "--out", tmp_path / "none", "--epochs", 0, *FLAGS,
               "--set", "train.backbone.epochs=0", "--set", "model.fusion=none")
    says = refusal(attention.main, [str(tmp_path / "none"), "--device", "cpu"])
    assert "no fusion block" in says and "model.fusion" in says
