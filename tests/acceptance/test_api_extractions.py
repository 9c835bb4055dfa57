"""Extractions and their runs over the REST API, executed by real workers."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from jivs import bootstrap
from jivs.domain.registry import archive_name_of
from jivs.operations.verify import VerifyJob, verify
from jivs.settings import Settings
from jivs.testing.service import ServiceProcess

API = "/api/v1/extractions"
ROWS = 400_000


def make_database(path: Path, rows: int) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("create table small (id integer primary key, name text)")
        connection.executemany("insert into small values (?, ?)", ((number, f"n{number}") for number in range(1000)))
        connection.execute("create table large (id integer primary key, name text, v real)")
        connection.executemany(
            "insert into large values (?, ?, ?)", ((number, f"name {number} " * 4, number / 7) for number in range(rows))
        )
    connection.close()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    make_database(folder / "s.db", ROWS)
    (folder / "a.csv").write_text("id,name\n1,x\n2,y\n")
    return folder


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Iterator[ServiceProcess]:
    state = tmp_path_factory.mktemp("service")
    given = {"JIVS_FILE_ROOTS": str(data), "JIVS_EXTRACTION__PAUSE_HOLD": "2", "EXTRACTION_MAX_PARALLEL_JOBS": "3"}
    with ServiceProcess(state, **given) as running:
        yield running


@pytest.fixture(scope="module")
def api(service: ServiceProcess) -> Iterator[httpx.Client]:
    with service.client() as client:
        yield client


def make(api: httpx.Client, name: str, data: Path, **more: Any) -> str:
    """A new extraction's path."""
    body = {"name": name, "sourceType": "SQLITE", "connectionConfig": {"database": str(data / "s.db")}, **more}
    made = api.post(API, json=body)
    assert made.status_code == 201, made.text
    return str(made.headers["Location"])


def ended(api: httpx.Client, path: str, seconds: float = 60) -> dict[str, Any]:
    """The extraction's newest run, once it has ended."""
    return until(api, path, lambda run: run["state"] not in {"PENDING", "RUNNING", "PAUSED"}, seconds)


def until(api: httpx.Client, path: str, holds: Callable[[dict[str, Any]], bool], seconds: float = 60) -> dict[str, Any]:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        run: dict[str, Any] = api.get(f"{path}/runs", params={"limit": 1}).json()["items"][0]
        if holds(run):
            return run
        time.sleep(0.05)
    raise AssertionError(run)


def sound(service: ServiceProcess, archive: str) -> None:
    app = bootstrap.build(Settings())
    address = str(service.state / "jivs" / "archives" / archive)
    found = verify(app, VerifyJob(archive=address, level="full", limits=app.limits))
    assert found.sound, found


def test_an_extraction_from_making_to_deleting(api: httpx.Client, data: Path, service: ServiceProcess) -> None:
    path = make(api, "First one", data, tables=["small"], verify="full", priority=2, description="d")
    shown, archive = api.get(path), archive_name_of("First one")
    assert (shown.json()["status"], shown.json()["archive"], shown.json()["tables"]) == ("NEW", archive, ["small"])
    started = api.post(f"{path}/start")
    assert started.status_code == 202
    assert started.json()["state"] == "PENDING"
    run = ended(api, path)
    assert (run["state"], run["rows"], run["partitions"], run["partitionsDone"]) == ("COMPLETED", 1000, 1, 1), run
    assert api.get(started.headers["Location"]).json() == run
    assert api.get(path).json()["status"] == "COMPLETED"
    assert api.get(path).json()["lastRunId"] == run["id"]
    sound(service, archive)
    lines = [line["message"] for line in api.get(f"{path}/logs", params={"runId": run["id"]}).json()["items"]]
    assert lines[0] == "COMPLETED."
    assert "small: 1,000 rows, verified." in lines
    assert len(api.get(f"{path}/logs", params={"limit": 1}).json()["items"]) == 1
    found = api.get(f"{path}/statistics").json()
    assert (found["runs"], found["byState"]["COMPLETED"], found["rows"], found["successRate"]) == (1, 1, 1000, 1.0)
    source = shown.json()["sourceId"]
    body = {"name": "Renamed", "sourceId": source, "archive": archive, "tables": ["small"]}
    assert api.put(path, json=body).status_code == 428
    changed = api.put(path, json=body, headers={"If-Match": shown.headers["ETag"]})
    assert changed.json()["name"] == "Renamed"
    assert api.put(path, json=body, headers={"If-Match": shown.headers["ETag"]}).status_code == 409
    assert api.delete(f"/api/v1/sources/{source}").status_code == 409
    assert api.delete(path).status_code == 204
    assert api.get(path).status_code == 404
    assert api.get(f"{path}/runs").status_code == 404
    assert api.delete(f"/api/v1/sources/{source}").status_code == 204


def test_a_started_run_is_started_once_with_an_idempotency_key(api: httpx.Client, data: Path) -> None:
    path = make(api, "once", data, tables=["small"])
    first = api.post(f"{path}/start", headers={"Idempotency-Key": "k1"})
    again = api.post(f"{path}/start", headers={"Idempotency-Key": "k1"})
    assert (again.status_code, again.json()["id"]) == (202, first.json()["id"])
    assert ended(api, path)["id"] == first.json()["id"]
    assert len(api.get(f"{path}/runs").json()["items"]) == 1


def test_a_started_run_is_not_started_again_where_its_answer_was_lost(
    api: httpx.Client, data: Path, service: ServiceProcess
) -> None:
    """As when the process is killed between the two: nothing can be said, and nothing is done again, however much later."""
    path, key = make(api, "lost", data, tables=["small"], whenBusy="QUEUE"), {"Idempotency-Key": "k2"}
    lite = sqlite3.connect(service.state / "jivs" / "catalog.db", timeout=30, isolation_level=None)
    lite.execute(
        "create trigger lost before update on idempotency_keys when new.status > 1 begin select raise(abort, 'lost'); end"
    )
    assert api.post(f"{path}/start", headers=key).status_code >= 500
    lite.execute("drop trigger lost")
    lite.execute("update idempotency_keys set at = at - 3600")
    lite.close()
    again = api.post(f"{path}/start", headers=key)
    assert (again.status_code, "carried out" in again.json()["detail"]) == (409, True)
    ended(api, path)
    assert len(api.get(f"{path}/runs").json()["items"]) == 1


def test_pause_holds_its_place_and_resume_goes_on(api: httpx.Client, data: Path, service: ServiceProcess) -> None:
    path = slow(api, "held", data)
    api.post(f"{path}/start")
    until(api, path, lambda run: run["rows"] > 0)
    assert api.post(f"{path}/start").status_code == 409
    paused = api.post(f"{path}/pause")
    assert (paused.status_code, paused.json()["order"]) == (202, "pause")
    held = until(api, path, lambda run: run["state"] == "PAUSED")
    assert held["phase"] == "held"
    assert api.post(f"{path}/pause").status_code == 409
    time.sleep(0.5)
    before = until(api, path, lambda run: run["state"] == "PAUSED")["rows"]
    assert api.post(f"{path}/resume").json()["state"] == "RUNNING"
    until(api, path, lambda run: run["rows"] > before)
    fast(api, path)
    api.post(f"{path}/stop")
    assert ended(api, path)["state"] == "CANCELLED"


def test_a_pause_that_lasts_gives_the_place_up_and_resume_begins_where_it_may(
    api: httpx.Client, data: Path, service: ServiceProcess
) -> None:
    path = slow(api, "given-up", data)
    api.post(f"{path}/start")
    until(api, path, lambda run: run["rows"] > 0)
    api.post(f"{path}/pause")
    until(api, path, lambda run: run["state"] == "PAUSED" and run["phase"] == "")
    fast(api, path)
    assert api.post(f"{path}/resume").json()["state"] == "PENDING"
    run = ended(api, path)
    assert (run["state"], run["rows"]) == ("COMPLETED", ROWS + 1000)
    sound(service, "given-up")


def slow(api: httpx.Client, name: str, data: Path) -> str:
    """An extraction of the large database that would take minutes: its source allows few rows per second."""
    url = f"sqlite:///{data / 's.db'}"
    source = api.post("/api/v1/sources", json={"name": f"slow {name}", "url": url, "maxRowsPerSecond": 5000})
    assert source.status_code == 201, source.text
    made = api.post(API, json={"name": name, "sourceId": source.json()["id"], "batchSize": 500, "verify": "count"})
    assert made.status_code == 201, made.text
    return str(made.headers["Location"])


def fast(api: httpx.Client, path: str) -> None:
    """Let the source of an extraction be read without a limit by runs that begin from now on."""
    source = api.get(f"/api/v1/sources/{api.get(path).json()['sourceId']}")
    body = {"name": source.json()["name"], "url": source.json()["url"]}
    changed = api.put(f"/api/v1/sources/{source.json()['id']}", json=body, headers={"If-Match": source.headers["ETag"]})
    assert changed.status_code == 200, changed.text


def test_stop_ends_a_run_and_leaves_nothing_of_it(api: httpx.Client, data: Path, service: ServiceProcess) -> None:
    path = slow(api, "stopped", data)
    api.post(f"{path}/start")
    until(api, path, lambda run: run["rows"] > 0)
    api.post(f"{path}/stop")
    run = ended(api, path)
    assert run["state"] == "CANCELLED"
    archive = service.state / "jivs" / "archives" / "stopped"
    end = time.monotonic() + 30  # first it is said that it has ended, then what it leaves is removed
    while list((archive / "runs").glob("*")):
        assert time.monotonic() < end, list(archive.rglob("*"))
        time.sleep(0.05)
    assert not list(archive.glob("manifests/*.json"))
    for verb in ("stop", "pause", "resume"):
        answer = api.post(f"{path}/{verb}")
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:jivs:problem:conflict")


def test_a_run_that_takes_too_long_fails(api: httpx.Client, data: Path) -> None:
    path = slow(api, "too long", data)
    shown = api.get(path)
    body = {"name": "too long", "sourceId": shown.json()["sourceId"], "timeoutSeconds": 1, "batchSize": 500}
    api.put(path, json=body, headers={"If-Match": shown.headers["ETag"]})
    api.post(f"{path}/start")
    run = ended(api, path)
    assert (run["state"], "timeout of 1 s" in run["message"]) == ("FAILED", True), run


def test_a_source_that_does_not_answer_is_tried_again_and_then_said(api: httpx.Client) -> None:
    config = {"host": "127.0.0.1", "port": 1, "database": "x", "username": "u", "password": "s3cret"}
    body = {"name": "nobody there", "sourceType": "POSTGRESQL", "connectionConfig": config, "attempts": 2}
    path = api.post(API, json=body).headers["Location"]
    assert not api.post(f"{API}/test-connection", json={k: body[k] for k in ("sourceType", "connectionConfig")}).json()[
        "success"
    ]
    api.post(f"{path}/start")
    run = ended(api, path)
    assert (run["state"], run["failures"]) == ("FAILED", 1)
    assert "Tried 2 times" in run["message"]
    logs = api.get(f"{path}/logs").text
    assert "Trying again" in logs
    assert "s3cret" not in logs + json.dumps(run)


def test_a_run_whose_tables_are_not_there_fails_with_a_sentence(api: httpx.Client, data: Path) -> None:
    path = make(api, "no such table", data, tables=["absent*"])
    api.post(f"{path}/start")
    run = ended(api, path)
    assert (run["state"], "absent*" in run["message"]) == ("FAILED", True), run


def test_queries_conditions_and_columns(api: httpx.Client, data: Path, service: ServiceProcess) -> None:
    query = "select id, upper(name) as loud from small where id < 10"
    path = make(api, "asked", data, extractionQuery=query, queryName="loud")
    api.post(f"{path}/start")
    run = ended(api, path)
    assert (run["state"], run["rows"]) == ("COMPLETED", 10), run
    sound(service, "asked")


HOSTILE_SQL = [
    "delete from small", "select 1; delete from small", "with x as (delete from small returning *) select * from x",
    "insert into small values (1, 2)", "drop table small", "pragma writable_schema = 1", "attach 'x.db' as x", "vacuum",
    "select load_extension('x')", "select readfile('/etc/passwd')", "select writefile('/tmp/x', 'y')", "select * from", "",
    "create table x as select 1", "select 1 into y", "select fts3_tokenizer('x')", "explain select 1", "begin", "commit; select 1",
]  # fmt: skip


@pytest.mark.parametrize("sql", HOSTILE_SQL)
def test_sql_of_users_only_reads(api: httpx.Client, data: Path, sql: str) -> None:
    config = {"database": str(data / "s.db")}
    body = {"name": f"hostile {hash(sql)}", "sourceType": "SQLITE", "connectionConfig": config}
    if sql:
        answer = api.post(API, json={**body, "extractionQuery": sql})
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:jivs:problem:refused"), answer.text
    for where in (f"1 = 1) union {sql or 'select 1'} --", "1 = 1); delete from small; --"):
        assert api.post(API, json={**body, "where": where}).status_code == 422
    assert api.get("/api/v1/sources", params={"name": "hostile"}).json()["items"] == []


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("select * from t into outfile '/tmp/x'", "MYSQL"), ("select load_file('/etc/passwd')", "MARIADB"),
        ("select sleep(100)", "MYSQL"), ("select * from t for update", "MYSQL"),
        ("select pg_read_file('/etc/passwd')", "POSTGRESQL"), ("select * from dblink('host=x', 'select 1') as t(a int)", "POSTGRESQL"),
        ("copy t to program 'id'", "POSTGRESQL"), ("select lo_export(1, '/tmp/x')", "POSTGRESQL"), ("do $$ begin end $$", "POSTGRESQL"),
        ("select nextval('s')", "POSTGRESQL"), ("select \"pg_read_file\"('/etc/passwd')", "POSTGRESQL"),
        ("select pg_catalog.pg_read_file('/etc/passwd')", "POSTGRESQL"), ("select * from t for share", "POSTGRESQL"),
        ("select set_config('a.b', 'c', false)", "POSTGRESQL"), ("call p()", "POSTGRESQL"), ("listen x", "POSTGRESQL"),
    ],
)  # fmt: skip
def test_sql_that_reaches_out_is_refused(api: httpx.Client, sql: str, kind: str) -> None:
    config = {"host": "127.0.0.1", "database": "x"}
    body = {"name": "reaching", "sourceType": kind, "connectionConfig": config, "extractionQuery": sql}
    answer = api.post(API, json=body)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:jivs:problem:refused"), answer.text


def test_bodies_that_cannot_be_meant(api: httpx.Client, data: Path) -> None:
    config = {"database": str(data / "s.db")}
    whole = {"name": "n", "sourceType": "SQLITE", "connectionConfig": config}
    for body, status in (
        ({"name": "n"}, 422),
        ({**whole, "sourceId": 1}, 422),
        ({"name": "n", "sourceType": "SQLITE"}, 422),
        ({"name": "n", "sourceId": 99999}, 404),
        ({**whole, "sourceType": "ORACLE"}, 422),
        ({**whole, "sourceType": "sqlite"}, 422),
        ({**whole, "sourceType": "POSTGRESQL"}, 422),
        ({**whole, "sourceType": "JDBC"}, 422),
        ({**whole, "sourceType": "POSTGRESQL", "connectionConfig": {"url": f"sqlite:///{data}/s.db"}}, 422),
        ({**whole, "connectionConfig": {"url": "sqlite:////etc/passwd"}}, 403),
        ({**whole, "archive": "../x"}, 422),
        ({**whole, "archive": "/x"}, 422),
        ({**whole, "priority": 1000}, 422),
        ({**whole, "attempts": 0}, 422),
        ({**whole, "unknown": 1}, 422),
        ({**whole, "options": {"nonsense": "1"}}, 422),
        ({**whole, "name": "a\nb"}, 422),
        ({**whole, "tables": [""]}, 422),
    ):
        answer = api.post(API, json=body)
        assert answer.status_code == status, (body, answer.text)
    named = api.post(API, json={**whole, "sourceType": "ORACLE", "connectionConfig": {"host": "h", "database": "d"}}).json()[
        "detail"
    ]
    assert "postgresql://" in named, "those that there are, are named"
    for query in ("page=-1", "size=0", "sort=password", "limit=1000", "cursor=x", "status=NO", "sort=name"):
        assert api.get(f"{API}?{query}").status_code == 422, query


def test_jdbc_urls_and_files(api: httpx.Client, data: Path, pg: str, service: ServiceProcess) -> None:
    with psycopg.connect(pg, autocommit=True) as connection:
        connection.execute("create table seen as select g as id from generate_series(1, 500) g")
    user, rest = pg.removeprefix("postgresql://").split("@")
    name, password = user.split(":")
    config = {"url": f"jdbc:postgresql://{rest}", "username": name, "password": password}
    for number, body in enumerate((
        {"sourceType": "JDBC", "connectionConfig": config},
        {"sourceType": "FILE", "connectionConfig": {"database": str(data / "a.csv")}, "options": {"infer": "true"}},
    )):  # fmt: skip
        path = api.post(API, json={"name": f"kind-{number}", **body}).headers["Location"]
        api.post(f"{path}/start")
        run = ended(api, path)
        assert (run["state"], run["rows"]) == ("COMPLETED", (500, 2)[number]), run
        sound(service, f"kind-{number}")


def test_lists_by_page_and_by_cursor(api: httpx.Client, data: Path) -> None:
    source = api.post("/api/v1/sources", json={"name": "listed", "url": f"sqlite:///{data / 's.db'}"}).json()["id"]
    for number in range(5):
        assert api.post(API, json={"name": f"listed {number}", "sourceId": source}).status_code == 201
    first = api.get(API, params={"sourceId": source, "limit": 3}).json()
    rest = api.get(API, params={"sourceId": source, "limit": 3, "cursor": first["nextCursor"]}).json()
    assert [one["name"] for one in first["items"] + rest["items"]] == [f"listed {number}" for number in range(5)]
    assert rest["nextCursor"] is None
    page = api.get(API, params={"sourceId": source, "page": 1, "size": 2, "sort": "name,desc"}).json()
    assert [one["name"] for one in page["items"]] == ["listed 2", "listed 1"]
    assert (page["total"], page["totalPages"], page["page"], page["size"]) == (5, 3, 1, 2)
    assert api.get(API, params={"sourceId": source, "status": "COMPLETED"}).json()["items"] == []


def test_bulk_does_each_for_itself(api: httpx.Client, data: Path) -> None:
    ids = [int(make(api, f"bulk {number}", data, tables=["small"]).rpartition("/")[2]) for number in range(2)]
    started = api.post(f"{API}/bulk", json={"action": "start", "ids": [ids[0], 99999, ids[1]]}).json()["results"]
    assert [(one["id"], one["success"]) for one in started] == [(ids[0], True), (99999, False), (ids[1], True)]
    assert "no extraction 99999" in started[1]["message"]
    for one in ids:
        assert ended(api, f"{API}/{one}")["state"] == "COMPLETED"
    removed = api.post(f"{API}/bulk", json={"action": "delete", "ids": ids}).json()["results"]
    assert all(one["success"] for one in removed)
    assert api.post(f"{API}/bulk", json={"action": "explode", "ids": ids}).status_code == 422


def test_events_tell_what_happens_and_go_on_where_they_broke_off(api: httpx.Client, data: Path) -> None:
    path = make(api, "told", data, tables=["small"])
    extraction = int(path.rpartition("/")[2])
    seen: list[tuple[int, str, dict[str, Any]]] = []
    listening = threading.Event()

    def listen(headers: dict[str, str], enough: Callable[[], bool]) -> None:
        with api.stream("GET", "/api/v1/events", params={"extractionId": extraction}, headers=headers) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            number = kind = ""
            for line in answer.iter_lines():
                listening.set()
                field, _, value = line.partition(": ")
                if field == "id":
                    number = value
                elif field == "event":
                    kind = value
                elif field == "data":
                    seen.append((int(number), kind, json.loads(value)))
                    if enough():
                        return

    thread = threading.Thread(target=listen, args=({}, lambda: seen[-1][2]["state"] == "COMPLETED"))
    thread.start()
    assert listening.wait(10)
    api.post(f"{path}/start")
    thread.join(30)
    assert not thread.is_alive()
    states = [data["state"] for _, kind, data in seen if kind == "state"]
    assert states == ["PENDING", "RUNNING", "COMPLETED"]
    assert {data["extractionId"] for _, _, data in seen} == {extraction}
    first, whole = seen[0][0], list(seen)
    seen.clear()
    listen({"Last-Event-ID": str(first)}, lambda: seen[-1][2]["state"] == "COMPLETED")
    assert seen == whole[1:]
    assert api.get("/api/v1/events", headers={"Last-Event-ID": "x"}).status_code == 422


def test_several_runs_share_a_source_within_its_cap(api: httpx.Client, pg: str) -> None:
    """The source's own view of its connections, sampled all the while, never shows more than its cap."""
    with psycopg.connect(pg, autocommit=True) as connection:
        connection.execute("create table t as select g as id, repeat('x', 100) as v from generate_series(1, 200000) g")
        source = api.post("/api/v1/sources", json={"name": "capped", "url": pg, "maxConnections": 4}).json()["id"]
        paths = []
        for number in range(6):
            body = {"name": f"capped {number}", "sourceId": source, "parallel": 3}
            paths.append(api.post(API, json=body).headers["Location"])
        most, stop = 0, threading.Event()

        def sample() -> None:
            nonlocal most
            query = (
                "select count(*) from pg_stat_activity where datname = current_database()"
                " and pid <> pg_backend_pid() and backend_type = 'client backend'"
            )
            while not stop.is_set():
                row = connection.execute(query).fetchone()
                assert row is not None
                most = max(most, row[0])

        sampler = threading.Thread(target=sample)
        sampler.start()
        for path in paths:
            assert api.post(f"{path}/start").status_code == 202
        runs = [ended(api, path, 120) for path in paths]
        stop.set()
        sampler.join()
    assert [run["state"] for run in runs] == ["COMPLETED"] * 6
    assert 2 <= most <= 4


def test_the_partitions_of_a_run_are_shown(api: httpx.Client, data: Path) -> None:
    path = make(api, "In parts", data)
    api.post(f"{path}/start").raise_for_status()
    run = ended(api, path)
    parts = f"{path}/runs/{run['id']}/partitions"
    whole = api.get(parts).json()
    assert {one["state"] for one in whole["items"]} == {"DONE"}
    assert sum(one["rows"] for one in whole["items"]) == run["rows"] == ROWS + 1000
    paged, cursor = [], 0
    while cursor is not None:
        page = api.get(parts, params={"limit": 1, "cursor": cursor}).json()
        paged, cursor = [*paged, *page["items"]], page["nextCursor"]
    assert paged == whole["items"]
    assert api.get(f"{path}/runs/20260101T000000-00000000/partitions").status_code == 404


def test_a_parameter_that_does_not_exist_is_no_parameter_that_is_ignored(api: httpx.Client) -> None:
    for path in (API, "/api/v1/sources", "/api/v1/users", "/api/v1/archives", "/api/v1/audit", "/api/v1/schedules"):
        answer = api.get(path, params={"nonsense": 1})
        assert answer.status_code == 422, path
        assert "'nonsense'" in answer.json()["detail"]
        assert "limit" in answer.json()["detail"]


def test_a_kind_that_is_not_there_is_refused_with_those_that_are(api: httpx.Client) -> None:
    body = {"sourceType": "ORACLE", "connectionConfig": {"host": "db.example", "database": "x"}}
    for path in (API, f"{API}/test-connection"):
        answer = api.post(path, json={"name": "o", **body} if path == API else body)
        assert answer.status_code == 422, answer.text
        assert "postgresql" in answer.json()["detail"]
