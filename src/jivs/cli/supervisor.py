"""Processes that `jivs serve` and `jivs worker` keep running."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType

_LONGEST_PAUSE = 5.0
_SETTLED_SECONDS = 10.0
_TICK = 0.05
_TIDY_SECONDS = 1.0
_WRONG_SETTINGS = 2


class _Kept:
    """A child process. Its standard input ends with this process, and so does it."""

    def __init__(self, name: str, command: Sequence[str], descriptors: Sequence[int]) -> None:
        self.name = name
        self._command = list(command)
        self._descriptors = tuple(descriptors)
        self._pause = 0.1
        self._due = 0.0
        self.start()

    def start(self) -> None:
        """Start it."""
        self._began = time.monotonic()
        self.process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            self._command, stdin=subprocess.PIPE, pass_fds=self._descriptors, start_new_session=True
        )

    def look_after(self) -> int | None:
        """Start it again if it has ended; the exit code where that would be of no use."""
        code = self.process.poll()
        if code is None:
            return None
        now = time.monotonic()
        if not self._due:
            lived = now - self._began
            if code == _WRONG_SETTINGS:
                return code
            self._pause = 0.1 if lived > _SETTLED_SECONDS else min(_LONGEST_PAUSE, self._pause * 2)
            self._due = now + self._pause
            print(f"The {self.name} ended with {code}; it is started again.", file=sys.stderr, flush=True)
        elif now >= self._due:
            self._due = 0.0
            self.start()
        return None


def supervise(commands: Mapping[str, tuple[Sequence[str], Sequence[int]]], tidy: Callable[[], None] = lambda: None) -> int:
    """Keep a child running for each command until SIGTERM or Ctrl-C; then they end in good order. The exit code.

    Beside each command stand the descriptors that it inherits. ``tidy`` is called about once a second.
    """
    ending: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        ending.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    kept = [_Kept(name, command, descriptors) for name, (command, descriptors) in commands.items()]
    code, tidied = 0, time.monotonic()
    while not ending and not code:
        time.sleep(_TICK)
        if time.monotonic() - tidied > _TIDY_SECONDS:
            tidy()
            tidied = time.monotonic()
        code = next((found for child in kept if (found := child.look_after()) is not None), 0)
    for child in kept:
        child.process.terminate()
    for child in kept:
        child.process.wait()
    return code
