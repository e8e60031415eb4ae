"""Severities by hand, and the command."""
import json
import shutil
from pathlib import Path

import pytest

from ptm_mini.config import DAMAGES, Strengths
from ptm_mini.lab import stress
from ptm_mini.method.damage import KINDS


def test_severities_by_hand() -> None:
    strengths = DAMAGES["strong"].alone
    nothing, same, twice = (stress.scale_strengths(strengths, severity) for severity in (0, 1, 2))
    assert nothing == Strengths(0, 0, 0, 0, 0, 1.0)
    assert vars(same) == pytest.approx(vars(strengths))
    assert twice.audio_gaussian == 4.4 and twice.image_gaussian == 10.0
    assert twice.audio_shift == 1.0 and twice.audio_mask == 0.5 and twice.image_blur == 0.46
    assert 1 / twice.image_pixelate == pytest.approx(1 + 2 * (1 / 0.05 - 1))     # 39, not 20
    assert stress.scale_strengths(twice, 2.0).audio_shift == 1.0                 # the whole


def test_another_set_has_files_of_its_own(seeds_folder: Path, small_set: Path, tmp_path: Path,
                                          monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stress, "SEVERITIES", (0.0,))
    run = shutil.copytree(seeds_folder / "seed-0", tmp_path / "run")
    other = shutil.copytree(small_set, tmp_path / "other.v2")
    rows = (other / "manifest.csv").read_text().splitlines(keepends=True)
    (other / "manifest.csv").write_text("".join(rows[:-1]))
    stress.main([str(run), "--data", str(other), "--device", "cpu"])
    assert sorted(path.name for path in run.glob("stress*")) == [
        "stress-other.v2.json", "stress-other.v2.png"]


def test_severity_0_is_no_damage_and_1_the_runs_own(
        seeds_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture,
        monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stress, "SEVERITIES", (0.0, 1.0))
    folder = shutil.copytree(seeds_folder, tmp_path / "seeds")
    stress.main([str(folder), "--device", "cpu"])
    printed = capsys.readouterr().out
    tables = json.loads((folder / "stress.json").read_text())
    assert all(f"| {title} " in printed for title in tables) and "±" in printed
    assert (folder / "stress.png").exists()
    for seed in range(2):
        scores = json.loads((folder / f"seed-{seed}" / "results.json").read_text())["accuracy"]
        for situation in stress.NOISY:
            backbone = tables[f"{situation.label}, severity"][seed]["backbone"]
            assert backbone["0"] == scores["backbone"]["complete"]
        for row, severities in tables["noisy_both, severity"][seed].items():     # none is missing
            assert severities["1"] == pytest.approx(scores[row]["noisy_both"])
        kinds = {kind for modality in ("audio", "image")
                 for kind in tables[f"{modality}, one kind alone"][seed]["lora oracle"]}
        assert kinds == set(KINDS)
