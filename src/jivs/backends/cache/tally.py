"""Counting hits and misses."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from jivs.ports.cache import CacheName, Counts, Miss


class Tally:
    """Hits and misses by cache, from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hits = dict.fromkeys(CacheName, 0)
        self._misses = dict.fromkeys(CacheName, 0)

    def count(self, name: CacheName, found: bytes | Miss) -> bytes | Miss:
        """Count what was found, and hand it on."""
        with self._lock:
            (self._misses if isinstance(found, Miss) else self._hits)[name] += 1
        return found

    def counts(self) -> Mapping[CacheName, Counts]:
        """The counts so far."""
        with self._lock:
            return {name: Counts(self._hits[name], self._misses[name]) for name in CacheName}
