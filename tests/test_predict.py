"""Answers for own files and arrays, alone, in batches, and from a CSV file."""
import csv
import json
import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import CLASSES, CONFIG, evaluate_run, files_of, refusal
from PIL import Image
from pytest import CaptureFixture, LogCaptureFixture, MonkeyPatch

import ptm_mini
from ptm_mini.config import Situation
from ptm_mini.data.dataset import PreparedSet, collate
from ptm_mini.predict import Answer, Predictor, explain


@pytest.fixture(scope="module")
def model(run_folder: Path) -> Predictor:
    return ptm_mini.load(str(run_folder))


@pytest.fixture
def pair(small_set: Path) -> tuple[Path, Path]:
    return small_set / "test-drum-1.wav", small_set / "test-drum-1.png"


def in_class_order(answer: Answer) -> list[float]:
    return [answer.probabilities[name] for name in CLASSES]


@torch.no_grad()
def test_a_split_is_answered_as_in_its_evaluation(model: Predictor, data: PreparedSet) -> None:
    """By the routed prompts."""
    rows = data.indices("test").tolist()
    expected = model.models.answer(collate([data.sample(row) for row in rows]))
    pairs = [(data.root / data.rows[row].audio, data.root / data.rows[row].image) for row in rows]
    answers = [model.predict(*pair) for pair in pairs]
    found = torch.tensor([in_class_order(answer) for answer in answers])
    assert torch.allclose(found, expected.rows["prompt routed"].softmax(dim=1), atol=1e-5)
    assert [answer.situation for answer in answers] == expected.picks.tolist()


def test_arrays_are_answered_as_their_files(model: Predictor, pair: tuple[Path, Path],
                                            tmp_path: Path) -> None:
    wave, rate = soundfile.read(pair[0])
    pixels, expected = np.asarray(Image.open(pair[1])), model.predict(*pair)
    for sound in ((wave, rate), (wave.astype(np.float32)[:, None], np.int64(rate)), str(pair[0])):
        for image in (Image.open(pair[1]), pixels, str(pair[1])):
            assert model.predict(audio=sound, image=image) == expected
    stereo = 0.1 * np.random.default_rng(0).standard_normal((6000, 2))
    soundfile.write(tmp_path / "stereo.wav", stereo, 8000, subtype="DOUBLE")
    assert model.predict(audio=(stereo, 8000)) == model.predict(audio=tmp_path / "stereo.wav")


def test_a_side_left_out_is_a_missing_modality(model: Predictor, pair: tuple[Path, Path]) -> None:
    audio, image = pair
    only_audio, only_image = model.predict(audio=audio), model.predict(image=image)
    assert explain(only_audio) == "prompts: noisy_image, since no image is given"
    assert explain(only_image) == "prompts: noisy_audio, since no audio is given"
    prepared = model.prepare(None, image)
    assert not prepared.audio.any()
    with torch.no_grad():
        prompts = model.models.methods["prompt"]
        logits = prompts.answer(prepared.audio, prepared.image[None], Situation.NOISY_AUDIO)
    assert in_class_order(only_image) == pytest.approx(logits.softmax(dim=1)[0].tolist(), abs=1e-6)


@pytest.mark.parametrize("arguments, message", [
    ({}, "neither audio nor image is given; expected at least one"),
    ({"image": "gone.png"}, "gone.png: no such file; expected an image"),
    ({"audio": (np.zeros(9000, "int16"), 16000)}, "audio: int16; expected"),
    ({"image": np.zeros((9, 9))}, "its pixels have no set range")])
def test_what_can_not_be_read_is_refused(model: Predictor, arguments: dict, message: str) -> None:
    assert message in refusal(model.predict, **arguments)


def test_several_windows_are_averaged(run_folder: Path, model: Predictor,
                                      pair: tuple[Path, Path]) -> None:
    """Each at its place in the sound: at its beginning, in its middle, at its end."""
    length, rate = CONFIG.audio.samples, CONFIG.audio.sample_rate
    wave = 0.1 * np.random.default_rng(0).standard_normal(3 * length)
    averaging = ptm_mini.load(run_folder, windows=3)
    answer = averaging.predict((wave, rate), pair[1])
    prepared = averaging.prepare((wave, rate), pair[1])
    assert torch.equal(prepared.audio[0], model.prepare((wave, rate), pair[1]).audio[0])
    each = [model.answer(prepared._replace(audio=window[None])) for window in prepared.audio]
    assert not torch.equal(prepared.audio[1], prepared.audio[2])
    mean = np.mean([in_class_order(one) for one in each], axis=0)
    assert in_class_order(answer) == pytest.approx(mean.tolist(), abs=1e-5)


def test_one_pair_on_the_command_line(run_folder: Path, model: Predictor, pair: tuple[Path, Path],
                                      tmp_path: Path, capsys: CaptureFixture,
                                      monkeypatch: MonkeyPatch) -> None:
    """As text, as JSON and as a picture; the run stays as it is."""
    monkeypatch.setattr("ptm_mini.data.dataset.read_set", None)          # opening a set would fail
    monkeypatch.setattr(logging.root, "handlers", [])        # --json sends the log elsewhere
    monkeypatch.setattr(logging.root, "level", logging.WARNING)
    before, expected = files_of(run_folder), model.predict(*pair)
    command = [run_folder, "--audio", pair[0], "--image", pair[1]]
    evaluate_run(*command)
    *classes, why = capsys.readouterr().out.splitlines()
    assert [line.split() for line in classes] == [
        [name, f"{p:.3f}"] for name, p in expected.probabilities.items()]
    assert why == explain(expected)
    assert why.startswith(f"prompts: {expected.situation.label}, picked by the router (complete 0.")
    evaluate_run(*command, "--json", "--picture", tmp_path / "answer.png")
    assert json.loads(capsys.readouterr().out) == {
        "answer": expected.label, "probabilities": expected.probabilities,
        "situation": expected.situation.label,
        "router": {situation.label: p for situation, p in expected.router.items()}}
    assert files_of(run_folder) == before
    assert (tmp_path / "answer.png").read_bytes().startswith(b"\x89PNG")


def test_many_pairs_from_a_csv_file(run_folder: Path, model: Predictor, small_set: Path,
                                    tmp_path: Path, caplog: LogCaptureFixture) -> None:
    """Paths are relative to the file; a pair that can't be answered says why."""
    (tmp_path / "a.wav").write_bytes((small_set / "test-bell-0.wav").read_bytes())
    image = str(small_set / "test-bell-0.png")
    rows = [["both", "a.wav", image], ['quotes ", and comma', "a.wav", ""],
            ["gone", "gone.wav", image], ["neither", "", ""], ["", "", image]]
    pairs, out = tmp_path / "pairs.csv", tmp_path / "answers.csv"
    with open(pairs, "w", newline="") as file:
        csv.writer(file).writerows([["name", "audio", "image"], *rows])
    with caplog.at_level(logging.INFO):
        evaluate_run(run_folder, "--pairs", pairs, "--out", out)
    assert caplog.messages[-1] == f"wrote {out}: 5 pairs, 2 failed"
    with open(out, newline="") as file:
        found = list(csv.DictReader(file))
    assert list(found[0]) == ["name", "audio", "image", "answer", "probability", "situation",
                              *(f"p_{name}" for name in CLASSES), "error"]
    assert [[row["name"], row["audio"], row["image"]] for row in found] == rows
    assert found[2]["error"].startswith(f"{tmp_path / 'gone.wav'}: no such file")
    for row in found:
        if row["name"] in ("gone", "neither"):
            assert row["error"] and row["answer"] == row["probability"] == ""
            continue
        sides = (tmp_path / row[side] if row[side] else None for side in ("audio", "image"))
        answer = model.predict(*sides)
        assert row["answer"] == answer.label and row["situation"] == answer.situation.label
        shares = {name: float(row[f"p_{name}"]) for name in CLASSES}
        assert shares == pytest.approx(answer.probabilities, abs=1e-6)
        assert row["probability"] == row[f"p_{answer.label}"] and row["error"] == ""
    assert "column 'answer' is one that" in refusal(evaluate_run, run_folder, "--pairs", out,
                                                    "--out", tmp_path / "more.csv")
