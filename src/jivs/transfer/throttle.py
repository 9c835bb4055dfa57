"""Pace: never more rows per second than the operator allowed, over all readers of the process."""

from __future__ import annotations

import threading

from jivs.ports.clock import Clock


class Throttle:
    """A bucket that refills at ``rate`` rows per second and holds at most a fifth of a second's worth.

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
        return max(1, self.rate // 10)

    def take(self, rows: int) -> None:
        if not self.rate:
            return
        with self._lock:
            now = self._clock.monotonic()
            self._due = max(self._due, now - 0.1) + rows / self.rate
            wait = self._due - now - 0.1
        if wait > 0:
            self._clock.sleep(wait)
