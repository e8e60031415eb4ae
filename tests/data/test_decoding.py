"""Around decoding: threads come and go, settings of the process are as they were, and libraries are silent."""
import sys
import threading
import warnings

import numpy as np
import pytest
import soundfile
import torch
from PIL import Image

from ptm_mini.config import PRESETS
from ptm_mini.data.audio import read_waveform
from ptm_mini.data.decoding import decoding
from ptm_mini.data.prepared import features_of


def in_thread(call):
    """What a call gives in a thread of its own."""
    found = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join(20)
    return found[0]


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_threads_that_overlap_leave_the_number_of_torchs_threads_as_it_was(three_threads):
    inside, leave = threading.Event(), threading.Event()

    def first():
        with decoding():
            inside.set()
            leave.wait(20)
            return torch.get_num_threads()

    def second():                                      # begins while the first is inside, and ends after it
        with decoding():
            leave.set()
            thread.join(20)
            alone = torch.get_num_threads()
        return alone, torch.get_num_threads()

    seen = []
    thread = threading.Thread(target=lambda: seen.append(first()))
    thread.start()
    inside.wait(20)
    assert torch.get_num_threads() == 3                # others are not touched
    assert in_thread(second) == (1, 3) and seen == [1]
    assert torch.get_num_threads() == in_thread(torch.get_num_threads) == 3


def test_features_do_not_depend_on_the_threads_around_them(three_threads, tmp_path):
    soundfile.write(tmp_path / "a.wav", 0.1 * np.random.default_rng(0).standard_normal(20000), 22050)
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    expected = features_of(tmp_path / "a.wav", tmp_path / "a.png", PRESETS["tiny"])
    found = []
    threads = [threading.Thread(target=lambda: found.extend(features_of(tmp_path / "a.wav", tmp_path / "a.png", PRESETS["tiny"])
                                                            for _ in range(5))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20 and all(torch.equal(x, y) for some in found for x, y in zip(some, expected))
    assert torch.get_num_threads() == in_thread(torch.get_num_threads) == 3


def test_filters_of_warnings_are_as_they_were_and_others_warnings_pass():
    before = list(warnings.filters)
    with decoding(), decoding():
        with pytest.warns(UserWarning, match="ours"):
            warnings.warn("ours", UserWarning)
    assert warnings.filters == before
    with pytest.raises(KeyError), decoding():
        raise KeyError
    assert warnings.filters == before


def test_libmpg123_is_silent_and_nobody_else(tmp_path, capfd):
    path, random = tmp_path / "a.mp3", np.random.default_rng(0)
    soundfile.write(path, 0.3 * random.standard_normal(32000), 16000)
    content = bytearray(path.read_bytes())
    for place in random.integers(300, len(content), 40):
        content[place] ^= 255
    path.write_bytes(content)

    def decode():
        try:
            read_waveform(path, 16000, 31000)
        except ValueError:
            pass
        with decoding():
            print("said meanwhile", file=sys.stderr)

    soundfile.read(path)
    if "mpg123" not in capfd.readouterr().err:
        pytest.skip("this libsndfile says nothing by itself")
    decode()
    in_thread(decode)
    assert capfd.readouterr().err == "said meanwhile\n" * 2
