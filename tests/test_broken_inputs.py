"""Broken inputs through the commands: one line that names each, status 2, nothing left behind."""
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from helpers import FLAGS, edit, evaluate_run, failure, read_manifest, train_only, write_manifest
from pytest import MonkeyPatch, TempPathFactory

SOUND, IMAGE = "train-bell-1.wav", "train-bell-1.png"             # of line 3 of the manifest
NEW = "--data set --out new"


def refuse(folder: Path, command: Callable[..., None], arguments: str, message: str) -> None:
    """Assert that a command is refused, and that no file in the folder is new or written again."""
    def files() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in folder.rglob("*")
                if path.is_file() and "features" not in path.parts}

    before, flags = files(), FLAGS if command is train_only else []
    assert message in failure(command, *flags, *arguments.split())
    assert files() == before


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:len(content) // 2])


def drop_images(folder: Path, split: str) -> None:
    rows = read_manifest(folder)
    write_manifest(folder, [row | ({"image": ""} if row["split"] == split else {}) for row in rows])


@pytest.mark.parametrize("change, message", [
    (lambda s: edit(s, 3, label="bel"), "manifest.csv:3: label 'bel' is not in classes.json"),
    (lambda s: (s / SOUND).write_text("no sound"), "expected a WAV, FLAC or OGG"),
    (lambda s: cut(s / IMAGE), f"{IMAGE}: Pillow can't read it"),
    (lambda s: drop_images(s, "train"), "split 'train': every sample lacks"),
    (lambda s: drop_images(s, "val"), "split 'val': every sample lacks")])
def test_a_broken_set_is_refused_before_training(few_set: Path, tmp_path: Path, message: str,
                                                 change: Callable[[Path], object]) -> None:
    broken = shutil.copytree(few_set, tmp_path / "set")
    change(broken)
    refuse(tmp_path, train_only, f"--data {broken} --out {tmp_path / 'new'}", message)


def rename_class(path: Path) -> None:
    path.write_text(path.read_text().replace("bell", "gong"))


@pytest.mark.parametrize("change, message", [
    (lambda r: (r / "config.json").write_text("{"), "is not as train.py wrote it"),
    (lambda r: rename_class(r / "config.json"), "its classes differ from those of"),
    (lambda r: (r / "backbone.pt").unlink(), "backbone.pt: no such file"),
    (lambda r: cut(r / "prompt-together.pt"), "prompt-together.pt: is no file of tensors, or a b")])
def test_a_broken_run_is_not_evaluated(seeds_folder: Path, tmp_path: Path, message: str,
                                       change: Callable[[Path], object]) -> None:
    broken = shutil.copytree(seeds_folder / "seed-0", tmp_path / "run")
    change(broken)
    refuse(tmp_path, evaluate_run, str(broken), message)


@pytest.fixture(scope="module")
def place(few_set: Path, seeds_folder: Path, tmp_path_factory: TempPathFactory) -> Path:
    """A folder with a set, a run and files of several kinds."""
    place = tmp_path_factory.mktemp("place")
    shutil.copytree(few_set, place / "set", ignore=shutil.ignore_patterns("features"))
    shutil.copytree(seeds_folder / "seed-0", place / "run")
    (place / "file").write_text("neither sound nor image")
    (place / "pairs.csv").write_text(f"audio,image\nset/{SOUND},\n")
    return place


@pytest.mark.parametrize("command, arguments, message", [
    (train_only, f"{NEW} --fraction 2", "setting train.fraction=2.0: expected more than 0, at mos"),
    (train_only, "--data nowhere --out new", "nowhere: no such folder; expected a prepared set"),
    (train_only, "--data set --out set", "--out set: exists already and holds no run"),
    (train_only, "--out run --seeds 2", "--seeds 2: run is one run"),
    (train_only, "--resume nowhere", "--resume nowhere: holds no run"),
    (train_only, f"{NEW} --init file", "file: is no file of tensors, or a broken one"),
    (train_only, f"{NEW} --freeze-backbone", "--freeze-backbone: there is no backbone yet"),
    (evaluate_run, "nowhere", "nowhere/config.json: no such file; expected the folder of one run"),
    (evaluate_run, "run --method head", "train it with  python train.py --out run --method head"),
    (evaluate_run, "run --json", "--json and --picture: nothing to answer; expected --audio or"),
    (evaluate_run, "run --audio file --draws 2", "--audio and --image: expected no flags of an"),
    (evaluate_run, f"run --audio set/{SOUND} --picture file", "file: exists already"),
    (evaluate_run, "run --out a.csv", "--pairs and --out: expected both, and no other flags than"),
    (evaluate_run, "run --pairs pairs.csv --out a.csv --json", "--pairs and --out: expected both"),
    (evaluate_run, "run --pairs pairs.csv --out file", "file: exists already")])
def test_a_wrong_flag_is_named(place: Path, monkeypatch: MonkeyPatch,
                               command: Callable[..., None], arguments: str, message: str) -> None:
    monkeypatch.chdir(place)
    refuse(place, command, arguments, message)


def test_a_refused_command_can_be_given_again(few_set: Path, tmp_path: Path) -> None:
    """Once the input is mended, under the same name."""
    broken, out = shutil.copytree(few_set, tmp_path / "set"), tmp_path / "run"
    (broken / SOUND).write_text("no sound")
    command = ["--data", broken, "--out", out, "--epochs", 0, "--method", "full_mixed", *FLAGS]
    failure(train_only, *command)
    shutil.copy(few_set / SOUND, broken)
    train_only(*command)
    assert (out / "full_mixed.pt").exists()
