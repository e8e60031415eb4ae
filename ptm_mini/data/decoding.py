"""What holds while files are decoded, by several threads at once: one of torch's threads, and no word but our own."""
import ctypes
import os
import threading
import warnings
from contextlib import contextmanager
from functools import lru_cache
from types import SimpleNamespace

import torch

SHARED = SimpleNamespace(lock=threading.Lock(), inside=0, threads=None, caught=None, stderr=None)


@contextmanager
def decoding():
    """Around all decoding of files. torch computes with one thread: the bits of a product depend on their number, and small
    operations are fastest so. What Pillow and torch warn of is dropped, and what libmpg123 writes to standard error: we say
    ourselves, in one line, what is wrong with a file.

    These settings are the process's, so the first thread that enters makes them and the last that leaves takes them back.
    The number of threads is each thread's own, but a new one begins, when it first asks, with what was set last, anywhere:
    hence `SHARED.threads`.
    """
    variable, null = c_streams()
    with SHARED.lock:
        before = torch.get_num_threads()
        if not SHARED.inside:
            SHARED.threads, SHARED.caught, SHARED.stderr = before, warnings.catch_warnings(), variable.value
            SHARED.caught.__enter__()
            warnings.filterwarnings("ignore", module=r"(PIL|torch)\.")
            variable.value = null
        SHARED.inside += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with SHARED.lock:
            torch.set_num_threads(SHARED.threads)
            SHARED.inside -= 1
            if not SHARED.inside:
                variable.value = SHARED.stderr
                SHARED.caught.__exit__(None, None, None)


@lru_cache(maxsize=None)
def c_streams():
    """The C library's variable `stderr` and an open stream that leads nowhere, as ctypes' c_void_p and an address.

    That variable is what libmpg123 writes through. Python does not, so what other threads say meanwhile is not lost, as it
    would be were file descriptor 2 turned away. It is known to be one in glibc alone: elsewhere this is a stand-in.
    """
    try:
        os.confstr("CS_GNU_LIBC_VERSION")
    except (AttributeError, ValueError, OSError):
        return ctypes.c_void_p(), None
    library = ctypes.CDLL(None)
    library.fopen.restype = ctypes.c_void_p
    return ctypes.c_void_p.in_dll(library, "stderr"), library.fopen(os.devnull.encode(), b"w")
