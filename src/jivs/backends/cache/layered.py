"""A cache in this process over one that processes share."""

from __future__ import annotations

from collections.abc import Mapping

from jivs.backends.cache.memory import MemoryCache
from jivs.backends.cache.redis import RedisCache
from jivs.backends.cache.tally import Tally
from jivs.ports.cache import CacheName, Counts, Miss


class LayeredCache:
    """``near`` is asked first. It hears at once what others drop in ``far``; what it does not hear, it forgets within the
    seconds that it keeps anything.
    """

    def __init__(self, near: MemoryCache, far: RedisCache) -> None:
        self._near = near
        self._far = far
        self._tally = Tally()
        far.listen(near.drop, near.clear)

    def get(self, name: CacheName, key: str) -> bytes | Miss:
        return self._tally.count(name, self._find(name, key))

    def _find(self, name: CacheName, key: str) -> bytes | Miss:
        near = self._near.get(name, key)
        if not isinstance(near, Miss):
            return near
        far = self._far.get(name, key)
        if not isinstance(far, Miss):
            self._near.put(near, far)
            return far
        return Miss(name=name, key=key, token=(near, far))

    def put(self, miss: Miss, value: bytes) -> None:
        if isinstance(miss.token, tuple):
            near, far = miss.token
            self._far.put(far, value)
            self._near.put(near, value)

    def drop(self, name: CacheName, key: str) -> None:
        self._far.drop(name, key)
        self._near.drop(name, key)  # last: until now, a reader of this process could take the old value from the far one

    def clear(self) -> None:
        self._far.clear()
        self._near.clear()

    def counts(self) -> Mapping[CacheName, Counts]:
        return self._tally.counts()

    def healthy(self) -> bool:
        return self._far.healthy()

    def close(self) -> None:
        self._far.close()
        self._near.close()
