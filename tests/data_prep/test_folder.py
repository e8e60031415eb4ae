"""Own folders and lists: layouts, pairs, groups, splits, the report, and what is refused."""
import shutil
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image
from raw import LAYOUTS, make_samples, write_samples

from data_prep import cifar10_av, folder, urbansound8k_av
from data_prep.report import Facts, describe
from ptm_mini.data.manifest import SPLITS, read_set
from ptm_mini.errors import InputError


def keeps_groups_whole(rows):
    return len({row.group for row in rows}) == len({(row.group, row.split) for row in rows})


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_rows(tmp_path, prepare, layout):
    second = "rain" if layout == "classes" else "sound"         # a class may be named as a tree
    samples = make_samples(recordings=8, labels=("car_horn", second))
    rows, _ = prepare(folder, write_samples(tmp_path / "raw", samples, layout))
    assert [(row.label, row.id) for row in rows] == sorted((s.label, s.stem) for s in samples)
    assert all(row.id == Path(row.audio).stem == Path(row.image).stem for row in rows)


def test_a_layouts_own_split_is_kept_unless_another_is_asked_for(tmp_path, prepare):
    samples = make_samples(slices=3)
    raw = write_samples(tmp_path / "raw", samples, "splits below")
    for name, other in (("train", "Training"), ("val", "dev"), ("test", "eval")):
        (raw / "raw" / name).rename(raw / "raw" / other)
    rows, _ = prepare(folder, raw, out="whole")
    assert {row.id: row.split for row in rows} == {s.stem: s.split for s in samples}
    rows, _ = prepare(folder, raw, "--split", "random", out="random")
    assert Counter(row.split for row in rows) == {"train": 42, "val": 6, "test": 12}
    for sample in samples:
        sample.split = "test" if sample.split == "test" else "train"
    rows, _ = prepare(urbansound8k_av, write_samples(tmp_path / "parts", samples, "splits"))
    assert ({row.id for row in rows if row.split == "test"}
            == {s.stem for s in samples if s.split == "test"})
    assert Counter(row.split for row in rows)["val"] == pytest.approx(42 / 8, abs=3)
    assert keeps_groups_whole(rows)


def test_a_random_split_is_by_class_and_told_what_it_leaks(tmp_path, prepare):
    raw = write_samples(tmp_path / "raw", make_samples(recordings=20, slices=3))
    rows, grouped = prepare(urbansound8k_av, raw)
    assert keeps_groups_whole(rows) and grouped["groups_in_test_and_elsewhere"] == 0
    assert all(row.group == row.id.split("-")[0] for row in rows)
    rows, random = prepare(urbansound8k_av, raw, "--split", "random", out="random")
    assert Counter((row.label, row.split) for row in rows) == {
        (label, split): count for label in ("car_horn", "dog_bark")
        for split, count in (("train", 42), ("val", 6), ("test", 12))}
    leaking = ({row.group for row in rows if row.split == "test"}
               & {row.group for row in rows if row.split != "test"})
    assert len(leaking) > 10
    for figure in (random["groups_in_test_and_elsewhere"], grouped["with_a_random_split"]):
        assert figure == len(leaking)
    other, _ = prepare(urbansound8k_av, raw, "--split", "random", "--seed", 1, out="other")
    assert [row.split for row in other] != [row.split for row in rows]


def test_equal_content_makes_one_group_where_names_carry_none(tmp_path, prepare):
    raw = write_samples(tmp_path / "raw", make_samples(recordings=8, slices=2))
    sounds, images = raw / "audio" / "dog_bark", raw / "vision" / "dog_bark"
    shutil.copy(sounds / "103-1-0-1.wav", sounds / "106-1-0-0.wav")     # b and c by their sound,
    shutil.copy(images / "100-1-0-0.png", images / "106-1-0-0.png")     # a and c by their image
    rows, report = prepare(folder, raw)
    alike = {"100-1-0-0", "103-1-0-1", "106-1-0-0"}
    assert [row.group for row in rows] == ["100-1-0-0" if row.id in alike else row.id
                                           for row in rows]
    assert keeps_groups_whole(rows)
    assert "audio/dog_bark/103-1-0-1.wav = audio/dog_bark/106-1-0-0.wav" in report["equal_files"]


def test_one_sound_may_serve_several_images(tmp_path, prepare):
    samples = make_samples(recordings=8, labels=("cat", "ship"))
    for number, sample in enumerate(samples):
        sample.stem = str(number % 8)
    raw = write_samples(tmp_path / "raw", samples)
    (raw / "vision" / "cat" / "1.png").unlink()
    for n in range(3):
        Image.new("RGB", (4, 4), (n, 0, 0)).save(raw / "vision" / "cat" / f"1_{n}.png")
    rows, report = prepare(cifar10_av, raw)
    shared = [row for row in rows if row.audio == "audio/cat/1.wav"]
    assert [row.image for row in shared] == [f"vision/cat/1_{n}.png" for n in range(3)]
    assert len({row.group for row in shared}) == 1 and keeps_groups_whole(rows)
    assert report["samples"] == 18 and report["audio"]["files"] == 16
    sounds = {("pet", "cat"): "", ("pet", "cat_1"): "", ("car", "cat_1_2"): ""}
    for image, sound in (("cat_1_2", "cat_1"), ("cat-2", "cat"), ("cats", "cats")):
        assert cifar10_av.find_sound(("pet", image), sounds) == ("pet", sound)


def test_what_is_left_out_is_named_and_unpaired_samples_may_be_kept(tmp_path, prepare, capsys):
    samples = make_samples()
    names = ["a, b", 'say "so"', "wüste 砂漠", " blank ", "{0}", "a.b"]
    for sample, name in zip(samples, names):
        sample.stem = name
    raw = write_samples(tmp_path / "raw", samples)
    sounds = raw / "audio" / "dog_bark"
    for name in ("new\nline.wav", "bytes\udcff.wav", "105-1-0-0.WAV", "notes.txt", ".hidden.wav"):
        shutil.copy(sounds / "105-1-0-0.wav", sounds / name)
    (sounds / "101-1-0-0.wav").write_bytes(b"RIFF")
    (raw / "vision" / "car_horn" / "{0}.png").unlink()
    (raw / "audio" / "stray.wav").write_bytes(b"RIFF")
    rows, report = prepare(folder, raw)
    assert {row.id for row in rows} == {s.stem for s in samples} - {"105-1-0-0", "101-1-0-0", "{0}"}
    text, printed = "\n".join(report["left_out"]), capsys.readouterr().out
    for reason in ("1 files and folders whose names begin with a dot",
                   r"bytes\udcff.wav': has control", r"new\nline.wav': has control",
                   "notes.txt': no audio file", "'audio/stray.wav': in no class folder",
                   "105-1-0-0.wav: one name for several",
                   f"{sounds}/101-1-0-0.wav: ", "{0} (car_horn): no image",
                   "101-1-0-0 (dog_bark): no audio", "105-1-0-0 (dog_bark): no audio"):
        assert reason in text and reason in printed
    rows, report = prepare(folder, raw, "--keep-unpaired", out="kept")
    assert len(rows) == 20 and len(report["left_out"]) == 7
    assert [row.id for row in rows if not row.audio] == ["101-1-0-0", "105-1-0-0"]
    assert [row.id for row in rows if not row.image] == ["{0}"]


def test_the_setting_for_an_hour_is_one_that_training_takes():
    hour = describe([Facts("", "WAV", 3600.0)], "audio.seconds", 0.16, 0.015)
    assert hour["takes 95% whole"] == "--set audio.seconds=3600.015"


def test_the_reports_figures(tmp_path, prepare):
    samples = make_samples(recordings=6, labels=("dog", "rain", "wind"))
    raw = write_samples(tmp_path / "raw", samples[:12], seconds=0.3)
    write_samples(raw, samples[12:], rate=44100, seconds=1.2, size=(40, 30))
    rows, report = prepare(folder, raw)
    assert report["audio"] == {
        "files": 18, "kinds": {"8000 Hz, channels: 1": 12, "44100 Hz, channels: 1": 6},
        "least, median, most": [0.3, 0.3, 1.2],
        "takes 95% whole": "--set audio.seconds=1.295"}        # 128 frames, the least over 1.2 s
    assert report["image"] == {"files": 18, "kinds": {"4x4": 12, "40x30": 6},
                               "least, median, most": [4, 4, 30],
                               "takes 95% whole": "--set image.size=32"}
    counts = Counter((row.label, row.split) for row in rows)
    assert report["classes"] == {label: {split: counts[label, split] for split in SPLITS}
                                 for label in ("dog", "rain", "wind")}


@pytest.mark.parametrize("copy", [True, False])
def test_a_set_points_at_its_files_or_holds_copies(tmp_path, prepare, copy):
    raw = write_samples(tmp_path / "raw", make_samples())
    sound = raw / "audio" / "dog_bark" / "100-1-0-0.wav"
    shutil.move(sound, tmp_path / "away.wav")
    sound.symlink_to(tmp_path / "away.wav")
    rows, report = prepare(folder, raw, *["--copy"] * copy)
    root, _, classes = read_set(tmp_path / "sets" / "set")
    assert root == (tmp_path / "sets" / "set" if copy else raw) and len(classes) == 2
    assert len(rows) == (20 if copy else 19)
    assert any("a link leads out" in reason for reason in report["left_out"]) == (not copy)
    assert all((root / row.audio).read_bytes() == (raw / row.audio).read_bytes() for row in rows)
    with pytest.raises(InputError, match="exists already"):
        prepare(folder, raw)


def test_a_list_of_pairs(tmp_path, prepare):
    raw = write_samples(tmp_path / "raw", make_samples())
    sounds, images = ([path.relative_to(raw).as_posix() for path in sorted(raw.rglob(pattern))]
                      for pattern in ("*.wav", "*.png"))
    pairs = raw / "pairs.csv"
    pairs.write_text("label,audio,image,split,id,group\n" + "".join(
        f"{'ab'[n % 2]},{sounds[n]},{images[n]},{SPLITS[n % 3]},x{n},g{n}\n" for n in range(6))
        + f"a,{sounds[6]},,train,x6,\na,missing.wav,{images[6]},train,x7,\n")
    rows, report = prepare(folder, "--csv", pairs, "--keep-unpaired")
    assert [(row.id, row.audio, row.image, row.split, row.group) for row in rows] == [
        *((f"x{n}", sounds[n], images[n], SPLITS[n % 3], f"g{n}") for n in range(6)),
        ("x6", sounds[6], "", "train", "x6"), ("x7", "", images[6], "train", "x7")]
    assert len(report["left_out"]) == 1 and "missing.wav" in report["left_out"][0]
    pairs, windows = tmp_path / "elsewhere.csv", [name.replace("/", "\\") for name in images]
    pairs.write_text("audio,image,label\n" + "".join(
        f"{raw / sounds[n]},{windows[n % 4]},{'ab'[n % 2]}\n" for n in range(20)))
    rows, _ = prepare(folder, raw, "--csv", pairs, "--split", "random", out="plain")
    assert [row.audio for row in rows] == sounds and rows[3].image == images[3]
    assert {row.group for row in rows} == {row.id for row in rows[:4]}       # one image, one group


def test_a_class_that_is_lost_is_named(tmp_path, prepare):
    raw = write_samples(tmp_path / "raw", make_samples(
        labels=("dog", "rain", "siren", "wind", "zebra")))
    (raw / "vision" / "dog").rename(raw / "vision" / "dogs")
    for path in (raw / "vision" / "zebra").iterdir():
        path.write_text("no image")
    for path in (raw / "vision" / "siren").iterdir():
        path.rename(path.with_stem(f"0{path.stem}"))
    rows, report = prepare(folder, raw)
    assert {row.label for row in rows} == {"rain", "wind"}
    dog, dogs, siren, zebra = report["left_out"][:4]
    assert zebra == "class 'zebra' is lost: none of its pairs can be read, see below"
    assert dog == "class 'dog' is lost: no image; did you mean dogs?" and "no audio" in dogs
    assert "'siren' is lost: no image has a sound's name, such as audio/siren/200-2-0-0" in siren


@pytest.mark.parametrize("text, message", [
    ("audio,image,label,plit\n", "'plit'; did you mean split?"),
    ("audio,image,label\n0.wav,0.png,\n", "csv:2: expected a label, and audio or image"),
    ("audio,image,label\n../0.wav,,a\n", "csv:2: '../0.wav' leads out of"),
    ("audio,image,label,split\n0.wav,0.png,a,\n", "csv:2: split ''; expected one of train, val"),
    ("audio,image,label\n9.wav,9.png,a\n", "no sample is left")])
def test_bad_lists(tmp_path, refuse, text, message):
    (tmp_path / "pairs.csv").write_text(text, encoding="utf-8")
    assert message in refuse(folder, "--csv", tmp_path / "pairs.csv")


def test_bad_folders(tmp_path, refuse):
    assert "no folder is named" in refuse(folder)
    assert "nowhere: no such folder" in refuse(folder, tmp_path / "nowhere")
    raw = write_samples(tmp_path / "raw", make_samples(recordings=2))
    assert "splits of 4 samples: train, test alone; expected" in refuse(folder, raw)
    assert "side by side in no folder" in refuse(folder, raw / "audio")
    shutil.copytree(raw, tmp_path / "second")
    assert "side by side in raw, second; expected" in refuse(folder, tmp_path)
    (raw / "audio").rename(raw / "sounds")
    shutil.copytree(raw / "vision", raw / "audio")
    assert "raw: holds audio, sounds, vision; expected one folder" in refuse(folder, raw)
    shutil.rmtree(raw / "sounds")
    assert "audio: holds car_horn, dog_bark and no audio file in a class folder" in refuse(
        folder, raw)
    (raw / "vision").rename(raw / "pictures")
    assert "raw: holds audio; expected one folder" in refuse(folder, raw)
