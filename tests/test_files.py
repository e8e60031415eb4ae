"""Whole files or none, what dead processes left, and one process at a time."""
import errno
import os
import subprocess
import sys

import pytest
from conftest import refusal

from ptm_mini import files
from ptm_mini.errors import InputError
from ptm_mini.files import is_locked, locked, new_file, new_folder, refuse_existing, write_file


@pytest.fixture
def dead():
    """The id of a process that is no more"""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def write_in(folder):
    with new_folder(folder) as unfinished:
        (unfinished / "file").write_bytes(b"whole")


def write_text(path):
    with new_file(path) as file:
        file.write("whole")


@pytest.mark.parametrize("write", [write_in, write_text, lambda path: write_file(path, b"whole")],
                         ids=["folder", "text", "bytes"])
def test_what_a_dead_process_left_of_the_same_target_is_removed_and_nothing_else(tmp_path, dead, write):
    kept = {f".set.{os.getppid()}.unfinished", f".set.csv.{dead}.unfinished", f"set.{dead}.unfinished", ".set.x.unfinished"}
    for name in kept:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / f".set.{dead}.unfinished").mkdir()
    (tmp_path / f".set.{dead}.unfinished" / "half").write_bytes(b"ha")
    write(tmp_path / "set")
    assert set(os.listdir(tmp_path)) == {"set", *kept}
    (tmp_path / "set2").write_bytes(b"")
    (tmp_path / f".new.{dead}.unfinished").write_bytes(b"half")
    write(tmp_path / "new")
    assert set(os.listdir(tmp_path)) == {"set", "set2", "new", *kept}


def test_names_with_signs_of_patterns_are_no_patterns(tmp_path, dead):
    (tmp_path / f".ab.{dead}.unfinished").write_bytes(b"half")
    write_file(tmp_path / "[a]*", b"whole")
    assert (tmp_path / f".ab.{dead}.unfinished").exists()
    write_file(tmp_path / "ab", b"whole")
    assert sorted(os.listdir(tmp_path)) == ["[a]*", "ab"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EFBIG, errno.EIO, errno.EDQUOT])
def test_what_the_system_refuses_is_one_line_and_leaves_the_old_file(tmp_path, monkeypatch, number):
    (tmp_path / "old").write_bytes(b"old")

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", refuse)
    said = refusal(write_file, tmp_path / "old", b"new")
    assert f"{tmp_path / 'old'}: can't be written ({os.strerror(number)})" in said
    assert os.listdir(tmp_path) == ["old"] and (tmp_path / "old").read_bytes() == b"old"
    for context, target in ((new_folder, "folder"), (new_file, "file")):
        with pytest.raises(InputError, match="can't be written"):
            with context(tmp_path / target):
                refuse()
    assert os.listdir(tmp_path) == ["old"]


def test_an_interruption_leaves_nothing(tmp_path):
    for context in (new_folder, new_file):
        with pytest.raises(KeyboardInterrupt):
            with context(tmp_path / "new"):
                raise KeyboardInterrupt
    assert os.listdir(tmp_path) == []


def test_a_file_is_on_the_disk_before_it_is_seen(tmp_path, monkeypatch):
    done = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: done.append((os.fstat(descriptor).st_size, os.listdir(tmp_path))))
    write_file(tmp_path / "file", b"12345")
    (size, before), (_, after) = done
    assert size == 5 and before == [f".file.{os.getpid()}.unfinished"] and after == ["file"]


@pytest.mark.parametrize("write", [write_in, write_text, lambda path: write_file(path, b"")], ids=["folder", "text", "bytes"])
def test_places_where_nothing_can_be_written(tmp_path, write):
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file" / "below", tmp_path / ("n" * 300), tmp_path / ("n" * 300) / "below"):
        assert f"{path}: can't be written (" in refusal(write, path)
    assert os.listdir(tmp_path) == ["file"]


def test_a_link_that_leads_nowhere_is_not_replaced(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert "is there already" in refusal(refuse_existing, tmp_path / "link")


HOLD = """
import sys, time
from pathlib import Path
from ptm_mini.files import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(tmp_path):
    """A process that holds tmp_path/lock"""
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "lock")], stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        yield process
        process.kill()


@pytest.mark.skipif(files.fcntl is None, reason="this system has no such locks")
def test_a_lock_says_who_holds_it_until_that_process_dies(tmp_path, other):
    lock = tmp_path / "lock"
    assert is_locked(lock)
    for _ in range(2):                                   # asking takes nothing away from the answer
        with pytest.raises(InputError, match=rf"lock: another process \({other.pid}\) is at work; wait until"):
            with locked(lock, wait=False):
                pass
    other.kill()
    other.wait()
    assert lock.exists() and not is_locked(lock)
    with locked(lock, wait=False):
        assert lock.read_text() == str(os.getpid())
    assert not lock.exists()


@pytest.mark.skipif(files.fcntl is None, reason="this system has no such locks")
def test_one_waits_and_says_for_whom(tmp_path, other, monkeypatch):
    said = []
    monkeypatch.setattr(files.logger, "info", lambda *arguments: (said.append(arguments), other.kill()))
    with locked(tmp_path / "lock"):
        assert (tmp_path / "lock").read_text() == str(os.getpid())
    assert len(said) == 1 and f"({other.pid})" in said[0][1]


def test_a_lock_that_can_not_be_made_is_one_line(tmp_path):
    with pytest.raises(InputError, match="can't be locked"):
        with locked(tmp_path / "nowhere" / "lock"):
            pass
