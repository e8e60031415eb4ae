"""A trained run by the port in NumPy, as the last section of docs/porting.md says: its tables from
the files of a set, and its answers to pairs of files."""
import csv
import json
from pathlib import Path

import numpy as np
import port_numpy as port
import pytest
import soundfile
from helpers import evaluate_run, read_manifest, read_results
from PIL import Image

from ptm_mini.lab import weights

Arrays = dict[str, np.ndarray]
SITUATIONS = ("complete", "noisy_audio", "noisy_image", "noisy_both")
BASELINES = ("head", "lora", "adapter", "scale_shift", "full_per_situation")


class RealRun:
    """The two files that lab.weights writes, read without torch."""

    def __init__(self, npz: Path):
        content = json.loads(npz.with_suffix(".json").read_text())
        self.config, self.classes = content["config"], content["classes"]
        self.normalisation = tuple(content["normalisation"][name] for name in ("mean", "std"))
        self.arrays = {name: array.astype(float) for name, array in np.load(npz).items()}
        self.backbone = self.part("backbone/")
        self.sets = [self.part(f"prompt-together/sets.{s}.") for s in range(4)]

    def part(self, prefix: str) -> Arrays:
        """{name without the prefix: array}"""
        return {name.removeprefix(prefix): array for name, array in self.arrays.items()
                if name.startswith(prefix)}

    def read(self, folder: Path, audio: str, image: str) -> tuple[np.ndarray, np.ndarray]:
        """Decode and normalise a pair of files; an empty name is a missing one."""
        config, log_mel, pixels = self.config, None, None
        rate, size = config["audio.sample_rate"], config["image.size"]
        T = 1 + (round(config["audio.seconds"] * rate) - rate * 25 // 1000) // (rate * 10 // 1000)
        if audio:
            stored = soundfile.read(folder / audio, dtype="int16", always_2d=True)
            log_mel = port.filterbank(port.sound(*stored, config)["waveform"], config)["log_mel"]
        if image:
            pixels = port.picture(np.asarray(Image.open(folder / image)), size=size)["pixels"]
        shapes = (T, config["audio.mels"]), (3, size, size)
        return port.inputs(log_mel, pixels, self.normalisation, shapes)

    def answer(self, audio: np.ndarray, image: np.ndarray, situations: np.ndarray) -> Arrays:
        """Answer a batch by every method, given the situations [B]: {row: scores [B, K]}"""
        def forward(*parts: Arrays) -> Arrays:
            return port.Model(self.backbone, *parts, config=self.config).forward(audio, image)

        plain, batch = forward(), np.arange(len(audio))
        pooled = port.pool(plain["audio_encoder.out"], plain["image_encoder.out"])
        router = pooled @ self.arrays["router/weight"].T + self.arrays["router/bias"]
        picks = port.pick(audio, image, router)
        model = audio, image, self.backbone, self.sets
        each = np.stack([forward(one)["logits"] for one in self.sets])
        rows = {"backbone": plain["logits"],
                "full_mixed": forward(self.part("full_mixed/"))["logits"],
                "prompt oracle": port.oracle(*model, situations, self.config)["scores"],
                "prompt concat": port.concat(*model, self.config)["scores"],
                "prompt routed": port.oracle(*model, picks, self.config)["scores"],
                "prompt lowest_entropy": port.surest(each)}
        for method in BASELINES:
            each = np.stack([forward(self.part(f"{method}-{label}/"))["logits"]
                             for label in SITUATIONS])
            rows[f"{method} oracle"] = each[situations, batch]
            rows[f"{method} routed"] = each[picks, batch]
        return rows


@pytest.fixture
def real_run(copied: Path, tmp_path: Path) -> RealRun:
    weights.main([str(copied), str(tmp_path / "out.npz")])
    return RealRun(tmp_path / "out.npz")


def test_the_table_of_a_run_from_its_files(real_run: RealRun, copied: Path,
                                           missing_set: Path) -> None:
    evaluate_run(copied, "--data", missing_set)
    results, rows = read_results(copied, f"-{missing_set.name}"), read_manifest(missing_set)
    samples = [(row, *real_run.read(missing_set, row["audio"], row["image"]))
               for row in rows if row["split"] == "test"]
    seed, compared = real_run.config["train.seed"], 0
    for situation, label in enumerate(SITUATIONS):
        batch = []
        for row, audio, image in samples:
            missing = 1 * (not row["audio"]) + 2 * (not row["image"])
            if missing & ~situation == 0:                      # nothing else is missing
                random = port.generator(seed, 0, row["id"])
                _, *damaged = port.damage(random, audio, image, situation, missing, real_run.config)
                batch.append((*damaged, real_run.classes.index(row["label"]), situation | missing))
        audio, image, labels, situations = map(np.stack, zip(*batch))
        answers = real_run.answer(audio, image, situations)
        assert answers.keys() == results["scores"][label].keys()
        for name, scores in answers.items():
            expected = results["scores"][label][name]
            assert (scores.argmax(axis=1) == labels).mean() == expected["accuracy"], (label, name)
            loss = port.cross_entropy(scores, labels, smoothing=0)
            assert loss == pytest.approx(expected["loss"], abs=1e-6), (label, name)
            compared += 1
    assert compared == 4 * 16


def test_answers_to_pairs_of_files(real_run: RealRun, copied: Path, missing_set: Path,
                                   tmp_path: Path) -> None:
    pairs, answers = missing_set / "manifest.csv", tmp_path / "answers.csv"
    evaluate_run(copied, "--pairs", pairs, "--out", answers)
    with open(answers, newline="") as file:
        rows = list(csv.DictReader(file))
    samples = [real_run.read(missing_set, row["audio"], row["image"]) for row in rows]
    audio, image = map(np.stack, zip(*samples))
    scores = real_run.answer(audio, image, np.zeros(len(rows), int))["prompt routed"]
    expected = [[float(row[f"p_{name}"]) for name in real_run.classes] for row in rows]
    assert abs(port.softmax(scores) - expected).max() <= 1e-5
