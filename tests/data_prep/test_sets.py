"""The toy set, AV-MNIST, and UrbanSound8K's folds."""
import gzip
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image
from raw import make_samples, write_digits, write_samples

from data_prep import av_mnist, toy, urbansound8k_av
from ptm_mini.data.manifest import read_set
from ptm_mini.errors import InputError


def read_pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def read_all(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes()
            for path in folder.rglob("*") if path.is_file()}


def test_the_toy_set_has_ten_classes_varied_files_and_whole_groups(tmp_path):
    toy.make(tmp_path / "toy", recordings=6)
    _, rows, classes = read_set(tmp_path / "toy")
    assert len(classes) == 10 and Counter(row.label for row in rows) == dict.fromkeys(classes, 12)
    infos = [soundfile.info(tmp_path / "toy" / row.audio) for row in rows]
    assert len({info.samplerate for info in infos}) == 5
    assert {info.channels for info in infos} == {1, 2}
    assert all(0.8 <= info.duration <= 1.3 for info in infos)
    assert {read_pixels(tmp_path / "toy" / row.image).shape for row in rows} == {(64, 64, 3)}
    splits = {group: {row.split for row in rows if row.group == group}
              for group in {row.group for row in rows}}
    assert len(splits) == 60 and all(len(parts) == 1 for parts in splits.values())


def test_the_toy_set_is_the_same_for_the_same_seed_alone(tmp_path):
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        toy.make(tmp_path / name, recordings=5, split="random", seed=seed)
    assert read_all(tmp_path / "one") == read_all(tmp_path / "same")
    other, one = read_all(tmp_path / "other"), read_all(tmp_path / "one")
    assert all(one[name] != other[name] for name in one if name.startswith(("audio", "image")))


def test_too_small_a_toy_set_and_bad_flags_are_refused(tmp_path, capsys):
    with pytest.raises(InputError, match="no sample of split 'val' among 60; expected some"):
        toy.main(["--recordings", "3", "--out", str(tmp_path / "set")])
    assert not any(tmp_path.iterdir())
    with pytest.raises(SystemExit):
        toy.main(["--seed", "-1"])
    assert "argument --seed: '-1'; expected a whole number, 0 or more" in capsys.readouterr().err


@pytest.mark.parametrize("compress", [True, False])
def test_av_mnist_has_the_official_split_and_no_image_twice(tmp_path, compress):
    fsdd, mnist = write_digits(tmp_path, compress=compress)
    av_mnist.make(fsdd, mnist, tmp_path / "set", seed=0)
    _, rows, classes = read_set(tmp_path / "set")
    assert classes == list("0123456789") and len(rows) == 24
    greys = {}
    for row in rows:
        index = int(row.id.split("_")[2])
        assert row.split == ("test" if index < 5 else "val" if index < 10 else "train")
        greys[row.id] = int(read_pixels(tmp_path / "set" / row.image)[0, 0])
        assert greys[row.id] % 2 == int(row.label)
    assert len(set(greys.values())) == 24
    av_mnist.make(fsdd, mnist, tmp_path / "other", seed=1)
    assert any(int(read_pixels(tmp_path / "other" / row.image)[0, 0]) != greys[row.id]
               for row in rows)


def test_av_mnist_names_what_is_wrong(tmp_path):
    def refuse(name="raw"):
        with pytest.raises(InputError) as caught:
            av_mnist.make(tmp_path / name / "fsdd", tmp_path / name / "mnist", tmp_path / "set", 0)
        assert not (tmp_path / "set").exists()
        return str(caught.value)

    write_digits(tmp_path / "few", images=20)
    assert "class 0: 10 images for 12 recordings" in refuse("few")
    images = write_digits(tmp_path / "raw")[1] / "t10k-images-idx3-ubyte.gz"
    whole = images.read_bytes()
    for content, message in (
            (whole[:-20], "idx3-ubyte.gz: Compressed file ended"),
            (gzip.compress(gzip.decompress(whole)[:-1]), "31375 bytes; expected 31376"),
            (b"text", "starts with 74657874; expected 0000080")):
        images.write_bytes(content)
        assert message in refuse()
    images.write_bytes(whole)
    (images.parent / "t10k-labels-idx1-ubyte.gz").unlink()
    assert "t10k-labels-idx1-ubyte.gz: [Errno 2] No such file" in refuse()
    images.unlink()
    assert "no *-images-idx3-ubyte or .gz there" in refuse()
    (tmp_path / "raw" / "fsdd" / "seven.wav").touch()
    assert "seven.wav: expected a name such as 7_jackson_32.wav" in refuse()
    assert "no .wav there" in refuse("nowhere")


def test_folds_are_the_sets_own(tmp_path, prepare, refuse):
    samples = make_samples(slices=2)
    raw, metadata = write_samples(tmp_path / "raw", samples, "dataset_v3"), tmp_path / "folds.csv"
    metadata.write_text("slice_file_name,fsID,fold,class\n" + "".join(
        f"{s.stem}.wav,x,{int(s.stem.split('-')[0]) % 10 + 1},{s.label}\n" for s in samples))
    flags = [raw, "--split", "folds", "--metadata", metadata, "--fold"]
    rows, _ = prepare(urbansound8k_av, *flags, 4)
    assert {row.group for row in rows if row.split == "test"} == {"3", "103"}
    assert {row.split for row in rows} == {"train", "val", "test"}
    assert "--fold 11: not in" in refuse(urbansound8k_av, *flags, 11)
    for missing in (flags[:3], [raw, "--fold", 1], flags[:-1]):
        assert "expected all three, or none" in refuse(urbansound8k_av, *missing)
    metadata.write_text("slice_file_name,fold\n1-0-0-0.wav,1\n")
    assert "0-0-0-0.wav: not in" in refuse(urbansound8k_av, *flags, 1)
