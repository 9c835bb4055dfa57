"""SQLite: types by value, whatever the column was declared as."""

from __future__ import annotations

import sqlite3
import struct
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from jivs.connectors._sqlite_readers import Readers
from jivs.domain.plan import Level
from jivs.errors import UsageError
from jivs.wire import sqlite as compiled
from tests import archives
from tests.conftest import Run


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "legacy.db"


def make(path: Path, *statements: str) -> None:
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def test_the_narrowest_exact_type_is_chosen(db: Path, run: Run, tmp_path: Path) -> None:
    make(
        db,
        "create table t (i text, r int, s int, b text, mixed, void integer)",
        "insert into t values (cast(1 as integer), 0.5, 'x', x'00ff', 1, null)",
        "insert into t values (cast('9' as integer), -1.5, 'y', x'', 'two', null)",
        "insert into t values (null, 9e999, '2020-01-01', null, 2.5, null)",
        "insert into t values (null, null, null, null, x'41', null)",
        "insert into t values (null, null, null, null, null, null)",
    )
    connection = sqlite3.connect(db)
    connection.execute("create table u (i, r)")
    connection.execute("insert into u values (9223372036854775807, 0.1)")
    connection.execute("insert into u values (-9223372036854775808, 1e300)")
    connection.commit()
    connection.close()
    assert run(f"sqlite:///{db}").complete
    archive = tmp_path / "archive"
    types = {column["name"]: column["type"] for column in archives.table(archive, "t")["columns"]}
    assert types["i"] == "text"  # text affinity turns the integers into text when they are stored
    assert types == {
        "i": "text", "r": "double", "s": "text", "b": "binary", "mixed": "text", "mixed__class": "text", "void": "int64",
    }  # fmt: skip
    found = archives.rows(archive, "t").to_pylist()
    assert [row["mixed"] for row in found] == ["1", "two", "2.5", "41", None]
    assert [row["mixed__class"] for row in found] == ["integer", "text", "real", "blob", None]
    assert [struct.pack(">d", row["r"]) for row in archives.rows(archive, "u").to_pylist()] == [
        struct.pack(">d", 0.1), struct.pack(">d", 1e300),
    ]  # fmt: skip
    assert archives.rows(archive, "u").column("i").to_pylist() == [2**63 - 1, -(2**63)]
    assert archives.verdict(archive, source=f"sqlite:///{db}").sound
    assert archives.independent(archive) == 0


def test_a_rare_class_goes_to_quarantine_and_its_row_stays(db: Path, run: Run, tmp_path: Path) -> None:
    make(db, "create table t (id integer primary key, v integer)")
    connection = sqlite3.connect(db)
    connection.executemany("insert into t values (?, ?)", ((n, "oops" if n == 77 else n) for n in range(1, 1001)))
    connection.commit()
    connection.close()
    assert run(f"sqlite:///{db}").complete
    [entry] = archives.quarantine(tmp_path / "archive", "t")
    assert (entry["original"], entry["key"]) == (b"oops", '["77"]')
    assert archives.table(tmp_path / "archive", "t")["totals"] | {"bytes": 0} == {
        "rows": 1000, "bytes": 0, "rows_quarantined": 0, "values_quarantined": 1, "zero_column_rows": 0,
    }  # fmt: skip
    assert archives.independent(tmp_path / "archive") == 0


def test_bytes_that_are_no_text(db: Path, run: Run, tmp_path: Path) -> None:
    make(db, "create table t (a text)", "insert into t values (cast(x'ff41' as text)), ('ok'), (cast(x'610062' as text))")
    assert run(f"sqlite:///{db}").complete
    assert archives.rows(tmp_path / "archive", "t").column("a").to_pylist() == [None, "ok", "a\0b"]
    assert [entry["original"] for entry in archives.quarantine(tmp_path / "archive", "t")] == [b"\xffA"]


def test_tables_without_row_ids_views_generated_columns_and_hidden_row_ids(
    db: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jivs.connectors.sqlite._PARTITION_ROWS", 10)
    make(
        db,
        "create table w (k text primary key, v int) without rowid",
        "insert into w values ('a', 1), ('b', 2)",
        "create table h (rowid text, _rowid_ text, oid text, v int)",
        *(f"insert into h values ('x', 'y', 'z', {n})" for n in range(30)),
        "create table r (rowid text, v int)",
        *(f"insert into r values ('x', {n})" for n in range(35)),
        "create table g (a int, b as (a * 2), c as (a * 3) stored)",
        "insert into g values (1)",
        "create view v as select * from r where v < 5",
        'create table "we ird""/" ("A ""b" text)',
    )
    outcome = run(f"sqlite:///{db}", tables=("*",))
    assert outcome.complete
    assert {item.table.name: item.archived for item in outcome.tables} == {
        "w": 2, "h": 30, "r": 35, "g": 1, "v": 5, 'we ird"/': 0,
    }  # fmt: skip
    assert len(archives.table(tmp_path / "archive", "r")["segments"]) == 4
    assert archives.rows(tmp_path / "archive", "g").to_pylist() == [{"a": 1, "b": 2, "c": 3}]


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_several_compiled_connections_read_one_state(
    db: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """Also where the log of a database that nobody has open is not there yet."""
    monkeypatch.setattr("jivs.connectors.sqlite._PARTITION_ROWS", 100)
    make(db, f"pragma journal_mode = {mode}", "create table t (n integer primary key, v text)",
         "with recursive c(n) as (select 1 union all select n + 1 from c where n < 1000) insert into t select n, 'v' || n from c")  # fmt: skip
    readers = set()
    original = compiled.Database.read

    def seen(self: compiled.Database, *given: Any) -> Any:
        readers.add(id(self))
        return original(self, *given)

    monkeypatch.setattr(compiled.Database, "read", seen)
    assert run(f"sqlite:///{db}").complete
    assert readers, "the plain path was used"
    assert archives.rows(tmp_path / "archive", "t").num_rows == 1000
    assert archives.verdict(tmp_path / "archive", source=f"sqlite:///{db}").sound


@pytest.mark.parametrize("mode", ["wal", "delete"])
def test_a_writer_who_waits_leaves_one_connection_to_read(
    db: Path, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """He holds a lock from the moment on that the first connection reads, so no other can begin."""
    make(db, f"pragma journal_mode = {mode}", "create table t (n)", "insert into t values (1), (2)")
    waiting: list[sqlite3.Connection] = []
    original = Readers.open

    def wait_first(self: Readers, uri: str, many: int) -> None:
        if mode == "wal":
            raise compiled.SqliteError("database is locked")
        writer = sqlite3.connect(db, isolation_level=None, timeout=0, check_same_thread=False)
        writer.execute("begin immediate")
        writer.execute("insert into t values (3)")
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            writer.execute("commit")
        waiting.append(writer)
        original(self, uri, many)

    monkeypatch.setattr(Readers, "open", wait_first)
    assert run(f"sqlite:///{db}").complete
    assert archives.rows(tmp_path / "archive", "t").num_rows == 2
    for writer in waiting:
        writer.close()


def test_another_process_cannot_overwrite_what_is_being_read(db: Path, run: Run, tmp_path: Path) -> None:
    """In WAL mode a reader's locks keep its state in the log: they have to be seen by other processes."""
    rows = "with recursive c(n) as (select 1 union all select n + 1 from c where n < 3000) insert into {} select n, 0 from c"
    make(
        db, "pragma journal_mode = wal", "create table a (n, v)", "create table b (n, v)", rows.format("a"), rows.format("b")
    )
    code = (
        "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None);"
        "c.execute('begin'); c.execute('update a set v = 1'); c.execute('update b set v = 1'); c.execute('commit');"
        "print(c.execute('pragma wal_checkpoint(restart)').fetchone()[0])"
    )
    answers = []

    def write(step: str) -> None:
        if step == "planned":
            done = subprocess.run([sys.executable, "-c", code, str(db)], capture_output=True, text=True, check=True)
            answers.append(done.stdout.strip())

    assert run(f"sqlite:///{db}", pause=write).complete
    assert answers == ["1"]  # busy: somebody reads
    for name in "ab":
        assert set(archives.rows(tmp_path / "archive", name).column("v").to_pylist()) == {0}


def test_a_database_being_written_shows_one_moment(db: Path, run: Run, tmp_path: Path) -> None:
    """Two tables that a writer keeps equal, in WAL mode: the archive sees both at the same moment."""
    make(db, "pragma journal_mode = wal", "create table a (n int)", "create table b (n int)")
    writer = sqlite3.connect(db, isolation_level=None, check_same_thread=False)

    one_at_a_time = threading.Lock()

    def write(_step: str) -> None:
        with one_at_a_time:
            writer.execute("begin")
            for table in "ab":
                writer.execute(f"insert into {table} select 1 from (values (1), (2), (3))")
            writer.execute("commit")

    write("")
    outcome = run(f"sqlite:///{db}", pause=write)
    writer.close()
    assert outcome.complete, outcome.tables
    assert [item.archived for item in outcome.tables] == [3, 3]


@pytest.mark.parametrize("level", list(Level))
def test_every_level(db: Path, run: Run, tmp_path: Path, level: Level) -> None:
    make(db, "create table t (a int)", "insert into t values (1), (2)")
    assert run(f"sqlite:///{db}", level=level).complete
    assert archives.table(tmp_path / "archive", "t")["verification"]["level"] == level.value
    assert archives.verdict(tmp_path / "archive").sound
    assert archives.independent(tmp_path / "archive") == 0


def test_a_value_that_changed_its_class_is_another_value(db: Path, run: Run, tmp_path: Path) -> None:
    connection = sqlite3.connect(db)
    connection.execute("create table t (id integer primary key, v)")
    connection.executemany("insert into t values (?, ?)", ((n, b"\xff\x00" if n == 5 else n) for n in range(1000)))
    connection.commit()
    assert run(f"sqlite:///{db}").complete
    assert [entry["original"] for entry in archives.quarantine(tmp_path / "archive", "t")] == [b"\xff\x00"]
    connection.execute("update t set v = '7' where id = 7")
    connection.commit()
    connection.close()
    assert archives.verdict(tmp_path / "archive", source=f"sqlite:///{db}").source_differs


def test_a_query_with_the_name_of_a_table_is_refused(db: Path, run: Run) -> None:
    make(db, "create table t (a int)")
    with pytest.raises(UsageError, match="name of a table"):
        run(f"sqlite:///{db}", queries=(("t", "select 5 as a -- five"),), tables=("t",))
    assert run(f"sqlite:///{db}", queries=(("q", "select 5 as a -- five"),)).complete


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_a_pace_holds_for_what_is_compiled(tmp_path: Path, run: Run, journal: str) -> None:
    """Rows are read from pages in one mode and by statements in the other, and by statements once more for the fingerprint."""
    path, rows, rate = tmp_path / "s.db", 3_001, 2_000
    with closing(sqlite3.connect(path)) as lite:
        lite.execute(f"pragma journal_mode = {journal}")
        with lite:
            lite.execute("create table t (id integer primary key, name text, v real)")
            lite.executemany(
                "insert into t values (?, ?, ?)", ((number, f"row {number}", number / 3) for number in range(rows))
            )
    for level, times in ((Level.COUNT, 1), (Level.FULL, 2)):
        archive = tmp_path / level.value
        began = time.monotonic()
        outcome = run(f"sqlite:///{path}", level=level, archive=archive, limits={"rows_per_second": rate, "parallel": 2})
        took = time.monotonic() - began
        assert outcome.complete
        assert took > times * (rows - rate / 5) / rate - 0.2, "but for what may be asked for ahead"
        [table] = archives.manifest(archive)["tables"]
        assert table["totals"]["rows"] == rows
        if level is Level.FULL:
            assert table["verification"]["archive_fingerprint"] == table["verification"]["source_fingerprint"]
