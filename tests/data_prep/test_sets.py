"""The toy set, AV-MNIST, ESC-10 with CIFAR-10, and UrbanSound8K's folds."""
import gzip
import shutil
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import soundfile
from helpers import files_of
from PIL import Image
from raw import make_samples, write_samples

from data_prep import av_mnist, esc10_cifar10, toy, urbansound8k_av
from ptm_mini.data.manifest import read_set
from ptm_mini.errors import InputError


def read_pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


def write_digits(folder: Path, compress: bool = True) -> None:
    """Write FSDD recordings 0-11 of two digits, and MNIST files in which each image is one grey."""
    (folder / "fsdd").mkdir(parents=True)
    (folder / "mnist").mkdir()
    for digit in range(2):
        for index in range(12):
            wave = 0.1 * np.random.default_rng([digit, index]).standard_normal(800)
            soundfile.write(folder / "fsdd" / f"{digit}_anna_{index}.wav", wave, 8000)
    greys = np.repeat(np.arange(40, dtype=np.uint8), 784).tobytes()
    for name, content in (
            ("t10k-images-idx3-ubyte", struct.pack(">4i", 0x803, 40, 28, 28) + greys),
            ("t10k-labels-idx1-ubyte", struct.pack(">2i", 0x801, 40) + bytes([0, 1] * 20))):
        path = folder / "mnist" / (name + ".gz" * compress)
        path.write_bytes(gzip.compress(content) if compress else content)


def test_the_toy_set_is_varied_and_the_same_for_the_same_seed_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(toy, "SECONDS", (0.2, 0.3))            # for speed
    for name in ("toy", "same"):
        toy.make(tmp_path / name, recordings=6)
    toy.make(tmp_path / "other", recordings=6, split="random", seed=1)
    _, rows, classes = read_set(tmp_path / "toy")
    assert len(classes) == 10 and Counter(row.label for row in rows) == dict.fromkeys(classes, 12)
    infos = [soundfile.info(tmp_path / "toy" / row.audio) for row in rows]
    assert len({info.samplerate for info in infos}) == 5
    assert {info.channels for info in infos} == {1, 2}
    assert all(0.2 <= info.duration <= 0.3 for info in infos)
    assert {read_pixels(tmp_path / "toy" / row.image).shape for row in rows} == {(64, 64, 3)}
    assert len({row.group for row in rows}) == len({(row.group, row.split) for row in rows}) == 60
    assert len({(row.group, row.split) for row in read_set(tmp_path / "other")[1]}) > 60
    first, same, other = (files_of(tmp_path / name) for name in ("toy", "same", "other"))
    assert first == same
    assert all(first[name] != other[name] for name in first if name.endswith((".wav", ".png")))


def make_av_mnist(folder: Path, seed: int = 0) -> Path:
    out = folder / f"set-{seed}"
    av_mnist.main(["--fsdd", str(folder / "fsdd"), "--mnist", str(folder / "mnist"),
                   "--out", str(out), "--seed", str(seed)])
    return out


@pytest.mark.parametrize("compress", [True, False])
def test_av_mnist_has_the_official_split_and_no_image_twice(tmp_path, compress):
    write_digits(tmp_path, compress)
    pairs = {}
    for seed in (0, 1):
        out = make_av_mnist(tmp_path, seed)
        _, rows, classes = read_set(out)
        assert classes == list("0123456789") and len(rows) == 24
        pairs[seed] = {row.id: int(read_pixels(out / row.image)[0, 0]) for row in rows}
        assert len(set(pairs[seed].values())) == 24
        for row in rows:
            index = int(row.id.split("_")[2])
            assert row.split == ("test" if index < 5 else "val" if index < 10 else "train")
            assert row.label == row.id[0] == str(pairs[seed][row.id] % 2)
            assert ((out / row.audio).read_bytes()
                    == (tmp_path / "fsdd" / f"{row.id}.wav").read_bytes())
    assert pairs[0] != pairs[1]


def test_av_mnist_names_what_is_wrong(tmp_path):
    def refuse(message):
        with pytest.raises(InputError, match=message):
            make_av_mnist(tmp_path)
        assert not (tmp_path / "set-0").exists()

    write_digits(tmp_path)
    images, labels = sorted((tmp_path / "mnist").iterdir())
    whole = images.read_bytes()
    for content in (whole[:-20], gzip.compress(gzip.decompress(whole)[:-1]), b"text"):
        images.write_bytes(content)
        refuse(f"{images}: .*; expected a whole IDX file")
    images.write_bytes(whole)
    digits = labels.read_bytes()
    labels.write_bytes(gzip.compress(b"\0\0\x08\x01\0\0\0\x01\0"))
    refuse(f"{labels}: 1 labels for .* images; expected as many")
    labels.write_bytes(digits)
    copy = tmp_path / "fsdd" / "0_x_1 (1).wav"
    copy.write_bytes(b"")
    refuse("0_x_1 .1..wav: expected a name such as")
    copy.unlink()
    recording = next((tmp_path / "fsdd").glob("0_*.wav"))
    for n in range(100, 200):
        shutil.copy(recording, recording.with_stem(f"0_x_{n}"))
    refuse("class 0: .* images for .* samples")
    labels.unlink()
    refuse("t10k-labels-idx1-ubyte.gz: .*No such file")
    images.unlink()
    refuse("no .*-images-idx3-ubyte or .gz there")
    shutil.rmtree(tmp_path / "fsdd")
    refuse("no 7_jackson_32.wav or such there")


def write_esc10(folder: Path) -> list[str]:
    """Write a recording of each fold and class of ESC-10, one of another class, and CIFAR-10 of 31
    images a class, in binary files in which an image has its number as red and as blue."""
    (folder / "esc" / "audio").mkdir(parents=True)
    (folder / "esc" / "meta").mkdir()
    (folder / "cifar").mkdir()
    lines = ["filename,fold,target,category,esc10,src_file,take", "1-9-A-9.wav,1,9,crow,False,9,A"]
    for number, label in enumerate(esc10_cifar10.SOUND_OF.values()):
        for fold in range(1, 6):
            path = folder / "esc" / "audio" / f"{fold}-{number}-A-{number}.ogg"
            path.write_bytes(bytes([fold, number]))
            lines.append(f"{path.stem}.wav,{fold},{number},{label},True,{fold}{number},A")
    (folder / "esc" / "meta" / "esc50.csv").write_text("\n".join(lines))
    records = np.zeros((310, 3073), np.uint8)
    records[:, 0] = np.arange(310) % 10
    records[:, 1:1025] = records[:, 2049:] = (np.arange(310) // 10)[:, None]
    records[:155].tofile(folder / "cifar" / "data_batch_1.bin")
    records[155:].tofile(folder / "cifar" / "test_batch.bin")
    return ["--esc", str(folder / "esc"), "--cifar", str(folder / "cifar")]


def test_esc10_with_cifar10_has_six_images_a_sound_and_no_image_twice(tmp_path):
    flags = write_esc10(tmp_path)
    for fold, splits in ((5, "train train train val test"), (1, "test train train train val")):
        out = tmp_path / f"fold-{fold}"
        esc10_cifar10.main([*flags, "--fold", str(fold), "--out", str(out)])
        _, rows, classes = read_set(out)
        assert classes == sorted(esc10_cifar10.SOUND_OF.values()) and len(rows) == 300
        used = Counter()
        for row in rows:
            own_fold, number = (out / row.audio).read_bytes()
            assert row.split == splits.split()[own_fold - 1] and row.group == f"{own_fold}{number}"
            assert row.label == list(esc10_cifar10.SOUND_OF.values())[number]
            red, green, blue = read_pixels(out / row.image)[3, 5]
            assert green == 0 and red == blue
            used[row.label, red] += 1
        assert set(used.values()) == {1} and len(used) == 300
        assert set(Counter(row.audio for row in rows).values()) == {6}


def test_esc10_with_cifar10_from_class_folders(tmp_path):
    flags = write_esc10(tmp_path)
    shutil.rmtree(tmp_path / "cifar")
    for number, name in enumerate(esc10_cifar10.SOUND_OF):
        (tmp_path / "cifar" / name).mkdir(parents=True)
        for image in range(30):
            Image.new("RGB", (32, 32), (number, 0, 0)).save(
                tmp_path / "cifar" / name / f"{image}.png")
    out = tmp_path / "set"
    esc10_cifar10.main([*flags, "--out", str(out)])
    sounds = list(esc10_cifar10.SOUND_OF.values())
    assert all(sounds[read_pixels(out / row.image)[0, 0, 0]] == row.label
               for row in read_set(out)[1])
    broken = tmp_path / "cifar" / "dog" / "7.png"
    broken.write_text("no image")
    with pytest.raises(InputError, match=f"{broken}: .*; expected a whole PNG"):
        esc10_cifar10.main([*flags, "--out", str(tmp_path / "other")])
    assert not (tmp_path / "other").exists()


def test_esc10_with_cifar10_names_what_is_wrong(tmp_path):
    flags = write_esc10(tmp_path)

    def refuse(message):
        with pytest.raises(InputError, match=message):
            esc10_cifar10.main([*flags, "--out", str(tmp_path / "set")])
        assert not (tmp_path / "set").exists()

    batch = tmp_path / "cifar" / "data_batch_1.bin"
    whole = batch.read_bytes()
    for content in (whole[:-1], b"\x0a" + whole[1:]):
        batch.write_bytes(content)
        refuse(f"{batch}: .* bytes; expected whole records")
    batch.unlink()
    refuse("class .*: .* images for 30 samples")
    (tmp_path / "cifar" / "test_batch.bin").unlink()
    refuse("neither data_batch_1.bin and so on nor folders")
    (tmp_path / "cifar" / "dog").mkdir()
    (tmp_path / "cifar" / "dog" / "1.png").write_text("no image")
    refuse("class .*: 0 images for 30 samples")
    next((tmp_path / "esc" / "audio").glob("3-*")).unlink()
    refuse("esc50.csv:.*: .*/3-.*: no such file, nor of another format")


def test_folds_are_the_sets_own(tmp_path, prepare, refuse):
    samples = make_samples(slices=2)
    raw, metadata = write_samples(tmp_path / "raw", samples, "dataset_v3"), tmp_path / "folds.csv"
    metadata.write_text("slice_file_name,fsID,fold,class\n" + "".join(
        f"{s.stem}.wav,x,{int(s.stem.split('-')[0]) % 10 + 1},{s.label}\n" for s in samples))
    flags = [raw, "--split", "folds", "--metadata", metadata, "--fold"]
    rows, _ = prepare(urbansound8k_av, *flags, 4)
    assert {row.group for row in rows if row.split == "test"} == {"3", "103"}
    assert {row.split for row in rows} == {"train", "val", "test"}
    for missing in (flags[:3], [raw, "--fold", 1], flags[:-1]):
        assert "expected all three, or none" in refuse(urbansound8k_av, *missing)
    metadata.write_text("slice_file_name,fold\n1-0-0-0.wav,1\n")
    assert "0-0-0-0.wav: not in" in refuse(urbansound8k_av, *flags, 1)
