"""Files that appear whole or not at all, and one process at a time in a folder."""
import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers import refusal
from pytest import MonkeyPatch

from ptm_mini import files
from ptm_mini.errors import InputError
from data_prep.shared import new_folder
from ptm_mini.files import (locked, refuse_existing, save_tensors, whole_file,
                            write_file)


def write_folder(path: Path) -> None:
    with new_folder(path) as folder:
        (folder / "file").write_bytes(b"whole")


def write_bytes(path: Path) -> None:
    write_file(path, b"whole")


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path,
                                                      monkeypatch: MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(os, "fsync", lambda number: seen.append(
        (os.fstat(number).st_size, os.listdir(tmp_path), (tmp_path / "file").read_bytes())))
    (tmp_path / "file").write_bytes(b"older")
    write_file(tmp_path / "file", b"123456")
    (size, names, content), = seen
    assert size == 6 and content == b"older"
    assert sorted(names) == [f".file.{os.getpid()}.tmp", "file"]
    assert os.listdir(tmp_path) == ["file"] and (tmp_path / "file").read_bytes() == b"123456"


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_full_disk_is_one_line_and_leaves_the_older_file(tmp_path: Path, monkeypatch: MonkeyPatch,
                                                           number: int) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    (tmp_path / "older").write_bytes(b"older")
    monkeypatch.setattr(os, "fsync", refuse)
    message = refusal(write_file, tmp_path / "older", b"newer")
    assert f"{tmp_path / 'older'}: can't be written ({os.strerror(number)}); expected" in message
    with pytest.raises(InputError, match="set: can't be written"), new_folder(tmp_path / "set"):
        refuse()
    assert os.listdir(tmp_path) == ["older"] and (tmp_path / "older").read_bytes() == b"older"


def test_a_caller_says_how_to_mend_what_can_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="below: can't be written .*; name another --folder"):
        with whole_file(tmp_path / "file" / "below", "name another --folder"):
            pass


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_interruption_leaves_nothing(tmp_path: Path, error: type[BaseException]) -> None:
    for context in (new_folder, whole_file):
        with pytest.raises(error), context(tmp_path / "new"):
            raise error
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("write", [write_bytes, write_folder])
def test_a_place_that_can_not_be_written_is_named(tmp_path: Path,
                                                  write: Callable[[Path], None]) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file" / "below", tmp_path / ("n" * 300)):
        assert f"{path}: can't be written (" in refusal(write, path)
    assert os.listdir(tmp_path) == ["file"]


def test_an_existing_folder_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"older")
    (tmp_path / "folder").mkdir()
    for path in tmp_path.iterdir():
        assert f"{path}: exists already; expected a new name" in refusal(refuse_existing, path)
        assert f"{path}: exists already" in refusal(write_folder, path)
    assert (tmp_path / "file").read_bytes() == b"older"
    refuse_existing(tmp_path / "new")


def test_the_same_tensors_are_the_same_bytes_under_any_name(tmp_path: Path) -> None:
    content = {"x": torch.arange(3.0), "epoch": 2}
    save_tensors(tmp_path / "one.pt", content)
    save_tensors(tmp_path / "another.pt", content)
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "another.pt").read_bytes()


@pytest.mark.skipif(files.fcntl is None, reason="this system has no such locks")
def test_one_process_at_a_time_holds_a_folder(tmp_path: Path) -> None:
    with locked(tmp_path):
        with pytest.raises(InputError, match="another process is at work there; wait until"):
            with locked(tmp_path):
                pass
    with locked(tmp_path):
        pass
