"""Files as they are in the wild, good and broken, through data_prep.folder and into training."""
import json
import sys
from collections import Counter

import pytest
import soundfile
import wild
from conftest import SMALL

import train
from data_prep import folder
from ptm_mini.data.manifest import read_set

pytestmark = pytest.mark.slow


def prepared(monkeypatch, source, out):
    monkeypatch.setattr(sys, "argv", ["folder", str(source), "--out", str(out)])
    folder.main()
    return read_set(out)[0], json.loads((out / "report.json").read_text(encoding="utf-8"))


def test_whatever_can_be_read_is_trained_on_and_the_rest_is_named(tmp_path, monkeypatch):
    source = wild.good(tmp_path / "good")
    files = {column: [path for path in (source / column).rglob("*") if path.is_file()] for column in ("audio", "image")}
    infos = {path.relative_to(source).as_posix(): soundfile.info(path) for path in files["audio"]}
    short = {name for name, info in infos.items() if info.duration < 0.025}
    rows, report = prepared(monkeypatch, source, tmp_path / "set")
    assert sum(map(len, files.values())) == 300 and 0 < len(short) < 30
    assert report["unreadable"].keys() == short and report["left_aside"] == []
    assert all("expected at least 25 ms" in reason for reason in report["unreadable"].values())
    assert len(rows) == report["pairs"] == 150 - len(short) == 150 - len(report["left_out"]["image_only"])
    assert Counter(map(str, (infos[row.audio].samplerate for row in rows))) == report["audio"]["sample_rates"]
    assert set(report["audio"]["sample_rates"]) == set(map(str, wild.RATES))
    assert set(report["audio"]["channels"]) == set("12345678")
    assert report["audio"]["seconds"]["longest"] == pytest.approx(600, abs=0.1)          # ADPCM has whole blocks
    assert len({(infos[row.audio].format, infos[row.audio].subtype) for row in rows}) == len(wild.SOUNDS)
    train.main(["--data", str(tmp_path / "set"), "--out", str(tmp_path / "run"), "--method", "backbone", "--epochs", "1",
                *(part for assignment in SMALL for part in ("--set", assignment))])
    assert (tmp_path / "run" / "results.json").exists()


def test_each_broken_file_is_named_in_one_line_and_none_gets_in(tmp_path, monkeypatch, capsys):
    names = wild.broken(tmp_path / "broken")
    rows, report = prepared(monkeypatch, tmp_path / "broken", tmp_path / "set")
    aside = [remark.split(": ")[0] for remark in report["left_aside"]]
    assert len(names) > 60 and sorted([*report["unreadable"], *aside]) == sorted(names)
    assert not names & {cell for row in rows for cell in (row.audio, row.image)}
    printed = capsys.readouterr().out.splitlines()
    assert len([line for line in printed if line.startswith(("unreadable: ", "left aside: "))]) == len(names)
