"""Who a process is, in a word that others read, and whether it still runs."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path


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
