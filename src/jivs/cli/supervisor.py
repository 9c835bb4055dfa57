"""Processes that `jivs serve` and `jivs worker` keep running: forks of their own process, which has loaded what they need
and has nothing else: no thread, no connection.
"""

from __future__ import annotations

import gc
import os
import runpy
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType

from jivs.backends import processes
from jivs.errors import FatalError
from jivs.logs import call_process

_LONGEST_PAUSE = 5.0
_SETTLED_SECONDS = 10.0
_TICK = 0.05
_TIDY_SECONDS = 1.0
_ENDING_SECONDS = 45.0
"""More than requests and runs at hand get to come to their end."""

_KILLED_SECONDS = 5.0
_WRONG_SETTINGS = 2
_COLLECTED = (700, 10, 10)
"""The garbage collector's thresholds in a part: often, and so little each time that no request notices it. While modules
are loaded it is seldom and much.
"""

_ENDING = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A process to be kept: what it is, what lists of processes call it, the package that it executes with which arguments,
    and the descriptors that it inherits under their numbers.
    """

    name: str
    short: str
    package: str
    arguments: Sequence[int]
    descriptors: Sequence[int]

    def become(self, stdin: int) -> None:
        """Be it, in a fork: nothing else stays open."""
        os.setsid()
        os.dup2(stdin, 0)
        processes.keep_open(0, 1, 2, *self.descriptors)
        gc.set_threshold(*_COLLECTED)
        call_process(self.short)
        sys.argv = [self.package, *map(str, self.arguments)]
        runpy.run_module(self.package, run_name="__main__")


class _Kept:
    """A child process. Its standard input ends with this process, and so does it."""

    def __init__(self, part: Part) -> None:
        self._part = part
        self._pause = 0.1
        self._due = 0.0
        self._stdin: int | None = None
        self._pid: int | None = None
        self._start()

    def _start(self) -> None:
        self._began = time.monotonic()
        if self._stdin is not None:
            os.close(self._stdin)
            self._stdin = None
        try:
            hears, self._stdin = os.pipe()
            try:
                self._pid = fork(lambda: self._part.become(hears))
            finally:
                os.close(hears)
        except OSError as error:
            self._plan(f"cannot be started: {error.strerror}")

    def _plan(self, what: str) -> None:
        now = time.monotonic()
        self._pause = 0.1 if now - self._began > _SETTLED_SECONDS else min(_LONGEST_PAUSE, self._pause * 2)
        self._due = now + self._pause
        print(f"The {self._part.name} {what}; it is started again.", file=sys.stderr, flush=True)

    def look_after(self) -> int | None:
        """Start it again if it has ended; the exit code where that would be of no use."""
        if self._pid is None:
            if time.monotonic() >= self._due:
                self._start()
            return None
        pid, status = os.waitpid(self._pid, os.WNOHANG)
        if not pid:
            return None
        self._pid, code = None, os.waitstatus_to_exitcode(status)
        if code == _WRONG_SETTINGS:
            return code
        self._plan(f"ended with {code}")
        return None

    def terminate(self) -> None:
        """Ask it to end."""
        if self._pid is not None:
            os.kill(self._pid, signal.SIGTERM)

    def wait(self, until: float) -> None:
        """Until it has ended, which it has to by then."""
        killed = False
        while self._pid is not None and not os.waitpid(self._pid, os.WNOHANG)[0]:
            if time.monotonic() > until:
                if killed:
                    return  # it waits for a disk that does not answer: nobody can end it
                print(f"The {self._part.name} does not end: it is killed.", file=sys.stderr, flush=True)
                os.kill(self._pid, signal.SIGKILL)
                killed, until = True, until + _KILLED_SECONDS
            time.sleep(_TICK)


def fork(work: Callable[[], None]) -> int:
    """The id of a new process that does ``work`` and then ends, with the code of a SystemExit if that is raised."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # whoever started us may ignore it, and then nobody hears of exit codes
    _flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)  # or our own handler would take what is meant for the new process
    try:
        if pid := os.fork():
            return pid
        for number in _ENDING:
            if signal.getsignal(number) is not signal.SIG_IGN:  # as a shell leaves it to what runs in the background
                signal.signal(number, signal.SIG_DFL)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    code = 1
    try:
        work()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        try:
            _flush()
        finally:
            os._exit(code)


def apart(work: Callable[[], None]) -> int:
    """The exit code of a process of its own that does ``work``: it takes its connections and threads with it, and ends with
    this one, however that ends. Raises FatalError if a signal ends it.
    """
    parent = os.getpid()

    def tied() -> None:
        processes.end_with(parent)
        call_process("jivs prepare")
        work()

    pid = fork(tied)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)  # it keeps its number until it is asked for its code below
    except BaseException:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        why = " It may have been too large for the memory there is." if -code == signal.SIGKILL else ""
        raise FatalError(f"The preparation of the service was ended by {signal.Signals(-code).name}.{why} Start it again.")
    return code


def stand() -> None:
    """See to it that the three standard streams are open: what is opened next would have their places, and no fork closes
    those.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it gets the lowest number that is free
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()


def supervise(parts: Sequence[Part], tidy: Callable[[], None] = lambda: None) -> int:
    """Keep each running until SIGTERM or Ctrl-C; then they end in good order. The exit code. ``tidy`` is called about once a
    second.
    """
    ending: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        ending.append(number)

    for number in _ENDING:
        signal.signal(number, end)
    kept = [_Kept(part) for part in parts]
    code, tidied = 0, time.monotonic()
    while not ending and not code:
        time.sleep(_TICK)
        if time.monotonic() - tidied > _TIDY_SECONDS:
            tidy()
            tidied = time.monotonic()
        code = next((found for child in kept if (found := child.look_after()) is not None), 0)
    for child in kept:
        child.terminate()
    until = time.monotonic() + _ENDING_SECONDS
    for child in kept:
        child.wait(until)
    return code
