"""The feature cache, a set's samples, and the batches that training and evaluation see."""
import logging
import os
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import CONFIG, RATE, edit, files_of, read_manifest, refusal, write_manifest
from torch import Tensor
from torch.utils.data import DataLoader

from ptm_mini.config import Situation, override
from ptm_mini.data import dataset
from ptm_mini.data.dataset import (Normalisation, PreparedSet, TrainingSamples, augment, collate,
                                   log_notes, take_fraction)
from ptm_mini.data.image import normalise
from ptm_mini.errors import InputError
from ptm_mini.method.damage import Sample, damage_sample

COMPLETE, AUDIO, IMAGE, BOTH = Situation
SOUNDS = ["0.wav", "1.wav", "2.wav", "3.wav", "5.wav"]
IMAGES = ["0.png", "1.png", "2.png", "3.png", "4.png"]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that have been decoded."""
    names, decode_all = [], dataset.decode_all

    def count(paths: list[Path], *arguments: object) -> Iterator[Tensor]:
        names.extend(path.name for path in paths)
        return decode_all(paths, *arguments)

    monkeypatch.setattr(dataset, "decode_all", count)
    return names


def equal(one: Sample, other: Sample) -> bool:
    return one.id == other.id and all(map(torch.equal, one[:-1], other[:-1]))


# The cache

def test_a_file_that_samples_share_is_decoded_once(six: Path, decoded: list[str]) -> None:
    for line in range(2, 8):
        edit(six, line, audio="0.wav")
    data = PreparedSet(six, CONFIG)
    assert decoded == ["0.wav", *IMAGES]
    assert data.audio.array.shape == (1, 32, 32) and data.image.array.shape == (5, 3, 16, 16)
    expected = dataset.read_log_mel(six / "0.wav", CONFIG.audio)
    assert all(torch.equal(data.audio[row], expected) for row in range(6))
    assert data.image[4].eq(torch.tensor([160, 0, 0], dtype=torch.uint8).view(3, 1, 1)).all()
    assert data.image[5] is None


def test_the_cache_is_renewed_only_by_what_it_depends_on(six: Path, decoded: list[str]) -> None:
    def open_set(*assignments: str, place: float = 0.0) -> list[str]:
        decoded.clear()
        PreparedSet(six, override(CONFIG, *assignments), place=place)
        return decoded.copy()

    assert open_set() == SOUNDS + IMAGES
    assert open_set("model.width=32", "train.seed=1") == []
    assert open_set("audio.mels=16") == open_set(place=1.0) == SOUNDS
    assert open_set("image.size=8") == IMAGES
    soundfile.write(six / "0.wav", np.full(7000, 0.1), RATE)
    assert open_set() == SOUNDS
    os.utime(six / "1.png", (0, 0))
    assert open_set() == IMAGES


def test_the_cache_is_a_plain_array_in_the_named_folder(six: Path, tmp_path: Path) -> None:
    before = set(os.listdir(six))
    data = PreparedSet(six, CONFIG, features=tmp_path / "new" / "features")
    assert set(os.listdir(six)) == before
    audio, image = sorted((tmp_path / "new" / "features").iterdir())
    assert np.load(audio).dtype == np.float32 and np.load(image).dtype == np.uint8
    data.sample(0).audio.zero_()                                # a copy, which may be written
    data.image[1].zero_()
    assert data.sample(0).audio.any() and data.image[1].any()


@pytest.mark.parametrize("error, message", [
    (KeyboardInterrupt("Ctrl-C"), "Ctrl-C"),
    (OSError(28, "disk full"), r"\(disk full\); make room, or name another .* --features")])
def test_what_stops_decoding_leaves_nothing(six: Path, monkeypatch: pytest.MonkeyPatch,
                                            error: BaseException, message: str) -> None:
    def stop(*_: object) -> None:
        raise error

    before = files_of(six)
    monkeypatch.setattr(dataset, "fbank", stop)
    with pytest.raises((InputError, KeyboardInterrupt), match=message):
        PreparedSet(six, CONFIG)
    assert files_of(six) == before


def test_decoding_is_done_on_one_thread(six: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So features do not depend on the machine; torch's own number of threads stays."""
    threads, fbank = [], dataset.fbank
    monkeypatch.setattr(dataset, "fbank",
                        lambda *x: threads.append(torch.get_num_threads()) or fbank(*x))
    torch.set_num_threads(3)
    PreparedSet(six, CONFIG)
    after = torch.get_num_threads()
    torch.set_num_threads(1)
    assert threads == [1] * 5 and after == 3


@pytest.mark.slow
def test_processes_make_the_same_bytes_and_end_in_one_line(
        six: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    PreparedSet(six, CONFIG, features=tmp_path / "one")
    monkeypatch.setattr(dataset, "POOLED", 0)
    PreparedSet(six, CONFIG, features=tmp_path / "two", workers=2)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "two")
    (six / "3.wav").write_bytes(b"")
    message = refusal(PreparedSet, six, CONFIG, features=tmp_path / "three", workers=2)
    assert "3.wav: " in message and not files_of(tmp_path / "three")


# Samples

def test_an_empty_cell_is_a_missing_modality(six: Path) -> None:
    data = PreparedSet(six, CONFIG)
    samples = [data.sample(row) for row in range(6)]
    assert data.missing.tolist() == [COMPLETE] * 4 + [AUDIO, IMAGE]
    assert [sample.situation for sample in samples] == data.missing.tolist()
    assert [not sample.audio.any() for sample in samples] == [row == 4 for row in range(6)]
    assert [not sample.image.any() for sample in samples] == [row == 5 for row in range(6)]
    assert [sample.label for sample in samples] == [0, 1, 0, 1, 0, 1] and samples[5].id == "s5"


def test_a_split_gives_the_samples_that_can_be_in_a_situation(six: Path) -> None:
    data = PreparedSet(six, CONFIG)
    for situations, rows in (([COMPLETE], [0, 1]), ([IMAGE], [0, 1]), ([AUDIO], [0, 1, 4]),
                             (tuple(Situation), [0, 1, 4])):
        assert [row for row, *_ in TrainingSamples(data, situations).items(1)] == rows
        assert data.indices("train", situations[-1]).tolist() == rows
    assert data.indices("test").tolist() == [3, 5]
    assert data.indices("test", AUDIO).tolist() == [3]


def test_samples_without_a_group_are_groups_of_their_own(six: Path) -> None:
    for line in 2, 5:
        edit(six, line, group="4")
    _, *others = PreparedSet(six, CONFIG).groups.tolist()
    assert others == [1, 2, 0, 3, 4]


def test_a_modality_that_nothing_has(six: Path) -> None:
    """A set without images works; splits that lack what is needed are named."""
    rows = [row | {"image": ""} for row in read_manifest(six) if row["audio"]]
    write_manifest(six, rows)
    data = PreparedSet(six, CONFIG)
    assert data.missing.eq(IMAGE).all() and not data.sample(0).image.any()
    message = refusal(data.indices, "val", AUDIO)
    assert "split 'val': every sample lacks a modality that noisy_audio needs" in message
    write_manifest(six, [row | {"image": "0.png", "audio": "" if row["split"] == "train" else
                                row["audio"]} for row in rows])
    assert "split 'train': no sample has audio" in refusal(PreparedSet, six, CONFIG)
    write_manifest(six, rows)
    for name in ("0.wav", "1.wav"):
        soundfile.write(six / name, np.zeros(6000), RATE)
    assert "split 'train': all its audio is silent" in refusal(PreparedSet, six, CONFIG)


def test_normalisation_is_that_of_the_training_sounds_or_given(six: Path) -> None:
    data = PreparedSet(six, CONFIG)
    sounds = torch.stack([data.audio[0], data.audio[1]])
    expected = sounds.double().mean().item(), sounds.double().std(correction=0).item()
    assert data.normalisation == pytest.approx(expected, rel=1e-6)
    assert torch.equal(data.sample(0).image, normalise(data.image[0]))
    fixed = override(CONFIG, "train.audio_mean=-5", "train.audio_std=4.5")
    assert PreparedSet(six, fixed).normalisation == (-5, 4.5)
    data = PreparedSet(six, fixed, Normalisation(1.0, 2.0))             # a run's own comes first
    assert torch.equal(data.sample(0).audio, (sounds[0] - 1) / 2)


def test_the_fingerprint_is_that_of_the_content(six: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(six, tmp_path / "moved")
    first = PreparedSet(six, CONFIG).fingerprint()
    assert PreparedSet(moved, override(CONFIG, "audio.mels=16")).fingerprint() == first
    edit(moved, 3, label="a")
    assert PreparedSet(moved, CONFIG).fingerprint() != first
    soundfile.write(six / "0.wav", np.full(7000, 0.1), RATE)
    assert PreparedSet(six, CONFIG).fingerprint() != first


# Batches

def test_workers_make_the_same_bytes(data: PreparedSet) -> None:
    """As a GPU has them; here `loader` has none."""
    items = TrainingSamples(data, tuple(Situation)).items(3, "prompt")
    ours = list(DataLoader(data, 4, sampler=items, collate_fn=collate, num_workers=2))
    assert len(ours) == 6 and all(map(equal, ours, data.loader(items, 4)))
    assert [id for batch in ours for id in batch.id] == [data.rows[row].id for row, *_ in items]


def test_a_worker_that_is_started_afresh_maps_the_cache(data: PreparedSet) -> None:
    sent = pickle.dumps(data)
    assert len(sent) < data.audio.array.nbytes / 2
    there = pickle.loads(sent)
    assert isinstance(there.image.array, np.memmap)
    assert all(equal(there.sample(row), data.sample(row)) for row in range(len(data.rows)))


@pytest.mark.parametrize("epoch", [0, 5])
def test_a_batch_is_its_samples_whatever_stands_beside_them(data: PreparedSet, epoch: int) -> None:
    """In training, from epoch 1 on, augmented."""
    items = [(row, epoch, situation) for row in range(4) for situation in Situation]
    batch, = data.loader(items, 16)
    samples = [data.sample(row) for row, *_ in items]
    if epoch:
        samples = [augment(sample, CONFIG.train, epoch) for sample in samples]
    expected = [damage_sample(sample, situation, CONFIG.damage, 0, epoch)
                for sample, (*_, situation) in zip(samples, items)]
    assert batch.audio.shape == (16, 32, 32) and batch.image.shape == (16, 3, 16, 16)
    assert batch.situation.tolist() == [situation for *_, situation in items]
    assert equal(batch, collate(expected))
    shuffled = list(data.loader(items[::-1], 3))
    assert torch.equal(torch.cat([part.audio for part in shuffled]).flip(0), batch.audio)


def test_epochs_differ_in_order_and_situations_and_repeat_by_seed(data: PreparedSet) -> None:
    samples, train = TrainingSamples(data, tuple(Situation)), data.indices("train").tolist()
    first, second, of_prompts = (samples.items(*epoch) for epoch in (
        (1, "full_mixed"), (2, "full_mixed"), (1, "prompt")))
    assert sorted(row for row, *_ in second) == train and len(samples) == len(train)
    assert {epoch for _, epoch, _ in second} == {2}
    assert {situation for *_, situation in second} == set(Situation)
    orders = [[row for row, *_ in items] for items in (first, second, of_prompts)]
    assert train not in orders and len({tuple(order) for order in orders}) == 3
    assert {item[::2] for item in first} != {item[::2] for item in second}
    assert sorted(of_prompts) == sorted(first) == samples.items(1)


def test_a_samples_situation_follows_its_id_not_its_line(six: Path) -> None:
    found = []
    for step in (1, -1):
        write_manifest(six, read_manifest(six)[::step])
        data = PreparedSet(six, CONFIG)
        samples = TrainingSamples(data, [AUDIO, COMPLETE])
        found.append({(data.rows[row].id, epoch): situation for number in range(1, 9)
                      for row, epoch, situation in samples.items(number)})
    assert found[0] == found[1] and len(found[0]) == 24


def test_a_fraction_is_taken_of_each_class_by_seed(data: PreparedSet) -> None:
    rows = data.indices("train")
    taken = [take_fraction(rows, data.labels, 0.5, seed) for seed in (0, 0, 1)]
    assert torch.equal(taken[0], taken[1]) and not torch.equal(taken[0], taken[2])
    assert data.labels[taken[0]].bincount().tolist() == [4, 4, 4]
    assert set(taken[0].tolist()) < set(rows.tolist()) and taken[0].diff().gt(0).all()
    few = take_fraction(rows, data.labels, 0.001, 0)
    assert data.labels[few].tolist() == [0, 1, 2] and set(few.tolist()) < set(taken[0].tolist())
    assert torch.equal(take_fraction(rows, data.labels, 1.0, 0), rows)


def test_notes_on_long_sounds_and_classes_that_are_not_trained(
        six: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    log_notes(PreparedSet(six, override(CONFIG, "audio.seconds=0.495")))
    assert caplog.text == ""                                              # of 0.375 s
    log_notes(PreparedSet(six, CONFIG))
    assert "most sounds are longer than the 0.335 s" in caplog.text
    edit(six, 3, split="test")
    log_notes(PreparedSet(six, CONFIG))
    assert caplog.messages[-2] == "note: no training sample of b"
