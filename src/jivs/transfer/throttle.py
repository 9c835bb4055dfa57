"""Pace: never more rows per second than the operator allowed."""

from __future__ import annotations

import threading
from collections.abc import Callable

from jivs.errors import TransientError
from jivs.ports.clock import Clock


class Throttle:
    """A bucket that refills at ``rate`` rows per second and holds at most a fifth of a second's worth, for all readers of
    this process.

    ``take`` blocks until the rows may be asked for, so a reader asks first and reads then. Thread-safe. Rate 0: no limit.
    """

    def __init__(self, rate: int, clock: Clock) -> None:
        self.rate = rate
        self._clock = clock
        self._lock = threading.Lock()
        self._due = clock.monotonic()

    @property
    def step(self) -> int:
        """Rows to ask for at once."""
        return _step(self.rate)

    def take(self, rows: int) -> None:
        if not self.rate:
            return
        with self._lock:
            now = self._clock.monotonic()
            self._due = max(self._due, now - 0.1) + rows / self.rate
            wait = self._due - now - 0.1
        if wait > 0:
            self._clock.sleep(wait)


class SharedThrottle:
    """The same over processes and machines: ``queue`` puts rows behind those that all others asked for, and tells how many
    seconds from now they may be read. It is asked for a step's rows at once; what is left of them serves the next.

    ``rest`` waits, and raises what ends the run meanwhile.
    """

    def __init__(self, rate: int, clock: Clock, queue: Callable[[int], float], rest: Callable[[float], None]) -> None:
        self.rate = rate
        self._clock = clock
        self._queue = queue
        self._rest = rest
        self._lock = threading.Lock()
        self._left = 0
        self._due = clock.monotonic()

    @property
    def step(self) -> int:
        """Rows to ask for at once."""
        return _step(self.rate)

    def take(self, rows: int) -> None:
        if not self.rate:
            return
        with self._lock:
            if self._left < rows:
                asked = max(rows - self._left, self.step)
                self._due = self._clock.monotonic() + self._queued(asked)
                self._left += asked
            self._left -= rows
            wait = self._due - self._clock.monotonic()
        self._rest(max(0.0, wait))

    def _queued(self, rows: int) -> float:
        """Until the queue can be asked, nothing is read: somebody else may be reading at the full pace."""
        while True:
            try:
                return self._queue(rows)
            except TransientError:
                self._rest(_AGAIN_SECONDS)


_AGAIN_SECONDS = 0.2


def _step(rate: int) -> int:
    return max(1, rate // 10)
