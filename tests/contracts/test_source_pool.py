"""The connections of a run to its source: who waits for one, for how long, and what it is told then."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import psycopg
import pytest

from jivs import bootstrap, connectors
from jivs.domain.source import Address, Limits
from jivs.errors import UnreachableError
from jivs.ports.connector import Request, Session
from jivs.settings import Settings
from jivs.testing.clock import FakeClock
from jivs.testing.servers import MariaServer
from jivs.transfer.throttle import Throttle


@contextmanager
def session(url: str, limits: Limits) -> Iterator[Session]:
    address = Address.parse(url, lambda _: None)
    with closing(connectors.find(address).open(address, limits, Request(), Throttle(0, FakeClock()))) as opened:
        opened.begin([listing.name for listing in opened.tables()])
        yield opened


def test_who_waits_too_long_for_a_connection_is_told_which_setting_to_change(
    pg: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(pg, autocommit=True) as connection:
        connection.execute("create table t as select g as id, repeat('x', 500) as v from generate_series(1, 40000) g")
    monkeypatch.setenv("EXTRACTION_SOURCE_POOL_TIMEOUT", "300")
    monkeypatch.setenv("EXTRACTION_SOURCE_POOL_MAX_SIZE", "2")
    limits = bootstrap.build(Settings()).limits
    assert (limits.pool_seconds, limits.connections) == (0.3, 2)
    with session(pg, limits) as source:
        table = source.describe(next(iter(source.tables())).name)
        reading = iter(source.read(table, {}))
        next(reading)
        began = time.monotonic()
        with pytest.raises(UnreachableError, match=r"^Connection pool exhausted: .*EXTRACTION_SOURCE_POOL_MAX_SIZE"):
            source.count(table, {})
        assert 0.25 < time.monotonic() - began < 5
        assert sum(chunk.batch.num_rows for chunk in reading) < 40_000, "the first batch was taken before"
        assert source.count(table, {}) == 40_000


def test_where_no_other_connection_can_join_a_reader_waits_for_those_that_are_left(my: str, maria: MariaServer) -> None:
    with maria.connect(my.rpartition("/")[2]) as connection, connection.cursor() as cursor:
        cursor.execute("create table t (id int primary key, v varchar(600))")
        cursor.execute("insert into t select seq, repeat('x', 500) from seq_1_to_40000")
        connection.commit()
    with session(my, Limits(connections=1, parallel=1, pool_seconds=0.2)) as source:
        table = source.describe(next(iter(source.tables())).name)
        reading = iter(source.read(table, {}))
        next(reading)
        counted: list[int] = []
        waiting = threading.Thread(target=lambda: counted.append(source.count(table, {})))
        waiting.start()
        time.sleep(0.6)
        assert counted == []
        for _ in reading:
            pass
        waiting.join(30)
        assert counted == [40_000]
