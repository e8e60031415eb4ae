"""Asking on the command line: as text, as JSON, as a picture, and many from a CSV file."""
import csv
import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import refusal
from PIL import Image

import eval as eval_script
import ptm_mini
from ptm_mini.files import new_file
from ptm_mini.report.answers import drawn

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def pair(asked):
    folder, data, _ = asked
    row = data.rows[57]
    return folder, data.folder / row.audio, data.folder / row.image


def ask(run, *arguments):
    eval_script.main([str(run), *map(str, arguments), "--device", "cpu"])


def test_one_pair_is_answered_with_the_prompts_and_the_reason(pair, capsys):
    run, audio, image = pair
    expected = ptm_mini.load(run).predict(audio, image)
    ask(run, "--audio", audio, "--image", image)
    *classes, blank, prompts, why = capsys.readouterr().out.splitlines()
    assert [line.split() for line in classes] == [[name, f"{p:.3f}"] for name, p in expected.probabilities.items()]
    assert prompts == f"prompts: {expected.situation.label}" and why.startswith("picked by the router")
    assert all(f"{situation.label} {p:.3f}" in why for situation, p in expected.router.items())
    ask(run, "--image", image)
    assert capsys.readouterr().out.endswith("\nprompts: noisy_audio\nno audio is given, so the situation is known\n")


def test_json_is_all_that_standard_output_has(pair, tmp_path):
    run, audio, image = pair
    picture = tmp_path / "answer.png"
    done = subprocess.run([sys.executable, "eval.py", str(run), "--audio", str(audio), "--json", "--picture", str(picture)],
                          cwd=ROOT, capture_output=True, text=True, check=True)
    answer, expected = json.loads(done.stdout), ptm_mini.load(run).predict(audio)
    assert answer == {"audio": str(audio), "image": None, "answer": expected.label, "probabilities": expected.probabilities,
                      "situation": "noisy_image", "router": None}
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_neither_needs_the_set_nor_touches_the_run(pair, tmp_path, monkeypatch, capsys):
    run, audio, image = pair
    before = sorted(path.name for path in run.iterdir())
    monkeypatch.setattr("ptm_mini.data.prepared.read_set", None)                   # whoever opened the set would fail
    assert str(image) in refusal(ask, run, "--audio", image, "--picture", tmp_path / "answer.png")
    assert capsys.readouterr().out == "" and list(tmp_path.iterdir()) == []
    ask(run, "--audio", audio, "--image", image, "--picture", tmp_path / "answer.png")
    assert sorted(path.name for path in run.iterdir()) == before
    assert f"{tmp_path / 'answer.png'}: is there already" in refusal(ask, run, "--audio", audio, "--picture",
                                                                     tmp_path / "answer.png")


def write_pairs(path, rows, columns=("name", "audio", "image")):
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return path


def test_many_pairs_are_answered_as_one_by_one_and_broken_ones_named(asked, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("ptm_mini.runs.predict.BATCH_SIZE", 4)
    monkeypatch.setattr("ptm_mini.report.answers.EVERY", -1)                       # a line of progress for every pair
    run, data, _ = asked
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "text.wav").write_text("no sound")
    for index in range(6):
        (tmp_path / f"{index}.wav").write_bytes((data.folder / data.rows[index].audio).read_bytes())
    image = str(data.folder / data.rows[0].image)                                  # absolute
    rows = [["zero", "0.wav", image], ['with "quotes", and comma', "1.wav", ""], ["gone", "gone.wav", image],
            ["", "", image], ["neither", "", ""], ["text", "own/text.wav", image], ["folder", "own", ""],
            ["long", "x" * 300, image], ["no picture", "2.wav", "own/text.wav"], ["last", "./own/../5.wav", image]]
    pairs, out = write_pairs(tmp_path / "pairs.csv", rows), tmp_path / "answers.csv"
    with caplog.at_level("INFO"):
        ask(run, "--pairs", pairs, "--out", out)
    assert caplog.messages[-1] == f"wrote {out}: 10 pairs, 6 failed, see their column error"
    assert [message.split("   ")[0] for message in caplog.messages[:-1]] == [f"{n} of 10 pairs" for n in range(1, 11)]
    with open(out, newline="") as file:
        found = list(csv.DictReader(file))
    assert [[row["name"], row["audio"], row["image"]] for row in found] == rows
    errors = [row["error"] for row in found]
    assert [bool(error) for error in errors] == [False, False, True, False, True, True, True, True, True, False]
    assert errors[2] == f"{tmp_path / 'gone.wav'}: no such file; expected a sound" and "neither audio nor image" in errors[4]
    assert str(tmp_path / "own" / "text.wav") in errors[5] and all(row["answer"] == "" for row in found if row["error"])
    model = ptm_mini.load(run)
    for row in (found[0], found[1], found[3], found[9]):
        answer = model.predict(*(tmp_path / row[column] if row[column] else None for column in ("audio", "image")))
        assert row["answer"] == answer.label and row["situation"] == answer.situation.label
        found_here = {name: float(row[f"p_{name}"]) for name in answer.probabilities}
        assert found_here == pytest.approx(answer.probabilities, abs=1e-6)
        assert row["probability"] == row[f"p_{answer.label}"]
    again = write_pairs(tmp_path / "good.csv", [row for row, error in zip(rows, errors) if not error])
    with caplog.at_level("INFO"):
        ask(run, "--pairs", again, "--out", tmp_path / "good-answers.csv")
    assert caplog.messages[-1].endswith("4 pairs, none failed")
    assert f"{out}: is there already" in refusal(ask, run, "--pairs", pairs, "--out", out)
    assert "column 'answer'" in refusal(ask, run, "--pairs", out, "--out", tmp_path / "more.csv")
    assert not list(tmp_path.glob("*.unfinished")) and not (tmp_path / "more.csv").exists()


@pytest.mark.parametrize("content, says", [
    (b"audio,picture\na.wav,\n", "no column 'image'"), (b"", "no column 'audio'"), (b"audio,image\n", "no rows"),
    (b"audio,image\na.wav\n", ":2: expected 2 cells"), (b"audio,image\na.wav,b.png,c\n", ":2: expected 2 cells"),
    (b"audio,image,audio\na,b,c\n", "two columns of one name"), (b"audio,image\n\xff.wav,\n", "is not UTF-8"),
    (b'audio,image\n"a.wav,\n', "expected comma-separated text"), (None, "can't be read (No such file or directory)")])
def test_a_file_of_pairs_that_is_none_is_refused_before_any_work(asked, tmp_path, content, says):
    pairs = tmp_path / "pairs.csv"
    if content is not None:
        pairs.write_bytes(content)
    said = refusal(ask, asked[0], "--pairs", pairs, "--out", tmp_path / "out.csv")
    assert says in said and str(pairs) in said and not (tmp_path / "out.csv").exists()


@pytest.mark.parametrize("arguments, says", [
    ("--audio a.wav --stress", "--stress: does not go with --audio"),
    ("--image a.png --ablate depth", "--ablate: does not go with --image"),
    ("--audio a.wav --damage paper", "--damage: does not go with --audio"),
    ("--audio a.wav --strategy routed", "--strategy: does not go with --audio"),
    ("--audio a.wav --out b.csv", "--out: does not go with --audio"),
    ("--pairs a.csv", "--pairs a.csv: expected --out"),
    ("--pairs a.csv --out b.csv --audio a.wav", "--audio: does not go with --pairs"),
    ("--pairs a.csv --out b.csv --json", "--json: does not go with --pairs"),
    ("--json", "--json: goes with --audio or --image alone"), ("--out a.csv", "--out: goes with --pairs alone"),
    ("--picture a.png --stress", "--picture: does not go with --stress"),
    ("--stress --data set", "--data: does not go with --stress"),
    ("--ablate depth --method prompt", "--method: does not go with --ablate")])
def test_flags_that_do_not_go_together_are_refused_in_one_line(tmp_path, arguments, says):
    assert says in refusal(ask, tmp_path, *arguments.split())


def test_the_picture_marks_what_is_missing(pair):
    run, audio, image = pair
    model, seen = ptm_mini.load(run), []
    for given in ((audio, image), (audio, None)):
        prepared = model.prepare(*given)
        with Image.open(io.BytesIO(drawn(model.answer([prepared])[0], prepared))) as picture:
            seen.append((picture.size, picture.convert("RGB").getpixel((30, 54))))
    assert seen[0][0] == seen[1][0] and seen[0][1] != seen[1][1] == (218, 220, 224)


def test_a_file_that_broke_off_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_file(tmp_path / "x.csv") as file:
        file.write("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    assert "can't be written (No such file or directory)" in refusal(new_file(tmp_path / "gone" / "x.csv").__enter__)


