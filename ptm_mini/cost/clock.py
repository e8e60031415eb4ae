"""How long a call takes, and how much memory."""
import ctypes
import time
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")       # Linux has them


def seconds(call, device):
    """Wall-clock seconds of a call"""
    start = time.perf_counter()
    call()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def system_tells(device):
    """Whether `growth` can be told: on the CPU of a Linux with the usual C library"""
    return device.type == "cpu" and CLEAR.exists() and hasattr(ctypes.CDLL(None), "malloc_trim")


def growth(call):
    """Bytes that the process holds more at the peak of a call than before it"""
    ctypes.CDLL(None).malloc_trim(0)                                   # memory that was freed goes back to the system
    CLEAR.write_text("5")                                              # the peak starts anew
    before = status("VmRSS")
    call()
    return status("VmHWM") - before


def status(field):
    """Bytes of a field of this process's status"""
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(field))
    return 1024 * int(line.split()[1])
