"""Tables of SQLite read from their pages: the library, reading the same tables by statements, is the oracle."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jivs.connectors.sqlite import SQLite, _Session
from jivs.domain.plan import Bounds
from jivs.domain.schema import TableName
from jivs.domain.source import Address, Limits
from jivs.errors import UsageError
from jivs.ports.connector import Narrowing, Request
from jivs.wire import sqlite as wire


class _NoPace:
    rate = 0
    step = 0

    def take(self, rows: int) -> None:
        """Nothing to wait for."""


def session(path: Path) -> Any:
    opened = SQLite().open(
        Address.parse(f"sqlite:///{path}", lambda _: ""),
        Limits(),
        Request(queries={}, narrowing=Narrowing(columns={}, where="")),
        _NoPace(),  # type: ignore[arg-type]
    )
    opened.begin([])
    return opened


def both(path: Path, table: str = "t", bounds: Bounds | None = None) -> bool:
    """Read a table by the way that is taken and by statements; the results must be equal. Whether pages were read."""
    name = TableName(schema="", name=table)
    opened = session(path)
    try:
        described = opened.describe(name)
        detail = opened._details[name]
        parts = [bounds] if bounds is not None else [*opened.split(described, 1 << 20)]
        taken = [chunk for part in parts for chunk in opened.read(described, part)]
        opened._details[name] = type(detail)(detail.table, detail.takes)
        asked = [chunk for part in parts for chunk in opened.read(described, part)]
        names = [column.name for column in described.columns]
        whole = opened._census(opened._pool._all[0], name, described.kind, names, None)[0] if not bounds else None
    finally:
        opened.close()
    rows = [row for chunk in taken for row in zip(*(column.to_pylist() for column in chunk.batch.columns), strict=True)]
    wanted = [row for chunk in asked for row in zip(*(column.to_pylist() for column in chunk.batch.columns), strict=True)]
    assert repr(rows) == repr(wanted)
    assert [chunk.values for chunk in taken] == [chunk.values for chunk in asked]
    assert whole is None or whole == described.estimated_rows == len(rows)
    return detail.pages is not None


def value(chance: random.Random, kind: str) -> object:
    if chance.random() < 0.1:
        return None
    if kind == "integer":
        return chance.choice(
            [0, 1, -1, 127, 128, -129, 2**15, 2**23, -(2**31), 2**47, -(2**63), 2**63 - 1, chance.getrandbits(40)]
        )
    if kind in {"real", "decimal(9,2)"}:
        return chance.choice([0.0, -0.0, 1.5, 17, -3, float("inf"), 1e300, 2**40 + 0.5, float("nan")])
    length = chance.choice([0, 1, 5, 100, 400, 1000, 3000, 70000]) if chance.random() < 0.2 else chance.randrange(30)
    return chance.randbytes(length) if kind == "blob" else "ü" * (length // 2) + "x" * (length % 2)


@pytest.mark.parametrize("page_size", [512, 1024, 4096, 65536])
@pytest.mark.parametrize("vacuum", ["none", "full"])
def test_rows_from_pages_are_those_of_the_library(tmp_path: Path, page_size: int, vacuum: str) -> None:
    chance = random.Random(page_size)
    path = tmp_path / "t.db"
    kinds = [chance.choice(["integer", "real", "decimal(9,2)", "text", "blob"]) for _ in range(12)]
    with sqlite3.connect(path) as connection:
        connection.execute(f"pragma page_size = {page_size}")
        connection.execute(f"pragma auto_vacuum = {vacuum}")
        connection.execute(
            f"create table t (id integer primary key, {', '.join(f'c{i} {kind}' for i, kind in enumerate(kinds))})"
        )
        ids = [*range(2000), -(2**63), -5, 2**40, 2**63 - 1]
        chance.shuffle(ids)
        rows = [(id_, *(value(chance, kind) for kind in kinds)) for id_ in ids]
        connection.executemany(f"insert into t values ({', '.join('?' * 13)})", rows)
        connection.execute("delete from t where id % 7 = 3")
    connection.close()
    assert both(path)
    for low, high in ((-5, 10), (100, 101), (3, 4), (1990, 2**50), (-(2**63), 2**63 - 1), (5000, 6000)):
        assert both(path, bounds={"rowid": "id", "from": low, "to": high})


@pytest.mark.parametrize(
    ("statements", "by_pages"),
    [
        (["create table t (a int, b text)"], True),
        (["create table t (a text primary key, b)", "insert into t values ('x', 1)"], True),
        (["create table t (a integer primary key desc, b)", "insert into t values (7, 'x')"], True),
        (["create table t (a int primary key, b)", "insert into t values (7, 'x')"], True),
        (["create table t (b text, a INTEGER, primary key (a))", "insert into t values ('x', 7)"], True),
        (["create table t (a integer, b, primary key (a, b))", "insert into t values (7, 'x')"], True),
        (["create table t (a real, b float, c double precision)", "insert into t values (1, 2, 3)"], True),
        (["create table t (a real, b int, c any) strict", "insert into t values (1, 2, 3), (1.5, 7, 'x')"], False),
        (["create table t (a real, b int, c text) strict", "insert into t values (1, 2, 3), (1.5, 7, 'x')"], True),
        (["create table t (a \ufb02oat, b)", "insert into t values (1, 1)"], True),
        (['create table t (a "REAL\u0131NT", b)', "insert into t values (1, 1)"], True),
        (["create table u (a)", "create trigger t after insert on u begin select 1; end", "create table t (a)", "insert into t values (9)"], True),
        (["create table t (a text primary key) without rowid", "insert into t values ('x')"], False),
        (["create table t (a, b as (a + 1))", "insert into t values (1)"], False),
        (["create table t (a)", "insert into t values (1)", "alter table t add column b default 'late'"], False),
        (["create table t (a)", "insert into t values (1)", "alter table t add column b", "insert into t values (1, 2)"], False),
        (["create table t (a, b, c)", "insert into t values (1, 2, 'x')", "alter table t drop column b"], True),
        (["create table t (rowid, _rowid_, oid)", "insert into t values (1, 2, 3)"], False),
        (["pragma encoding = 'UTF-16le'", "create table t (a)", "insert into t values ('ü')"], False),
        (["pragma journal_mode = wal", "create table t (a)", "insert into t values ('x')"], False),
        (["create table t (a text)", "insert into t values (cast(x'ff00fe' as text)), (char(0, 97)), ('')"], True),
        (["create table t (a)", "insert into t values (1), (2.5), ('x'), (x'00'), (null)"], False),
        (["create table t (a)", "insert into t values (1), (2), (zeroblob(30000000))"], False),
    ],
)  # fmt: skip
def test_what_pages_cannot_tell_is_asked_of_the_library(tmp_path: Path, statements: list[str], by_pages: bool) -> None:
    path = tmp_path / "t.db"
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()
    assert both(path) is by_pages


def test_damaged_pages_end_in_an_error_or_in_what_the_library_reads(tmp_path: Path) -> None:
    chance = random.Random(5)
    path = tmp_path / "t.db"
    with sqlite3.connect(path) as connection:
        connection.execute("pragma page_size = 512")
        connection.execute("create table t (a, b, c)")
        rows = [(number, "text " * (number % 9), os.urandom(number % 700)) for number in range(600)]
        connection.executemany("insert into t values (?, ?, ?)", rows)
    connection.close()
    sound = path.read_bytes()
    with sqlite3.connect(path) as connection:
        root = connection.execute("select rootpage from sqlite_schema").fetchone()[0]
    connection.close()
    ended = 0
    for _ in range(300):
        data = bytearray(sound)
        for _ in range(chance.choice([1, 3, 30])):
            page = chance.randrange(1, len(data) // 512)
            at = page * 512 + (chance.randrange(12) if chance.random() < 0.5 else chance.randrange(512))
            data[at] = chance.randrange(256)
        if chance.random() < 0.1:
            del data[chance.randrange(512, len(data)) :]
        path.write_bytes(data)
        database = wire.Database(f"file:{path}?mode=ro", 1)
        descriptor = os.open(path, os.O_RDONLY)
        pages = wire.Pages(file=wire.File(descriptor), root=root, declared=3, places=(0, 1, 2), reals=(False,) * 3)
        try:
            database.census(pages, 3)
            ended += 1
        except wire.StrangeError:
            pass
        finally:
            database.close()
            os.close(descriptor)
    assert 0 < ended < 300


def test_a_file_truncated_while_it_is_read_ends_in_an_error(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table t (a)")
        connection.executemany("insert into t values (?)", [("x" * 1000,)] * 3000)
    connection.close()
    opened = session(path)
    try:
        described = opened.describe(TableName(schema="", name="t"))
        os.truncate(path, 100_000)
        with pytest.raises(Exception, match="malformed, or cannot be read"):
            list(opened.read(described, {}))
    finally:
        opened.close()


def test_a_file_that_was_replaced_is_another_file(tmp_path: Path) -> None:
    path, other = tmp_path / "t.db", tmp_path / "other.db"
    for file, content in ((path, "old"), (other, "new")):
        with sqlite3.connect(file) as connection:
            connection.execute("create table t (a)")
            connection.execute("insert into t values (?)", [content])
        connection.close()
    held = session(path)
    try:
        other.replace(path)
        assert both(path) is True
        described = held.describe(TableName(schema="", name="t"))
        assert [chunk.batch.column(0).to_pylist() for chunk in held.read(described, {})] == [["old"]]
    finally:
        held.close()
    assert both(path) is True


def test_locks_stay_until_the_last_session_of_a_process_ends(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table t (a)")
    connection.close()
    first, second = session(path), session(path)
    second.close()
    assert "database is locked" in written(path).stderr
    first.close()
    assert written(path).returncode == 0


def test_files_are_known_by_their_inode_and_closing_twice_is_no_error(tmp_path: Path) -> None:
    path, other = tmp_path / "t.db", tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table t (a)")
    connection.close()
    other.hardlink_to(path)
    first, second = session(path), session(other)
    second.close()
    second.close()
    assert "database is locked" in written(path).stderr
    first.close()
    assert written(path).returncode == 0


def written(path: Path) -> subprocess.CompletedProcess[str]:
    """Another process writes."""
    script = (
        f"import sqlite3; c = sqlite3.connect({str(path)!r}, timeout=0); c.execute('insert into t values (1)'); c.commit()"
    )
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("mode", ["delete", "wal"])
def test_a_link_that_is_turned_is_not_followed_twice(tmp_path: Path, mode: str) -> None:
    link = tmp_path / "current.db"
    for name in ("old", "new"):
        with sqlite3.connect(tmp_path / f"{name}.db") as connection:
            connection.execute(f"pragma journal_mode = {mode}")
            connection.execute("create table t (a)")
            connection.execute("insert into t values (?)", [name])
        connection.close()
    link.symlink_to(tmp_path / "old.db")
    opened = SQLite().open(Address.parse(f"sqlite:///{link}", lambda _: ""), Limits(), Request(), _NoPace())  # type: ignore[arg-type]
    try:
        link.unlink()
        link.symlink_to(tmp_path / "new.db")
        opened.begin([])
        described = opened.describe(TableName(schema="", name="t"))
        assert [chunk.batch.column(0).to_pylist() for chunk in opened.read(described, {})] == [["old"]]
        assert opened.count(described, {}) == 1
        assert opened.fingerprint(described, {}).rows == 1
    finally:
        opened.close()


def test_a_file_replaced_while_a_run_begins_is_one_file_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.db"
    for file, rows in ((path, 5), (tmp_path / "new.db", 7)):
        with sqlite3.connect(file) as connection:
            connection.execute("create table t (a)")
            connection.executemany("insert into t values (?)", [(number,) for number in range(rows)])
        connection.close()
    connect = _Session._connect

    def replacing(self: Any) -> sqlite3.Connection:
        made = connect(self)
        if (tmp_path / "new.db").exists():
            (tmp_path / "new.db").replace(path)
        return made

    monkeypatch.setattr(_Session, "_connect", replacing)
    opened = session(path)
    try:
        described = opened.describe(TableName(schema="", name="t"))
        assert sum(chunk.batch.num_rows for chunk in opened.read(described, {})) == opened.count(described, {}) == 7
        assert opened.fingerprint(described, {}).rows == 7
    finally:
        opened.close()


def test_a_journal_left_behind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    script = f"""
import os, sqlite3
c = sqlite3.connect({str(path)!r}, isolation_level=None)
c.execute("pragma cache_size = 2")
c.execute("create table t (a)")
c.execute("begin")
for _ in range(300): c.execute("insert into t values (zeroblob(3000))")
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", script], check=False)
    with pytest.raises(UsageError, match="left a journal"):
        session(path)


def test_a_path_that_leads_in_circles_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.db").symlink_to(tmp_path / "b.db")
    (tmp_path / "b.db").symlink_to(tmp_path / "a.db")
    with pytest.raises(UsageError, match="no SQLite file"):
        session(tmp_path / "a.db")
