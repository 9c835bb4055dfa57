"""What every adapter of ``ports.cache`` promises."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from jivs.ports.cache import STALE_SECONDS, Cache, CacheName, Counts, Miss

SHORT = {CacheName.DATASOURCES: 60.0, CacheName.EXTRACTION_CONFIGS: 60.0, CacheName.EXTRACTION_STATS: 0.4}
"""Times to live to make the caches with."""
SOURCES, CONFIGS, STATS = CacheName

_SLACK_SECONDS = 0.5


def missed(cache: Cache, name: CacheName, key: str) -> Miss:
    """The Miss of a key that is not there."""
    found = cache.get(name, key)
    assert isinstance(found, Miss)
    return found


def fill(cache: Cache, name: CacheName, key: str, value: bytes) -> None:
    """Put a value, whatever there was."""
    cache.drop(name, key)
    cache.put(missed(cache, name, key), value)


class CacheSuite:
    """For every Cache."""

    @pytest.fixture
    def cache(self) -> Cache:
        """An empty cache with the times of ``SHORT``."""
        raise NotImplementedError  # whoever uses the suite gives it

    @pytest.fixture
    def other(self) -> Cache:
        """The same, as another process has it."""
        raise NotImplementedError  # whoever uses the suite gives it

    @pytest.mark.parametrize("key", ["7", "", "a:b\0c", "größe 🗄", "k" * 2000])
    def test_what_was_put_is_found(self, cache: Cache, key: str) -> None:
        for value in (b"", b"V", b"L" + bytes(16), bytes(range(256)) * 40):
            fill(cache, SOURCES, key, value)
            assert cache.get(SOURCES, key) == value
        assert isinstance(cache.get(CONFIGS, key), Miss)
        assert isinstance(cache.get(SOURCES, f"{key}."), Miss)

    def test_what_was_dropped_is_gone(self, cache: Cache) -> None:
        fill(cache, SOURCES, "1", b"one")
        fill(cache, SOURCES, "2", b"two")
        cache.drop(SOURCES, "1")
        cache.drop(SOURCES, "1")
        cache.drop(CONFIGS, "2")
        assert isinstance(cache.get(SOURCES, "1"), Miss)
        assert cache.get(SOURCES, "2") == b"two"

    def test_when_all_is_forgotten_nothing_is_left_for_anybody(self, cache: Cache, other: Cache) -> None:
        fill(cache, SOURCES, "1", b"one")
        fill(cache, CONFIGS, "2", b"two")
        other.get(SOURCES, "1")
        miss = missed(cache, STATS, "3")
        cache.clear()
        cache.put(miss, b"old")
        for name, key in ((SOURCES, "1"), (CONFIGS, "2"), (STATS, "3")):
            assert isinstance(cache.get(name, key), Miss)
        time.sleep(STALE_SECONDS + _SLACK_SECONDS)
        assert isinstance(other.get(SOURCES, "1"), Miss)

    def test_what_was_loaded_before_a_drop_is_not_kept(self, cache: Cache) -> None:
        miss = missed(cache, SOURCES, "1")
        cache.drop(SOURCES, "1")
        cache.put(miss, b"old")
        fresh = missed(cache, SOURCES, "1")
        cache.put(miss, b"old")
        cache.put(fresh, b"new")
        cache.put(miss, b"old")
        assert cache.get(SOURCES, "1") == b"new"

    def test_whoever_misses_at_once_may_put(self, cache: Cache) -> None:
        first, second = missed(cache, SOURCES, "1"), missed(cache, SOURCES, "1")
        cache.put(second, b"row")
        assert cache.get(SOURCES, "1") == b"row"
        cache.put(first, b"row")
        assert cache.get(SOURCES, "1") == b"row"

    def test_a_value_ends_with_its_time(self, cache: Cache) -> None:
        began = time.monotonic()
        cache.put(missed(cache, STATS, "1"), b"row")
        cache.put(missed(cache, SOURCES, "1"), b"row")
        while not isinstance(cache.get(STATS, "1"), Miss):  # however often it is read
            assert time.monotonic() < began + 2 * SHORT[STATS] + _SLACK_SECONDS
            time.sleep(0.02)
        assert cache.get(SOURCES, "1") == b"row"

    def test_hits_and_misses_are_counted_by_name(self, cache: Cache) -> None:
        cache.put(missed(cache, SOURCES, "1"), b"row")
        for _ in range(3):
            cache.get(SOURCES, "1")
        missed(cache, CONFIGS, "1")
        assert dict(cache.counts()) == {SOURCES: Counts(3, 1), CONFIGS: Counts(0, 1), STATS: Counts(0, 0)}

    def test_a_value_that_is_too_large_is_not_kept(self, cache: Cache) -> None:
        fill(cache, SOURCES, "1", b"small")
        cache.put(missed(cache, SOURCES, "2"), bytes(64 << 20))
        assert isinstance(cache.get(SOURCES, "2"), Miss)
        assert cache.get(SOURCES, "1") == b"small"

    def test_after_its_end_there_are_misses(self, cache: Cache) -> None:
        fill(cache, SOURCES, "1", b"row")
        assert cache.healthy()
        cache.close()
        assert isinstance(cache.get(SOURCES, "1"), Miss)
        cache.drop(SOURCES, "1")
        cache.close()

    def test_others_do_not_see_long_what_was_dropped(self, cache: Cache, other: Cache) -> None:
        fill(other, SOURCES, "1", b"old")
        slow = missed(other, SOURCES, "2")
        cache.drop(SOURCES, "1")
        cache.drop(SOURCES, "2")
        other.put(slow, b"old")
        end = time.monotonic() + STALE_SECONDS
        while b"old" in (other.get(SOURCES, "1"), other.get(SOURCES, "2")):  # however often it is read
            assert time.monotonic() < end + _SLACK_SECONDS
            time.sleep(0.01)
        assert isinstance(cache.get(SOURCES, "1"), Miss)
        assert isinstance(cache.get(SOURCES, "2"), Miss)

    def test_no_reader_sees_what_was_dropped(self, cache: Cache, other: Cache) -> None:
        """Eight readers, four of them elsewhere, and a writer that reads too: the row's version tells who was late."""
        row, dropped = 0, [time.monotonic()]  # by version: when it was dropped
        late: list[str] = []
        end = threading.Event()

        def read(mine: Cache, allowed: Callable[[int, float], bool]) -> None:
            while not end.is_set():
                began = time.monotonic()
                found = mine.get(SOURCES, "row")
                if isinstance(found, Miss):
                    loaded = row
                    time.sleep(0.002)
                    mine.put(found, str(loaded).encode())
                elif not allowed(int(found), began):
                    late.append(f"version {found.decode()} when {len(dropped)} is written")

        def here(version: int, began: float) -> bool:
            return version + 1 >= len(dropped) or dropped[version + 1] >= began

        def elsewhere(version: int, began: float) -> bool:
            return version + 1 >= len(dropped) or dropped[version + 1] + STALE_SECONDS + _SLACK_SECONDS >= began

        readers = [threading.Thread(target=read, args=(cache, here)) for _ in range(4)]
        readers += [threading.Thread(target=read, args=(other, elsewhere)) for _ in range(4)]
        for reader in readers:
            reader.start()
        stop = time.monotonic() + STALE_SECONDS + 1.5
        while time.monotonic() < stop:
            row += 1
            cache.drop(SOURCES, "row")
            dropped.append(time.monotonic())
            found = cache.get(SOURCES, "row")
            if not isinstance(found, Miss) and int(found) != row:
                late.append(f"the writer: version {found.decode()} of {row}")
            time.sleep(0.004)
        end.set()
        for reader in readers:
            reader.join()
        assert late[:5] == []
        counts = cache.counts()[SOURCES]
        assert counts.hits > row
        assert counts.misses > 0
