"""Real sets from two trees of class folders: every layout, splits and their leaks, what is reported, what is refused."""
import csv
import json
import shutil
import sys
import wave
from collections import Counter, defaultdict
from types import SimpleNamespace

import numpy as np
import pytest
import soundfile
from conftest import refusal
from PIL import Image

from data_prep import cifar10_av, folder, urbansound8k_av
from data_prep.checks import examine_sound
from data_prep.shared import assign_splits
from data_prep.two_trees import key_of
from ptm_mini.data.manifest import read_set, root_of
from ptm_mini.data.prepared import PreparedSet
from ptm_mini.errors import InputError

# {layout: where a sample's sound and picture are}; s is a sample, a SimpleNamespace of label, stem, split
LAYOUTS = {
    "dataset_v3": ("Dataset_v3_sound/{s.label}/{s.stem}.wav", "Dataset_v3_vision/{s.label}/{s.stem}.jpg"),
    "vision": ("audio/{s.label}/{s.stem}.wav", "vision/{s.label}/{s.stem}.png"),
    "visual, below": ("US8K/audio/{s.label}/{s.stem}.WAV", "US8K/visual/{s.label}/{s.stem}.JPEG"),
    "image": ("Audio/{s.label}/{s.stem}.flac", "IMAGE/{s.label}/{s.stem}.Png"),
    "images, spelled": ("audio/{s.label}/{s.stem}.wav", "images/{s.title}/{s.stem}.PNG"),
    "audio_dataset": ("audio_dataset/{s.dashed}/{s.stem}.ogg", "visual/{s.title}/{s.stem}.jpg"),
    "train, test": ("{s.side}/audio/{s.label}/{s.stem}.wav", "{s.side}/visual/{s.title}/{s.stem}.png"),
    "train, val, test": ("{s.split}/audio/{s.label}/{s.stem}.wav", "{s.split}/visual/{s.label}/{s.stem}.png"),
    "train, test, below": ("x/{s.side}/audio/{s.label}/{s.stem}.wav", "x/{s.side}/visual/{s.label}/{s.stem}.png"),
}


def samples(recordings=10, slices=3, labels=("car_horn", "dog_bark")):
    """Slices of recordings, named as UrbanSound8K's are; a split for each as a layout may have it."""
    return [SimpleNamespace(label=label, title=label.replace("_", " ").title(), dashed=label.upper().replace("_", "-"),
                            stem=f"{100 * c + r}-{c}-0-{n}", split=("train", "val", "test")[r % 3],
                            side="test" if r % 3 == 2 else "train")
            for c, label in enumerate(labels) for r in range(recordings) for n in range(slices)]


def write(place, some, layout="vision", rate=8000, seconds=0.05, size=(4, 4)):
    for n, s in enumerate(some):
        audio, image = (place / path.format(s=s) for path in LAYOUTS[layout])
        for path in (audio, image):
            path.parent.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng([n, len(some)])
        soundfile.write(audio, random.uniform(-0.1, 0.1, round(rate * seconds)), rate)
        Image.fromarray(random.integers(0, 255, (*size[::-1], 3), dtype=np.uint8)).save(image)
    return place


@pytest.fixture
def make(tmp_path, monkeypatch):
    """Run a script; returns rows, report."""
    def run(script, *arguments, out="set"):
        monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments), "--out", str(tmp_path / "sets" / out)])
        script.main()
        return (read_set(tmp_path / "sets" / out)[0],
                json.loads((tmp_path / "sets" / out / "report.json").read_text(encoding="utf-8")))
    return run


def stems(row):
    return row.audio.rsplit("/", 1)[1].split(".")[0], row.image.rsplit("/", 1)[1].split(".")[0]


SCRIPTS = (urbansound8k_av, cifar10_av, folder)


@pytest.mark.parametrize("script, layout", [(SCRIPTS[n % 3], layout) for n, layout in enumerate(LAYOUTS)])
def test_every_layout_gives_the_same_pairs_and_splits(tmp_path, make, script, layout):
    some = samples(recordings=6, slices=2)
    rows, _ = make(script, write(tmp_path / "raw", some, layout), "--split", "grouped")
    assert [(row.id, row.label) for row in rows] == sorted([(s.stem, s.label) for s in some], key=lambda pair: pair[::-1])
    assert all(stems(row) == (row.id, row.id) for row in rows)
    grouped = assign_splits([row.label for row in rows], [row.group or row.id for row in rows], seed=0)
    assert [row.split for row in rows] == grouped
    assert {row.group for row in rows} == ({s.stem.split("-")[0] for s in some} if script == urbansound8k_av else {""})


def test_a_layouts_own_split_is_kept_unless_another_is_asked_for(tmp_path, make):
    some = {s.stem: s for s in samples()}
    own = {stem: s.split for stem, s in some.items()}
    rows, _ = make(folder, write(tmp_path / "whole", some.values(), "train, val, test"), out="whole")
    assert {row.id: row.split for row in rows} == own
    rows, _ = make(folder, tmp_path / "whole", "--split", "random", out="random")
    assert Counter(row.split for row in rows) == {"train": 42, "val": 6, "test": 12}
    rows, _ = make(urbansound8k_av, write(tmp_path / "parts", some.values(), "train, test"), out="parts")
    assert all((row.split == "test") == (some[row.id].side == "test") for row in rows)
    kept = Counter(row.split for row in rows if row.split != "test")
    assert kept["val"] == pytest.approx(sum(kept.values()) / 8, abs=3)                    # whole groups of three
    assert sides_by_group(rows) and all(len(sides) == 1 for sides in sides_by_group(rows).values())


def sides_by_group(rows):
    sides = defaultdict(set)
    for row in rows:
        sides[row.group].add(row.split)
    return sides


def test_a_grouped_split_keeps_recordings_whole_and_a_random_one_is_told_what_it_leaks(tmp_path, make, capsys):
    raw = write(tmp_path / "raw", samples(recordings=20))
    rows, report = make(urbansound8k_av, raw)
    assert all(len(sides) == 1 for sides in sides_by_group(rows).values())
    assert {row.id.split("-")[0] for row in rows} == set(sides_by_group(rows))
    assert report["leak"]["groups_on_both_sides"] == []
    random, told = make(urbansound8k_av, raw, "--split", "random", out="random")
    test = [row for row in random if row.split == "test"]
    elsewhere = {row.group for row in random if row.split != "test"}
    both = sorted({row.group for row in test} & elsewhere)
    leak = {"groups_on_both_sides": both, "test_samples_touched": sum(row.group in elsewhere for row in test),
            "test_samples": len(test)}
    assert len(both) > 10 and told["leak"] == leak == report["leak_of_a_random_split"]
    assert f"a random split would have {len(both)} recordings (fsID) both in test and elsewhere" in capsys.readouterr().out
    assert len({row.split for row in rows}) == len({row.split for row in random}) == 3


def test_folds_are_the_sets_own(tmp_path, make):
    some = samples()
    raw = write(tmp_path / "raw", some, "dataset_v3")
    with open(raw / "UrbanSound8K.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["slice_file_name", "fsID", "fold", "class"])
        writer.writerows([f"{s.stem}.wav", s.stem.split("-")[0], int(s.stem.split("-")[0]) % 10 + 1, s.label] for s in some)
    rows, _ = make(urbansound8k_av, raw, "--split", "folds", "--fold", 4)
    assert {row.group for row in rows if row.split == "test"} == {"3", "103"}
    assert {row.split for row in rows} == {"train", "val", "test"}
    assert all(len(sides) == 1 for sides in sides_by_group(rows).values())
    elsewhere = shutil.move(raw / "UrbanSound8K.csv", tmp_path / "folds.csv")
    assert make(urbansound8k_av, raw, "--split", "folds", "--fold", 4, "--metadata", elsewhere, out="again")[0] == rows
    says = lambda *arguments: refusal(make, urbansound8k_av, raw, *arguments, out="no")
    assert "0 files named UrbanSound8K.csv" in says("--split", "folds", "--fold", 4)
    assert "--fold 11: no such fold; expected one of 1, 2," in says("--split", "folds", "--fold", 11, "--metadata", elsewhere)
    assert "expected --split folds with --fold N" in says("--split", "folds")
    assert "expected --split folds with --fold N" in says("--fold", 1)
    (tmp_path / "folds.csv").write_text("slice_file_name,fold\n1-0-0-0.wav,one\n")
    assert "folds.csv:2: fold 'one'" in says("--split", "folds", "--fold", 1, "--metadata", elsewhere)
    (tmp_path / "folds.csv").write_text("slice_file_name,fold\n1-0-0-0.wav,1\n")
    assert "not in UrbanSound8K.csv" in says("--split", "folds", "--fold", 1, "--metadata", elsewhere)
    (tmp_path / "folds.csv").write_text("name,fold\n")
    assert "no column 'slice_file_name'" in says("--split", "folds", "--fold", 1, "--metadata", elsewhere)


def test_one_sided_samples_are_left_out_and_named_or_kept_as_missing(tmp_path, make, capsys):
    raw = write(tmp_path / "raw", samples())
    (raw / "audio" / "dog_bark" / "100-1-0-0.wav").unlink()
    (raw / "vision" / "car_horn" / "5-0-0-1.png").unlink()
    (raw / "audio" / "dog_bark" / "101-1-0-0.wav").write_bytes(b"RIFF")                  # unreadable: its picture is alone
    (raw / "audio" / "wind").mkdir()
    shutil.copy(raw / "audio" / "dog_bark" / "102-1-0-0.wav", raw / "audio" / "wind" / "1.wav")
    rows, report = make(folder, raw)
    assert len(rows) == 57 and all(row.audio and row.image for row in rows)
    assert report["left_out"] == {"audio_only": ["5-0-0-1", "1"], "image_only": ["100-1-0-0", "101-1-0-0"],
                                  "nothing_readable": []}
    assert read_set(tmp_path / "sets" / "set")[1] == ["car_horn", "dog_bark"] and report["pairs"] == report["samples"] == 57
    printed = capsys.readouterr().out
    assert "for having a readable picture alone: 2: 100-1-0-0, 101-1-0-0" in printed
    assert [line for line in printed.splitlines() if line.startswith("unreadable: ")] == [
        f"unreadable: {reason}" for reason in report["unreadable"].values()] and "101-1-0-0.wav" in printed
    rows, report = make(folder, raw, "--keep-unpaired", out="kept")
    cells = {row.id: (bool(row.audio), bool(row.image)) for row in rows}
    assert len(rows) == 61 and cells["5-0-0-1"] == cells["1"] == (True, False) and cells["101-1-0-0"] == (False, True)
    assert report["audio_only"] == ["5-0-0-1", "1"] and report["left_out"]["image_only"] == []
    assert report["classes"]["wind"] == {"train": 0, "val": 0, "test": 1}
    assert "no sample in train, val: wind" in capsys.readouterr().out


def test_the_reports_figures(tmp_path, make):
    some = samples(recordings=4, slices=1, labels=("dog", "rain", "wind"))
    raw = write(tmp_path / "raw", some[:8], rate=8000, seconds=0.3)
    write(raw, some[8:], rate=44100, seconds=1.2, size=(40, 30))
    (raw / "audio" / "dog" / "notes.txt").write_text("x")
    shutil.copy(raw / "vision" / "dog" / "0-0-0-0.png", raw / "vision" / "rain" / "100-1-0-0.png")
    rows, report = make(folder, raw)
    seconds, rates = [], Counter()
    for row in rows:
        with wave.open(str(raw / row.audio)) as file:
            seconds.append(file.getnframes() / file.getframerate())
            rates[str(file.getframerate())] += 1
    assert report["audio"]["sample_rates"] == rates == {"8000": 8, "44100": 4} and report["audio"]["channels"] == {"1": 12}
    assert report["audio"]["seconds"] == {"shortest": 0.3, "median": 0.3, "longest": 1.2, "covers 95%": sorted(seconds)[11]}
    assert report["audio"]["setting"] == "audio.seconds=1.295"            # 128 frames, 8 patches: the least that reaches 1.2 s
    assert report["image"] == {"files": 12, "sizes": {"4x4": 8, "40x30": 4}, "setting": "image.size=32"}
    assert report["equal_content"] == [{"files": ["vision/dog/0-0-0-0.png", "vision/rain/100-1-0-0.png"], "splits": [
        rows[0].split]}] and rows[0].group == rows[4].group == "0-0-0-0" and rows[0].split == rows[4].split
    assert report["left_aside"] == ["audio/dog/notes.txt: no audio file in a class folder, by its place and name"]
    assert report["classes"] == {label: {split: sum(row.label == label and row.split == split for row in rows)
                                         for split in ("train", "val", "test")} for label in ("dog", "rain", "wind")}


def test_equal_content_makes_one_group_where_names_carry_none(tmp_path, make):
    some = samples(recordings=8, slices=2)
    raw = write(tmp_path / "raw", some)
    sounds, pictures = raw / "audio" / "dog_bark", raw / "vision" / "dog_bark"
    shutil.copy(sounds / "100-1-0-0.wav", sounds / "103-1-0-1.wav")                       # a - b by sound, b - c by picture
    shutil.copy(pictures / "103-1-0-1.png", pictures / "106-1-0-0.png")
    rows, _ = make(folder, raw)
    joined = [row for row in rows if row.group]
    assert {row.id for row in joined} == {"100-1-0-0", "103-1-0-1", "106-1-0-0"}
    assert len({row.group for row in joined}) == len({row.split for row in joined}) == 1
    rows, _ = make(urbansound8k_av, raw, out="named")
    assert {row.group for row in rows} == {row.id.split("-")[0] for row in rows}


def test_one_sound_may_serve_several_pictures(tmp_path, make):
    raw = write(tmp_path / "raw", samples(recordings=8, slices=1, labels=("cat", "ship")))
    for n in range(3):
        (raw / "vision" / "cat" / "1-0-0-0.png").rename(raw / "vision" / "cat" / "1-0-0-0_0.png") if n == 0 else \
            Image.new("RGB", (4, 4), (n, 0, 0)).save(raw / "vision" / "cat" / f"1-0-0-0_{n}.png")
    rows, report = make(cifar10_av, raw)
    shared = [row for row in rows if row.audio.endswith("1-0-0-0.wav") and row.label == "cat"]
    assert [row.id for row in shared] == [f"1-0-0-0_{n}" for n in range(3)] and len({row.split for row in shared}) == 1
    assert {row.group for row in shared} == {"1-0-0-0_0"} and report["pairs"] == len(rows) == 18
    assert report["audio"]["files"] == 16
    assert cifar10_av.sound_of("cat_1_2", {"cat", "cat_1"}) == "cat_1" and cifar10_av.sound_of("cats", {"cat"}) == "cats"
    assert cifar10_av.sound_of("cat 1", {"cat 1", "cat"}) == "cat 1" and cifar10_av.sound_of("-x", {"y"}) == "-x"


@pytest.mark.parametrize("copy", [True, False])
def test_a_set_points_at_its_files_or_holds_copies(tmp_path, make, small, copy):
    raw = write(tmp_path / "raw", samples(recordings=8, slices=1))
    before = sorted(path.relative_to(raw) for path in raw.rglob("*"))
    rows, _ = make(folder, raw, *["--copy"] * copy)
    there = tmp_path / "sets" / "set"
    assert (root_of(there) == there) == copy == (not (there / "root.txt").exists())
    assert sorted(path.relative_to(raw) for path in raw.rglob("*")) == before
    if copy:
        assert all((there / row.audio).read_bytes() == (raw / row.audio).read_bytes() for row in rows)
        shutil.rmtree(raw)
    assert len(PreparedSet(there, small).rows) == 16


def test_links_out_of_the_folder_need_a_copy(tmp_path, make):
    raw = write(tmp_path / "raw", samples(recordings=8, slices=1))
    sound = raw / "audio" / "dog_bark" / "100-1-0-0.wav"
    shutil.move(sound, tmp_path / "away.wav")
    sound.symlink_to(tmp_path / "away.wav")
    (raw / "audio" / "dog_bark" / "101-1-0-0.wav").unlink()
    (raw / "audio" / "dog_bark" / "101-1-0-0.wav").symlink_to("nowhere.wav")
    _, report = make(folder, raw)
    assert "a link leads out of" in report["unreadable"]["audio/dog_bark/100-1-0-0.wav"]
    assert "a link leads nowhere" in report["unreadable"]["audio/dog_bark/101-1-0-0.wav"]
    rows, _ = make(folder, raw, "--copy", out="copied")
    assert "100-1-0-0" in {row.id for row in rows} and not list((tmp_path / "sets" / "copied").rglob("*101-1-0-0.wav"))
    assert not any(path.is_symlink() for path in (tmp_path / "sets" / "copied").rglob("*"))


NAMES = ["a, b", 'say "so"', "wüste 砂漠", " blank ", "it's", "-x", "%s {0}", "a.b"]


def test_names_of_any_letters_work_and_those_that_no_manifest_can_hold_are_named(tmp_path, make, capsys, small):
    some = samples(recordings=6, slices=1)
    for s, name in zip(some, NAMES):
        s.stem = name
    raw = write(tmp_path / "raw", some)
    for name in ("new\nline.wav", "bytes\udcff.wav", "es\x1bcape.wav"):
        shutil.copy(raw / "audio" / "dog_bark" / "105-1-0-0.wav", raw / "audio" / "dog_bark" / name)
    rows, report = make(folder, raw)
    assert {name.strip() for name in NAMES} <= {row.id for row in rows} and len(rows) == 12
    assert len(report["left_aside"]) == 3 and all("can't be in a manifest" in remark for remark in report["left_aside"])
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left aside: ")]
    assert len(printed) == 3 and r"new\nline.wav" in " ".join(printed) and r"bytes\udcff.wav" in " ".join(printed)
    assert len(PreparedSet(tmp_path / "sets" / "set", small).rows) == 12


def test_one_name_for_several_files_is_named(tmp_path, make):
    raw = write(tmp_path / "raw", samples(recordings=8, slices=1))
    shutil.copy(raw / "vision" / "dog_bark" / "100-1-0-0.png", raw / "vision" / "dog_bark" / "100-1-0-0.PNG")
    (raw / "audio" / "Dog Bark").mkdir()
    shutil.copy(raw / "audio" / "dog_bark" / "100-1-0-0.wav", raw / "audio" / "Dog Bark" / "101-1-0-0.wav")
    rows, report = make(folder, raw)
    assert len(rows) == 14 and report["left_aside"] == [
        "audio/Dog Bark/101-1-0-0.wav, audio/dog_bark/101-1-0-0.wav: one name for several; keep one, or pair them by --csv",
        "vision/dog_bark/100-1-0-0.PNG, vision/dog_bark/100-1-0-0.png: one name for several; keep one, or pair them by --csv"]


def test_ids_differ_where_stems_do_not(tmp_path, make):
    some = samples(recordings=6, slices=1)
    for n, s in enumerate(some):
        s.stem = str(n % 6)
    rows, _ = make(folder, write(tmp_path / "raw", some))
    assert [row.id for row in rows] == [f"{label}/{n}" for label in ("car_horn", "dog_bark") for n in range(6)]
    for s in some:
        s.stem = "one"
    some = [next(s for s in some if (s.label, s.split) == key) for key in {(s.label, s.split): s for s in some}]
    rows, _ = make(folder, write(tmp_path / "parts", some, "train, val, test"), out="parts")
    assert {row.id for row in rows} == {f"{s.split}/{s.label}/one" for s in some}


@pytest.fixture
def pairs(tmp_path):
    """A function that writes a list of pairs."""
    def write_pairs(text):
        (tmp_path / "pairs.csv").write_text(text, encoding="utf-8")
        return tmp_path / "pairs.csv"
    return write_pairs


def test_a_list_of_pairs(tmp_path, make, pairs):
    for n in range(20):
        soundfile.write(tmp_path / f"{n}.wav", np.random.default_rng(n).uniform(-0.1, 0.1, 400), 8000)
        Image.new("RGB", (4, 4), (n, 0, 0)).save(tmp_path / f"{n}.png")
    text = "label,audio,image,split,id,group\n" + "".join(
        f"{'ab'[n % 2]},{n}.wav,{'' if n == 5 else f'{n}.png'},{('train', 'val', 'test')[n % 3]},x{n},g{n}\n"
        for n in range(6))
    rows, report = make(folder, "--csv", pairs(text), "--keep-unpaired")
    assert [(row.id, row.audio, row.image, row.split, row.group) for row in rows] == [
        (f"x{n}", f"{n}.wav", "" if n == 5 else f"{n}.png", ("train", "val", "test")[n % 3], f"g{n}") for n in range(6)]
    assert report["audio_only"] == ["x5"]
    text = "audio,image,label\n" + "".join(f"{tmp_path / str(n)}.wav,{n % 4}.png,{'ab'[n % 2]}\n" for n in range(20))
    rows, _ = make(folder, "--csv", pairs(text), "--split", "random", out="plain")
    assert [row.id for row in rows] == [f"{n}/{n % 4}" for n in range(20)]                # no stem or class tells them apart
    assert [row.audio for row in rows] == [f"{n}.wav" for n in range(20)]
    assert {row.group for row in rows} == {f"{n}/{n}" for n in range(4)}                  # one picture, one group


@pytest.mark.parametrize("text, says", [
    ("audio,image\n0.wav,0.png\n", "no column 'label'"), ("audio,image,label,label\n", "column 'label'; "),
    ("audio,image,lable\n", "column 'lable'; did you mean label?"), ("audio,image,label\n0.wav,0.png\n", "csv:2: more or"),
    ("audio,image,label\n0.wav,0.png,a,b\n", "csv:2: more or fewer cells"),
    ("audio,image,label\n,,a\n", "csv:2: neither audio"),
    ("audio,image,label\n0.wav,0.png,\n", "csv:2: the label is empty"), ("audio,image,label\n../0.wav,,a\n", "leads out of"),
    ("audio,image,label\n/etc/passwd,,a\n", "leads out of"), ("audio,image,label\n0.wav,,a \n", "white space around it"),
    ('audio,image,label\n0.wav,"0\n.png",a\n', "csv:3: image '0\\n.png' has a control"), ("", "no column 'audio'"),
    ("audio,image,label,split\n0.wav,0.png,a,\n", "csv:2: split ''; expected one of train, val, test"),
    ("audio,image,label,id\n0.wav,,a,x\n1.wav,,a,x\n", "csv:3: id 'x' is empty or stands above"),
    ("audio,image,label,id\n0.wav,,a,\n", "csv:2: id '' is empty"), ('audio,image,label\n0.wav,,"a\n', "unexpected end"),
    ("audio,image,label\n9.wav,9.png,a\n", "no sample of split 'train' among the 0 that are left")])
def test_bad_lists_of_pairs(tmp_path, make, pairs, text, says):
    assert says in refusal(make, folder, "--csv", pairs(text))
    assert not (tmp_path / "sets").exists()


def test_a_listed_file_that_is_not_there_is_named(tmp_path, make, pairs):
    text = "audio,image,label\n" + "".join(f"{'x' * 300}.wav,{n}.png,{'ab'[n % 2]}\n" for n in range(20))
    for n in range(19):
        Image.new("RGB", (4, 4), (n, 0, 0)).save(tmp_path / f"{n}.png")
    rows, report = make(folder, "--csv", pairs(text), "--keep-unpaired")
    assert len(rows) == 19 and report["left_out"]["nothing_readable"] == ["19"]
    assert sorted(report["unreadable"]) == ["19.png", "x" * 300 + ".wav"]


def test_bad_folders(tmp_path, make):
    says = lambda *arguments: refusal(make, folder, *arguments)
    assert "no folder is named" in says()
    assert "nowhere: can't be read (No such file or directory)" in says(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    assert "file: can't be read (Not a directory)" in says(tmp_path / "file")
    raw = write(tmp_path / "raw", samples(recordings=8, slices=1))
    (raw / "visual").mkdir()
    assert "raw: holds audio, vision, visual; expected one folder of sounds and one of pictures" in says(raw)
    (raw / "visual").rmdir()
    (raw / "Test" / "audio").mkdir(parents=True)
    assert "Test: holds audio; expected one folder of sounds and one of pictures" in says(raw)
    (raw / "Test" / "image").mkdir()
    assert "raw: holds sounds and pictures both itself and in Test" in says(raw)
    shutil.rmtree(raw / "Test")
    (tmp_path / "two" / "sets").mkdir(parents=True)
    shutil.copytree(raw, tmp_path / "two" / "a")
    assert make(folder, tmp_path / "two", out="below")
    shutil.copytree(raw, tmp_path / "two" / "b")
    assert "two: holds several sets, a, b; name one of them" in says(tmp_path / "two")
    shutil.rmtree(raw / "audio")
    assert "raw: no folder of sounds beside one of pictures, there or one level below" in says(raw)
    assert not (tmp_path / "sets" / "set").exists()


def test_sets_that_cannot_be_split_are_refused_after_the_report(tmp_path, make, capsys):
    raw = write(tmp_path / "raw", samples(recordings=1, slices=3))
    assert "no sample of split 'val' among the 6 that are left" in refusal(make, urbansound8k_av, raw)
    assert "6 samples of 2 classes" in capsys.readouterr().out
    write(tmp_path / "one", samples(labels=("dog",)))
    assert "1 class is left" in refusal(make, folder, tmp_path / "one")
    (tmp_path / "sets" / "there").mkdir(parents=True)
    assert "there: is there already" in refusal(make, folder, raw, out="there")


def test_class_names_meet_in_case_and_in_what_joins_their_words():
    assert {key_of(name) for name in ("dog_bark", "Dog-Bark", "DOG BARK", "dog _bark")} == {"dog_bark"}
    assert key_of("Wu\u0308ste") == key_of("wüste") != key_of("wuste")


def test_a_cut_of_two_shares_takes_whole_groups():
    groups = [i // 4 for i in range(80)]
    splits = assign_splits(["a"] * 80, groups, 0, (7 / 8, 1 / 8))
    assert Counter(splits) == {"train": 68, "val": 12} or Counter(splits) == {"train": 72, "val": 8}


def test_what_training_would_refuse_is_found_behind_the_part_that_it_uses(tmp_path):
    sound = np.zeros(40000)
    for value in (1e30, np.nan):
        sound[39000] = value
        soundfile.write(tmp_path / "late.wav", sound, 16000, subtype="FLOAT")
        with pytest.raises(InputError, match="late.wav: holds NaN, infinity or samples beyond 2"):
            examine_sound(tmp_path / "late.wav")
