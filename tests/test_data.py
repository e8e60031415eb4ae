"""Manifests, splits, pairing, the feature cache and batches."""
import csv
import itertools
import os
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from ptm_mini import data as data_module
from ptm_mini.config import InputError, Situation
from ptm_mini.data import PreparedSet, fraction_of, in_batches, shifted
from ptm_mini.manifest import Row, assign_splits, pair_by_class, read_set, write_set


@pytest.fixture
def tiny_set(tmp_path):
    """Six samples of two classes; sample 4 lacks its audio and sample 5 its image."""
    rows = []
    for i in range(6):
        soundfile.write(tmp_path / f"{i}.wav", 0.1 * np.random.default_rng(i).standard_normal(6000), 16000)
        Image.new("RGB", (20, 20), (40 * i, 0, 0)).save(tmp_path / f"{i}.png")
        rows.append(Row(f"s{i}", f"{i}.wav" * (i != 4), f"{i}.png" * (i != 5), "ab"[i % 2],
                        ["train", "train", "val", "test", "train", "test"][i]))
    write_set(tmp_path, rows, ["a", "b"])
    return tmp_path


def edit(folder, line, **cells):
    """Change cells of the manifest; line 2 is the first sample."""
    with open(folder / "manifest.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    rows[line - 2].update(cells)
    with open(folder / "manifest.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)


def refusal(folder):
    with pytest.raises(InputError) as caught:
        read_set(folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("cells, says", [
    ({"id": "s1"}, "manifest.csv:3: id 's1' stands in line 2 too"), ({"id": ""}, "the id is empty"),
    ({"label": "A"}, "label 'A' is not in classes.json; "), ({"split": "testing"}, "split 'testing'; expected one of train"),
    ({"audio": "../0.wav"}, "leads outside the set"), ({"image": "/etc/passwd"}, "leads outside the set"),
    ({"audio": "9.wav"}, "9.wav: no such file"), ({"audio": "", "image": ""}, "neither audio nor image")])
def test_bad_cells_are_named_with_their_line(tiny_set, cells, says):
    line = 3 if cells.get("id") == "s1" else 2                                    # the second of two with one id
    edit(tiny_set, 2, **cells)
    assert f"manifest.csv:{line}" in refusal(tiny_set) and says in refusal(tiny_set)


@pytest.mark.parametrize("change, says", [
    (lambda text: text.replace("label", "lable"), "column 'lable': no such column; did you mean label?"),
    (lambda text: text.replace(",group", "").replace("train,\n", "train\n"), "column 'group' stands 0 times"),
    (lambda text: text.replace("label", "image"), "column 'image' stands 2 times"),
    (lambda text: text.replace(",val,", ",train,"), "no row of split 'val'"),
    (lambda text: text.replace("s2,", "s2,,,,,,"), "manifest.csv:4: expected 6 cells"), (lambda text: "", "stands 0 times"),
    (lambda text: text.replace("s2", "s" * 200_000), ": field larger than field limit")])
def test_bad_manifests(tiny_set, change, says):
    path = tiny_set / "manifest.csv"
    path.write_text(change(path.read_text()))
    assert says in refusal(tiny_set)


@pytest.mark.parametrize("name", ["manifest.csv", "classes.json"])
def test_missing_and_undecodable_files(tiny_set, name):
    (tiny_set / name).write_bytes(b"\xff\xfe")
    assert name in refusal(tiny_set) and "UTF-8" in refusal(tiny_set)
    (tiny_set / name).unlink()
    assert f"{name}: no such file" in refusal(tiny_set)


@pytest.mark.parametrize("classes", ["{", "{}", '["a"]', '["a", "a"]', '["a", 1]'])
def test_bad_classes(tiny_set, classes):
    (tiny_set / "classes.json").write_text(classes)
    assert "classes.json" in refusal(tiny_set)


def test_a_byte_order_mark_is_no_part_of_the_first_column(tiny_set):
    path = tiny_set / "manifest.csv"
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert len(read_set(tiny_set)[0]) == 6


def test_a_written_set_reads_back(tiny_set):
    rows, classes = read_set(tiny_set)
    write_set(tiny_set, rows, classes)
    assert read_set(tiny_set) == (rows, classes) and classes == ["a", "b"]


def test_an_empty_cell_is_a_missing_modality(tiny_set, small):
    data = PreparedSet(tiny_set, small)
    assert data.missing.tolist() == [0, 0, 0, 0, Situation.NOISY_AUDIO, Situation.NOISY_IMAGE]
    batch = data.batch(torch.arange(6), data.normalisation())
    assert batch.audio[4].eq(0).all() and batch.image[5].eq(0).all()
    assert not batch.audio[5].eq(0).all() and not batch.image[4].eq(0).all()
    assert data.indices("train", Situation.COMPLETE).tolist() == [0, 1]
    assert data.indices("train", Situation.NOISY_AUDIO).tolist() == [0, 1, 4]
    assert data.indices("test", Situation.NOISY_AUDIO).tolist() == [3]


def test_a_situation_without_samples_is_refused(tiny_set, small):
    edit(tiny_set, 4, audio="")                                                   # the only validation sample
    with pytest.raises(InputError, match="split 'val': every sample lacks a modality that noisy_image needs"):
        PreparedSet(tiny_set, small).indices("val", Situation.NOISY_IMAGE)


def test_normalisation_uses_the_training_audio_that_is_there(tiny_set, small):
    data = PreparedSet(tiny_set, small)
    batch = data.batch(torch.tensor([0, 1]), data.normalisation())
    assert batch.audio.mean() == pytest.approx(0, abs=1e-4) and batch.audio.std() == pytest.approx(1, abs=1e-3)


def test_the_cache_decodes_once_and_again_for_a_changed_file(tiny_set, small, monkeypatch):
    decoded = []
    original = data_module.read_waveform
    monkeypatch.setattr(data_module, "read_waveform", lambda path, config: decoded.append(path.name) or original(path, config))
    first = PreparedSet(tiny_set, small)
    assert isinstance(first.audio, np.memmap) and sorted(decoded) == ["0.wav", "1.wav", "2.wav", "3.wav", "5.wav"]
    PreparedSet(tiny_set, small)
    assert len(decoded) == 5
    soundfile.write(tiny_set / "0.wav", np.zeros(7000) + 0.1, 16000)
    assert not np.array_equal(PreparedSet(tiny_set, small).audio[0], first.audio[0]) and len(decoded) == 10


def test_two_processes_can_make_the_cache_at_once(tiny_set, small, monkeypatch):
    original = data_module.decode

    def slower_than_another(*arguments):
        monkeypatch.setattr(data_module, "decode", original)
        PreparedSet(tiny_set, small)
        original(*arguments)

    monkeypatch.setattr(data_module, "decode", slower_than_another)
    monkeypatch.setattr("os.getpid", itertools.count(1).__next__)
    assert not np.asarray(PreparedSet(tiny_set, small).audio[0] == 0).all()
    assert len(list(tiny_set.glob("*features*"))) == 1


def test_a_damaged_cache_is_named(tiny_set, small):
    PreparedSet(tiny_set, small)
    cache = next(tiny_set.glob("features-*")) / "audio.npy"
    cache.write_bytes(cache.read_bytes()[:1000])
    with pytest.raises(InputError, match="features-.*: the feature cache is not whole; remove it"):
        PreparedSet(tiny_set, small)


def test_a_bad_file_leaves_no_cache_behind(tiny_set, small):
    (tiny_set / "3.wav").write_bytes(b"")
    before = sorted(os.listdir(tiny_set))
    with pytest.raises(InputError, match="3.wav"):
        PreparedSet(tiny_set, small)
    assert sorted(os.listdir(tiny_set)) == before


def test_a_group_in_two_splits_is_reported(toy_set, small, caplog):
    PreparedSet(toy_set, small)
    assert "more than one split" not in caplog.text
    data_module.warn_of_shared_groups([Row("a", "x", "", "l", "train", "g"), Row("b", "x", "", "l", "test", "g")])
    assert "1 of 1 groups stand in more than one split" in caplog.text


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


def test_batches_visit_every_sample_once_in_a_seeded_order():
    indices = torch.arange(10, 20)
    order = [torch.cat(list(in_batches(indices, 4, np.random.default_rng(0)))).tolist() for _ in range(2)]
    assert order[0] == order[1] != indices.tolist() and sorted(order[0]) == indices.tolist()
    assert [len(some) for some in in_batches(indices, 4)] == [4, 4, 2]


def test_a_fraction_is_taken_of_each_class():
    labels = torch.tensor([0] * 20 + [1] * 10 + [2])
    kept = fraction_of(torch.arange(31), labels, 0.3, seed=0)
    assert torch.bincount(labels[kept]).tolist() == [6, 3, 1]
    assert torch.equal(fraction_of(torch.arange(31), labels, 1.0, seed=0), torch.arange(31))


def test_shift_moves_but_loses_nothing(tiny_set, small):
    data = PreparedSet(tiny_set, small)
    batch = data.batch(torch.arange(6), data.normalisation())
    moved = shifted(batch, 0.25, 0.25, seed=0, epoch=1)
    assert not torch.equal(moved.audio, batch.audio)
    assert torch.equal(moved.audio.flatten(1).sort(dim=1).values, batch.audio.flatten(1).sort(dim=1).values)
    assert torch.equal(moved.audio[0].sort(dim=0).values, batch.audio[0].sort(dim=0).values)     # no bin left its row
    assert torch.equal(shifted(batch, 0.25, 0.0, seed=0, epoch=1).image, batch.image)


