"""The fork server: workers begin as copies of a process that has loaded all that they need, in hundredths of a second
instead of more than one, and share its memory.

It is forked itself before the dispatcher has threads, and does nothing but fork. What it forks becomes the dispatcher's own
child: the process in between ends, and the dispatcher is whom Linux then makes the parent (``PR_SET_CHILD_SUBREAPER``).
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_SUBREAPER = 36
_ANSWER_SECONDS = 60.0
_TICK = 0.02
_MOST_DESCRIPTORS = 1 << 20


class GoneError(Exception):
    """The fork server has ended, or answers no more."""


class Forked:
    """A worker. ``stdin`` and ``stdout`` are our ends of its pipes."""

    def __init__(self, pid: int, stdin: int, stdout: int) -> None:
        self.pid = pid
        self.stdin = stdin
        self.stdout = stdout
        self._code: int | None = None

    def wait(self, seconds: float) -> int | None:
        """Its exit code, negative for a signal; None if it still runs after so long."""
        end = time.monotonic() + seconds
        while self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self._code = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > end:
                return None
            else:
                time.sleep(_TICK)
        return self._code

    def kill(self) -> None:
        """As SIGKILL does."""
        os.kill(self.pid, signal.SIGKILL)


class Forks:
    """The dispatcher's side."""

    def __init__(self, server: int, channel: socket.socket) -> None:
        self._server = server
        self._channel = channel
        channel.settimeout(_ANSWER_SECONDS)  # it may still be loading

    def close(self) -> None:
        """Let the fork server end. Workers go on."""
        self._channel.close()
        os.waitpid(self._server, 0)

    def worker(self) -> Forked:
        """A new one. Raises GoneError, and OSError where the system allows no more processes."""
        (hears, stdin), (stdout, says) = os.pipe(), os.pipe()
        try:
            pid = self._ask(hears, says)
        except BaseException:
            os.close(stdin)
            os.close(stdout)
            raise
        finally:
            os.close(hears)
            os.close(says)
        return Forked(pid, stdin, stdout)

    def _ask(self, hears: int, says: int) -> int:
        try:
            socket.send_fds(self._channel, [b"1"], [hears, says])
            answer = self._channel.recv(8)
        except OSError as error:
            raise GoneError(str(error)) from error
        if not answer:
            raise GoneError("it has ended")
        pid = int.from_bytes(answer, "big")
        if not pid:
            raise OSError("the system allows no more processes")
        return pid


def start(load: Callable[[], None]) -> Forks | None:
    """Start the fork server, which calls ``load`` first. None in a worker, who may now begin. There are no threads yet."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if server := os.fork():
        theirs.close()
        return Forks(server, ours)
    ours.close()
    _call("jivs forks")
    load()
    gc.collect()
    gc.freeze()  # or looking at it would copy what is shared
    if not _serve(theirs):
        os._exit(0)
    _call("jivs run")
    return None


def _serve(channel: socket.socket) -> bool:
    """Fork whenever asked; True in a worker, False where nobody can ask any more."""
    while True:
        asked, given, _, _ = socket.recv_fds(channel, 1, 2)
        if not asked:
            return False
        pid = _fork()
        if pid == 0:
            os.setsid()
            for number, place in zip(given, (0, 1), strict=True):
                os.dup2(number, place)
            channel.detach()
            os.closerange(3, _MOST_DESCRIPTORS)
            return True
        for number in given:
            os.close(number)
        with suppress(OSError):  # the next look finds that nobody is there
            channel.send(max(0, pid).to_bytes(8, "big"))


def _fork() -> int:
    """The id of a new process that is no child of this one; 0 in it, and -1 if there is none."""
    told, tell = os.pipe()
    try:
        between = os.fork()
    except OSError:
        between = -1
    if between == 0:
        with suppress(OSError):
            pid = os.fork()
            if pid == 0:
                return 0
            os.write(tell, pid.to_bytes(8, "big"))
        os._exit(0)
    os.close(tell)
    found = os.read(told, 8)
    os.close(told)
    if between > 0:
        os.waitpid(between, 0)  # from now on, the new one has another parent
    return int.from_bytes(found, "big") if found else -1


def _call(name: str) -> None:
    """What the process is called in lists of processes, where all have the same command."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name)
