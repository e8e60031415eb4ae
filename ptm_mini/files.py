"""Writing so that nothing half-written stays and nothing is replaced quietly, and by one process at a time."""
import logging
import os
import shutil
from contextlib import contextmanager, suppress
from pathlib import Path

from ptm_mini.errors import InputError

try:
    import fcntl
except ImportError:               # Windows has other locks: what two processes do there at once is done twice
    fcntl = None

logger = logging.getLogger(__name__)


@contextmanager
def new_folder(path):
    """Yield a temporary folder beside `path` that becomes `path` when the block ends well, and is removed otherwise.

    raises  InputError where `path` is there already or its parent can't be written
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    refuse_existing(path)
    try:
        unfinished.mkdir(parents=True)
    except OSError as error:
        raise InputError(f"{path}: can't be made ({error.strerror}); expected a place that can be written to") from error
    try:
        yield unfinished
        refuse_existing(path)
        unfinished.rename(path)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)          # gone already where all went well


@contextmanager
def new_file(path):
    """Yield a text file beside `path` that becomes `path` when the block ends well, and is removed otherwise.

    raises  InputError where `path` is there already or can't be written
    """
    unfinished = Path(f"{path}.{os.getpid()}.unfinished")
    refuse_existing(path)
    try:
        with open(unfinished, "w", encoding="utf-8", newline="") as file:
            yield file
        refuse_existing(path)
        unfinished.rename(path)
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror}); expected a place that can be") from error
    finally:
        unfinished.unlink(missing_ok=True)


def refuse_existing(path):
    if path.exists():
        raise InputError(f"{path}: is there already; expected a new name: choose another or remove it")


def write_file(path, data):
    """Write bytes to a temporary name, then rename: a reader sees the old file or the new one, whole."""
    unfinished = Path(f"{path}.{os.getpid()}.unfinished")
    try:
        unfinished.write_bytes(data)
        unfinished.replace(path)
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror})") from error
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def locked(path):
    """Hold the lock file `path`, after waiting for another process that does; it is removed in the end.

    The system takes back what a dead process held, so a file that it left behind stops nobody.
    """
    if fcntl is None:
        yield
        return
    file = taken(path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def taken(path):
    while True:
        file = open(path, "wb")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("%s: another process is at work; waiting for it", path)
            fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):                      # its last holder may have removed it meanwhile
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                return file
        file.close()


def is_locked(path):
    """Whether a process holds the lock file `path`."""
    if fcntl is None:
        return False
    try:
        with open(path, "rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False
