"""The pool of connections to the catalog: bounded, opened ahead, and clear about being exhausted."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, event

from jivs.backends.catalog.engine import Engine, PoolLimits
from jivs.backends.catalog.work import SqlWork
from jivs.domain.source import Address
from jivs.errors import UnreachableError
from jivs.ports.metrics import PoolUse
from jivs.testing.clock import FakeClock
from jivs.testing.servers import wait_for

Make = Callable[[PoolLimits], Engine]


@pytest.fixture(params=["sqlite", "postgresql"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Make]:
    address = Address(scheme="sqlite", database=str(tmp_path / "catalog.db"))
    if request.param == "postgresql":
        address = Address.parse(request.getfixturevalue("pg"), lambda _: None)
    made: list[Engine] = []

    def engine(limits: PoolLimits) -> Engine:
        made.append(Engine(address, limits))
        return made[-1]

    yield engine
    for one in made:
        one.close()


def test_a_pool_in_use_says_so_and_names_the_setting(make: Make) -> None:
    engine = make(PoolLimits(maximum=2, seconds=0.5))
    with ExitStack() as held:
        for _ in range(2):
            held.enter_context(engine.read())
        seen: list[PoolUse] = []
        watcher = threading.Timer(0.25, lambda: seen.append(engine.use()))
        watcher.start()
        with pytest.raises(
            UnreachableError, match=r"^Connection pool exhausted: .* 2 connections .*HIKARI_MAXIMUM_POOL_SIZE"
        ):
            held.enter_context(engine.read())
        watcher.join()
        assert seen == [PoolUse(active=2, idle=0, pending=1, limit=2)]
    assert engine.use() == PoolUse(active=0, idle=2, pending=0, limit=2)
    with engine.read():
        pass


def test_who_has_the_connections_is_told_to_the_log(
    make: Make, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is never given back, or late, is found by its thread."""
    monkeypatch.setattr("jivs.backends.catalog.engine._LEAK_SECONDS", 0.3)
    engine, free = make(PoolLimits(maximum=2, seconds=0.5)), threading.Event()

    def forget() -> None:
        with engine.read():
            free.wait(10)

    threads = [threading.Thread(target=forget, name=name) for name in ("forgetful", "slow")]
    for thread in threads:
        thread.start()
    wait_for(lambda: engine.use().active == 2, 5)
    with pytest.raises(UnreachableError) as caught, engine.read():
        pass
    free.set()
    for thread in threads:
        thread.join()
    assert re.search(r"forgetful for 0\.\d s", caught.value.detail)
    assert re.search(r"slow for 0\.\d s", caught.value.detail)
    said = [record.getMessage() for record in caplog.records]
    assert all(any(f"by {name}." in line for line in said) for name in ("forgetful", "slow"))
    caplog.clear()
    with engine.read():
        pass
    assert not caplog.records


def test_connections_are_opened_ahead_so_that_two_in_use_are_few(make: Make) -> None:
    engine = make(PoolLimits(maximum=6, minimum=6))
    wait_for(lambda: engine.use() == PoolUse(active=0, idle=6, pending=0, limit=6), 10)
    with engine.read(), engine.write():
        use = engine.use()
        assert (use.active, use.active + use.idle) == (2, 6)


def test_what_is_not_asked_for_is_not_opened(make: Make) -> None:
    engine = make(PoolLimits(maximum=50))
    assert engine.use().idle == 1
    with ExitStack() as held:
        for _ in range(10):
            held.enter_context(engine.read())
        assert engine.use().active == 10
    assert engine.use().idle == 8


def test_sqlite_has_sixteen_connections_at_most(tmp_path: Path) -> None:
    engine = Engine(Address(scheme="sqlite", database=str(tmp_path / "c.db")), PoolLimits(maximum=50, minimum=50))
    wait_for(lambda: engine.use() == PoolUse(active=0, idle=16, pending=0, limit=16), 10)
    engine.close()


def test_a_database_that_opens_fewer_serves_with_those(pg: str, caplog: pytest.LogCaptureFixture) -> None:
    address = Address.parse(pg, lambda _: None)
    owner = Engine(address)
    with owner.write() as connection:
        connection.exec_driver_sql(f'alter database "{address.database}" connection limit 4')
        connection.exec_driver_sql(f"create role few_{address.database} login password 'few'")
        for kind in ("tables", "sequences"):
            connection.exec_driver_sql(f"grant all on all {kind} in schema public to few_{address.database}")
    owner.close()
    few = Address.parse(
        pg.replace(address.username, f"few_{address.database}", 1).replace(address.password.reveal(), "few", 1),
        lambda _: None,
    )
    engine = Engine(few, PoolLimits(maximum=10, minimum=10))
    wait_for(lambda: "lets us open 4 connections, not 10" in caplog.text, 10)
    with engine.read():
        pass
    engine.close()


def test_who_it_is_that_answers(make: Make) -> None:
    details = make(PoolLimits()).ping()
    assert str(details["database"]).split()[0] in {"SQLite", "PostgreSQL"}
    assert int(details["milliseconds"]) < 5000


def test_runs_are_counted_from_an_index_alone(tmp_path: Path) -> None:
    """A scrape reads no rows of runs, which are wide, however many there were."""
    engine = Engine(Address(scheme="sqlite", database=str(tmp_path / "c.db")))
    seen: list[str] = []

    def heard(*given: Any) -> None:
        seen.append(given[2])

    event.listen(Connection, "before_cursor_execute", heard)
    try:
        assert SqlWork(engine, FakeClock(), connections=1, parallel=1).by_state() == {}
    finally:
        event.remove(Connection, "before_cursor_execute", heard)
    (statement,) = [one for one in seen if "runs" in one]
    with engine.read() as connection:
        plan = [row[3] for row in connection.exec_driver_sql(f"explain query plan {statement}")]
    assert plan == ["SCAN runs USING COVERING INDEX runs_by_state"]
    engine.close()
