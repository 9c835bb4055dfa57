"""Random values of every type, extremes included: the source's own hash, the rows read and the files written agree.

Hypothesis draws the values; all tables are then loaded and extracted in one run per engine. The source's fingerprint is
computed by the server in SQL, from the stored values: it shares no code with the reader.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import string
import struct
import uuid
from collections.abc import Callable, Sequence
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from jivs.testing.servers import MariaServer
from tests import archives
from tests.conftest import Run

Strategy = st.SearchStrategy[Any]
ROWS = int(os.environ.get("TEST_ROWS", "600"))


def draw(strategy: Strategy, rows: int) -> list[Any]:
    """``rows`` values, a tenth of them NULL."""
    found: list[Any] = []

    @seed(len(repr(strategy)))
    @settings(max_examples=max(10, rows // 60), database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(st.lists(strategy, min_size=40, max_size=100))
    def collect(values: list[Any]) -> None:
        found.extend(values)

    collect()
    source = random.Random(rows)
    values = found if len(found) >= rows else [source.choice(found) for _ in range(rows)]
    return [None if source.random() < 0.1 else value for value in values[:rows]]


def integers(bits: int, *, signed: bool = True) -> Strategy:
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    return st.one_of(st.sampled_from([low, high, 0, 1]), st.integers(low, high)).map(str)


def decimals(precision: int, scale: int) -> Strategy:
    limit = 10**precision - 1
    digits = st.one_of(st.sampled_from([0, 1, -1, limit, -limit]), st.integers(-limit, limit))
    return digits.map(lambda number: f"{'-' * (number < 0)}{abs(number) // 10**scale}.{abs(number) % 10**scale:0{scale}}")


def doubles() -> Strategy:
    bits = st.integers(0, 2**64 - 1).map(lambda number: struct.unpack("<d", struct.pack("<Q", number))[0])
    special = st.sampled_from([0.0, -0.0, 5e-324, 2.2250738585072014e-308, 1.7976931348623157e308, 0.1, 1e22, 2.0**53])
    return st.one_of(bits, special, st.floats(allow_nan=False, allow_infinity=False))


TEXT = st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
LONG = st.builds(lambda text, times: text * times, TEXT, st.sampled_from([1, 1, 1, 30, 200]))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(alphabet=string.printable, max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(alphabet=string.ascii_letters, max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
).map(json.dumps)
SPAN = st.integers(-178_000_000, 178_000_000)


def micros(low: int, high: int) -> Strategy:
    return st.one_of(st.sampled_from([low, high, 0, 1, -1 if low < 0 else 0]), st.integers(low, high))


def moments() -> Strategy:
    """Offsets from 2000-01-01 that reach from 4713 BC to the year 294276."""
    days = st.one_of(st.sampled_from([-2451500, 106741000, 106751981, -730119, 0]), st.integers(-2451500, 106741000))
    return st.builds(lambda d, us: f"{d} days {us} us", days, micros(0, 86_399_999_999))


PG_TYPES: dict[str, tuple[str, Strategy]] = {
    "int2": ("%s", integers(16)),
    "int4": ("%s", integers(32)),
    "int8": ("%s", integers(64)),
    "oid": ("%s", integers(32, signed=False)),
    "float4": ("%s", st.floats(width=32).map(repr)),
    "float8": ("%s", st.one_of(doubles(), st.sampled_from([float("nan"), float("inf"), float("-inf")])).map(repr)),
    "numeric(38,10)": ("%s", st.one_of(decimals(38, 10), st.just("NaN"))),
    "numeric(15,2)": ("%s", decimals(15, 2)),
    "numeric(60,20)": ("%s", decimals(60, 20)),
    "numeric": ("%s", st.one_of(decimals(200, 77), st.sampled_from(["NaN", "Infinity", "-Infinity", "1.10"]))),
    "money": ("(%s::numeric / 100)::money", st.integers(-(2**63) // 100, 2**63 // 100).map(str)),
    "text": ("%s", LONG),
    "varchar(40)": ("%s", TEXT),
    "char(45)": ("%s", TEXT),
    "bytea": ("decode(%s, 'hex')", st.binary(max_size=1500).map(bytes.hex)),
    "boolean": ("%s", st.booleans().map(str)),
    "date": ("date '2000-01-01' + %s::int", st.one_of(st.integers(-2451545, 2145031948), st.integers(-800000, 800000)).map(str)),
    "time": ("time '00:00' + %s * interval '1 us'", micros(0, 86_399_999_999).map(str)),
    "timetz": ("%s", st.builds(lambda h, m, z: f"{h:02}:{m:02}:30.5{z:+03}:30", st.integers(0, 23), st.integers(0, 59), st.integers(-14, 14))),
    "timestamp": ("timestamp '2000-01-01' + %s::interval", moments()),
    "timestamptz": ("timestamptz '2000-01-01 00:00+00' + %s::interval", moments()),
    "interval": ("%s::interval", st.builds(lambda y, d, u: f"{y // 1000} months {d} days {u} us", SPAN, SPAN, micros(-10**15, 10**15))),
    "uuid": ("%s", st.uuids().map(str)),
    "json": ("%s", JSON),
    "jsonb": ("%s", JSON),
    "int[]": ("%s", st.lists(st.one_of(st.none(), st.integers(-99, 99)), max_size=5)),
    "text[]": ("%s", st.lists(st.one_of(st.none(), TEXT), max_size=4)),
    "varbit": ("%s", st.text(alphabet="01", max_size=70)),
    "inet": ("%s", st.ip_addresses().map(str)),
    "point": ("point(%s::float8, 0.1)", doubles().map(repr)),
    "int8range": ("int8range(%s::bigint, null)", integers(60)),
    "hstore": ("hstore('k', %s::text)", TEXT),
    "tsvector": ("to_tsvector('simple', %s::text)", TEXT),
    "xml": ("xmlelement(name a, %s::text)", st.text(alphabet=string.printable[:90], max_size=30)),
}  # fmt: skip


def check(run: Run, url: str, archive: Path, tables: int, rows: int) -> None:
    outcome = run(url)
    assert outcome.complete, [(item.table.name, item.reason) for item in outcome.tables if item.reason]
    assert len(outcome.tables) == tables
    assert all(item.archived == item.source_rows == rows for item in outcome.tables)
    found = archives.verdict(archive, source=url)
    assert found.sound
    assert not found.source_differs, found.findings


def load_postgresql(pg: str, rows: int) -> None:
    with psycopg.connect(pg) as connection:
        connection.execute("create extension hstore")
        for number, (type_, (expression, strategy)) in enumerate(PG_TYPES.items()):
            connection.execute(f"create table t{number} (id int, v {type_})")
            values = draw(strategy, rows)
            with connection.cursor() as cursor:
                cursor.executemany(f"insert into t{number} values (%s, {expression})", list(enumerate(values)))


def test_postgresql(pg: str, run: Run, tmp_path: Path) -> None:
    load_postgresql(pg, ROWS)
    check(run, pg, tmp_path / "archive", len(PG_TYPES), ROWS)
    with psycopg.connect(pg) as connection:
        for number, type_ in enumerate(PG_TYPES):
            if type_ in {"int2", "int8", "text", "numeric(15,2)", "bytea", "boolean", "uuid", "varchar(40)"}:
                theirs = dict(connection.execute(f"select id, v from t{number}").fetchall())  # the driver's own conversion
                mine = {row["id"]: row["v"] for row in archives.rows(tmp_path / "archive", f"t{number}").to_pylist()}
                assert mine == theirs, type_


MY_TYPES: dict[str, tuple[str, Strategy]] = {
    "tinyint": ("%s", integers(8)),
    "smallint unsigned": ("%s", integers(16, signed=False)),
    "int(10) zerofill": ("%s", integers(32, signed=False)),
    "bigint": ("%s", integers(64)),
    "bigint unsigned": ("%s", integers(64, signed=False)),
    "decimal(65,30)": ("%s", decimals(65, 30)),
    "decimal(38,10)": ("%s", decimals(38, 10)),
    "float": ("%s", st.floats(width=32, allow_nan=False, allow_infinity=False).map(repr)),
    "double": ("%s", doubles().filter(lambda value: value == value and abs(value) != float("inf")).map(repr)),
    "double(20,5)": ("%s", st.floats(-1e14, 1e14).map(repr)),
    "bit(64)": ("%s", st.integers(0, 2**64 - 1)),
    "year": ("%s", st.one_of(st.just(0), st.integers(1901, 2155)).map(str)),
    "date": ("%s", st.dates(date(1, 1, 1)).map(lambda day: f"{day.year:04}-{day.month:02}-{day.day:02}")),
    "datetime(6)": ("timestamp'1970-01-01 00:00:00' + interval %s microsecond", micros(-62135596800000000, 253402300799999999).map(str)),
    "timestamp(6) null": ("timestamp'1970-01-02 00:00:00' + interval %s microsecond", micros(0, 2_147_000_000_000_000).map(str)),
    "time(6)": ("%s", micros(-3020399999999, 3020399999999).map(lambda us: "-" * (us < 0) + _clock(abs(us)))),
    "varchar(100)": ("%s", TEXT),
    "longtext": ("%s", LONG),
    "varchar(60) character set latin1": ("convert(%s using latin1)", st.binary(max_size=50)),
    "varchar(60) character set sjis": ("%s", st.text(alphabet="日本語テストｱabc\\~", max_size=20)),
    "varchar(60) character set utf16": ("%s", TEXT),
    "enum('a','é','')": ("%s", st.sampled_from(["a", "é", ""])),
    "set('x','y','z')": ("%s", st.sampled_from(["", "x", "y,z", "x,y,z"])),
    "json": ("%s", JSON),
    "blob": ("%s", st.binary(max_size=1500)),
    "binary(20)": ("%s", st.binary(max_size=20)),
    "uuid": ("%s", st.uuids().map(str)),
    "inet6": ("%s", st.ip_addresses(v=6).map(str)),
    "point": ("point(%s, 0.1)", st.floats(-1e300, 1e300)),
}  # fmt: skip


def _clock(us: int) -> str:
    whole = timedelta(microseconds=us)
    seconds = whole.days * 86400 + whole.seconds
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{whole.microseconds:06}"


def load_mariadb(my: str, maria: MariaServer, rows: int) -> None:
    connection: pymysql.Connection[Any] = maria.connect(my.rpartition("/")[2], charset="utf8mb4", autocommit=False)
    cursor = connection.cursor()
    cursor.execute("set sql_mode = 'NO_BACKSLASH_ESCAPES', time_zone = '+00:00'")
    for number, (type_, (expression, strategy)) in enumerate(MY_TYPES.items()):
        cursor.execute(f"create table t{number} (id int, v {type_})")
        pairs = list(enumerate(draw(strategy, rows)))
        for start in range(0, rows, 500):
            part = pairs[start : start + 500]
            row = f"(%s, {expression})"
            cursor.execute(
                f"insert into t{number} values " + ", ".join([row] * len(part)), [item for pair in part for item in pair]
            )
    connection.commit()
    connection.close()


def test_mariadb(my: str, maria: MariaServer, run: Run, tmp_path: Path) -> None:
    load_mariadb(my, maria, ROWS)
    check(run, my, tmp_path / "archive", len(MY_TYPES), ROWS)


SQLITE: Sequence[Strategy] = (
    st.integers(-(2**63), 2**63 - 1),
    doubles().filter(lambda value: value == value),
    st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=40),
    st.binary(max_size=40),
)


def load_sqlite(path: Path, rows: int) -> None:
    connection = sqlite3.connect(path)
    for number, strategy in enumerate([*SQLITE, st.one_of(*SQLITE)]):
        connection.execute(f"create table t{number} (id integer primary key, v)")
        connection.executemany(f"insert into t{number} values (?, ?)", list(enumerate(draw(strategy, rows))))
    connection.commit()
    connection.close()


def test_sqlite(run: Run, tmp_path: Path) -> None:
    load_sqlite(tmp_path / "s.db", ROWS)
    check(run, f"sqlite:///{tmp_path / 's.db'}", tmp_path / "archive", 5, ROWS)
    connection = sqlite3.connect(tmp_path / "s.db")
    for number in range(4):
        theirs = connection.execute(f"select id, v from t{number} order by id").fetchall()
        mine = archives.rows(tmp_path / "archive", f"t{number}").sort_by("id").to_pylist()
        assert [(row["id"], row["v"]) for row in mine] == theirs


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("engine", ["postgresql", "mariadb", "sqlite"])
def test_ten_thousand_rows_of_each_type(engine: str, request: pytest.FixtureRequest, run: Run, tmp_path: Path) -> None:
    loaders: dict[str, Callable[[], tuple[str, int]]] = {
        "postgresql": lambda: (request.getfixturevalue("pg"), len(PG_TYPES)),
        "mariadb": lambda: (request.getfixturevalue("my"), len(MY_TYPES)),
        "sqlite": lambda: (f"sqlite:///{tmp_path / 's.db'}", 5),
    }
    url, tables = loaders[engine]()
    if engine == "postgresql":
        load_postgresql(url, 10_000)
    elif engine == "mariadb":
        load_mariadb(url, request.getfixturevalue("maria"), 10_000)
    else:
        load_sqlite(tmp_path / "s.db", 10_000)
    check(run, url, tmp_path / "archive", tables, 10_000)


def test_random_uuids_are_read_back(run: Run, pg: str, tmp_path: Path) -> None:
    values = [uuid.UUID(int=random.Random(number).getrandbits(128)) for number in range(100)]
    with psycopg.connect(pg) as connection:
        connection.execute("create table u (v uuid)")
        with connection.cursor() as cursor:
            cursor.executemany("insert into u values (%s)", [(value,) for value in values])
    assert run(pg).complete
    assert sorted(archives.rows(tmp_path / "archive", "u").column("v").to_pylist()) == sorted(values)
