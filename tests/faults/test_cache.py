"""Redis dies, is started again, forgets, stands still: calls stay quick, and nobody sees what was dropped."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator

import pytest

from jivs.backends.cache.layered import LayeredCache
from jivs.backends.cache.memory import MemoryCache
from jivs.backends.cache.redis import RedisCache
from jivs.backends.clock import SystemClock
from jivs.domain.source import Secret
from jivs.ports.cache import STALE_SECONDS, Cache, CacheName, Miss
from jivs.testing.cache import SOURCES, fill, missed
from jivs.testing.servers import PASSWORD, RedisServer, wait_for

LONG = dict.fromkeys(CacheName, 3600.0)
TIMEOUT = 0.5  # the longest that one call waits for Redis
AGAIN = 5.0


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as running:
        yield running


class Machine:
    """Processes of an installation, each with a cache of its own over one Redis."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.space = uuid.uuid4().hex
        self.caches: list[Cache] = []

    def far(self, password: str = PASSWORD) -> RedisCache:
        self.caches.append(RedisCache("127.0.0.1", self.server.port, Secret(password), self.space, LONG))
        return self.caches[-1]  # type: ignore[return-value]

    def layered(self) -> LayeredCache:
        near = MemoryCache(SystemClock(), dict.fromkeys(CacheName, STALE_SECONDS))
        return LayeredCache(near, self.far())


@pytest.fixture
def machine(server: RedisServer) -> Iterator[Machine]:
    made = Machine(server)
    yield made
    for cache in made.caches:
        cache.close()


def seconds(work: Callable[[], object], times: int = 1) -> float:
    began = time.monotonic()
    for _ in range(times):
        work()
    return time.monotonic() - began


def use(cache: Cache) -> None:
    """What a request does that reads something new, and then one that writes."""
    key = uuid.uuid4().hex
    cache.put(missed(cache, SOURCES, key), b"row")
    cache.drop(SOURCES, key)


def test_a_dead_redis_costs_next_to_nothing(machine: Machine) -> None:
    cache = machine.layered()
    fill(cache, SOURCES, "1", b"row")
    machine.server.crash()
    assert seconds(lambda: use(cache)) < 2 * TIMEOUT
    assert seconds(lambda: use(cache), 2000) < 1
    assert not cache.healthy()
    fill(cache, SOURCES, "2", b"row")
    assert cache.get(SOURCES, "2") == b"row"  # for seconds, in this process
    machine.server.start()
    wait_for(cache.healthy, AGAIN)
    fill(cache, SOURCES, "3", b"row")
    assert machine.far().get(SOURCES, "3") == b"row"


def test_a_redis_that_was_never_there_costs_one_second_once(machine: Machine) -> None:
    machine.server.stop()
    cache = machine.layered()
    assert seconds(lambda: use(cache)) < 1.5
    assert seconds(lambda: use(cache), 2000) < 1
    machine.server.start()
    wait_for(cache.healthy, AGAIN)


def test_a_restart_between_two_calls_is_not_noticed(machine: Machine) -> None:
    """Connections that a restart, or an idle time-out, has closed are made again within the call."""
    cache = machine.far()
    for _ in range(3):
        fill(cache, SOURCES, "1", b"row")
        machine.server.client().execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        assert cache.get(SOURCES, "1") == b"row"


def test_a_frozen_redis_costs_one_timeout(machine: Machine) -> None:
    cache = machine.layered()
    fill(cache, SOURCES, "1", b"row")
    machine.server.freeze()
    durations: list[float] = []
    threads = [threading.Thread(target=lambda: durations.append(seconds(lambda: use(cache), 100))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(durations) < 4 * TIMEOUT
    assert seconds(lambda: use(cache), 2000) < 1
    machine.server.thaw()
    wait_for(cache.healthy, AGAIN)


def test_what_was_dropped_while_redis_stood_still_does_not_come_back(machine: Machine) -> None:
    """Redis comes back with all it had. The writer's drop waits for it, and so does every put on its way."""
    writer, reader = machine.layered(), machine.layered()
    fill(writer, SOURCES, "1", b"old")
    assert reader.get(SOURCES, "1") == b"old"
    late = missed(reader, SOURCES, "2")
    machine.server.freeze()
    reader.put(late, b"old")
    for key in ("1", "2"):
        writer.drop(SOURCES, key)
        assert isinstance(writer.get(SOURCES, key), Miss)
    time.sleep(STALE_SECONDS)
    assert isinstance(reader.get(SOURCES, "1"), Miss)
    machine.server.thaw()
    while not (writer.healthy() and reader.healthy()):
        assert isinstance(writer.get(SOURCES, "1"), Miss)
        assert isinstance(writer.get(SOURCES, "2"), Miss)
    end = time.monotonic() + STALE_SECONDS
    while b"old" in (reader.get(SOURCES, "1"), reader.get(SOURCES, "2")):
        assert time.monotonic() < end
    assert isinstance(machine.far().get(SOURCES, "1"), Miss)


def test_more_drops_than_anybody_counts_while_redis_stands_still(machine: Machine) -> None:
    writer, reader = machine.layered(), machine.far()
    fill(writer, SOURCES, "1", b"old")
    machine.server.freeze()
    writer.drop(SOURCES, "1")
    assert seconds(lambda: [writer.drop(SOURCES, f"{number}") for number in range(5000)]) < 2
    machine.server.thaw()
    wait_for(lambda: isinstance(reader.get(SOURCES, "1"), Miss) and writer.healthy() and reader.healthy(), AGAIN)
    fill(writer, SOURCES, "1", b"new")
    assert reader.get(SOURCES, "1") == b"new"


def test_nothing_comes_back_from_redis_own_disk(machine: Machine) -> None:
    """A snapshot of Redis has values, and leases, that were dropped after it was written."""
    cache, other = machine.layered(), machine.layered()
    fill(cache, SOURCES, "1", b"old")
    slow = missed(other, SOURCES, "2")
    machine.server.client().save()
    cache.drop(SOURCES, "1")
    cache.drop(SOURCES, "2")
    machine.server.crash()
    machine.server.start()
    assert machine.server.client().dbsize() == 2
    for one in (cache, other):
        wait_for(one.healthy, AGAIN)
    other.put(slow, b"old")
    for one in (cache, other, machine.far()):
        for key in ("1", "2"):
            assert isinstance(one.get(SOURCES, key), Miss)


def test_what_is_dropped_in_the_moment_when_redis_comes_back(machine: Machine) -> None:
    """After what was owed is settled, and before Redis is in use again: it waits for the next turn, and is seen no more."""

    class Interrupted(RedisCache):
        hold = False

        def _settle(self, *, trying: bool = True) -> None:
            super()._settle(trying=trying)
            if trying and self.hold:
                self.hold = False
                self.drop(SOURCES, "1")

    cache = Interrupted("127.0.0.1", machine.server.port, Secret(PASSWORD), machine.space, LONG)
    machine.caches.append(cache)
    fill(cache, SOURCES, "1", b"old")
    cache.hold = True
    machine.server.client().execute_command("CLIENT", "KILL", "TYPE", "pubsub")
    wait_for(lambda: not cache.hold and cache.healthy(), AGAIN)
    assert isinstance(cache.get(SOURCES, "1"), Miss)
    other = machine.far()
    wait_for(lambda: isinstance(other.get(SOURCES, "1"), Miss), STALE_SECONDS)


def test_flushing_redis_loses_time_only(machine: Machine) -> None:
    cache, far = machine.layered(), machine.far()
    fill(cache, SOURCES, "1", b"row")
    slow = missed(far, SOURCES, "2")
    machine.server.client().flushall()
    cache.drop(SOURCES, "2")
    far.put(slow, b"old")  # the drop is as gone as the lease
    assert isinstance(far.get(SOURCES, "2"), Miss)
    assert isinstance(far.get(SOURCES, "1"), Miss)
    fill(cache, SOURCES, "1", b"row")
    assert far.get(SOURCES, "1") == b"row"
    assert cache.healthy()


def test_an_unheard_drop_is_seen_for_seconds_only(machine: Machine) -> None:
    """The line on which drops are heard is cut again and again."""
    writer, reader = machine.layered(), machine.layered()
    client = machine.server.client()
    for number in range(10):
        fill(writer, SOURCES, "1", str(number).encode())
        dropped = time.monotonic()
        while (found := reader.get(SOURCES, "1")) != str(number).encode():
            assert time.monotonic() < dropped + STALE_SECONDS + 0.5, found
            if isinstance(found, Miss):
                reader.put(found, str(number).encode())
        client.execute_command("CLIENT", "KILL", "TYPE", "pubsub")


def test_rubbish_from_others_is_survived(machine: Machine) -> None:
    """Messages on our channel and values at our keys that JiVS never wrote."""
    first, second = machine.layered(), machine.layered()
    fill(first, SOURCES, "1", b"row")
    client = machine.server.client()
    for rubbish in (b"", b"\xff\xfe", b"me datasources", b"me unknown:1", b"me :"):
        client.publish(f"jivs:{machine.space}", rubbish)
        time.sleep(0.1)
    (key,) = client.keys("*")
    client.set(key, b"?")
    assert isinstance(machine.far().get(SOURCES, "1"), Miss)
    wait_for(lambda: first.healthy() and second.healthy(), AGAIN)
    fill(first, SOURCES, "1", b"new")
    assert second.get(SOURCES, "1") == b"new"


def test_a_full_redis_gives_up_the_oldest(machine: Machine) -> None:
    cache = machine.far()
    for number in range(150):
        fill(cache, SOURCES, f"{number}", bytes(1 << 19))
    held = [number for number in range(150) if not isinstance(cache.get(SOURCES, f"{number}"), Miss)]
    assert 50 < len(held) < 130
    assert held[-1] == 149
    assert cache.healthy()


def test_a_redis_that_takes_nothing_is_no_error(caplog: pytest.LogCaptureFixture) -> None:
    """Set up wrongly: full, and told to refuse writes."""
    with RedisServer(**{"maxmemory": "1mb", "maxmemory-policy": "noeviction"}) as server:
        machine = Machine(server)
        cache = machine.layered()
        for _ in range(200):
            use(cache)
        fill(cache, SOURCES, "1", b"row")
        assert cache.get(SOURCES, "1") == b"row"
        cache.close()
    assert "OutOfMemoryError" in caplog.text


def test_a_wrong_password_is_said_once_and_never_shown(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for password in ("not this one, sorry", ""):
        cache = machine.far(password)
        assert isinstance(cache.get(SOURCES, "1"), Miss)
        assert not cache.healthy()
        time.sleep(3 * TIMEOUT)
        cache.close()
        assert "not this one" not in repr(cache)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("jivs")]
    assert len(said) == 2
    assert "REDIS_PASSWORD" in said[0]
    assert "not this one" not in caplog.text


def test_an_error_of_redis_that_repeats_the_password_is_not_shown(caplog: pytest.LogCaptureFixture) -> None:
    class NoLogins(RedisServer):
        def ready(self) -> bool:
            import redis

            try:
                return bool(redis.Redis(port=self.port).ping())
            except redis.RedisError:
                return False

    caplog.set_level(logging.DEBUG)
    with NoLogins(**{"requirepass": '""', "rename-command": 'AUTH ""'}) as server:
        cache = Machine(server).far("not this one, sorry")
        assert isinstance(cache.get(SOURCES, "1"), Miss)
        cache.close()
    assert "cannot be used" in caplog.text
    assert "not this one" not in caplog.text
