"""A cache in this process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from jivs.backends.cache.tally import Tally
from jivs.ports.cache import CacheName, Counts, Miss
from jivs.ports.clock import Clock

_Place = tuple[CacheName, str]
_ENTRY_BYTES = 300
"""What an entry takes beside its value and key, roughly."""
_LARGE = 16
"""A value above this part of all bytes is not kept: it would push out too many others."""


class _Lease:
    """Stands where a value is being loaded. Whoever drops the key, or needs the room, takes it away."""


class _Entry(NamedTuple):
    held: bytes | _Lease
    until: float


class MemoryCache:
    """Keeps values for ``seconds`` by cache, counted from the miss; above ``most_bytes``, the longest unused go first."""

    def __init__(self, clock: Clock, seconds: Mapping[CacheName, float], *, most_bytes: int = 32 << 20) -> None:
        self._clock = clock
        self._seconds = seconds
        self._most = most_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[_Place, _Entry] = OrderedDict()
        self._bytes = 0
        self._tally = Tally()

    def get(self, name: CacheName, key: str) -> bytes | Miss:
        return self._tally.count(name, self._find(name, key))

    def _find(self, name: CacheName, key: str) -> bytes | Miss:
        now, place = self._clock.monotonic(), (name, key)
        with self._lock:
            entry = self._entries.get(place)
            if entry is None or now >= entry.until:
                entry = _Entry(_Lease(), now + self._seconds[name])
                self._keep(place, entry)
            self._entries.move_to_end(place)
        if isinstance(entry.held, bytes):
            return entry.held
        return Miss(name=name, key=key, token=(entry.held, now + self._seconds[name]))

    def put(self, miss: Miss, value: bytes) -> None:
        if not isinstance(miss.token, tuple) or len(value) > self._most // _LARGE:
            return
        lease, until = miss.token
        place = (miss.name, miss.key)
        with self._lock:
            entry = self._entries.get(place)
            if entry is not None and entry.held is lease:
                self._keep(place, _Entry(value, until))

    def drop(self, name: CacheName, key: str) -> None:
        with self._lock:
            self._forget((name, key))

    def clear(self) -> None:
        """Forget everything, as ``drop`` does."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0

    def counts(self) -> Mapping[CacheName, Counts]:
        return self._tally.counts()

    def healthy(self) -> bool:
        return True

    def close(self) -> None:
        self.clear()

    def _keep(self, place: _Place, entry: _Entry) -> None:
        self._forget(place)
        self._entries[place] = entry
        self._bytes += _size(place, entry)
        while self._bytes > self._most:
            self._forget(next(iter(self._entries)))

    def _forget(self, place: _Place) -> None:
        entry = self._entries.pop(place, None)
        if entry is not None:
            self._bytes -= _size(place, entry)


def _size(place: _Place, entry: _Entry) -> int:
    return _ENTRY_BYTES + len(place[1]) + (len(entry.held) if isinstance(entry.held, bytes) else 0)
