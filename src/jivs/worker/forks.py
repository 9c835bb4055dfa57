"""The fork server: workers begin as copies of a process that has loaded all that they need, in hundredths of a second
instead of more than one, and share its memory.

It is forked itself before the dispatcher has threads of its own, and does nothing but fork. What it forks becomes the
dispatcher's own child: the process in between ends, and the dispatcher is whom Linux then makes the parent
(``PR_SET_CHILD_SUBREAPER``).
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from jivs.backends import processes
from jivs.logs import call_process

_SUBREAPER = 36
_ANSWER_SECONDS = 60.0
_LOOK_SECONDS = 0.25
_TICK = 0.02


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
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # somebody else was told
                pid, status = self.pid, 0
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
        channel.settimeout(_LOOK_SECONDS)

    def close(self) -> None:
        """End the fork server. Workers go on."""
        self._channel.close()
        with suppress(ProcessLookupError, ChildProcessError):
            os.kill(self._server, signal.SIGKILL)  # it has nothing to lose, and may hang
            os.waitpid(self._server, 0)

    def worker(self, ended: threading.Event) -> Forked:
        """A new one. Raises GoneError, also when nobody needs it any more, and OSError where the system allows no more."""
        hears, stdin = os.pipe()
        try:
            stdout, says = os.pipe()
        except OSError:
            os.close(hears)
            os.close(stdin)
            raise
        try:
            pid = self._ask(hears, says, ended)
        except BaseException:
            os.close(stdin)
            os.close(stdout)
            raise
        finally:
            os.close(hears)
            os.close(says)
        return Forked(pid, stdin, stdout)

    def _ask(self, hears: int, says: int, ended: threading.Event) -> int:
        end = time.monotonic() + _ANSWER_SECONDS
        answer: bytes | None = None
        try:
            socket.send_fds(self._channel, [b"1"], [hears, says])
            while answer is None:
                with suppress(TimeoutError):  # it may still be loading
                    answer = self._channel.recv(8)
                if answer is None and (ended.is_set() or time.monotonic() > end):
                    raise GoneError("it does not answer")
        except OSError as error:
            raise GoneError(str(error)) from error
        if not answer:
            raise GoneError("it has ended")
        pid = int.from_bytes(answer, "big")
        if not pid:
            raise OSError("the system allows no more processes")
        return pid


def start(load: Callable[[], None]) -> Forks | None:
    """Start the fork server, which calls ``load`` first. None in a worker, who may now begin. Python has no other thread.
    Raises OSError where the system does not let us be the parent of what is forked.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whoever started us may ignore it, and then nobody hears of exit codes
    if ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl(PR_SET_CHILD_SUBREAPER): {os.strerror(ctypes.get_errno())}")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if server := os.fork():
        theirs.close()
        return Forks(server, ours)
    ours.close()
    call_process("jivs forks")
    load()
    gc.freeze()  # or looking at it would copy what is shared
    if not _serve(theirs):
        os._exit(0)
    call_process("jivs run")
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
            processes.keep_open(0, 1, 2)
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
