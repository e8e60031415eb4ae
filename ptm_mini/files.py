"""Files that appear whole or not at all, and folders that one process at a time works in."""
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ptm_mini.errors import InputError

try:
    import fcntl
except ImportError:               # on Windows two processes in one run folder are not kept apart
    fcntl = None


@contextmanager
def whole_file(path: Path, mend: str = "expected a place that can be, with room for it"
               ) -> Iterator[BinaryIO]:
    """Yield a file of a temporary name, which gets its name when the block ends well.

    The folder is made if need be. Raises InputError with `mend` where the file can't be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror}); {mend}") from error
    finally:
        with suppress(OSError):
            temporary.unlink()


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole; it may replace an older one."""
    with whole_file(path) as file:
        file.write(content)


def save_tensors(path: Path, content: dict[str, Any]) -> None:
    """Write tensors, numbers and text as torch.save does; the same content gives the same bytes."""
    buffer = io.BytesIO()         # in a file torch would store the file's name too
    torch.save(content, buffer)
    write_file(path, buffer.getvalue())


def refuse_existing(path: Path) -> None:
    """Raise InputError where something is at `path`."""
    if os.path.lexists(path):
        raise InputError(f"{path}: exists already; expected a new name, or remove it")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder, which is made if need be, and removed if it stays empty.

    Raises InputError where another process holds it, or it can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(folder / "lock", "a")
    except OSError as error:
        raise InputError(f"{folder}: can't be written ({error.strerror}); expected a folder that "
                         f"can be") from error
    with file:
        try:
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{folder}: another process is at work there; wait until it ends, or "
                             f"end it") from error
        try:
            yield
        finally:
            with suppress(OSError):       # the folder holds something, or Windows the open file
                (folder / "lock").unlink()
                folder.rmdir()
