"""What the process of a query may do: so much memory, so much time, one file to write, and files of its archive to read."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_NO_NEW_PRIVS = 38
_VERSION = 1
_PATH_BENEATH = 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
"""Source: Linux, "Landlock: unprivileged access control"; its calls have these numbers on every architecture."""


_SYSTEM = ("/proc/self/cgroup", "/sys/fs/cgroup", "/sys/devices/system/cpu")
"""Where the engine reads how much of the machine it has; some versions break off where they may not."""


def limit(*, seconds: int, threads: int, memory: int, written: int) -> None:
    """Limits that the kernel keeps: whoever exceeds them gets no memory, cannot write, or is ended.

    The process ends ``seconds`` later anyway.
    """
    for kind, most in (
        (resource.RLIMIT_DATA, memory),
        (resource.RLIMIT_CPU, seconds * threads + 1),
        (resource.RLIMIT_FSIZE, written),
        (resource.RLIMIT_CORE, 0),
    ):
        _, hard = resource.getrlimit(kind)
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (value, value))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # the files of a large table are open together
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(seconds + 1)


def confine(*data: str) -> bool:
    """From here on this thread, and those that it starts, open files below ``data`` and Python's own for reading, and
    nothing else: no file to write, no connection over TCP, no signal to another process. False where there is no Landlock.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint32(_VERSION)) if _linux() else -1
    if version < 1:
        return False
    files = (1 << 13) - 1 | (version >= 2) << 13 | (version >= 3) << 14 | (version >= 5) << 15
    fields = [files, *([0b11] if version >= 4 else []), *([0b11] if version >= 6 else [])]
    handled = struct.pack(f"={len(fields)}Q", *fields)
    rules = libc.syscall(_CREATE_RULESET, handled, ctypes.c_size_t(len(handled)), ctypes.c_uint32(0))
    _check(rules)
    for path in (*data, *_SYSTEM):
        _allow(libc, rules, path, _READ_FILE)
    for path in filter(os.path.isdir, sys.path):
        _allow(libc, rules, path, _READ_FILE | _READ_DIR)
    _check(libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
    _check(libc.syscall(_RESTRICT_SELF, rules, ctypes.c_uint32(0)))
    os.close(rules)
    return True


def _linux() -> bool:
    return sys.platform == "linux"


def _allow(libc: ctypes.CDLL, rules: int, path: str, access: int) -> None:
    try:
        handle = os.open(path, os.O_PATH)
    except FileNotFoundError:
        return
    try:
        rule = struct.pack("=Qi", access, handle)
        _check(libc.syscall(_ADD_RULE, ctypes.c_int(rules), ctypes.c_int(_PATH_BENEATH), rule, ctypes.c_uint32(0)))
    finally:
        os.close(handle)


def _check(result: int) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
