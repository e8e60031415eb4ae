"""A set's samples, what they are normalised by, and the work ahead of them."""
import time

import numpy as np
import pytest
import torch
from conftest import edit

from ptm_mini.config import Situation
from ptm_mini.data.leaks import warn_of_leaks
from ptm_mini.data.manifest import Row
from ptm_mini.data.prepared import PreparedSet, worked_ahead
from ptm_mini.errors import InputError


def test_an_empty_cell_is_a_missing_modality(tiny_set, small):
    data = PreparedSet(tiny_set, small)
    assert data.missing.tolist() == [0, 0, 0, 0, Situation.NOISY_AUDIO, Situation.NOISY_IMAGE]
    samples = [data.sample(i, data.normalisation()) for i in range(6)]
    assert [s.audio.eq(0).all().item() for s in samples] == [False] * 4 + [True, False]
    assert [s.image.eq(0).all().item() for s in samples] == [False] * 5 + [True]
    assert [s.situation for s in samples] == data.missing.tolist() and samples[5].id == "s5"
    assert data.indices("train", Situation.COMPLETE).tolist() == [0, 1]
    assert data.indices("train", Situation.NOISY_AUDIO).tolist() == [0, 1, 4]
    assert data.indices("test", Situation.NOISY_AUDIO).tolist() == [3]


def test_a_situation_without_samples_is_refused(tiny_set, small):
    edit(tiny_set, 4, audio="")                                                   # the only validation sample
    with pytest.raises(InputError, match="split 'val': every sample lacks a modality that noisy_image needs"):
        PreparedSet(tiny_set, small).indices("val", Situation.NOISY_IMAGE)


def test_normalisation_uses_the_training_audio_that_is_there(tiny_set, small):
    data = PreparedSet(tiny_set, small)
    audio = torch.stack([data.sample(i, data.normalisation()).audio for i in (0, 1)])
    assert audio.mean() == pytest.approx(0, abs=1e-4) and audio.std() == pytest.approx(1, abs=1e-3)
    clips = [np.array(data.cache.audio[i]) for i in (0, 1)]
    mean = np.mean([clip.mean(dtype=np.float64) for clip in clips])
    variance = np.mean([np.square(clip - float(mean), dtype=np.float64).mean() for clip in clips])
    assert data.normalisation() == (mean, variance ** 0.5)


def test_a_group_in_two_splits_is_reported(toy_set, small, caplog):
    PreparedSet(toy_set, small)
    assert "more than one split" not in caplog.text
    warn_of_leaks([Row("a", "x", "", "l", "train", "g"), Row("b", "x", "", "l", "test", "g")])
    assert "1 of 1 groups stand in more than one split" in caplog.text


def test_work_ahead_keeps_the_order_and_stops_with_its_reader():
    slow_first = (0.05, 0.0, 0.02, 0.0, 0.0)
    done = []

    def prepare(i):
        time.sleep(slow_first[i % 5])
        done.append(i)
        return i * i

    for threads in (0, 1, 3):
        assert list(worked_ahead(prepare, range(20), threads)) == [i * i for i in range(20)]
        done.clear()
        squares = worked_ahead(prepare, range(20), threads)
        assert next(squares) == 0
        squares.close()
        assert len(done) <= 2 * threads + 1


def test_what_fails_ahead_is_raised_in_its_place():
    found = worked_ahead(lambda i: 1 // (3 - i), range(10), threads=2)
    assert [next(found) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(found)
