"""Files that appear whole or not at all."""
import errno
import os
from pathlib import Path

import pytest
from helpers import refusal
from pytest import MonkeyPatch

from data_prep.shared import new_folder
from ptm_mini.errors import InputError
from ptm_mini.files import whole_file, write_file


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


def test_a_full_disk_is_one_line_and_leaves_the_older_file(tmp_path: Path,
                                                           monkeypatch: MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    (tmp_path / "older").write_bytes(b"older")
    monkeypatch.setattr(os, "fsync", refuse)
    message = refusal(write_file, tmp_path / "older", b"newer")
    assert f"{tmp_path / 'older'}: can't be written (No space left on device); exp" in message
    with pytest.raises(InputError, match="set: can't be written"), new_folder(tmp_path / "set"):
        refuse()
    assert os.listdir(tmp_path) == ["older"] and (tmp_path / "older").read_bytes() == b"older"


@pytest.mark.parametrize("context", [new_folder, whole_file])
def test_an_interruption_leaves_nothing_and_a_bad_place_is_named(tmp_path: Path,
                                                                 context: type) -> None:
    with pytest.raises(KeyboardInterrupt), context(tmp_path / "new"):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file/below: can't be written"):
        with context(tmp_path / "file" / "below"):
            pass
