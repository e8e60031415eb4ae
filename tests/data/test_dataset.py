"""The feature cache, a set's samples, and the batches that training and evaluation see."""
import errno
import io
import logging
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from helpers import CONFIG, RATE, edit, files_of, read_manifest, refusal, write_manifest
from torch.utils.data import DataLoader

from ptm_mini import files
from ptm_mini.config import Situation, override
from ptm_mini.data import dataset
from ptm_mini.data.dataset import (DamagedSamples, Normalisation, PreparedSet, TrainingSamples,
                                   augment, collate, take_fraction, warn_if_truncated)
from ptm_mini.data.image import normalise
from ptm_mini.errors import InputError
from ptm_mini.method.damage import KINDS, Sample, damage_sample, seeded_generator

Items = list[tuple[int, int, Situation]]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that have been decoded."""
    names = []
    for name in ("read_waveform", "read_image"):
        decode = getattr(dataset, name)

        def count(path: Path, *arguments: object, decode=decode, **keywords: object) -> object:
            names.append(path.name)
            return decode(path, *arguments, **keywords)

        monkeypatch.setattr(dataset, name, count)
    return names


def batches_of(data: PreparedSet, items: Items, workers: int) -> list[Sample]:
    """The batches of a loader like PreparedSet.loader's, with processes or without."""
    samples = DamagedSamples(data, True, tuple(KINDS))
    return list(DataLoader(samples, 4, sampler=items, collate_fn=collate, num_workers=workers))


def equal(one: Sample, other: Sample) -> bool:
    return one.id == other.id and all(map(torch.equal, one[:-1], other[:-1]))


# The cache

def test_a_file_is_decoded_once_however_many_samples_share_it(six: Path,
                                                             decoded: list[str]) -> None:
    for line in range(2, 8):
        edit(six, line, audio="0.wav")
    data = PreparedSet(six, CONFIG)
    assert decoded.count("0.wav") == 1 and len(decoded) == 6
    assert data.audio.array.shape == (1, 32, 32) and data.image.array.shape == (5, 3, 16, 16)
    assert all(torch.equal(data.audio[row], data.audio[0]) for row in range(6))
    expected = dataset.read_log_mel(six / "0.wav", CONFIG.audio)
    assert torch.equal(data.audio[5], expected) and data.image[5] is None
    assert data.image[4].eq(torch.tensor([160, 0, 0], dtype=torch.uint8).view(3, 1, 1)).all()


def test_the_cache_is_reused_and_renewed_where_a_file_or_a_setting_changes(
        six: Path, decoded: list[str]) -> None:
    first = PreparedSet(six, CONFIG)
    assert len(decoded) == 10
    PreparedSet(six, override(CONFIG, "model.width=32", "train.seed=1"))
    assert len(decoded) == 10
    decoded.clear()
    PreparedSet(six, override(CONFIG, "audio.mels=16"))
    assert sorted(decoded) == ["0.wav", "1.wav", "2.wav", "3.wav", "5.wav"]
    decoded.clear()
    PreparedSet(six, CONFIG, place=1.0)
    PreparedSet(six, override(CONFIG, "image.size=8"))
    assert len(decoded) == 10
    decoded.clear()
    soundfile.write(six / "0.wav", np.full(7000, 0.1), RATE)
    changed = PreparedSet(six, CONFIG)
    assert len(decoded) == 5 and not torch.equal(changed.audio[0], first.audio[0])
    assert torch.equal(changed.audio[1], first.audio[1])
    os.utime(six / "1.png", (0, 0))
    PreparedSet(six, CONFIG)
    assert len(decoded) == 10


def test_the_cache_is_a_plain_array_in_the_named_folder(six: Path, tmp_path: Path) -> None:
    before = set(os.listdir(six))
    data = PreparedSet(six, CONFIG, features=tmp_path / "new" / "features")
    assert set(os.listdir(six)) == before
    audio, image = sorted((tmp_path / "new" / "features").iterdir())
    assert np.load(audio).dtype == np.float32 and np.load(image).dtype == np.uint8
    sample = data.sample(0)                                     # a copy, which may be written
    sample.audio.zero_()
    data.image[0].zero_()
    assert data.sample(0).audio.any() and data.image[1].any()


@pytest.mark.parametrize("error", [InputError, KeyboardInterrupt])
def test_what_stops_decoding_leaves_nothing(six: Path, monkeypatch: pytest.MonkeyPatch,
                                            error: type[BaseException]) -> None:
    if error is InputError:
        (six / "3.wav").write_bytes(b"")
    else:
        monkeypatch.setattr(dataset, "fbank", lambda *_: (_ for _ in ()).throw(error))
    before = files_of(six)
    with pytest.raises(error, match="3.wav" if error is InputError else None):
        PreparedSet(six, CONFIG)
    assert files_of(six) == before


@pytest.mark.parametrize("room", [0, 5000])
def test_a_full_disk_is_one_line_and_leaves_nothing(six: Path, monkeypatch: pytest.MonkeyPatch,
                                                    room: int) -> None:
    class FullDisk(io.FileIO):
        def write(self, content: bytes) -> int:
            if self.tell() + len(content) > room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(content)

    before = files_of(six)
    monkeypatch.setattr(files, "open", FullDisk, raising=False)
    message = refusal(PreparedSet, six, CONFIG)
    assert "can't be written (No space left on device); make room, or name another" in message
    assert "--features" in message and files_of(six) == before


def test_a_set_that_can_not_be_written_says_which_flag_helps(six: Path) -> None:
    (six / "features").write_text("a file in the way")
    assert "name another folder with --features" in refusal(PreparedSet, six, CONFIG)


def test_decoding_is_done_on_one_thread(six: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So features do not depend on the machine; torch's own number of threads stays."""
    threads, fbank = [], dataset.fbank
    monkeypatch.setattr(dataset, "fbank",
                        lambda *x: threads.append(torch.get_num_threads()) or fbank(*x))
    torch.set_num_threads(3)
    try:
        PreparedSet(six, CONFIG)
        assert threads == [1] * 5 and torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(1)


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
    assert data.missing.tolist() == [0, 0, 0, 0, Situation.NOISY_AUDIO, Situation.NOISY_IMAGE]
    samples = [data.sample(row) for row in range(6)]
    assert [not sample.audio.any() for sample in samples] == [row == 4 for row in range(6)]
    assert [not sample.image.any() for sample in samples] == [row == 5 for row in range(6)]
    assert [sample.situation for sample in samples] == data.missing.tolist()
    assert [sample.label for sample in samples] == [0, 1, 0, 1, 0, 1] and samples[5].id == "s5"
    assert data.indices("train", Situation.COMPLETE).tolist() == [0, 1]
    assert data.indices("train", Situation.NOISY_AUDIO).tolist() == [0, 1, 4]
    assert data.indices("test").tolist() == [3, 5]
    assert data.indices("test", Situation.NOISY_AUDIO).tolist() == [3]


def test_a_modality_that_nothing_has(six: Path) -> None:
    """A set without images works; splits that lack what is needed are named."""
    rows = [row | {"image": ""} for row in read_manifest(six) if row["audio"]]
    write_manifest(six, rows)
    data = PreparedSet(six, CONFIG)
    assert data.missing.eq(Situation.NOISY_IMAGE).all() and not data.sample(0).image.any()
    message = refusal(data.indices, "val", Situation.NOISY_AUDIO)
    assert "split 'val': every sample lacks a modality that noisy_audio needs" in message
    write_manifest(six, [row | {"image": "0.png", "audio": "" if row["split"] == "train" else
                                row["audio"]} for row in rows])
    assert "split 'train': no sample has audio" in refusal(PreparedSet, six, CONFIG)


def test_normalisation_is_that_of_the_training_sounds(six: Path) -> None:
    data = PreparedSet(six, CONFIG)
    sounds = np.stack([data.audio[0], data.audio[1]]).astype(float)
    assert data.normalisation == pytest.approx((sounds.mean(), sounds.std()), rel=1e-6)
    normal = torch.stack([data.sample(0).audio, data.sample(1).audio])
    assert normal.mean().item() == pytest.approx(0, abs=1e-5)
    assert normal.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert torch.equal(data.sample(0).image, normalise(data.image[0]))


def test_normalisation_can_be_given(six: Path) -> None:
    fixed = override(CONFIG, "train.audio_mean=-5", "train.audio_std=4.5")
    assert PreparedSet(six, fixed).normalisation == (-5, 4.5)
    data = PreparedSet(six, fixed, Normalisation(1.0, 2.0))             # a run's own comes first
    assert torch.equal(data.sample(0).audio, (data.audio[0] - 1) / 2)


def test_silent_training_sounds_are_refused(six: Path) -> None:
    for name in ("0.wav", "1.wav"):
        soundfile.write(six / name, np.zeros(6000), RATE)
    assert "split 'train': all its audio is silent" in refusal(PreparedSet, six, CONFIG)


def test_the_test_split_reaches_neither_normalisation_nor_training_items(six: Path) -> None:
    data = PreparedSet(six, CONFIG)
    before = data.normalisation, data.fingerprint()
    items = TrainingSamples(data, tuple(Situation)).items(2, "prompt")
    batches = batches_of(data, items, 0)
    soundfile.write(six / "3.wav", np.full(9000, 0.3), RATE)
    shutil.copy(six / "0.png", six / "3.png")
    edit(six, 5, label="a", id="another", group="x")
    edit(six, 7, image="2.png", audio="")
    data = PreparedSet(six, CONFIG)
    assert data.normalisation == before[0] and data.fingerprint() != before[1]
    assert TrainingSamples(data, tuple(Situation)).items(2, "prompt") == items
    assert all(map(equal, batches_of(data, items, 0), batches))


def test_the_fingerprint_is_that_of_the_content_wherever_it_lies(six: Path,
                                                                 tmp_path: Path) -> None:
    moved = shutil.copytree(six, tmp_path / "moved")
    first = PreparedSet(six, CONFIG).fingerprint()
    assert PreparedSet(moved, override(CONFIG, "audio.mels=16")).fingerprint() == first
    edit(moved, 3, label="a")
    assert PreparedSet(moved, CONFIG).fingerprint() != first
    soundfile.write(six / "0.wav", np.full(7000, 0.1), RATE)
    assert PreparedSet(six, CONFIG).fingerprint() != first


# Batches

def test_workers_make_the_same_bytes(data: PreparedSet) -> None:
    """For a GPU; here the loader makes them itself, as `loader` does."""
    items = TrainingSamples(data, tuple(Situation)).items(3, "prompt")
    alone, processes = batches_of(data, items, 0), batches_of(data, items, 2)
    assert len(alone) == len(processes) == 6 and all(map(equal, alone, processes))
    assert all(map(equal, alone, data.loader(items, 4, augmented=True)))
    assert [id for batch in alone for id in batch.id] == [data.rows[row].id for row, *_ in items]


def test_a_batch_is_its_samples_whatever_stands_beside_them(data: PreparedSet) -> None:
    items = [(row, 5, situation) for row in range(4) for situation in Situation]
    batch, = data.loader(items, 16)
    assert batch.audio.shape == (16, 32, 32) and batch.image.shape == (16, 3, 16, 16)
    assert batch.situation.tolist() == [situation for _, _, situation in items]
    for i, (row, epoch, situation) in enumerate(items):
        expected = damage_sample(data.sample(row), situation, CONFIG.damage, 0, epoch)
        assert torch.equal(batch.audio[i], expected.audio) and batch.id[i] == expected.id
        assert torch.equal(batch.image[i], expected.image) and batch.label[i] == expected.label
    shuffled = list(data.loader(items[::-1], 3))
    assert torch.equal(torch.cat([part.audio for part in shuffled]).flip(0), batch.audio)


def test_augmentation_rolls_audio_in_time_and_images_in_both_directions(data: PreparedSet) -> None:
    """By up to 8 of 32 frames and 2 of 16 pixels, as the sample's own generator says."""
    train, seen = override(CONFIG, "train.image_shift=0.1").train, set()
    for row, epoch in ((row, epoch) for row in range(5) for epoch in range(20)):
        sample = data.sample(row)
        generator = seeded_generator(0, epoch, f"shift {sample.id}")
        later, down, right = (int(generator.integers(-n, n + 1)) for n in (8, 2, 2))
        expected = sample._replace(audio=sample.audio.roll(later, dims=0),
                                   image=sample.image.roll(down, dims=1).roll(right, dims=2))
        assert equal(augment(sample, train, epoch), expected)
        seen.update(enumerate((later, down, right)))
    assert len(seen) == 17 + 5 + 5
    still = override(CONFIG, "train.audio_shift=0", "train.image_shift=0").train
    assert equal(augment(sample, still, 1), sample)


def test_epochs_differ_in_order_and_situations_and_repeat_by_seed(data: PreparedSet) -> None:
    samples, train = TrainingSamples(data, tuple(Situation)), data.indices("train").tolist()
    epochs = [samples.items(epoch, "full_mixed") for epoch in (1, 2)]
    for number, items in enumerate(epochs, start=1):
        assert sorted(row for row, *_ in items) == train and len(samples) == len(train)
        assert {epoch for _, epoch, _ in items} == {number}
        assert {situation for *_, situation in items} == set(Situation)
    orders = [[row for row, *_ in items] for items in (*epochs, samples.items(1, "prompt"))]
    assert train not in orders and len({tuple(order) for order in orders}) == 3
    assert {item[::2] for item in epochs[0]} != {item[::2] for item in epochs[1]}
    assert samples.items(1, "full_mixed") == epochs[0]
    assert sorted(samples.items(1, "prompt")) == sorted(epochs[0]) == samples.items(1)
    one = TrainingSamples(data, [Situation.NOISY_IMAGE]).items(1, "x")
    assert {situation for *_, situation in one} == {Situation.NOISY_IMAGE}


def test_a_samples_situation_and_damage_follow_its_id_not_its_line(six: Path) -> None:
    before, situations = PreparedSet(six, CONFIG), [Situation.NOISY_AUDIO, Situation.COMPLETE]
    write_manifest(six, read_manifest(six)[::-1])
    after, found = PreparedSet(six, CONFIG), []
    for data in (before, after):
        samples = DamagedSamples(data, True, tuple(KINDS))
        items = [item for epoch in range(1, 9)
                 for item in TrainingSamples(data, situations).items(epoch)]
        found.append({(samples[item].id, item[1]): samples[item] for item in items})
    assert found[0].keys() == found[1].keys() and len(found[0]) == 24
    # the mean and std of the training sounds are summed in another order
    assert all(torch.allclose(sample.audio, found[1][key].audio, atol=1e-5)
               and sample.situation == found[1][key].situation for key, sample in found[0].items())


def test_training_takes_the_samples_that_can_be_in_its_situations(six: Path) -> None:
    data = PreparedSet(six, CONFIG)
    for situations, rows in (([Situation.COMPLETE], [0, 1]), ([Situation.NOISY_IMAGE], [0, 1]),
                             ([Situation.NOISY_AUDIO], [0, 1, 4]), (tuple(Situation), [0, 1, 4])):
        assert [row for row, *_ in TrainingSamples(data, situations).items(1)] == rows


def test_a_fraction_is_taken_of_each_class_by_seed(data: PreparedSet) -> None:
    rows = data.indices("train")
    taken = [take_fraction(rows, data.labels, 0.5, seed) for seed in (0, 0, 1)]
    assert torch.equal(taken[0], taken[1]) and not torch.equal(taken[0], taken[2])
    assert data.labels[taken[0]].bincount().tolist() == [4, 4, 4]
    assert set(taken[0].tolist()) < set(rows.tolist()) and taken[0].diff().gt(0).all()
    few = take_fraction(rows, data.labels, 0.001, 0)
    assert data.labels[few].tolist() == [0, 1, 2] and set(few.tolist()) < set(taken[0].tolist())
    assert torch.equal(take_fraction(rows, data.labels, 1.0, 0), rows)


def test_full_length_goes_through_a_fraction_in_passes(small_set: Path) -> None:
    config = override(CONFIG, "train.full_length=true")
    data = PreparedSet(small_set, config)
    samples = TrainingSamples(data, tuple(Situation), fraction=0.4)       # 9 of 24
    assert len(samples) == 24 and len(samples.rows) == 9
    items = [item for epoch in (1, 2, 3) for item in samples.items(epoch, "lora")]
    assert [number for _, number, _ in items] == [1 + i // 9 for i in range(72)]
    for start in range(0, 72, 9):
        rows = [row for row, *_ in items[start:start + 9]]
        assert sorted(rows) == samples.rows.tolist()
    batches = list(samples.loader(16, 1, "lora"))
    assert [len(batch.id) for batch in batches] == [16, 8]
    short = TrainingSamples(PreparedSet(small_set, CONFIG), tuple(Situation), fraction=0.4)
    assert len(short) == 9 and short.items(2, "lora") == items[9:18]


def test_long_sounds_are_warned_of(six: Path, caplog: pytest.LogCaptureFixture) -> None:
    warn_if_truncated(PreparedSet(six, override(CONFIG, "audio.seconds=0.495")))
    assert caplog.text == ""                                              # of 0.375 s
    with caplog.at_level(logging.WARNING):
        warn_if_truncated(PreparedSet(six, CONFIG))
    assert "most sounds are longer than the 0.335 s" in caplog.text
