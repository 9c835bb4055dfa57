"""What happens to a source in mid-run: it never passes as verified, and the archive is never harmed."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable
from pathlib import Path

import psycopg
import pyarrow.parquet as pq
import pytest

from jivs.domain.plan import Level
from jivs.errors import RowTooLargeError, StoreError, TransientError, UnreachableError, UserError
from jivs.operations._sharing import Share
from jivs.ports.app import App
from jivs.testing.servers import MariaServer, PostgresServer
from tests import archives
from tests.conftest import Run

ROWS = 20_000


def fill(url: str, *tables: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for table in tables:
            connection.execute(
                f"create table {table} as select g as id, repeat('x', 100) as t from generate_series(1, {ROWS}) g"
            )


def once(step: str, act: Callable[[], None]) -> Callable[[str], None]:
    """A pause that acts at the first step of this name."""
    done = threading.Event()

    def pause(name: str) -> None:
        if name == step and not done.is_set():
            done.set()
            act()

    return pause


def in_background(url: str, *statements: str, started: list[threading.Thread]) -> Callable[[], None]:
    """Runs statements that may have to wait for the run's locks."""

    def work() -> None:
        with psycopg.connect(url, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement)

    def act() -> None:
        thread = threading.Thread(target=work)
        thread.start()
        started.append(thread)
        threading.Event().wait(0.3)

    return act


SMALL = {"parallel": 2, "batch_rows": 500}


@pytest.mark.parametrize(
    "statement",
    ["truncate a", "drop table a", "alter table a add column n int default 1", "alter table a alter id type bigint", "vacuum full a",
     "delete from a", "update a set t = 'y'", "insert into a select * from a"],
)  # fmt: skip
@pytest.mark.parametrize("step", ["planned", "batch"])
def test_whatever_is_done_to_a_table_waits_or_is_not_seen(
    pg: str, run: Run, tmp_path: Path, statement: str, step: str
) -> None:
    """The locks make rewriting statements wait; the snapshot hides the others: the archive has the state of the start."""
    fill(pg, "a", "b")
    started: list[threading.Thread] = []
    outcome = run(
        pg, limits=SMALL, partition_bytes=256 << 10, pause=once(step, in_background(pg, statement, started=started))
    )
    for thread in started:
        thread.join(timeout=30)
    assert outcome.complete
    assert [item.archived for item in outcome.tables] == [ROWS, ROWS]
    assert archives.rows(tmp_path / "archive", "a").column("t").to_pylist() == ["x" * 100] * ROWS


def test_a_truncate_that_no_lock_held_back_is_named(pg: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Above a few thousand tables there are no locks: the table's file tells. Under the snapshot it counts 0 = 0."""
    fill(pg, "a", "b")
    monkeypatch.setattr("jivs.connectors.postgresql._MOST_LOCKS", 0)

    def truncate() -> None:
        with psycopg.connect(pg, autocommit=True) as connection:
            connection.execute("truncate a")

    outcome = run(pg, limits=SMALL, pause=once("planned", truncate))
    assert not outcome.complete
    verdicts = {item.table.name: (item.verdict, item.reason) for item in outcome.tables}
    assert verdicts["b"][0] == "verified"
    assert "truncated, rewritten or dropped" in verdicts["a"][1]


def test_a_dropped_table_that_no_lock_held_back(pg: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(pg, "a", "b")
    monkeypatch.setattr("jivs.connectors.postgresql._MOST_LOCKS", 0)

    def drop() -> None:
        with psycopg.connect(pg, autocommit=True) as connection:
            connection.execute("drop table a")

    outcome = run(pg, limits=SMALL, pause=once("planned", drop))
    assert not outcome.complete
    assert outcome.schema_changed
    assert [item.verdict for item in outcome.tables] == ["failed", "verified"]


def test_a_cut_reader_is_replaced_while_the_snapshot_lives(pg: str, run: Run) -> None:
    fill(pg, "a")

    def cut() -> None:
        with psycopg.connect(pg, autocommit=True) as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where query like 'copy%' and pid <> pg_backend_pid()"
            )

    outcome = run(pg, limits=SMALL, partition_bytes=256 << 10, pause=once("batch", cut))
    assert outcome.complete
    assert outcome.tables[0].archived == ROWS


def test_a_lost_snapshot_ends_the_run_resumable(pg: str, run: Run, tmp_path: Path) -> None:
    fill(pg, "a", "b")

    def cut() -> None:
        with psycopg.connect(pg, autocommit=True) as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'jivs' and pid <> pg_backend_pid()"
            )

    with pytest.raises(TransientError, match="--resume"):
        run(pg, limits=SMALL, partition_bytes=256 << 10, pause=once("part recorded", cut))
    assert not list((tmp_path / "archive" / "manifests").glob("*.json"))
    outcome = run(pg, limits=SMALL, partition_bytes=256 << 10, resume=True)
    assert outcome.complete
    assert archives.verdict(tmp_path / "archive", source=pg).sound
    assert archives.strays(tmp_path / "archive") == set()


def test_a_server_that_crashes_in_mid_run(run: Run, tmp_path: Path) -> None:
    with PostgresServer(fsync="on", synchronous_commit="on", full_page_writes="on") as server:
        url = server.create("c")
        fill(url, "a", "b")
        with pytest.raises(TransientError):
            run(url, limits=SMALL, partition_bytes=256 << 10, pause=once("part recorded", server.crash))
        with pytest.raises(TransientError, match="cannot be reached"):
            run(url, resume=True)
        server.start()
        assert run(url, limits=SMALL, partition_bytes=256 << 10, resume=True).complete
        assert not archives.verdict(tmp_path / "archive", source=url).source_differs


def test_a_mariadb_that_crashes_in_mid_run(run: Run, tmp_path: Path) -> None:
    with MariaServer() as server:
        connection = server.connect("mysql")
        with connection.cursor() as cursor:
            cursor.execute("create database c")
            cursor.execute("create table c.a (id int primary key, t varchar(100))")
            cursor.execute(f"insert into c.a select seq, repeat('x', 100) from seq_1_to_{ROWS}")
            cursor.execute("analyze table c.a")
        connection.close()
        url = server.url("c")
        with pytest.raises(TransientError):
            run(url, limits=SMALL, partition_bytes=256 << 10, pause=once("part recorded", server.crash))
        server.start()
        assert run(url, limits=SMALL, partition_bytes=256 << 10, resume=True).complete
        assert not archives.verdict(tmp_path / "archive", source=url).source_differs


def test_mariadb_statements_in_mid_run(my: str, maria: MariaServer, run: Run) -> None:
    """Touched tables keep their definition: TRUNCATE and ALTER wait until the run has ended."""
    database = my.rpartition("/")[2]
    connection = maria.connect(database)
    with connection.cursor() as cursor:
        cursor.execute("create table a (id int primary key, t varchar(100))")
        cursor.execute(f"insert into a select seq, repeat('x', 100) from seq_1_to_{ROWS}")
        cursor.execute("analyze table a")
    threads = []

    def work(statement: str) -> None:
        other = maria.connect(database)
        with other.cursor() as cursor:
            cursor.execute(statement)
        other.close()

    def act() -> None:
        for statement in ("truncate a", "insert into a values (0, 'new')"):
            threads.append(threading.Thread(target=work, args=(statement,)))
            threads[-1].start()
        threading.Event().wait(0.3)

    outcome = run(my, limits=SMALL, partition_bytes=256 << 10, pause=once("planned", act))
    for thread in threads:
        thread.join(timeout=30)
    connection.close()
    assert outcome.complete
    assert outcome.tables[0].archived == ROWS


def test_a_statement_timeout_is_a_clear_error(pg: str, run: Run) -> None:
    fill(pg, "a")
    with pytest.raises(TransientError, match="statement_timeout"):
        run(f"{pg}?statement_timeout=1", queries=(("slow", "select pg_sleep(1)::text as t"),))


def test_a_locked_table_is_waited_for_and_named(pg: str, run: Run) -> None:
    fill(pg, "a")
    with psycopg.connect(pg) as holder:
        holder.execute("lock table a in access exclusive mode")
        with pytest.raises(TransientError, match="lock"):
            run(f"{pg}?lock_timeout=200")


def test_a_table_without_permission_is_an_error_not_an_empty_table(pg: str, postgres: PostgresServer, run: Run) -> None:
    fill(pg, "a", "b")
    with psycopg.connect(pg, autocommit=True) as connection:
        connection.execute("create role few login password 'pw'")
        connection.execute("grant select on a to few")
    url = pg.replace(pg[pg.index("//") + 2 : pg.index("@")], "few:pw")
    with pytest.raises(UserError, match="permission denied"):
        run(url, level=Level.COUNT)
    assert run(url, tables=("a",), level=Level.COUNT).complete
    with psycopg.connect(pg, autocommit=True) as connection:
        connection.execute("drop owned by few")
        connection.execute("drop role few")


def test_two_runs_publish_at_once(pg: str, run: Run, app: App, tmp_path: Path) -> None:
    """Different tables: both are in. The same table: the one that began earlier does not overwrite the later."""
    fill(pg, "a", "b")
    results = {}

    def other(tables: tuple[str, ...]) -> Callable[[], None]:
        def act() -> None:
            results["other"] = run(pg, tables=tables, level=Level.COUNT)

        return act

    first = run(pg, tables=("a",), level=Level.COUNT, pause=once("before manifest", other(("b",))))
    assert first.complete
    assert results["other"].complete
    assert {item["name"] for item in archives.manifest(tmp_path / "archive")["tables"]} == {"a", "b"}
    second = run(pg, tables=("a",), level=Level.COUNT, pause=once("before manifest", other(("a",))))
    assert not second.complete
    assert second.tables[0].verdict == "overtaken"
    assert results["other"].complete
    assert archives.verdict(tmp_path / "archive").sound
    run(pg, tables=("b",), level=Level.COUNT)
    assert archives.strays(tmp_path / "archive") == set()
    assert archives.independent(tmp_path / "archive") == 0


def fill_skewed(url: str) -> None:
    """A table whose last pages keep nearly all of its bytes aside."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("create table a (id int primary key, pad text, t text)")
        connection.execute("alter table a alter pad set storage plain, alter t set storage external")
        connection.execute(f"insert into a select g, '', repeat('x', 100) from generate_series(1, {ROWS}) g")
        connection.execute(
            f"insert into a select {ROWS} + g, repeat('p', 1000), repeat('y', 50000) from generate_series(1, 600) g"
        )


@pytest.mark.parametrize(
    ("error", "raised", "sentence"),
    [
        (UnreachableError("cut."), None, ""),
        (OSError(errno.ENOSPC, "full"), StoreError, "is full"),
        (MemoryError(), None, "a defect of JiVS (MemoryError)"),
        (RowTooLargeError("a row too large"), None, "a row too large"),
    ],
)
def test_a_helpers_error_is_that_of_the_part(
    pg: str, run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, raised: type[Exception] | None, sentence: str
) -> None:
    fill_skewed(pg)
    helpers: set[int] = set()
    help_ = Share.help

    def noted(share: Share) -> None:
        helpers.add(threading.get_ident())
        help_(share)

    def fail() -> None:
        raise error

    fail_once = once("batch", fail)

    def pause(step: str) -> None:
        if threading.get_ident() in helpers:
            fail_once(step)

    monkeypatch.setattr(Share, "help", noted)
    given = {"limits": {"parallel": 4, "batch_rows": 20}, "partition_bytes": 8 << 20, "pause": pause}
    if raised is not None:
        with pytest.raises(raised, match=sentence):
            run(pg, **given)
        assert run(pg, **given, resume=True).complete
        return
    outcome = run(pg, **given)
    assert outcome.complete is not bool(sentence)
    assert sentence in outcome.tables[0].reason


@pytest.mark.parametrize("cut", [False, True])
def test_readers_without_work_share_a_heavy_part(
    pg: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: bool
) -> None:
    """Also when the server ends the connections while one of them helps."""
    fill_skewed(pg)
    helpers: set[int] = set()
    ended = threading.Event()
    help_ = Share.help

    def noted(share: Share) -> None:
        helpers.add(threading.get_ident())
        help_(share)

    def pause(step: str) -> None:
        if step == "batch" and cut and threading.get_ident() in helpers and not ended.is_set():
            ended.set()
            with psycopg.connect(pg, autocommit=True) as connection:
                connection.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity where query like 'copy%' and pid <> pg_backend_pid()"
                )

    monkeypatch.setattr(Share, "help", noted)
    outcome = run(pg, limits={"parallel": 4, "batch_rows": 20}, partition_bytes=8 << 20, pause=pause)
    assert outcome.complete
    assert helpers
    assert ended.is_set() is cut
    assert outcome.tables[0].archived == ROWS + 600
    read = archives.rows(tmp_path / "archive", "a")
    assert sorted(read.column("id").to_pylist()) == list(range(1, ROWS + 601))
    assert archives.verdict(tmp_path / "archive", source=pg).sound
    assert archives.strays(tmp_path / "archive") == set()
    files = [
        pq.read_metadata(tmp_path / "archive" / segment["path"])
        for segment in archives.table(tmp_path / "archive", "a")["segments"]
    ]
    places = {(file.metadata[b"jivs.partition"], file.metadata[b"jivs.ordinal"]) for file in files}
    assert len(places) == len(files)
    partitions = [segment["partition"] for segment in archives.table(tmp_path / "archive", "a")["segments"]]
    assert len(partitions) > len(set(partitions)) or cut
