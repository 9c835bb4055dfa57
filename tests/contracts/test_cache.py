"""Every cache passes the port's suite, and the settings choose among them."""

from __future__ import annotations

import re
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jivs import bootstrap
from jivs.backends.cache.layered import LayeredCache
from jivs.backends.cache.memory import MemoryCache
from jivs.backends.cache.redis import RedisCache
from jivs.backends.clock import SystemClock
from jivs.domain.source import Secret
from jivs.errors import DriverMissingError
from jivs.ports.cache import STALE_SECONDS, Cache, CacheName, Miss
from jivs.settings import Settings
from jivs.testing.cache import SHORT, SOURCES, CacheSuite, fill, missed
from jivs.testing.clock import FakeClock
from jivs.testing.servers import PASSWORD, RedisServer, wait_for

ROOT = Path(__file__).parent.parent.parent
Make = Callable[[], RedisCache]


def near() -> MemoryCache:
    return MemoryCache(SystemClock(), {name: min(seconds, STALE_SECONDS) for name, seconds in SHORT.items()})


@pytest.fixture
def far(redis: RedisServer) -> Iterator[Make]:
    """Makes caches that share a space of Redis."""
    space = uuid.uuid4().hex
    made: list[RedisCache] = []

    def make() -> RedisCache:
        made.append(RedisCache("127.0.0.1", redis.port, Secret(PASSWORD), space, SHORT))
        return made[-1]

    yield make
    for one in made:
        one.close()


class TestMemoryCache(CacheSuite):
    @pytest.fixture
    def cache(self) -> Cache:
        return near()

    @pytest.fixture
    def other(self) -> Cache:
        return near()


class TestRedisCache(CacheSuite):
    @pytest.fixture
    def cache(self, far: Make) -> Cache:
        return far()

    @pytest.fixture
    def other(self, far: Make) -> Cache:
        return far()


class TestLayeredCache(CacheSuite):
    @pytest.fixture
    def cache(self, far: Make) -> Cache:
        return LayeredCache(near(), far())

    @pytest.fixture
    def other(self, far: Make) -> Cache:
        return LayeredCache(near(), far())


del CacheSuite  # or pytest would run the suite without an adapter


def test_memory_is_bounded_and_the_longest_unused_go_first() -> None:
    cache = MemoryCache(FakeClock(), SHORT, most_bytes=100_000)
    fill(cache, SOURCES, "kept", bytes(1000))
    for number in range(1000):
        assert cache.get(SOURCES, "kept") == bytes(1000)
        fill(cache, SOURCES, f"{number}", bytes(1000))
    held = [number for number in reversed(range(1000)) if not isinstance(cache.get(SOURCES, f"{number}"), Miss)]
    assert 50 < len(held) < 100
    assert held == list(reversed(range(1000 - len(held), 1000)))
    for number in range(100_000):
        missed(cache, SOURCES, f"unknown {number}")
    assert isinstance(cache.get(SOURCES, "kept"), Miss)


def test_a_hit_in_process_does_not_ask_redis(redis: RedisServer, far: Make) -> None:
    cache = LayeredCache(near(), far())
    fill(cache, SOURCES, "1", b"row")
    calls = redis.client().info("commandstats").get("cmdstat_set", {}).get("calls", 0)
    for _ in range(1000):
        assert cache.get(SOURCES, "1") == b"row"
    assert redis.client().info("commandstats")["cmdstat_set"]["calls"] <= calls + 3  # the near one forgets every 2 s


def test_what_another_process_drops_is_heard_at_once(far: Make) -> None:
    first, second = LayeredCache(near(), far()), LayeredCache(near(), far())
    for number in range(20):
        fill(first, SOURCES, f"{number}", b"row")
        assert second.get(SOURCES, f"{number}") == b"row"
    gone = threading.Event()

    def watch() -> None:
        while any(second.get(SOURCES, f"{number}") == b"row" for number in range(20)):
            gone.wait(0.01)
        gone.set()

    watching = threading.Thread(target=watch)
    watching.start()
    for number in range(20):
        first.drop(SOURCES, f"{number}")
    assert gone.wait(STALE_SECONDS / 2)
    watching.join()


def test_a_process_that_only_drops_has_dropped_when_it_ends(far: Make) -> None:
    one, short = far(), far()
    fill(one, SOURCES, "1", b"old")
    short.drop(SOURCES, "1")
    assert isinstance(one.get(SOURCES, "1"), Miss)


def test_a_reader_in_the_midst_of_a_drop_leaves_nothing_behind(far: Make) -> None:
    """It takes the old value from Redis just before it is dropped there, into this process's own layer."""

    class Watched(RedisCache):
        def drop(self, name: CacheName, key: str) -> None:
            if key == "1":
                assert cache.get(name, key) == b"old"
            super().drop(name, key)

    writer = far()
    fill(writer, SOURCES, "1", b"old")
    watched = far()
    watched.__class__ = Watched
    cache = LayeredCache(near(), watched)
    assert cache.healthy()
    cache.drop(SOURCES, "1")
    assert isinstance(cache.get(SOURCES, "1"), Miss)


def test_installations_that_share_a_server_see_nothing_of_each_other(redis: RedisServer) -> None:
    mine, yours = (
        bootstrap.build_service(
            Settings(redis_host="127.0.0.1", redis_port=redis.port, redis_password=PASSWORD, jwt_secret=text * 40)
        ).cache
        for text in "ab"
    )
    fill(mine, SOURCES, "1", b"mine")
    assert isinstance(yours.get(SOURCES, "1"), Miss)
    fill(yours, SOURCES, "1", b"yours")
    yours.drop(SOURCES, "1")
    assert mine.get(SOURCES, "1") == b"mine"
    mine.close()
    yours.close()


def test_the_rights_that_the_documentation_names_are_enough(caplog: pytest.LogCaptureFixture) -> None:
    page = " ".join((ROOT / "docs" / "operation-cache-and-queue.md").read_text(encoding="utf-8").split())
    named = re.search(r"let its user call `([A-Z ]+)`", page)
    assert named is not None
    rights = [f"+{command.lower()}" for command in named[1].split()]
    with RedisServer() as server:
        server.client().execute_command("ACL", "SETUSER", "default", "-@all", *rights)
        first, second = (
            LayeredCache(near(), RedisCache("127.0.0.1", server.port, Secret(PASSWORD), "s", SHORT)) for _ in range(2)
        )
        fill(first, SOURCES, "1", b"row")
        assert second.get(SOURCES, "1") == b"row"
        first.drop(SOURCES, "1")
        wait_for(lambda: isinstance(second.get(SOURCES, "1"), Miss), STALE_SECONDS / 2)
        first.close()
        second.close()
    assert caplog.text == ""


def test_settings_choose_the_cache(monkeypatch: pytest.MonkeyPatch, redis: RedisServer) -> None:
    assert isinstance(bootstrap.build_service(Settings()).cache, MemoryCache)
    monkeypatch.setenv("REDIS_HOST", "127.0.0.1")
    monkeypatch.setenv("REDIS_PORT", str(redis.port))
    monkeypatch.setenv("REDIS_PASSWORD", PASSWORD)
    monkeypatch.setenv("REDIS_MAXMEMORY", "4gb")
    monkeypatch.setenv("CACHE_TTL_DATASOURCES", "7200000")
    settings = Settings()
    assert settings.redis_maxmemory == 4 << 30
    service = bootstrap.build_service(settings)
    assert PASSWORD not in repr(service)
    cache = service.cache
    assert isinstance(cache, LayeredCache)
    cache.put(missed(cache, SOURCES, "seconds"), b"row")
    cache.put(missed(cache, CacheName.EXTRACTION_STATS, "seconds"), b"row")
    client = redis.client()
    lives = {key.split(b":")[3]: client.ttl(key) for key in client.scan_iter(match="*:seconds")}
    assert 7190 <= lives[b"datasources"] <= 7200
    assert 290 <= lives[b"extraction-stats"] <= 300
    cache.close()
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "jivs.backends.cache.layered")
    monkeypatch.delitem(sys.modules, "jivs.backends.cache.redis")
    with pytest.raises(DriverMissingError, match=r"jivs\[redis\]"):
        bootstrap.build_service(settings)
