"""How much one user may ask for: requests a second, and connections to sources at once. More are told to come back."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import Depends, Request

from jivs.api.deps import WorkerDep
from jivs.bootstrap import LOOKS
from jivs.errors import TooManyError

BURST_SECONDS = 10
"""Requests of so many seconds may come at once."""


class Rates:
    """Of one process. ``per_second`` 0: no limit."""

    def __init__(self, per_second: int = 0, connecting: int = LOOKS) -> None:
        self._per_second = per_second
        self._most = float(per_second * BURST_SECONDS)
        self._left: dict[int, tuple[float, float]] = {}
        self._connecting = connecting
        self._connected: Counter[int] = Counter()
        self._lock = threading.Lock()

    def take(self, user_id: int) -> None:
        """Count a request. Raises TooManyError."""
        if not self._per_second:
            return
        now = time.monotonic()
        left, at = self._left.get(user_id, (self._most, now))
        left = min(self._most, left + (now - at) * self._per_second)
        if left < 1:
            raise TooManyError("Too many requests of one user. Try again in a second.", seconds=1)
        self._left[user_id] = left - 1, now

    @contextmanager
    def connecting(self, user_id: int) -> Iterator[None]:
        """For as long as a source is tried. Raises TooManyError."""
        with self._lock:
            if self._connected[user_id] >= self._connecting or self._connected.total() >= LOOKS:
                raise TooManyError("Too many sources are being tried at once. Try again when they have answered.", seconds=5)
            self._connected[user_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._connected[user_id] -= 1
                self._connected += Counter()  # without those who have none


async def connecting(request: Request, who: WorkerDep) -> AsyncIterator[None]:
    """A dependency of routes that connect to a source and wait for it."""
    with request.app.state.rates.connecting(who.user.id):
        yield


ConnectingDep = Annotated[None, Depends(connecting)]
