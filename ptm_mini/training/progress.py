"""What is kept of a stage while it trains, so that training can break off at any moment and go on to the same result."""
import io
import json
import signal
import threading
import warnings
from contextlib import contextmanager, suppress

import torch

from ptm_mini.errors import InputError
from ptm_mini.files import write_file

UNFINISHED = "unfinished"         # folder in the run's, there as long as something is left to do
LOG = "log.jsonl"
SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Progress:
    """The stages of a method under way: a file each in RUN/unfinished, and a line an epoch in RUN/log.jsonl."""

    def __init__(self, folder=None, belongs=""):
        """
        folder   the run's; None: nothing is kept
        belongs  digest of all that a state depends on, and is of no use without
        """
        self.folder, self.belongs = folder, belongs

    def path(self, stage):
        return self.folder / UNFINISHED / f"{stage.replace(' ', '-')}.pt"

    def load(self, stage):
        """The state that was saved last of a stage, as `save` got it; None where there is none."""
        if self.folder is None or not self.path(stage).exists():
            return None
        path = self.path(stage)
        try:
            with warnings.catch_warnings():           # of what torch finds odd in a damaged file
                warnings.simplefilter("ignore")
                saved = torch.load(path, map_location="cpu", weights_only=True)
            belongs, state = saved["belongs"], dict(saved["state"])
        except Exception as error:              # of any kind: the unpickler stumbles over whatever stands in a damaged file
            raise InputError(f"{path}: is not as training saved it; remove it, and the stage begins anew") from error
        if belongs != self.belongs:
            raise InputError(f"{path}: was begun with other settings, another set or another backbone; expected the same: "
                             f"remove it, and the stage begins anew")
        return state

    def save(self, stage, state):
        """Replace what is kept of a stage. state: dict of tensors, numbers, strings and containers of such"""
        if self.folder is None:
            return
        path = self.path(stage)
        path.parent.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()                  # torch's own writing to a file that fills the disk is no OSError
        torch.save({"belongs": self.belongs, "state": state}, content)
        write_file(path, content.getbuffer())

    def clear(self, stages):
        """Forget stages whose method is saved."""
        for stage in stages:
            self.path(stage).unlink(missing_ok=True)
        with suppress(OSError):                 # the folder too, but where it holds anything else
            (self.folder / UNFINISHED).rmdir()

    def log(self, record):
        """Add a line for an epoch, a dict with "stage" and "epoch"; what was said before of it or later ones was undone."""
        if self.folder is None:
            return
        path = self.folder / LOG
        lines = read_log(path) if path.exists() else []
        path.parent.mkdir(parents=True, exist_ok=True)
        kept = [line for line in lines if line["stage"] != record["stage"] or line["epoch"] < record["epoch"]]
        write_file(path, "".join(json.dumps(line) + "\n" for line in [*kept, record]).encode())


def read_log(path):
    """The lines of a log.jsonl, list of dicts with at least "stage" and "epoch"."""
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if all(isinstance(line["stage"], str) and isinstance(line["epoch"], int) for line in lines):
            return lines
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        pass
    raise InputError(f"{path}: is not the log that train.py writes; restore it or remove it")


@contextmanager
def uninterrupted():
    """A signal that asks to end comes behind the block, so that what belongs together is changed whole; a second one ends
    it at once. (Only the main thread gets signals.)"""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came = []

    def note(number, frame):
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt

    before = {number: signal.signal(number, note) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        signal.raise_signal(came[0])
