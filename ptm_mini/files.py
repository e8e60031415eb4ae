"""Writing so that nothing half-written stays and nothing is replaced quietly, and by one process at a time."""
import logging
import os
import re
import shutil
from contextlib import contextmanager, suppress

from ptm_mini.errors import InputError

try:
    import fcntl
except ImportError:               # Windows has other locks: what two processes do there at once is done twice
    fcntl = None

logger = logging.getLogger(__name__)


@contextmanager
def new_folder(path):
    """Yield a temporary folder beside `path` that becomes `path` when the block ends well, and is removed otherwise.

    raises  InputError where `path` is there already, or something in it can't be written
    """
    refuse_existing(path)
    with beside(path) as unfinished:
        unfinished.mkdir(parents=True)
        yield unfinished
        refuse_existing(path)
        unfinished.rename(path)


@contextmanager
def new_file(path):
    """Yield a text file beside `path` that becomes `path` when the block ends well, and is removed otherwise.

    raises  InputError where `path` is there already or can't be written
    """
    refuse_existing(path)
    with beside(path) as unfinished:
        with open(unfinished, "w", encoding="utf-8", newline="") as file:
            yield file
        refuse_existing(path)
        unfinished.rename(path)


def refuse_existing(path):
    if os.path.lexists(path):                                  # also a link that leads nowhere
        raise InputError(f"{path}: is there already; expected a new name: choose another or remove it")


def write_file(path, data):
    """Write bytes to a temporary name and rename it when they are on the disk: whatever happens, to the power too, a reader
    sees the old file or the new one, whole.

    raises  InputError where `path` can't be written
    """
    with beside(path) as unfinished:
        with open(unfinished, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        with suppress(OSError):                                # not every system can do this to a folder
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


@contextmanager
def beside(path):
    """Yield a temporary name beside `path`. What stands there in the end is removed, and so is what dead processes left.

    raises  InputError for whatever the system refuses meanwhile
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        remove_leftovers(path)
        yield unfinished
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror or error}); expected a place that can be, with room for "
                         f"it") from error
    finally:
        remove(unfinished)


def remove_leftovers(path):
    """Remove what processes that are no more were writing when they died, in place of `path`."""
    if not path.parent.is_dir():
        return
    ours = re.compile(rf"\.{re.escape(path.name)}\.(\d{{1,9}})\.unfinished")
    for other in path.parent.iterdir():
        found = ours.fullmatch(other.name)
        if found and not is_running(int(found[1])):
            remove(other)


def is_running(process):
    """Whether there is a process of this id, be it the one that had it first or a later one."""
    if os.name == "nt":                                        # where os.kill ends processes
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:                                    # another user's
        pass
    return True


def remove(path):
    """Remove a file or a folder, as far as that can be done."""
    if os.path.isdir(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            os.unlink(path)


@contextmanager
def locked(path, wait=True):
    """Hold the lock file `path`, in which our process id stands; it is removed in the end.

    wait    for another process that holds it
    raises  InputError where another process holds it and is not to be waited for, or the file can't be made

    The system takes back what a dead process held, so a file that it left behind stops nobody.
    """
    if fcntl is None:
        yield
        return
    try:
        file = taken(path, wait)
    except OSError as error:
        raise InputError(f"{path}: can't be locked ({error.strerror}); expected a place that can be written to") from error
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def taken(path, wait):
    while True:
        file = open(path, "a+b", buffering=0)                  # not "w": that would wipe out the holder's process id
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            said = f"{path}: another process ({holder(file)}) is at work"
            if not wait:
                file.close()
                raise InputError(f"{said}; wait until it ends, or end it") from error
            logger.info("%s; waiting for it", said)
            fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):                      # its last holder may have removed it meanwhile
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                with suppress(OSError):                        # a lock holds on a full disk too, only without the id in it
                    file.truncate(0)
                    file.write(str(os.getpid()).encode())
                return file
        file.close()


def holder(file):
    """The process id that stands in a lock file"""
    file.seek(0)
    return file.read(20).decode(errors="replace") or "id unknown"


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
