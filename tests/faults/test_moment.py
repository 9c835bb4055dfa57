"""One moment in time, and no more of the source than the operator allowed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from jivs.domain.plan import Level
from jivs.testing.servers import MariaServer, PostgresServer
from tests import archives
from tests.conftest import Run


class Writer:
    """Moves amounts between two tables by transactions: the sum over both never changes."""

    def __init__(self, step: Callable[[int], None]) -> None:
        self._stop = threading.Event()
        self.count = 0

        def work() -> None:
            while not self._stop.is_set():
                step(self.count)
                self.count += 1

        self._thread = threading.Thread(target=work)

    def __enter__(self) -> Writer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def transfer(number: int) -> tuple[str, ...]:
    account = number * 37 % 400 + 1
    return (
        f"update x set amount = amount - 5 where id = {account}",
        f"update y set amount = amount + 5 where id = {400 - account + 1}",
        f"insert into x values ({1000 + number}, 11)",
        f"insert into y values ({1000 + number}, -11)",
    )


def check(run: Run, url: str, archive: Path, writer: Writer) -> None:
    sums = set()
    for _ in range(4):
        before = writer.count
        outcome = run(url, limits={"parallel": 4, "connections": 6, "batch_rows": 50}, partition_bytes=8192)
        assert outcome.complete
        assert outcome.snapshot_one
        assert writer.count > before + 3
        both = [sum(archives.rows(archive, name).column("amount").to_pylist()) for name in "xy"]
        sums.add(sum(both))
    assert sums == {400 * 100 * 2}


def test_postgresql_keeps_the_invariant(pg: str, run: Run, tmp_path: Path) -> None:
    with psycopg.connect(pg, autocommit=True) as connection:
        for name in "xy":
            connection.execute(
                f"create table {name} as select g::bigint as id, 100::bigint as amount from generate_series(1, 400) g"
            )
    writing = psycopg.connect(pg)

    def step(number: int) -> None:
        for statement in transfer(number):
            writing.execute(statement)
        writing.commit()

    with Writer(step) as writer:
        check(run, pg, tmp_path / "archive", writer)
    writing.close()


def test_mariadb_keeps_the_invariant(my: str, maria: MariaServer, run: Run, tmp_path: Path) -> None:
    writing = maria.connect(my.rpartition("/")[2], autocommit=False)
    cursor = writing.cursor()
    for name in "xy":
        cursor.execute(f"create table {name} (id bigint primary key, amount bigint)")
        cursor.execute(f"insert into {name} select seq, 100 from seq_1_to_400")
    writing.commit()

    def step(number: int) -> None:
        for statement in transfer(number):
            cursor.execute(statement)
        writing.commit()

    with Writer(step) as writer:
        check(run, my, tmp_path / "archive", writer)
    writing.close()


class Watcher:
    """Samples the source's own view of something."""

    def __init__(self, sample: Callable[[], int]) -> None:
        self.seen: list[tuple[float, int]] = []
        self._stop = threading.Event()

        def work() -> None:
            while not self._stop.is_set():
                self.seen.append((time.monotonic(), sample()))
                time.sleep(0.01)

        self._thread = threading.Thread(target=work)

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def most(self) -> int:
        return max(value for _, value in self.seen)

    def fastest(self, window: float) -> float:
        """The largest increase per second within any window of this length."""
        best = 0.0
        for index, (moment, value) in enumerate(self.seen):
            later = [item for item in self.seen[index:] if item[0] - moment <= window]
            best = max(best, (later[-1][1] - value) / window)
        return best


@pytest.mark.parametrize("connections", [1, 2, 4])
def test_postgresql_never_sees_more_connections_than_allowed(pg: str, run: Run, connections: int) -> None:
    with psycopg.connect(pg, autocommit=True) as connection:
        connection.execute("create table a as select g as id, repeat('x', 200) as t from generate_series(1, 30000) g")
        connection.execute("create table b as select * from a")
    watching = psycopg.connect(pg, autocommit=True)
    query = "select count(*) from pg_stat_activity where application_name = 'jivs'"
    with Watcher(lambda: watching.execute(query).fetchall()[0][0]) as watcher:
        assert run(pg, limits={"parallel": 8, "connections": connections}, partition_bytes=256 << 10).complete
    watching.close()
    assert 1 <= watcher.most <= connections


@pytest.mark.parametrize("connections", [1, 3])
def test_mariadb_never_sees_more_connections_than_allowed(my: str, maria: MariaServer, run: Run, connections: int) -> None:
    database = my.rpartition("/")[2]
    watching = maria.connect(database)
    cursor = watching.cursor()
    cursor.execute("create table a (id int primary key, t varchar(200))")
    cursor.execute("insert into a select seq, repeat('x', 200) from seq_1_to_20000")
    cursor.execute("analyze table a")

    def sample() -> int:
        cursor.execute(
            "select count(*) from information_schema.processlist where db = %s and id <> connection_id()", (database,)
        )
        return int(cursor.fetchone()[0])

    with Watcher(sample) as watcher:
        assert run(my, limits={"parallel": 8, "connections": connections}, partition_bytes=256 << 10).complete
    watching.close()
    assert 1 <= watcher.most <= connections


def test_postgresql_never_gives_more_rows_per_second_than_allowed(run: Run) -> None:
    """Counted by the server, statement by statement."""
    rate = 2000
    with PostgresServer(shared_preload_libraries="pg_stat_statements") as server:
        url = server.create("r")
        watching = psycopg.connect(url, autocommit=True)
        watching.execute("create extension pg_stat_statements")
        watching.execute("create table a as select g as id from generate_series(1, 6000) g")
        query = "select coalesce(sum(rows), 0)::bigint from pg_stat_statements where query ilike 'fetch%'"
        began = time.monotonic()
        with Watcher(lambda: watching.execute(query).fetchall()[0][0]) as watcher:
            outcome = run(url, level=Level.COUNT, limits={"rows_per_second": rate, "parallel": 4})
        seconds = time.monotonic() - began
        watching.close()
    assert outcome.complete
    assert watcher.most >= 6000
    assert seconds >= 6000 / rate * 0.9
    assert watcher.fastest(1.0) <= rate * 1.2


@pytest.mark.parametrize(
    "key",
    ["id int primary key, k int default 0", "id int, k varchar(9) default 'ß', primary key (k, id)"],
    ids=["int", "mixed"],
)
def test_mariadb_never_gives_more_rows_per_second_than_allowed(my: str, maria: MariaServer, run: Run, key: str) -> None:
    rate = 2000
    watching = maria.connect(my.rpartition("/")[2])
    cursor = watching.cursor()
    cursor.execute(f"create table a ({key}, t varchar(100))")
    cursor.execute("insert into a (id, t) select seq, repeat('x', 100) from seq_1_to_8000")

    def sample() -> int:
        cursor.execute("show global status like 'Rows_sent'")
        return int(cursor.fetchone()[1])

    with Watcher(sample) as watcher:
        outcome = run(my, level=Level.COUNT, limits={"rows_per_second": rate, "parallel": 4})
    watching.close()
    assert outcome.complete
    assert watcher.fastest(1.0) <= rate * 1.2 + 150
