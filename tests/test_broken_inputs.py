"""Broken inputs through the commands: one line that names each, status 2, nothing left behind."""
import json
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import (COLUMNS, FLAGS, edit, evaluate_run, failure, read_manifest, train_only,
                     write_manifest)
from pytest import CaptureFixture, MonkeyPatch, TempPathFactory

LONG = "n" * 300
HEADER = ",".join(COLUMNS) + "\n"
SOUND, IMAGE = "train-bell-3.wav", "train-bell-3.png"             # of line 3 of the manifest


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:len(content) // 2])


def write_sound(path: Path, samples: np.ndarray) -> None:
    soundfile.write(path, samples, 16000, subtype="FLOAT")


def write_huge_png(path: Path) -> None:
    """An image of 60000 x 60000 pixels in a few bytes."""
    header = b"IHDR" + struct.pack(">2I5B", 60000, 60000, 8, 2, 0, 0, 0)
    check = struct.pack(">I", zlib.crc32(header))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + check)


def rename_split(folder: Path, old: str, new: str) -> None:
    rows = read_manifest(folder)
    write_manifest(folder, [row | ({"split": new} if row["split"] == old else {}) for row in rows])


def silence(folder: Path) -> None:
    for path in folder.glob("train-*.wav"):
        write_sound(path, np.zeros(8000))


# Sets, made from a whole one by what is done to their folder: (change, what the line says)
SETS: dict[str, tuple[Callable[[Path], object], str]] = {
    "classes-text": (lambda s: (s / "classes.json").write_text("a, b"), "expected a JSON list"),
    "classes-twice": (lambda s: (s / "classes.json").write_text('["a", "b", "a"]'),
                      "classes.json: expected a list of two or more different names"),
    "manifest-gone": (lambda s: (s / "manifest.csv").unlink(),
                      "manifest.csv: No such file or directory; expected a readable CSV file"),
    "manifest-column": (lambda s: (s / "manifest.csv").write_text(HEADER.replace("group", "x")),
                        "no column 'group'"),
    "manifest-short": (lambda s: (s / "manifest.csv").write_text(f"{HEADER}a,0.wav\n"),
                       "manifest.csv:2: 2 cells; expected 6"),
    "row-label": (lambda s: edit(s, 3, label="bel"),
                  "manifest.csv:3: label 'bel' is not in classes.json; did you mean bell?"),
    "row-split": (lambda s: edit(s, 3, split="training"),
                  "manifest.csv:3: split 'training'; expected one of train, val, test"),
    "row-path": (lambda s: edit(s, 3, audio="gone.wav"), "gone.wav: no such file; mend the path"),
    "row-outside": (lambda s: edit(s, 3, audio="../../file"), "path '../../file' leads out of"),
    "no-test-split": (lambda s: rename_split(s, "test", "train"), "no row of split 'test'"),
    "root-gone": (lambda s: (s / "root.txt").write_text("/nowhere"),
                  "root.txt: /nowhere: no such folder"),
    "audio-text": (lambda s: (s / SOUND).write_text("no sound"), "expected a WAV, FLAC or OGG"),
    "audio-cut": (lambda s: cut(s / SOUND), f"{SOUND}: the sound breaks off after"),
    "audio-nan": (lambda s: write_sound(s / SOUND, np.full(8000, np.nan)), f"{SOUND}: holds NaN"),
    "audio-short": (lambda s: write_sound(s / SOUND, np.zeros(9)), f"{SOUND}: 9 samples at 16000"),
    "audio-silent": (silence, "split 'train': all its audio is silent"),
    "image-text": (lambda s: (s / IMAGE).write_text("no image"), f"{IMAGE}: Pillow can't read it"),
    "image-cut": (lambda s: cut(s / IMAGE), f"{IMAGE}: Pillow can't read it"),
    "image-huge": (lambda s: write_huge_png(s / IMAGE), f"{IMAGE}: Pillow can't read it")}


def alter(path: Path, **changes: object) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


# Runs, likewise
RUNS: dict[str, tuple[Callable[[Path], object], str]] = {
    "config-gone": (lambda r: (r / "config.json").unlink(), "config.json: no such file"),
    "config-text": (lambda r: (r / "config.json").write_text("{"), "is not as train.py wrote it"),
    "config-classes": (lambda r: alter(r / "config.json", classes=["a", "b"]),
                       "its classes differ from those of"),
    "config-data": (lambda r: alter(r / "config.json", data="nowhere"),
                    "nowhere: no such folder; expected a prepared set"),
    "weights-gone": (lambda r: (r / "backbone.pt").unlink(), "backbone.pt: no such file"),
    "weights-code": (lambda r: (r / "backbone.pt").write_bytes(pickle.dumps(print)),
                     "backbone.pt: is no file of tensors"),
    "weights-cut": (lambda r: cut(r / "prompt-together.pt"), "prompt-together.pt: is no file of"),
    "weights-other": (lambda r: shutil.copy(r / "router.pt", r / "lora-complete.pt"),
                      "lora-complete.pt: is not the file of stage 'lora complete'")}

NEW = "--data set --out new"
CASES = [
    *((train_only, f"--data sets/{name} --out new", says) for name, (_, says) in SETS.items()),
    *((evaluate_run, f"runs/{name}", says) for name, (_, says) in RUNS.items()),
    (train_only, f"{NEW} --fraction 2", "setting train.fraction=2.0: expected more than 0, at mos"),
    (train_only, f"{NEW} --seed -1", "setting train.seed=-1: expected 0 or more"),
    (train_only, f"{NEW} --seeds 0", "--seeds"),
    (train_only, f"{NEW} --set prompts.length=many", "setting prompts.length=many: expected int"),
    (train_only, "--data nowhere --out new", "nowhere: no such folder; expected a prepared set"),
    (train_only, "--data set --out file", "file: can't be written"),
    (train_only, "--data set --out file/below", "file/below: can't be written"),
    (train_only, "--data set --out set", "--out set: exists already and holds no run"),
    (train_only, f"{NEW} --features file/below", "with --features"),
    (train_only, "--resume nowhere", "--resume nowhere: holds no run"),
    (train_only, "--resume set", "--resume set: holds no run"),
    (train_only, f"{NEW} --init nowhere", "nowhere: no such file"),
    (train_only, f"{NEW} --init file", "file: is no file of tensors, or a broken one"),
    (train_only, f"{NEW} --freeze-backbone", "--freeze-backbone: there is no backbone yet"),
    (train_only, "--out run --preset base", "--preset: belongs to the backbone, which run has"),
    (evaluate_run, "nowhere", "nowhere/config.json: no such file; expected the folder of one run"),
    (evaluate_run, "file", "file/config.json: no such file"),
    (evaluate_run, "runs", "runs/config.json: no such file"),
    (evaluate_run, "run --data nowhere", "nowhere: no such folder"),
    (evaluate_run, "run --windows 0", "windows=0: expected 1 or more"),
    (evaluate_run, "run --draws 0", "--draws 0: expected 1 or more"),
    (evaluate_run, "run --audio nowhere.wav", "nowhere.wav: no such file"),
    (evaluate_run, "run --audio file", "file: "),
    (evaluate_run, f"run --image {LONG}", "nnn: "),
    (evaluate_run, "run --image set", "set: Pillow can't read it"),
    (evaluate_run, f"run --audio set/{SOUND} --picture file", "file: exists already"),
    (evaluate_run, f"run --audio set/{SOUND} --picture file/a.png", "file/a.png: can't be written"),
    (evaluate_run, "run --pairs nowhere --out a.csv", "nowhere: No such file or directory"),
    (evaluate_run, "run --pairs list.csv --out a.csv", "list.csv: no column 'image'"),
    (evaluate_run, "run --pairs quote.csv --out a.csv", "quote.csv: unexpected end of data"),
    (evaluate_run, "run --pairs latin.csv --out a.csv", "latin.csv: 'utf-8' codec can't decode"),
    (evaluate_run, "run --pairs set/manifest.csv --out file", "file: exists already"),
    (evaluate_run, "run --pairs pairs.csv --out file/below", "file/below: can't be written")]


@pytest.fixture(scope="module")
def place(few_set: Path, seeds_folder: Path, tmp_path_factory: TempPathFactory) -> Path:
    """A folder of broken things and whole ones."""
    place = tmp_path_factory.mktemp("broken")
    for kind, whole, broken in (("set", few_set, SETS),
                                ("run", seeds_folder / "seed-0", RUNS)):
        shutil.copytree(whole, place / kind)
        shutil.rmtree(place / kind / "features", ignore_errors=True)
        for name, (change, _) in broken.items():
            shutil.copytree(place / kind, place / f"{kind}s" / name)
            change(place / f"{kind}s" / name)
    (place / "file").write_text("neither sound nor image")
    (place / "pairs.csv").write_text(f"audio,image\nset/{SOUND},\n")
    (place / "list.csv").write_text("audio,picture\nset/0.wav,set/0.png\n")
    (place / "quote.csv").write_text('audio,image\n"0.wav,\n')
    (place / "latin.csv").write_bytes(b"audio,image\n\xe4.wav,\n")
    return place


def snapshot(place: Path) -> dict[Path, int | None]:
    """What is there and when it was written, except the lock and the features of whole files."""
    paths = [path for path in place.rglob("*") if "features" not in path.parts]
    return {path: path.stat().st_mtime_ns if path.is_file() else None for path in paths
            if path not in (place / "new", place / "new" / "lock")}


@pytest.mark.parametrize("command, arguments, message", CASES,
                         ids=[f"{case[0].__name__.split('_')[0]} {case[1][:50]}" for case in CASES])
def test_a_broken_input_is_one_line_that_names_it(
        place: Path, monkeypatch: MonkeyPatch, capsys: CaptureFixture, command: Callable[..., None],
        arguments: str, message: str) -> None:
    monkeypatch.chdir(place)
    before = snapshot(place)
    flags = FLAGS if "--out new" in arguments and command is train_only else []
    line, status = failure(capsys, command, *arguments.split(), *flags)
    assert message in line and status == 2
    assert snapshot(place) == before and not list(place.rglob("*.tmp"))


def test_a_refused_command_can_be_given_again(few_set: Path, tmp_path: Path,
                                              capsys: CaptureFixture) -> None:
    """Once the input is mended, under the same name."""
    broken, out = shutil.copytree(few_set, tmp_path / "set"), tmp_path / "run"
    content = (broken / SOUND).read_bytes()
    (broken / SOUND).write_text("no sound")
    command = ["--data", broken, "--out", out, "--epochs", 0, "--method", "head", *FLAGS]
    failure(capsys, train_only, *command)
    (broken / SOUND).write_bytes(content)
    train_only(*command)
    assert (out / "head-noisy_both.pt").exists()
