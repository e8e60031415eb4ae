"""Samples that lack a modality, end to end: every method trains and is evaluated on them, and tables say what they can."""
import csv
import json

import pytest
from conftest import SMALL, edit

import eval as eval_script
import train as train_script
from ptm_mini.errors import InputError
from ptm_mini.training.methods import METHODS

SETTINGS = [part for assignment in SMALL for part in ("--set", assignment)]


def train(*arguments):
    return train_script.main([*SETTINGS, *map(str, arguments), "--epochs", "1", "--device", "cpu"])


def without(folder, split, column):
    """Empty the cells of a column in all rows of a split."""
    with open(folder / "manifest.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for line, row in enumerate(rows, start=2):
        if row["split"] == split:
            other = {"audio": "image", "image": "audio"}[column]
            edit(folder, line, **{column: "", other: row[other] or f"{line - 2}.{ {'audio': 'wav', 'image': 'png'}[other] }"})


def table(printed, title):
    """{row: {column: cell}} of the table under a title"""
    lines = printed[printed.index(title):].split("\n\n")[1].splitlines()
    head, *rows = ([cell.strip() for cell in line.split("|")[1:-1]] for line in (lines[0], *lines[2:]))
    return {row[0]: dict(zip(head[1:], row[1:])) for row in rows}


def test_every_method_trains_on_gaps_and_says_how_it_does_by_what_is_there(tiny_set, tmp_path, capsys):
    """One training sample lacks its audio; of the two test samples one lacks its image."""
    run = tmp_path / "run"
    train("--data", tiny_set, "--out", run, "--method", "all")
    printed = capsys.readouterr().out
    present, main = table(printed, "Accuracy by what there is"), table(printed, "Accuracy:")
    assert present.keys() == main.keys() | {"samples"} and len(main) > len(METHODS)
    assert present["samples"] == {"both": "1", "audio only": "1"} and list(main["backbone"])[0] == "complete"
    results = json.loads((run / "results.json").read_text())
    assert results["present"].pop("samples") == {"both": 1, "audio only": 1}
    for row, columns in results["present"].items():
        assert columns["both"] == results["scores"]["complete"][row]["accuracy"]
        assert f"{columns['audio only']:.3f}" == present[row]["audio only"]


def test_several_seeds_say_it_too(tiny_set, tmp_path, capsys):
    train("--data", tiny_set, "--out", tmp_path / "runs", "--method", "head", "--seeds", 2)
    present = table(capsys.readouterr().out, "Accuracy by what there is")
    assert "±" in present["head situation"]["both"] and present["samples"] == {"both": "1", "audio only": "1"}
    results = [json.loads((tmp_path / "runs" / f"seed-{n}" / "results.json").read_text()) for n in (0, 1)]
    for row, columns in json.loads((tmp_path / "runs" / "results.json").read_text())["present"].items():
        assert columns["audio only"] == [one["present"][row]["audio only"] for one in results]


def test_a_test_split_without_images_is_measured_in_what_it_can_be_in(tiny_set, tmp_path, capsys, caplog):
    without(tiny_set, "test", "image")
    run = tmp_path / "run"
    train("--data", tiny_set, "--out", run)
    printed, results = capsys.readouterr().out, json.loads((run / "results.json").read_text())
    for title in ("Accuracy:", "Each prompt set"):
        assert [column for row in table(printed, title).values() for column in row if column != "average"] == [
            "noisy_image", "noisy_both"] * len(table(printed, title))
    assert list(table(printed, "Share of each situation")) == list(results["scores"]) == ["noisy_image", "noisy_both"]
    assert table(printed, "Accuracy by what there is")["samples"] == {"audio only": "2"}
    own = results["scores"]["noisy_image"]["prompt situation"]["accuracy"]
    assert results["present"]["prompt situation"] == {"audio only": own}             # missing is all that is wrong with them
    own = [scores["backbone"]["accuracy"] for scores in results["scores"].values()]
    assert results["average"]["backbone"] == pytest.approx(sum(own) / 2)
    assert "complete, noisy_audio left out of every table" in caplog.text and not (run / "gallery.png").exists()
    eval_script.main([str(run), "--ablate", "depth", "--device", "cpu"])
    assert "noisy_audio" not in capsys.readouterr().out and (run / "ablate-depth.png").exists()


@pytest.mark.parametrize("split, column, says", [
    ("val", "image", "split 'val': every sample lacks a modality that complete needs"),
    ("train", "image", "split 'train': every sample lacks a modality that complete needs"),
    ("train", "audio", "split 'train': no sample has audio")])
def test_a_split_that_training_can_not_do_with_is_named_before_any_training(tiny_set, tmp_path, split, column, says, caplog):
    without(tiny_set, split, column)
    with pytest.raises(InputError, match=says):
        train("--data", tiny_set, "--out", tmp_path / "run")
    assert "numbers learn" not in caplog.text and not (tmp_path / "run").exists()


def test_stress_names_what_a_test_split_has_not(tiny_set, tmp_path):
    without(tiny_set, "test", "audio")
    train("--data", tiny_set, "--out", tmp_path / "run", "--method", "head")
    with pytest.raises(InputError, match="split 'test': every sample lacks a modality that noisy_image needs"):
        eval_script.main([str(tmp_path / "run"), "--stress", "--device", "cpu"])
