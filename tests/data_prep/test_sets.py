"""The scripts that make prepared sets."""
import gzip
import tracemalloc
import struct
from collections import Counter

import numpy as np
import pytest
import soundfile
from PIL import Image

from data_prep import av_mnist, toy
from data_prep.shared import assign_splits, pair_by_class
from ptm_mini.data.manifest import read_set
from ptm_mini.errors import InputError


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.mark.slow
def test_toy_is_the_same_bytes_for_the_same_seed_and_others_for_another(tmp_path, toy_set):
    toy.make(tmp_path / "again", recordings=10, split="grouped", seed=0)
    names = [path.relative_to(toy_set) for folder in ("audio", "image") for path in (toy_set / folder).iterdir()]
    assert len(names) == 400
    assert all((toy_set / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in names)
    toy.make(tmp_path / "other", recordings=2, split="random", seed=1)
    name = "audio/siren-000-0.wav"
    assert (toy_set / name).read_bytes() != (tmp_path / "other" / name).read_bytes()


def test_toy_has_ten_classes_varied_files_and_whole_groups(toy_set):
    rows, classes = read_set(toy_set)
    assert len(classes) == 10 and Counter(row.label for row in rows) == {name: 20 for name in classes}
    assert Counter(row.split for row in rows) == {"train": 140, "val": 20, "test": 40}
    infos = [soundfile.info(toy_set / row.audio) for row in rows]
    assert len({info.samplerate for info in infos}) == 5 and {info.channels for info in infos} == {1, 2}
    assert all(0.8 <= info.duration <= 1.3 for info in infos)
    assert {pixels(toy_set / row.image).shape for row in rows[:20]} == {(64, 64, 3)}
    splits = {}
    for row in rows:
        splits.setdefault(row.group, set()).add(row.split)
    assert len(splits) == 100 and all(len(sides) == 1 for sides in splits.values())


def write_raw(folder, images=40, extra=(), compress=True):
    """FSDD recordings 0-11 of two digits and MNIST files of those digits, each image of one grey of its own."""
    (folder / "fsdd").mkdir(parents=True)
    (folder / "mnist").mkdir()
    for digit in range(2):
        for index in range(12):
            wave = 0.1 * np.random.default_rng([digit, index]).standard_normal(3000)
            soundfile.write(folder / "fsdd" / f"{digit}_anna_{index}.wav", wave, 8000)
    for name in extra:
        soundfile.write(folder / "fsdd" / name, wave, 8000)
    greys = np.repeat(np.arange(images, dtype=np.uint8), 784).tobytes()
    labels = bytes(i % 2 for i in range(images))
    for name, data in (("t10k-images-idx3-ubyte", struct.pack(">4i", 0x803, images, 28, 28) + greys),
                       ("t10k-labels-idx1-ubyte", struct.pack(">2i", 0x801, images) + labels)):
        (folder / "mnist" / (name + ".gz" * compress)).write_bytes(gzip.compress(data) if compress else data)
    return folder / "fsdd", folder / "mnist"


@pytest.mark.parametrize("compress", [True, False])
def test_av_mnist_has_the_official_split_and_no_image_twice(tmp_path, compress):
    av_mnist.make(*write_raw(tmp_path, compress=compress), tmp_path / "set", seed=0)
    rows, classes = read_set(tmp_path / "set")
    assert classes == list("0123456789") and len(rows) == 24
    greys = {}
    for row in rows:
        index = int(row.id.split("_")[2])
        assert row.split == ("test" if index < 5 else "val" if index < 10 else "train")
        greys[row.id] = int(pixels(tmp_path / "set" / row.image)[0, 0])
        assert greys[row.id] % 2 == int(row.label)
    assert len(set(greys.values())) == 24
    av_mnist.make(tmp_path / "fsdd", tmp_path / "mnist", tmp_path / "other", seed=1)
    assert any(int(pixels(tmp_path / "other" / row.image)[0, 0]) != greys[row.id] for row in rows)


def refusal(folder):
    with pytest.raises(InputError) as caught:
        av_mnist.make(folder / "fsdd", folder / "mnist", folder / "set", seed=0)
    assert not (folder / "set").exists() and "\n" not in str(caught.value)
    return str(caught.value)


def test_av_mnist_names_what_is_wrong(tmp_path):
    write_raw(tmp_path / "few", images=20)
    assert "10 images for 12 recordings" in refusal(tmp_path / "few")
    write_raw(tmp_path / "name", extra=["seven.wav"])
    assert "seven.wav: expected a name such as 7_jackson_32.wav" in refusal(tmp_path / "name")
    images = write_raw(tmp_path / "cut")[1] / "t10k-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    images.write_bytes(whole[:-20])
    assert "t10k-images-idx3-ubyte.gz: can't be read" in refusal(tmp_path / "cut")
    images.write_bytes(gzip.compress(gzip.decompress(whole)[:-1]))
    assert "31359 bytes of data; expected 31360" in refusal(tmp_path / "cut")
    images.write_bytes(gzip.compress(b"\0\0\x08\3" + 3 * b"\xff\xff\xff\xff" + bytes(9)))        # 79 octillion are promised
    assert "9 bytes of data; expected 792281" in refusal(tmp_path / "cut")
    images.write_bytes(gzip.compress(b"\0\0\x08\3" + 3 * b"\0\0\0\1" + bytes(10**8)))                 # 100 MB from 100 kB
    tracemalloc.start()
    assert "2 bytes of data; expected 1" in refusal(tmp_path / "cut") and tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()
    images.write_bytes(b"text")
    assert "starts with 74657874; expected" in refusal(tmp_path / "cut")
    images.unlink()
    assert "no *-images-idx3-ubyte" in refusal(tmp_path / "cut")
    for read in (av_mnist.read_fsdd, av_mnist.read_mnist):
        with pytest.raises(InputError, match="there; expected"):
            read(tmp_path / ("x" * 300))
    assert "no .wav there" in refusal(tmp_path / "nowhere")


def test_an_existing_folder_is_never_replaced(tmp_path):
    (tmp_path / "set").mkdir()
    with pytest.raises(InputError, match="is there already"):
        toy.make(tmp_path / "set", recordings=2, split="grouped", seed=0)
    assert list((tmp_path / "set").iterdir()) == []


def test_grouped_split_keeps_groups_whole_and_random_splits_by_class():
    labels = ["a"] * 60 + ["b"] * 40
    groups = [f"{label}{i // 3}" for i, label in enumerate(labels)]
    grouped = assign_splits(labels, groups, seed=0)
    sides = {}
    for group, split in zip(groups, grouped):
        sides.setdefault(group, set()).add(split)
    assert all(len(side) == 1 for side in sides.values())
    random = assign_splits(labels, range(100), seed=0)
    assert Counter(zip(labels, random)) == {("a", "train"): 42, ("a", "val"): 6, ("a", "test"): 12,
                                            ("b", "train"): 28, ("b", "val"): 4, ("b", "test"): 8}
    assert random == assign_splits(labels, range(100), seed=0) != assign_splits(labels, range(100), seed=1)


def test_pairs_are_of_one_class_and_use_no_image_twice():
    images = [str(i % 3) for i in range(30)]
    recordings = [str(i % 3) for i in range(15)]
    pairs = pair_by_class(recordings, images, seed=0)
    assert [images[i] for i in pairs] == recordings and len(set(pairs)) == 15
    assert pairs == pair_by_class(recordings, images, seed=0) != pair_by_class(recordings, images, seed=1)
    with pytest.raises(InputError, match="class '0': 10 images for 11 recordings"):
        pair_by_class(["0"] * 11, images, seed=0)


def test_too_small_a_toy_set_is_refused(tmp_path):
    with pytest.raises(InputError, match="--recordings: expected a whole number, 6 or more, not '5'"):
        toy.main(["--recordings", "5", "--out", str(tmp_path / "set")])
    assert not list(tmp_path.iterdir())
