"""A run folder while train.py works in it: one process at a time, and what it was asked for, so that it can go on."""
import shlex
from contextlib import ExitStack, contextmanager, suppress

from ptm_mini.errors import InputError
from ptm_mini.files import locked, write_file
from ptm_mini.runs.sealed import read_sealed, sealed
from ptm_mini.training.progress import LOG, UNFINISHED

LOCK, COMMAND = "train.lock", "command.json"


@contextmanager
def claimed(folder, fresh=False):
    """Hold a run folder, made if need be, for this process alone; what was made for it goes again if it stays empty.

    fresh   raise FileExistsError where the folder is there already
    raises  InputError where it can't be made or written, or another process works in it
    """
    with ExitStack() as stack:
        try:
            stack.callback(remove_empty, [path for path in (folder, *folder.parents) if not path.exists()])
            folder.mkdir(parents=True, exist_ok=not fresh)
            stack.enter_context(locked(folder / LOCK, wait=False))
        except OSError as error:
            if fresh and isinstance(error, FileExistsError):
                raise
            raise InputError(f"--out {folder}: can't be written ({error.strerror}); expected a folder for the run, or the "
                             f"name of a new one") from error
        yield


def remove_empty(folders):
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def command_file(folder):
    return folder / UNFINISHED / COMMAND


def is_unfinished(folder):
    """Whether a command was remembered there and not forgotten"""
    return command_file(folder).exists()


def how_to_go_on(folder):
    return f"python train.py --resume {shlex.quote(str(folder))}"


def refuse_unfinished(folder):
    """Raise InputError where a command broke off in the folder, or where it holds something that is no run."""
    if is_unfinished(folder):
        raise InputError(f"--out {folder}: a command was broken off there; go on with  {how_to_go_on(folder)}  or remove "
                         f"{folder / UNFINISHED} to begin anew what it had not saved")
    seeds = any((path / "config.json").exists() for path in folder.glob("seed-*"))
    foreign = [path for path in folder.iterdir() if path.name not in (LOCK, LOG, UNFINISHED)]
    if foreign and not seeds and not (folder / "config.json").exists():
        raise InputError(f"--out {folder}: is there already and holds no run; expected a new name, or a run: choose another")


def remember(folder, command):
    """Write down what was asked for: {flag: its value}. It stays until `forget`."""
    try:
        command_file(folder).parent.mkdir(exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {folder}: can't be written ({error.strerror}); expected a folder for the run") from error
    write_file(command_file(folder), sealed(command))


def remembered(folder):
    """What was asked for by the command that broke off in the folder, as `remember` got it."""
    if is_unfinished(folder):
        return read_sealed(command_file(folder))
    if is_unfinished(folder.parent):
        raise InputError(f"--resume {folder}: is one of several runs; go on with  {how_to_go_on(folder.parent)}")
    raise InputError(f"--resume {folder}: no command was broken off there; expected a run folder with {UNFINISHED}/{COMMAND}: "
                     f"give the command that you want done")


def forget(folder):
    """The command is done, or can't be done."""
    command_file(folder).unlink()
    remove_empty([folder / UNFINISHED])
