"""A large run has all connections of a source, and a small one comes: it does not wait for the large one's end."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from jivs.testing.servers import MariaServer
from jivs.testing.service import ServiceProcess

API = "/api/v1/extractions"
CAP, TABLES, ROWS = 4, 10, 15_000


Watched = tuple[str, Callable[[], int]]
"""The URL of a source with large tables and a small one, and how many connections it has besides ours."""


@pytest.fixture
def postgresql(pg: str) -> Iterator[Watched]:
    with psycopg.connect(pg, autocommit=True) as connection:
        for number in range(TABLES):
            rows = f"select g as id, repeat('x', 100) as v from generate_series(1, {ROWS}) g"
            connection.execute(f"create table big{number} as {rows}")
        connection.execute("create table few as select g as id from generate_series(1, 100) g")
        connection.execute("analyze")
        query = (
            "select count(*) from pg_stat_activity where datname = current_database()"
            " and pid <> pg_backend_pid() and backend_type = 'client backend'"
        )
        yield pg, lambda: int(next(connection.execute(query))[0])


@pytest.fixture
def mariadb(my: str, maria: MariaServer) -> Iterator[Watched]:
    base = my.rpartition("/")[2]
    with maria.connect(base) as connection, connection.cursor() as cursor:
        for number in range(TABLES):
            cursor.execute(f"create table big{number} (id int primary key, v varchar(100))")
            cursor.execute(f"insert into big{number} select seq, repeat('x', 100) from seq_1_to_{ROWS}")
        cursor.execute("create table few as select seq as id from seq_1_to_100")
        connection.commit()

        def count() -> int:
            others = "select count(*) from information_schema.processlist where db = %s and id <> connection_id()"
            cursor.execute(others, (base,))
            return int(cursor.fetchall()[0][0])

        yield my, count


@pytest.fixture(params=["postgresql", "mariadb"])
def source(request: pytest.FixtureRequest) -> Watched:
    watched: Watched = request.getfixturevalue(request.param)
    return watched


def until(true: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_small_run_begins_beside_a_large_one_that_had_all_connections(tmp_path: Path, source: Watched) -> None:
    url, connections = source
    seen: list[int] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            seen.append(connections())

    with ServiceProcess(tmp_path) as service, service.client() as api:
        kept = {"name": "s", "url": url, "maxConnections": CAP, "maxRowsPerSecond": 12_500}
        source_id = api.post("/api/v1/sources", json=kept).json()["id"]

        def made(name: str, table: str) -> str:
            body = {"name": name, "sourceId": source_id, "tables": [table], "parallel": 3}
            return str(api.post(API, json=body).headers["Location"])

        large, small = made("large", "*big*"), made("small", "*few")
        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            assert api.post(f"{large}/start").status_code == 202
            until(lambda: api.get(f"{large}/statistics").json()["rows"] > 0)
            assert api.post(f"{small}/start").status_code == 202
            until(lambda: api.get(small).json()["status"] == "COMPLETED")
            assert api.get(large).json()["status"] == "RUNNING", "the small one waited for the end of the large one"
            until(lambda: api.get(large).json()["status"] == "COMPLETED")
        finally:
            over.set()
            watcher.join()
        figures = api.get(f"{large}/statistics").json()
        assert figures["rows"] == TABLES * ROWS
    assert max(seen) <= CAP
    assert max(seen) >= CAP - 1, "the large one had them all"


@pytest.mark.parametrize("kind", ["sqlite", "csv"])
def test_the_pace_of_a_source_holds_over_many_short_runs(tmp_path: Path, kind: str) -> None:
    """Each of them would be over before anybody could tell it of the others."""
    (tmp_path / "data").mkdir()
    if kind == "sqlite":
        with sqlite3.connect(tmp_path / "data/s.db") as lite:
            lite.execute("create table t (id integer primary key)")
            lite.executemany("insert into t values (?)", ((number,) for number in range(1000)))
        lite.close()
    else:
        (tmp_path / "data/t.csv").write_text("id\n" + "\n".join(map(str, range(1000))) + "\n")
    url = f"sqlite:///{tmp_path}/data/s.db" if kind == "sqlite" else f"file://{tmp_path}/data/t.csv"
    with ServiceProcess(tmp_path / "state", JIVS_FILE_ROOTS=str(tmp_path)) as service, service.client() as api:
        kept = {"name": "s", "url": url, "maxRowsPerSecond": 1_000, "maxConnections": 100}
        source = api.post("/api/v1/sources", json=kept).json()["id"]
        made = [
            api.post(API, json={"name": f"x{one}", "sourceId": source, "verify": "none"}).json()["id"] for one in range(6)
        ]
        began = time.monotonic()
        api.post(f"{API}/bulk", json={"action": "start", "ids": made}).raise_for_status()
        until(lambda: api.get(API, params={"page": 0, "status": "COMPLETED"}).json()["total"] == 6, 120)
        took = time.monotonic() - began
        assert sum(api.get(f"{API}/{one}/statistics").json()["rows"] for one in made) == 6_000
    assert took > 5, "6,000 rows at 1,000 a second"


def test_a_run_that_waits_for_its_pace_is_stopped_at_once(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("id\n" + "\n".join(map(str, range(200_000))) + "\n")
    with ServiceProcess(tmp_path / "state", JIVS_FILE_ROOTS=str(tmp_path)) as service, service.client() as api:
        kept = {"name": "s", "url": f"file://{tmp_path}/t.csv", "maxRowsPerSecond": 500}
        source = api.post("/api/v1/sources", json=kept).json()["id"]
        path = api.post(API, json={"name": "x", "sourceId": source}).headers["Location"]
        run = api.post(f"{path}/start").headers["Location"]
        until(lambda: api.get(run).json()["rows"] > 0)
        api.post(f"{path}/stop").raise_for_status()
        began = time.monotonic()
        until(lambda: api.get(path).json()["status"] == "CANCELLED")
        assert time.monotonic() - began < 10, "all that was asked for would take minutes"


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_the_cap_of_a_source_holds_over_32_workers(tmp_path: Path, pg: str) -> None:
    """As the source itself sees it, from the first start to the end of the last run."""
    cap, runs = 7, 48
    with psycopg.connect(pg, autocommit=True) as source:
        for number in range(4):
            rows = f"select g as id, repeat('x', 100) as v from generate_series(1, {ROWS}) g"
            source.execute(f"create table t{number} as {rows}")
        source.execute("analyze")
        query = "select count(*) from pg_stat_activity where datname = current_database() and application_name like 'jivs %'"
        seen: list[int] = []
        over = threading.Event()

        def watch() -> None:
            while not over.wait(0.005):
                seen.append(int(source.execute(query).fetchall()[0][0]))

        with ServiceProcess(tmp_path, EXTRACTION_MAX_PARALLEL_JOBS="32") as service, service.client() as api:
            kept = api.post("/api/v1/sources", json={"name": "s", "url": pg, "maxConnections": cap}).json()["id"]
            made = [api.post(API, json={"name": f"x{one}", "sourceId": kept}).json()["id"] for one in range(runs)]
            watching = threading.Thread(target=watch)
            watching.start()
            api.post(f"{API}/bulk", json={"action": "start", "ids": made}).raise_for_status()
            until(lambda: api.get(API, params={"page": 0, "status": "COMPLETED"}).json()["total"] == runs, 600)
            over.set()
            watching.join()
    print(f"{len(seen)} samples, {max(seen)} connections at most")
    assert 2 <= max(seen) <= cap
