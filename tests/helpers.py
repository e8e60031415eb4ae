"""What several tests share: small settings, a small set, random models, commands."""
import argparse
import csv
import io
import json
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image
from pytest import MonkeyPatch

import eval as eval_command
import train as train_command
from ptm_mini import training
from ptm_mini.config import PRESETS, Config, Situation, override
from ptm_mini.data.manifest import SPLITS
from ptm_mini.errors import InputError, run as run_command
from ptm_mini.evaluation import Models
from ptm_mini.method.backbone import Backbone, initialise
from ptm_mini.method.damage import Sample
from ptm_mini.method.router import Router
from ptm_mini.report import OpenRun, add_run_arguments, open_runs

# 32 frames x 32 mels, 16 x 16 pixels, width 16: a model that is made and trained in an instant
SMALL = ["audio.mels=32", "audio.seconds=0.335", "image.size=16", "model.width=16", "model.heads=2",
         "model.depth=2", "prompts.length=2", "prompts.input_depth=2", "router.passes=1",
         "train.backbone.batch_size=16"]
FLAGS = [word for assignment in SMALL for word in ("--set", assignment)]
CONFIG = override(PRESETS["tiny"], *SMALL)
CLASSES = ["bell", "drum", "flute"]
RATE = 16000


def write_small_set(folder: Path, missing: bool = False,
                    counts: tuple[int, int, int] = (8, 3, 5)) -> Path:
    """Write a set of three classes, a tone and a colour each; 0.5 s, 20 x 20 pixels.

    missing  of each four samples, leave the second without its audio, the third without its image
    counts   samples of each class in a split
    """
    folder.mkdir(parents=True)
    rows = []
    for number, (label, split, n) in enumerate(
            (label, split, n) for label in CLASSES for split, count in zip(SPLITS, counts)
            for n in range(count)):
        name, pitch = f"{split}-{label}-{n}", 300 * (1 + CLASSES.index(label))
        generator = np.random.default_rng(number)
        wave = np.sin(2 * np.pi * pitch * np.arange(RATE // 2) / RATE)
        wave = 0.1 * wave * np.linspace(1, 3, len(wave)) + 0.05 * generator.normal(size=len(wave))
        soundfile.write(folder / f"{name}.wav", wave.clip(-1, 1), RATE)
        pixels = generator.integers(0, 120, (20, 20, 3), dtype=np.uint8)
        pixels[..., CLASSES.index(label)] += 120
        Image.fromarray(pixels).save(folder / f"{name}.png")
        rows.append({"id": name, "audio": "" if missing and n % 4 == 1 else f"{name}.wav",
                     "image": "" if missing and n % 4 == 2 else f"{name}.png", "label": label,
                     "split": split, "group": ""})
    write_manifest(folder, rows)
    (folder / "classes.json").write_text(json.dumps(CLASSES))
    return folder


def read_manifest(folder: Path) -> list[dict[str, str]]:
    with open(folder / "manifest.csv", newline="") as file:
        return list(csv.DictReader(file))


def write_manifest(folder: Path, rows: Sequence[dict[str, str]]) -> None:
    with open(folder / "manifest.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def edit(folder: Path, line: int, **cells: str) -> None:
    """Change cells of the manifest; line 2 is the first sample."""
    rows = read_manifest(folder)
    rows[line - 2] |= cells
    write_manifest(folder, rows)


def train(*arguments: object) -> None:
    train_command.main([*map(str, arguments), "--device", "cpu"])


def train_only(*arguments: object) -> None:
    """Train without an evaluation afterwards."""
    with mock.patch.object(train_command, "report"):
        train(*arguments)


def evaluate_run(*arguments: object) -> None:
    eval_command.main([*map(str, arguments), "--device", "cpu"])


def failure(command: Callable[..., None], *arguments: object, status: int = 2) -> str:
    """The one line that a command ends with, and this exit status."""
    with redirect_stderr(io.StringIO()) as printed, pytest.raises(SystemExit) as caught:
        run_command(lambda: command(*arguments))
    line = printed.getvalue()
    assert caught.value.code == status and line.startswith("error: ") and line.count("\n") == 1
    return line.removeprefix("error: ").rstrip("\n")


def refusal(call: Callable, *arguments: object, **keywords: object) -> str:
    """What an InputError says, which is one line."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **keywords)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def open_run(folder: Path) -> OpenRun:
    """Open a run without its methods."""
    parser = argparse.ArgumentParser()
    add_run_arguments(parser)
    opened, = open_runs(parser.parse_args([str(folder), "--device", "cpu"]), methods=[])
    return opened


def files_of(folder: Path, pattern: str = "*") -> dict[str, bytes]:
    """{path in the folder: content}"""
    return {str(path.relative_to(folder)): path.read_bytes()
            for path in sorted(folder.rglob(pattern)) if path.is_file()}


def read_results(folder: Path, suffix: str = "") -> dict:
    return json.loads((folder / f"results{suffix}.json").read_text())


def break_off(monkeypatch: MonkeyPatch, epochs: int, saved: bool = True,
              error: type[BaseException] = KeyboardInterrupt) -> None:
    """Interrupt training at the end of so many epochs, after or before that epoch's state."""
    save_tensors, left = training.save_tensors, [epochs]

    def save_and_break_off(*arguments: object) -> None:
        left[0] -= 1
        if saved or left[0]:
            save_tensors(*arguments)
        if not left[0]:
            monkeypatch.setattr(training, "save_tensors", save_tensors)
            raise error

    monkeypatch.setattr(training, "save_tensors", save_and_break_off)


def random_backbone(config: Config, generator: torch.Generator) -> Backbone:
    """Make a backbone all of whose weights are away from their start."""
    backbone = Backbone(config, len(CLASSES))
    initialise(backbone, generator)
    return shake(backbone, generator)


@torch.no_grad()
def shake(model: torch.nn.Module, generator: torch.Generator, by: float = 0.2) -> torch.nn.Module:
    """Move everything that has gradients away from where it starts."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter += by * torch.randn(parameter.shape, generator=generator)
    return model


def random_models(config: Config, methods: Sequence[str] = tuple(training.METHODS)) -> Models:
    """Make all models of a run, with weights away from their start."""
    generator = torch.Generator().manual_seed(0)
    backbone = random_backbone(config, generator)
    router = shake(Router(config.model.width), generator)
    models = {name: training.assemble([
        shake(training.METHODS[name](backbone, config, generator), generator)
        for _ in training.cases_of(name)]) for name in methods}
    for model in models.values():
        model.eval().requires_grad_(False)
    return Models(backbone, models, router)


def random_batch(config: Config, size: int = 9) -> Sample:
    """Make a batch that mixes all situations; the last two lack their audio and their image."""
    generator = torch.Generator().manual_seed(1)
    audio = torch.randn(size, config.audio.frames, config.audio.mels, generator=generator)
    image = torch.randn(size, 3, config.image.size, config.image.size, generator=generator)
    situations = torch.arange(size) % len(Situation)
    audio[-2], image[-1] = 0, 0
    situations[-2:] = torch.tensor([Situation.NOISY_AUDIO, Situation.NOISY_IMAGE])
    return Sample(audio, image, situations, torch.arange(size) % len(CLASSES),
                  [f"s{i}" for i in range(size)])
