"""Who a process is, in a word that others read, and whether it still runs; what a fork does first."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import socket
from contextlib import suppress
from functools import cache
from pathlib import Path

_PARENT_DEATH_SIGNAL = 1


@cache
def here() -> str:
    """Where process ids mean what they mean here: the host, and on Linux the namespace of ids. Containers may share a host's
    name, but not the ids of their processes.
    """
    try:
        namespace = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return socket.gethostname()
    return f"{socket.gethostname()}-{namespace}"


def ended(place: str, process: str) -> bool:
    """Whether a process of this place runs no more. Of other places nobody here knows it."""
    if place != here() or not process.isdigit():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def end_with(parent: int) -> None:
    """In a fork: end when its parent does, or now if it has. Linux knows when."""
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def keep_open(*descriptors: int) -> None:
    """Close all others: those that there are, for to try all there could be takes half a second where Linux is old."""
    try:
        others = {int(name) for name in os.listdir("/proc/self/fd")} - {*descriptors}  # noqa: PTH208 - numbers, not paths
    except OSError:
        others = set(range(resource.getrlimit(resource.RLIMIT_NOFILE)[0])) - {*descriptors}
    for number in others:
        with suppress(OSError):  # that of the list
            os.close(number)
