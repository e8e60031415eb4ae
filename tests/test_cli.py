"""The commands end to end on a small set, and what they say of bad input."""
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
import torch
from conftest import SMALL

import eval as eval_script
import train as train_script
from data_prep import toy
from ptm_mini.config import PRESETS, Situation
from ptm_mini.data.manifest import read_set, write_set
from ptm_mini.errors import run as run_command
from ptm_mini.report import variants
from ptm_mini.runs.folder import load_run
from ptm_mini.settings import keys

ROOT = Path(__file__).parent.parent
SETTINGS = [part for assignment in SMALL for part in ("--set", assignment)]


def train(*arguments):
    return train_script.main([*SETTINGS, *map(str, arguments), "--device", "cpu"])


def refused(call, capsys):
    """The one line that a command ends with, and its exit status."""
    with pytest.raises(SystemExit) as caught:
        run_command(call)
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0], caught.value.code


@pytest.fixture(scope="module")
def run_folder(toy_set, tmp_path_factory):
    """A run folder that train.py made of the toy set."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    train("--data", toy_set, "--out", folder)
    return folder


def test_train_leaves_a_whole_run_and_eval_repeats_it_bit_for_bit(run_folder, capsys):
    assert sorted(path.name for path in run_folder.iterdir()) == [
        "backbone.pt", "config.json", "gallery.png", "log.jsonl", *sorted(f"prompt-{s.label}.pt" for s in Situation),
        "results.json", "results.png", "router.pt"]
    before = (run_folder / "results.json").read_bytes()
    (run_folder / "results.json").unlink()
    eval_script.main([str(run_folder), "--device", "cpu"])
    assert (run_folder / "results.json").read_bytes() == before
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert [line.split("|")[1].strip() for line in lines[2:7]] == [
        "backbone", "prompt situation", "prompt concat", "prompt routed", "prompt lowest_entropy"]
    heads = [[cell.strip() for cell in line.split("|")[2:-1]] for line in (lines[0], lines[7])]
    assert heads == [[*(s.label for s in Situation), "average"],
                     ["worst", "macro-F1", "learns", "stored kB", "s/epoch", "step MB"]]
    results = json.loads(before)
    assert results["scores"]["noisy_both"]["prompt routed"]["samples"] == 40
    assert results["average"]["prompt concat"] == pytest.approx(
        sum(results["scores"][s.label]["prompt concat"]["accuracy"] for s in Situation) / 4)
    assert all(sum(row.values()) == pytest.approx(1) for row in results["router"].values())
    for s in Situation:                                   # the matrix's diagonal is each situation's own set
        assert results["sets"][s.label][s.label] == results["scores"][s.label]["prompt situation"]["accuracy"]


def test_the_same_command_twice_gives_the_same_bytes(run_folder, toy_set, tmp_path):
    train("--data", toy_set, "--out", tmp_path / "again")
    for path in run_folder.iterdir():
        if path.suffix == ".pt" or path.name == "results.json":
            assert path.read_bytes() == (tmp_path / "again" / path.name).read_bytes(), path.name


def test_another_seed_gives_another_backbone(run_folder, toy_set, tmp_path):
    train("--data", toy_set, "--out", tmp_path / "other", "--seed", 1, "--method", "backbone")
    assert (run_folder / "backbone.pt").read_bytes() != (tmp_path / "other" / "backbone.pt").read_bytes()


@pytest.mark.slow
def test_methods_one_by_one_equal_all_at_once(run_folder, toy_set, tmp_path):
    train("--data", toy_set, "--out", tmp_path / "run", "--method", "backbone")
    assert json.loads((tmp_path / "run" / "results.json").read_text())["average"].keys() == {"backbone"}
    backbone = (tmp_path / "run" / "backbone.pt").read_bytes()
    train("--out", tmp_path / "run", "--method", "head")
    train("--out", tmp_path / "run")
    assert (tmp_path / "run" / "backbone.pt").read_bytes() == backbone            # frozen, to the byte
    for name in ("prompt-noisy_both.pt", "router.pt"):
        ours, theirs = (torch.load(folder / name, weights_only=True)["weights"] for folder in (tmp_path / "run", run_folder))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)


@pytest.fixture(scope="module")
def seeds_folder(toy_set, tmp_path_factory):
    """Two seeds' runs with every method."""
    folder = tmp_path_factory.mktemp("runs") / "seeds"
    train("--data", toy_set, "--out", folder, "--method", "all", "--seeds", 2, "--epochs", 1)
    return folder


def test_several_seeds_with_every_method(seeds_folder, capsys):
    eval_script.main([str(seeds_folder), "--device", "cpu"])
    printed = capsys.readouterr().out
    assert "full_per_situation routed" in printed and "full_mixed" in printed and "larger than the spread" in printed
    written = json.loads((seeds_folder / "results.json").read_text())
    figures, differences = written["main"], written["differences"]
    seeds = [json.loads((seeds_folder / f"seed-{n}" / "results.json").read_text()) for n in (0, 1)]
    for row in ("backbone", "prompt routed", "lora situation", "adapter situation", "head situation", "full_mixed"):
        assert figures[row]["average"] == [seed["average"][row] for seed in seeds]
        assert differences[row]["difference"] == [seed["differences"][row]["difference"] for seed in seeds]
        assert differences[row]["standard_error"] <= max(seed["differences"][row]["standard_error"] for seed in seeds)
    mean, spread = statistics.fmean(figures["full_mixed"]["average"]), statistics.stdev(figures["full_mixed"]["average"])
    line = next(line for line in printed.splitlines() if line.startswith("| full_mixed"))
    assert f"{mean:.3f}±{spread:.3f}" in line


def test_trained_methods_are_left_alone(seeds_folder, toy_set, caplog):
    before = {path: path.read_bytes() for path in seeds_folder.glob("*/*.pt")}
    with caplog.at_level("INFO"):
        train("--data", toy_set, "--out", seeds_folder, "--method", "all", "--seeds", 2)
    assert "full_mixed is trained already" in caplog.text and "epoch" not in caplog.text
    assert {path: path.read_bytes() for path in seeds_folder.glob("*/*.pt")} == before


def test_one_run_and_several_are_not_mixed_up(seeds_folder, run_folder, toy_set, capsys):
    line, status = refused(lambda: train("--data", toy_set, "--out", seeds_folder), capsys)
    assert f"--out {seeds_folder}: holds the runs of several seeds" in line and status == 2
    line, status = refused(lambda: train("--data", toy_set, "--out", run_folder, "--seeds", 2), capsys)
    assert f"--out {run_folder}: is one run" in line and status == 2


def test_seeds_with_other_methods_are_named(seeds_folder, run_folder, tmp_path, capsys):
    for seed, run in ((0, seeds_folder / "seed-0"), (1, run_folder)):
        shutil.copytree(run, tmp_path / "runs" / f"seed-{seed}")
    line, status = refused(lambda: eval_script.main([str(tmp_path / "runs")]), capsys)
    assert "seed-1: differs from" in line and "adapter situation" in line and status == 2


def test_methods_and_strategies_can_be_chosen(seeds_folder, run_folder, capsys):
    before = {path: path.stat().st_mtime_ns for path in seeds_folder.glob("**/*")}
    eval_script.main([str(seeds_folder / "seed-0"), "--method", "prompt", "lora", "--strategy", "routed", "--device", "cpu"])
    rows = [line.split("|")[1].strip() for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert rows[2:5] == ["backbone", "prompt routed", "lora routed"]
    assert {path: path.stat().st_mtime_ns for path in seeds_folder.glob("**/*")} == before        # a part replaces no whole
    line, status = refused(lambda: eval_script.main([str(run_folder), "--method", "lora"]), capsys)
    assert f"--method lora: {run_folder} has not trained it" in line and f"train.py --out {run_folder} --method lora" in line


def test_a_strategy_that_was_not_trained_says_how(toy_set, tmp_path, capsys):
    train("--data", toy_set, "--out", tmp_path / "run", "--method", "head", "--epochs", 0)
    line, status = refused(lambda: eval_script.main([str(tmp_path / "run"), "--strategy", "routed"]), capsys)
    assert status == 2 and "--strategy routed" in line and f"train.py --out {tmp_path / 'run'} --method prompt" in line


@pytest.mark.parametrize("arguments, valid", [(["--ablate", "lenght"], "length"), (["--strategy", "best"], "lowest_entropy"),
                                              (["--method", "lroa"], "did you mean lora?"), (["--strees"], "did you mean --stress?")])
def test_unknown_names_are_answered_with_the_valid_ones(run_folder, capsys, arguments, valid):
    line, status = refused(lambda: eval_script.main([str(run_folder), *arguments]), capsys)
    assert line.startswith(f"error: {arguments[0]}") and valid in line and status == 2


def test_stress(seeds_folder, capsys):
    eval_script.main([str(seeds_folder), "--stress", "--strategy", "situation", "--device", "cpu"])
    assert "one kind alone" in capsys.readouterr().out and (seeds_folder / "stress.png").exists()
    figures = json.loads((seeds_folder / "stress.json").read_text())
    seed = json.loads((seeds_folder / "seed-0" / "results.json").read_text())
    for situation in ("noisy_audio", "noisy_image", "noisy_both"):                # severity 0 is complete data
        assert figures["severity"][0][situation]["full_mixed"]["0"] == seed["scores"]["complete"]["full_mixed"]["accuracy"]
    # noisy_both never draws "missing", so severity 1 is what the main table says
    assert figures["severity"][0]["noisy_both"]["lora situation"]["1"] == (
        seed["scores"]["noisy_both"]["lora situation"]["accuracy"])
    assert list(figures["kind"][0]["backbone"]) == ["audio_gaussian", "audio_shift", "audio_mask", "audio_missing",
                                                    "image_gaussian", "image_blur", "image_pixelate", "image_missing"]


def test_attention(seeds_folder, capsys):
    eval_script.main([str(seeds_folder), "--attention", "--device", "cpu"])
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    rows = {line.split("|")[1].strip(): [cell.split("±")[0] for cell in line.split("|")[2:-1]] for line in lines[2:]}
    assert list(rows) == ["audio queries", "image queries"]
    for *shares, even in rows.values():                                           # 2 prompts, 4 tokens
        assert len(shares) == 4 and all(0 < float(share) < 1 for share in shares) and float(even) == 0.333
    assert all((seeds_folder / f"seed-{n}" / "attention.png").exists() for n in (0, 1))
    line, status = refused(lambda: eval_script.main([str(seeds_folder), "--attention", "--method", "lora"]), capsys)
    assert "--method: does not go with --attention" in line and status == 2


def test_an_ablation_trains_what_is_missing_and_resumes(seeds_folder, capsys, caplog):
    run = seeds_folder / "seed-0"
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
    with caplog.at_level("INFO"):
        eval_script.main([str(run), "--ablate", "depth", "--device", "cpu"])
        first = capsys.readouterr().out
        assert caplog.text.count("training ") == 2 and "input_depth = 1" in first
        removed = run / "variants" / "prompt,prompts.input_depth=1"
        shutil.rmtree(removed)
        caplog.clear()
        eval_script.main([str(run), "--ablate", "depth", "--device", "cpu"])
        assert caplog.text.count("training ") == 1
        accuracies = [[cell.strip() for cell in text.splitlines()[2].split("|")[1:8]] for text in (first, capsys.readouterr().out)]
        assert accuracies[0] == accuracies[1]
    assert all((run / name).read_bytes() == content for name, content in before.items())
    assert not list((run / "variants").glob("*/backbone.pt"))                     # the run's own is used


@pytest.mark.parametrize("kind", ["fusion", pytest.param("budget", marks=pytest.mark.slow)])
def test_ablations_with_other_backbones_and_methods(seeds_folder, monkeypatch, kind):
    monkeypatch.setattr(variants, "RANKS", (2,))
    run = seeds_folder / "seed-0"
    eval_script.main([str(run), "--ablate", kind, "--device", "cpu"])
    rows = json.loads((run / f"ablate-{kind}.json").read_text())[0]
    if kind == "fusion":
        assert {"none", "none, backbone", "cross", "cross, backbone"} <= set(rows)
        assert rows["cross, backbone"]["average"] == (
            json.loads((run / "results.json").read_text())["average"]["backbone"])
    else:
        assert len(rows) == 7 and "backbone" in rows and {row["learns"] for row in rows.values()} >= {7 * 6 * 16 * 2}
    assert (run / f"ablate-{kind}.png").exists()


def test_settings_of_what_is_trained_cannot_change(run_folder, capsys):
    for arguments, says in ((["--set", "prompts.length=3"], "prompts.length=3"), (["--seed", 5], "train.seed=5"),
                            (["--damage", "paper"], "damage.both.audio_gaussian=0.22")):
        line, status = refused(lambda: train("--out", run_folder, "--method", "lora", *arguments), capsys)
        assert f"setting {says}: {run_folder} was trained with" in line and status == 2
    assert not (run_folder / "lora-complete.pt").exists()


def test_another_damage_is_written_beside_the_first(run_folder):
    before = (run_folder / "results.json").read_bytes()
    eval_script.main([str(run_folder), "--damage", "paper", "--device", "cpu"])
    scores = json.loads((run_folder / "results-paper.json").read_text())["scores"]
    assert (run_folder / "results.json").read_bytes() == before
    assert (run_folder / "results-paper.json").exists() and (run_folder / "gallery-paper.png").exists()
    assert scores["complete"] == json.loads(before)["scores"]["complete"]


def test_a_file_in_place_of_a_run_is_named(tmp_path, capsys):
    (tmp_path / "file").write_text("x")
    line, status = refused(lambda: eval_script.main([str(tmp_path / "file")]), capsys)
    assert "file/config.json: can't be read" in line and "expected a run folder" in line and status == 2


def test_windows_of_long_clips_are_evaluated_together(run_folder, capsys):
    before = (run_folder / "results.json").read_bytes()
    eval_script.main([str(run_folder), "--windows", "2", "--device", "cpu"])      # the toy's clips are longer than 0.335 s
    first, both = (json.loads(content)["scores"]["complete"]["backbone"]["loss"]
                   for content in (before, (run_folder / "results-windows-2.json").read_text()))
    assert (run_folder / "results.json").read_bytes() == before and first != both
    line, status = refused(lambda: eval_script.main([str(run_folder), "--windows", "0"]), capsys)
    assert "--windows: expected a whole number, 1 to 1000" in line and status == 2


def test_several_draws_of_the_damage_and_the_differences_between_rows(run_folder, capsys):
    eval_script.main([str(run_folder), "--draws", "2", "--device", "cpu"])
    printed = capsys.readouterr().out.split("Average minus that of 'prompt situation'; ")[1].splitlines()
    one, two = (json.loads((run_folder / name).read_text()) for name in ("results.json", "results-draws-2.json"))
    assert (run_folder / "results-draws-2.png").exists() and (run_folder / "gallery-draws-2.png").exists()
    assert [one.pop("draws"), two.pop("draws")] == [1, 2] and one.keys() == two.keys()
    assert two["scores"]["complete"] == one["scores"]["complete"] and two["scores"]["noisy_both"] != one["scores"]["noisy_both"]
    for results in (one, two):
        assert all(score["samples"] == 40 for rows in results["scores"].values() for score in rows.values())
        assert results["differences"].keys() == results["average"].keys() - {"prompt situation"}
        for row, found in results["differences"].items():
            assert found["difference"] == pytest.approx(results["average"][row] - results["average"]["prompt situation"])
            assert 0 <= found["standard_error"] < 0.1
    for row, found in two["differences"].items():
        line = next(line for line in printed if line.startswith(f"| {row} "))
        assert [cell.strip() for cell in line.split("|")[2:4]] == [f"{found['difference']:+.3f}", f"{found['standard_error']:.3f}"]


def test_training_learns(toy_set, tmp_path):
    """Twenty epochs of a small model beat chance (0.1) by far: nothing in the graph is cut off."""
    train("--data", toy_set, "--out", tmp_path / "run", "--method", "backbone", "--set", "train.backbone.epochs=20",
          "--set", "model.width=32", "--set", "train.backbone.batch_size=16", "--set", "train.backbone.learning_rate=3e-3")
    assert json.loads((tmp_path / "run" / "results.json").read_text())["scores"]["complete"]["backbone"]["accuracy"] > 0.4


@pytest.mark.parametrize("arguments, says", [
    (["--set", "model.widht=3"], "did you mean model.width?"), (["--data", "nowhere"], "classes.json: no such file"),
    (["--bf16"], "--bf16: needs a CUDA device"), (["--seeds", "0"], "--seeds: expected a whole number, 1 or more"),
    (["--out", "occupied"], "--out occupied: is there already and holds no run"),
    (["--out", "occupied/file"], "--out occupied/file: can't be written (File exists)"),
    (["--out", "occupied/file/below"], "--out occupied/file/below: can't be written (Not a directory)"),
    (["--out", "n" * 300], "can't be written (File name too long)"),
    (["--epochs", "-1"], "--epochs: expected a whole number, 0 or more"), (["--fraction", "2"], "train.fraction=2.0")])
def test_bad_arguments_end_with_one_line_and_status_2(toy_set, tmp_path, monkeypatch, capsys, arguments, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "occupied").mkdir()
    (tmp_path / "occupied" / "file").touch()
    if "--data" not in arguments:
        arguments = [*arguments, "--data", str(toy_set)]
    line, status = refused(lambda: train_script.main([*arguments, "--device", "cpu"]), capsys)
    assert says in line and status == 2 and os.listdir(tmp_path) == ["occupied"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is there")
def test_cuda_without_a_device_is_refused(capsys, tmp_path):
    line, status = refused(lambda: eval_script.main([str(tmp_path), "--device", "cuda"]), capsys)
    assert "--device cuda: no CUDA device" in line and status == 2


def test_prompts_for_another_shape_of_backbone_are_refused(toy_set, tmp_path, capsys):
    train("--data", toy_set, "--out", tmp_path / "run", "--method", "backbone")
    line, status = refused(lambda: train("--out", tmp_path / "run", "--set", "model.width=32"), capsys)
    assert "setting model.width=32:" in line and "was trained with 16" in line and status == 2
    train("--out", tmp_path / "run", "--damage", "paper", "--set", "prompts.length=3")       # no method has read these yet


def test_a_non_finite_loss_ends_with_status_1_and_leaves_nothing(toy_set, tmp_path, capsys):
    line, status = refused(lambda: train("--data", toy_set, "--out", tmp_path / "run",
                                         "--set", "train.backbone.learning_rate=10", "--set", "train.backbone.weight_decay=100",
                                         "--set", "train.backbone.batch_size=4"), capsys)
    assert "backbone: the loss became" in line and ", samples " in line and status == 1 and not (tmp_path / "run").exists()


def test_a_bad_file_in_a_set_is_named_and_leaves_nothing(tmp_path, capsys):
    toy.make(tmp_path / "set", recordings=10, split="grouped", seed=0)
    victim = next((tmp_path / "set" / "audio").iterdir())
    soundfile.write(victim, [float("nan")] * 4000, 16000, subtype="FLOAT")
    line, status = refused(lambda: train("--data", tmp_path / "set", "--out", tmp_path / "run"), capsys)
    assert f"{victim}: holds NaN" in line and status == 2
    assert sorted(os.listdir(tmp_path)) == ["set"]
    assert sorted(os.listdir(tmp_path / "set")) == ["audio", "classes.json", "image", "manifest.csv"]


def test_evaluating_on_other_classes_is_refused(run_folder, toy_set, tmp_path, capsys):
    other = tmp_path / "set"
    other.mkdir()
    rows, classes = read_set(toy_set)
    write_set(other, rows, classes[::-1], root=toy_set)
    line, status = refused(lambda: eval_script.main([str(run_folder), "--data", str(other)]), capsys)
    assert "its classes differ from the run's" in line and status == 2


def test_a_set_that_moved_is_named(toy_set, tmp_path, capsys):
    moved = tmp_path / "toy"
    shutil.copytree(toy_set, moved)
    train("--data", moved, "--out", tmp_path / "run", "--method", "backbone")
    moved.rename(tmp_path / "elsewhere")
    line, status = refused(lambda: eval_script.main([str(tmp_path / "run")]), capsys)
    assert f"{moved}: no such folder" in line and "--data" in line and status == 2
    eval_script.main([str(tmp_path / "run"), "--data", str(tmp_path / "elsewhere")])


def test_importing_does_nothing_and_help_explains_every_flag(capsys):
    silent = subprocess.run([sys.executable, "-c", "import train, eval"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert silent.stdout == silent.stderr == ""
    for script in (train_script, eval_script):
        with pytest.raises(SystemExit, match="0"):
            script.main(["--help"])
        shown = capsys.readouterr().out
        assert "--device" in shown and shown.startswith("usage:")


def test_run_folders_are_numbered_not_replaced(toy_set, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        train("--data", toy_set, "--method", "backbone", "--epochs", 0)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == ["toy-1", "toy-2"]
    assert load_run(tmp_path / "runs" / "toy-2").config.train.backbone.epochs == 1


def test_every_flag_is_read():
    for script, *others in (("train.py", "ptm_mini/runs/planned.py"), ("eval.py",)):
        code = "".join((ROOT / name).read_text() for name in (script, *others))
        for flag in re.findall(r'add_argument\("(?:--)?(\w+)"', code):
            assert f"options.{flag}" in code, (script, flag)


def test_epochs_are_set_for_the_stages_that_run():
    for lacking, expected in ((["backbone"], (3, 8, 6, 8)), (["prompt"], (20, 3, 3, 8)), (["backbone", "lora"], (3, 8, 6, 3))):
        train = train_script.settings(train_script.parse_arguments(["--epochs", "3"]), PRESETS["tiny"], None, lacking).train
        assert tuple(stage.epochs for stage in (train.backbone, train.prompts, train.together, train.lora)) == expected


def test_every_setting_is_printed_with_its_default_its_meaning_and_who_reads_it(capsys):
    train_script.main(["--settings", "--set", "prompts.length=3"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == keys(PRESETS["tiny"])
    assert f"{'prompts.length':<38} 3      prompt                     P, tokens per modality and place" in lines
    assert any(line.split()[:3] == ["train.fraction", "1.0", "all"] and "all but backbone" in line for line in lines)
