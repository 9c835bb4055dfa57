"""A doorbell between the processes of a machine: a pipe that a parent makes and its children inherit."""

from __future__ import annotations

import os
import select
import threading
import time
from contextlib import suppress
from typing import Self

_TURN_SECONDS = 0.2
_MOST_BYTES = 1 << 16


class PipeQueue:
    """Rings by one byte, so it carries no names. Who waits takes all bytes that are there: many rings wake once.

    ``reads`` and ``writes`` are descriptors of the pipe's ends, which belong to this object from now on; -1: not this one.
    """

    def __init__(self, *, reads: int = -1, writes: int = -1) -> None:
        self._reads = reads
        self._writes = writes
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self._broken = False
        for end in self.ends:
            os.set_blocking(end, False)

    @classmethod
    def make(cls) -> Self:
        """Both ends of a new pipe, which no child inherits unless it is handed ``ends``."""
        reads, writes = os.pipe()
        return cls(reads=reads, writes=writes)

    @property
    def ends(self) -> tuple[int, ...]:
        """The descriptors, for ``subprocess.Popen(pass_fds=...)``: the one to read from first."""
        return tuple(end for end in (self._reads, self._writes) if end >= 0)

    def publish(self, run_id: str) -> None:  # noqa: ARG002 - the port's signature
        with self._lock:
            if self._writes < 0:
                return
            try:
                os.write(self._writes, b"\0")
            except BlockingIOError:
                pass  # full: rings enough are waiting
            except OSError:
                self._broken = True  # nobody has the other end any more

    def wait(self, seconds: float) -> str | None:
        end, reads = time.monotonic() + seconds, self._reads
        while not self._closed.is_set():
            left = max(end - time.monotonic(), 0)
            if reads < 0 or self._broken:
                self._closed.wait(left)
            elif self._rings(reads, min(left, _TURN_SECONDS)):
                return ""
            if not left:
                break
        return None

    def _rings(self, reads: int, seconds: float) -> bool:
        poll = select.poll()
        poll.register(reads, select.POLLIN)
        if not poll.poll(seconds * 1000):
            return False
        with self._lock:
            if self._closed.is_set():
                return False
            try:
                rings = os.read(reads, _MOST_BYTES)
            except BlockingIOError:
                return False  # another process was faster
            self._broken = not rings  # every writer has ended
            return bool(rings)

    def healthy(self) -> bool:
        return not self._broken

    def close(self) -> None:
        self._closed.set()
        with self._lock:
            for end in self.ends:
                with suppress(OSError):
                    os.close(end)
            self._reads = self._writes = -1
