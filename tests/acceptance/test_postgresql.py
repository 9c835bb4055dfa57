"""PostgreSQL: every type at its extremes, every kind of relation, names, encodings, TLS."""

from __future__ import annotations

import struct
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import psycopg
import pyarrow as pa
import pytest

from jivs import connectors
from jivs.domain.plan import Level
from jivs.errors import TransientError, UsageError
from jivs.ports.app import App
from jivs.ports.connector import Request
from jivs.testing.servers import PostgresServer
from jivs.transfer.throttle import Throttle
from tests import archives
from tests.conftest import Run

LONG = "'9' || repeat('0', 131071)"
CASES: list[tuple[str, list[str]]] = [
    ("int2", ["-32768", "32767", "0"]),
    ("int4", ["-2147483648", "2147483647"]),
    ("int8", ["-9223372036854775808", "9223372036854775807"]),
    ("oid", ["0", "4294967295"]),
    ("float4", ["'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "'3.4028235e38'", "'1e-45'", "0.1"]),
    ("float8", ["'NaN'", "'Infinity'", "'-Infinity'", "'-0'", "'1.7976931348623157e308'", "'5e-324'", "0.1"]),
    ("numeric(38,10)", ["'NaN'", "-9999999999999999999999999999.9999999999", "0.0000000001", "-0.5"]),
    ("numeric(5,5)", ["0.99999", "-0.00001"]),
    ("numeric(38,38)", ["0.99999999999999999999999999999999999999"]),
    ("numeric(50,20)", ["1.5", "'NaN'"]),
    ("numeric(3,-2)", ["12300"]),
    ("numeric", ["'NaN'", "'Infinity'", "'-Infinity'", f"({LONG})::numeric", "('0.' || repeat('0', 16382) || '1')::numeric",
                 "1.10"]),
    ("money", ["'-92233720368547758.08'", "'12.34'"]),
    ("text", ["''", "'N'", "'NULL'", r"E'\\N'", r"E'\\.'", r"E'a\nb\r\n\"q\",\t'", "repeat('ä€😀', 1000)", "repeat('x', 1025)"]),
    ("varchar(10)", ["''", "'a '"]),
    ("char(10)", ["''", "'a'", "'äöü'"]),
    ("name", ["'n'", "repeat('x', 63)"]),
    ('"char"', ["'a'", "''"]),
    ("bytea", [r"'\x'", r"'\x00ff'", r"decode(repeat('ab', 3000), 'hex')"]),
    ("boolean", ["true", "false"]),
    ("date", ["'infinity'", "'-infinity'", "'4713-01-01 BC'", "'0001-01-01'", "'0001-12-31 BC'", "'5874897-12-31'"]),
    ("time", ["'00:00'", "'24:00:00'", "'23:59:59.999999'"]),
    ("timetz", ["'00:00:00+15:59:59'", "'24:00:00-15:59:59'"]),
    ("timestamp", ["'infinity'", "'-infinity'", "'4713-01-01 00:00:00 BC'", "'294276-12-31 23:59:59.999999'",
                   "'294246-12-31 23:59:59.999999'", "'0001-01-01'", "'1969-12-31 23:59:59.999999'"]),
    ("timestamptz", ["'infinity'", "'-infinity'", "'4713-01-01 00:00:00+00 BC'", "'294276-12-31 23:59:59.999999+00'",
                     "'2024-03-31 02:30:00+01'"]),
    ("interval", ["'-178000000 years'", "'178000000 years'", "'-1 mon +2 days -00:00:00.000001'", "'0'"]),
    ("uuid", ["'00000000-0000-0000-0000-000000000000'", "'ffffffff-ffff-ffff-ffff-ffffffffffff'"]),
    ("json", ["' {\"a\": 1 , \"a\":2}'", "'null'"]),
    ("jsonb", ["'{\"b\":1}'", "'\"x\"'"]),
    ("xml", ["'<a>ä</a>'"]),
    ("mood", ["'sad'", "'o k'"]),
    ("positive", ["1.10"]),
    ("int[]", ["'{}'", "'{{1,NULL},{3,4}}'", "'[2:3][-1:0]={{1,2},{3,4}}'"]),
    ("text[]", ["array['a,b', null, 'NULL', '', '\"']"]),
    ("pair", ["row(null, null)", "row(1, 'x y')", "row(1, null)"]),
    ("int4range", ["'[1,5)'", "'empty'", "'(,)'"]),
    ("int4multirange", ["'{[1,2),[4,5)}'", "'{}'"]),
    ("bit(5)", ["B'10101'"]),
    ("varbit", ["B''", "B'1'"]),
    ("inet", ["'1.2.3.4'", "'::1/64'"]),
    ("cidr", ["'10.0.0.0/8'"]),
    ("macaddr", ["'08:00:2b:01:02:03'"]),
    ("point", ["'(1e300,-2)'"]),
    ("polygon", ["'((0,0),(1,1))'"]),
    ("tsvector", ["'a:1 b'"]),
    ("hstore", ["'a=>1,b=>NULL'"]),
    ("regclass", ["'pg_class'", "0"]),
]  # fmt: skip

PRELUDE = """
create extension hstore; create type mood as enum ('sad', 'o k'); create domain positive as numeric(10,2) check (value > 0);
create type pair as (a int, b text);
"""


def make(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)


def test_every_type_at_its_extremes(pg: str, run: Run, tmp_path: Path) -> None:
    """One table per type, one with all of them: the server's hash, the rows read and the files agree, by two verifiers."""
    make(pg, PRELUDE)
    for number, (type_, values) in enumerate(CASES):
        rows = ", ".join(f"({index}, {value})" for index, value in enumerate([*values, "null"]))
        make(pg, f"create table t{number} (id int primary key, v {type_})", f"insert into t{number} values {rows}")
    columns = ", ".join(f"c{number} {type_}" for number, (type_, _) in enumerate(CASES))
    make(pg, f"create table wide ({columns})")
    for row in range(8):
        cells = ", ".join(values[row % len(values)] if row < 7 else "null" for _, values in CASES)
        make(pg, f"insert into wide values ({cells})")
    outcome = run(pg)
    assert outcome.complete, [item for item in outcome.tables if item.verdict != "verified"]
    assert sum(item.archived for item in outcome.tables) == sum(len(values) + 1 for _, values in CASES) + 8
    found = archives.verdict(tmp_path / "archive", source=pg)
    assert found.sound
    assert not found.source_differs
    assert archives.independent(tmp_path / "archive") == 0


def _values(run: Run, url: str, archive: Path, type_: str, *values: str) -> pa.Table:
    rows = ", ".join(f"({index}, {value})" for index, value in enumerate(values))
    make(url, f"create table v (id int primary key, v {type_})", f"insert into v values {rows}")
    assert run(url, tables=("v",)).complete
    return archives.rows(archive, "v").sort_by("id")


def test_nan_in_a_decimal_is_quarantined_and_the_row_stays(pg: str, run: Run, tmp_path: Path) -> None:
    found = _values(run, pg, tmp_path / "archive", "numeric(38,10)", "'NaN'", "1.5")
    assert found.column("v").to_pylist() == [None, Decimal("1.5000000000")]
    [entry] = archives.quarantine(tmp_path / "archive", "v")
    assert (entry["column"], entry["row"], entry["original"]) == ("v", 0, b"NaN")
    assert entry["key"] == '["0"]'


def test_floats_keep_their_bits(pg: str, run: Run, tmp_path: Path) -> None:
    found = _values(run, pg, tmp_path / "archive", "float8", "'-0'", "'5e-324'", "'NaN'", "'-Infinity'", "0.1")
    bits = [struct.pack(">d", value).hex() for value in found.column("v").to_pylist()]
    assert bits == ["8000000000000000", "0000000000000001", "7ff8000000000000", "fff0000000000000", "3fb999999999999a"]


def test_moments_beyond_the_type_stand_beside_it(pg: str, run: Run, tmp_path: Path) -> None:
    found = _values(
        run, pg, tmp_path / "archive", "timestamp", "'infinity'", "'294276-12-31 23:59:59.999999'", "'2020-01-01'", "null"
    )
    assert found.column("v").cast(pa.int64()).to_pylist() == [None, None, 1577836800000000, None]
    assert found.column("v__text").to_pylist() == ["infinity", "294276-12-31 23:59:59.999999", None, None]


def test_dates_before_christ(pg: str, run: Run, tmp_path: Path) -> None:
    found = _values(run, pg, tmp_path / "archive", "date", "'0044-03-15 BC'", "'4713-01-01 BC'", "'5874897-12-31'")
    assert found.column("v").cast(pa.int32()).to_pylist() == [-735160, -2440550, 2145042905]
    assert "v__text" not in found.column_names


def test_text_forms_are_the_servers_own(pg: str, run: Run, tmp_path: Path) -> None:
    found = _values(run, pg, tmp_path / "archive", "inet", "'1.2.3.4'", "'1.2.3.0/24'")
    assert found.column("v").to_pylist() == ["1.2.3.4", "1.2.3.0/24"]


def test_padding_of_char_is_kept(pg: str, run: Run, tmp_path: Path) -> None:
    found = _values(run, pg, tmp_path / "archive", "char(5)", "'a'", "''")
    assert found.column("v").to_pylist() == ["a    ", "     "]


RELATIONS = """
create schema "We ird"; create table "We ird"."na.me/\n""x"" Ü" (id int, "A" int, "a" int, "sélect" text);
insert into "We ird"."na.me/\n""x"" Ü" values (1, 2, 3, 'x'), (1, 2, 3, 'x');
create table p (id int, v text) partition by range (id); create table p1 partition of p for values from (0) to (100);
create table p2 (v text, extra int, id int); alter table p2 drop column extra;
alter table p attach partition p2 for values from (100) to (200) ;
insert into p select g, 'v' || g from generate_series(0, 199) g;
create table parent (a int); create table child (b int) inherits (parent);
insert into parent values (1); insert into child values (2, 3);
create view v as select id, v from p where id < 7; create materialized view mv as select * from p; create table empty (a int);
create table gone (a int, b int generated always as (a * 2) stored, c int); alter table gone drop column c;
insert into gone (a) values (1), (2);
create table bare (); insert into bare default values; insert into bare default values;
create extension file_fdw; create server f foreign data wrapper file_fdw;
"""


def test_every_kind_of_relation(pg: str, run: Run, tmp_path: Path) -> None:
    """Rows of partitions count once, those of inheriting tables once each; nothing is taken twice or left."""
    data = tmp_path / "f.csv"
    data.write_text("1,x\n2,y\n")
    tmp_path.chmod(0o755)
    data.chmod(0o644)
    make(pg, *RELATIONS.split(";\n"))
    folder = data.parent
    while folder != folder.parent:
        folder.chmod(folder.stat().st_mode | 0o011)
        folder = folder.parent
    make(pg, f"create foreign table ft (a int, b text) server f options (filename '{data}', format 'csv')")
    outcome = run(pg, tables=("*",), partition_bytes=8192)
    counts = {item.table.name: item.archived for item in outcome.tables}
    assert outcome.complete, outcome.tables
    assert counts == {
        'na.me/\n"x" Ü': 2, "p": 200, "parent": 1, "child": 1, "v": 7, "mv": 200, "empty": 0, "gone": 2, "bare": 2, "ft": 2,
    }  # fmt: skip
    archive = tmp_path / "archive"
    assert archives.rows(archive, "gone").sort_by("a").to_pylist() == [{"a": 1, "b": 2}, {"a": 2, "b": 4}]
    assert archives.rows(archive, 'na.me/\n"x" Ü').column_names == ["id", "A", "a__2", "sélect"]
    assert archives.rows(archive, "empty").num_rows == 0
    assert archives.verdict(archive, source=pg).sound
    assert archives.independent(archive) == 0


def test_default_takes_tables_only_and_says_what_it_leaves(pg: str, run: Run) -> None:
    make(pg, "create table t (a int)", "create view v as select * from t")
    outcome = run(pg)
    assert [item.table.name for item in outcome.tables] == ["t"]
    assert any("1 view(s)" in note for note in outcome.notes)


def test_1600_columns(pg: str, run: Run, tmp_path: Path) -> None:
    make(pg, f"create table w ({', '.join(f'c{index} int' for index in range(1600))})", "insert into w (c7) values (1), (2)")
    assert run(pg).complete
    assert archives.independent(tmp_path / "archive") == 0


def test_large_objects_are_named_as_not_archived(pg: str, run: Run, tmp_path: Path) -> None:
    make(pg, "create table t (a int)", "select lo_create(0)")
    assert run(pg).complete
    assert "1 large objects are not archived" in archives.manifest(tmp_path / "archive")["notes"]


@pytest.mark.parametrize("encoding", ["LATIN1", "WIN1252", "EUC_JP"])
def test_databases_in_another_encoding(postgres: PostgresServer, run: Run, tmp_path: Path, encoding: str) -> None:
    url = postgres.create(f"e{encoding.lower()}", f"encoding '{encoding}' template template0 lc_collate 'C' lc_ctype 'C'")
    text = "日本語テスト" if encoding == "EUC_JP" else "äöüé"
    make(url, "create table t (a text, c char(9), j json)")
    with psycopg.connect(url) as connection:
        connection.execute("insert into t values (%s, %s, %s)", (text, text, f'{{"k": "{text}"}}'))
        connection.execute("insert into t values (repeat(%s, 500), '', null)", (text,))
    assert run(url).complete
    assert archives.rows(tmp_path / "archive", "t").column("a").to_pylist()[0] == text
    assert archives.independent(tmp_path / "archive") == 0


def test_sql_ascii_keeps_bytes_that_are_no_text(postgres: PostgresServer, run: Run, tmp_path: Path) -> None:
    url = postgres.create("sqlascii", "encoding 'SQL_ASCII' template template0 lc_collate 'C' lc_ctype 'C'")
    make(url, "create table t (id int primary key, a text)", r"insert into t values (1, E'\xff\xfe'), (2, 'ok')")
    assert run(url).complete
    assert archives.rows(tmp_path / "archive", "t").sort_by("id").column("a").to_pylist() == [None, "ok"]
    assert [entry["original"] for entry in archives.quarantine(tmp_path / "archive", "t")] == [b"\xff\xfe"]
    assert archives.independent(tmp_path / "archive") == 0


def test_free_queries(pg: str, run: Run, tmp_path: Path) -> None:
    make(pg, "create table t as select g id, g * 1.5 n from generate_series(1, 10) g")
    outcome = run(pg, queries=(("few", "select id, n, n::numeric(9,2) m from t where id < 4;"),))
    assert [(str(item.table), item.archived) for item in outcome.tables] == [("few", 3)]
    assert archives.verdict(tmp_path / "archive", source=pg).sound
    with pytest.raises(UsageError, match="two columns named id"):
        run(pg, queries=(("twice", "select id, id from t"),))
    with pytest.raises(UsageError):
        run(pg, queries=(("writes", "delete from t returning id"),))


def test_row_security_never_hides_rows(pg: str, postgres: PostgresServer, run: Run) -> None:
    """An account that would see a part of the rows is refused, instead of archiving that part as the whole."""
    make(
        pg,
        "create table t (a int)",
        "insert into t values (1), (2)",
        "alter table t enable row level security",
        "create policy a_part on t using (a = 1)",
        "create role reader login password 'pw'",
        "grant select on t to reader",
    )
    url = pg.replace(pg[pg.index("//") + 2 : pg.index("@")], "reader:pw")
    outcome = run(url)
    assert not outcome.complete
    assert "row-level security" in outcome.tables[0].reason
    make(pg, "drop owned by reader", "drop role reader")


def test_tls_is_verified_when_asked_for(pg: str, postgres: PostgresServer, run: Run) -> None:
    make(pg, "create table t (a int)")
    assert run(f"{pg}?sslmode=verify-full&sslrootcert={postgres.certificate}", level=Level.COUNT).complete
    with pytest.raises(Exception, match="certificate"):
        run(f"{pg}?sslmode=verify-full&sslrootcert=/etc/ssl/certs/ca-certificates.crt")


def test_the_difference_is_named_by_key_and_column(pg: str, run: Run, tmp_path: Path) -> None:
    make(
        pg,
        "create table t (id int primary key, a text, b int)",
        "insert into t select g, 'x' || g, g from generate_series(1, 50) g",
    )
    assert run(pg).complete
    make(pg, "update t set a = 'other' where id = 7", "delete from t where id = 8", "insert into t values (99, 'new', 1)")
    found = archives.verdict(tmp_path / "archive", source=pg)
    assert found.sound
    messages = [finding.message for finding in found.findings]
    assert "the source differs now: rows added: 1, removed: 1, changed: 1" in messages
    assert "the source differs now: row id=7: column a differs" in messages
    assert "the source differs now: row id=8: 0 times in the source, 1 times in the archive" in messages


def test_sessions_do_not_depend_on_settings_of_role_or_database(pg: str, run: Run, tmp_path: Path) -> None:
    name = pg.rpartition("/")[2]
    settings = ("datestyle = 'German'", "intervalstyle = 'sql_standard'", "timezone = 'Asia/Tokyo'", "bytea_output = 'escape'",
                "extra_float_digits = -5", "search_path = 'nowhere'", "standard_conforming_strings = off")  # fmt: skip
    make(pg, *(f'alter database "{name}" set {setting}' for setting in settings))
    make(pg, "create table public.t (a timestamptz, b interval, c bytea, d float8, e date)",
         r"insert into public.t values ('2020-06-01 12:00:00+00', '1 day', decode('00ff','hex'), 0.1, '2020-06-01')")  # fmt: skip
    assert run(pg).complete
    [row] = archives.rows(tmp_path / "archive", "t").to_pylist()
    assert (row["c"], row["d"], row["a"].isoformat()) == (b"\x00\xff", 0.1, "2020-06-01T12:00:00+00:00")
    assert archives.independent(tmp_path / "archive") == 0


@pytest.mark.parametrize("native", [True, False], ids=["compiled", "driver"])
@pytest.mark.parametrize("level", [Level.COUNT, Level.FULL])
def test_text_that_begins_with_a_byte_order_mark(
    pg: str, run: Run, tmp_path: Path, level: Level, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The CSV parser would take it for a mark of the file, and two different keys would become one."""
    if not native:
        monkeypatch.setattr("jivs.wire.pgcopy.usable", lambda: False)
    make(pg, "create table k (code text primary key)", r"insert into k values (U&'\FEFFAB'), ('AB'), (U&'\FEFF')")
    assert run(pg, level=level, limits={"batch_rows": 1}).complete
    assert set(archives.rows(tmp_path / "archive", "k").column("code").to_pylist()) == {"\ufeffAB", "AB", "\ufeff"}


@pytest.mark.parametrize("native", [True, False], ids=["compiled", "driver"])
@pytest.mark.parametrize("rate", [0, 100_000], ids=["copy", "fetch"])
def test_every_way_of_reading_gives_the_same(
    pg: str, run: Run, monkeypatch: pytest.MonkeyPatch, native: bool, rate: int
) -> None:
    """With and without the compiled part, with and without a pace; poison in one column leaves the others as they are."""
    monkeypatch.setattr("jivs.wire.pgcopy.usable", (lambda: True) if native else (lambda: False))
    make(pg, "create table t (a time, b date, c bool, d numeric(5,2), e bytea, f timestamptz, g float4, h text)",
         "insert into t values ('10:00', 'infinity', null, 'NaN', '\\x00', '2020-01-01 00:00+00', 'NaN', null)",
         "insert into t values ('24:00', '0044-03-15 BC', null, 1.5, null, 'infinity', '-0', '')",
         "create table n (b bool)", "insert into n values (null), (null)")  # fmt: skip
    outcome = run(pg, limits={"rows_per_second": rate})
    assert outcome.complete, outcome.tables


def test_with_one_connection_the_snapshot_cannot_be_replaced_in_silence(pg: str, run: Run, tmp_path: Path) -> None:
    make(
        pg,
        "create table a (i int primary key, t text)",
        "insert into a select g, repeat('x', 500) from generate_series(1, 400) g",
    )
    done = []

    def cut(step: str) -> None:
        if step == "part recorded" and not done:
            done.append(step)
            make(pg, "update a set i = -1 where i = 1", "update a set i = 1 where i = 400",
                 "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'jivs'")  # fmt: skip

    with pytest.raises(TransientError, match="--resume"):
        run(pg, limits={"parallel": 1, "connections": 1}, partition_bytes=64 << 10, pause=cut)
    assert not list((tmp_path / "archive" / "manifests").glob("*"))


def test_tables_kept_from_a_lost_snapshot_do_not_claim_the_new_one(
    pg: str, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jivs.operations._small._TABLES", 1)
    make(pg, "create table a as select 1 as n", "create table b as select 1 as n")
    done = []

    def cut(step: str) -> None:
        if step == "table ended" and not done:
            done.append(step)
            make(pg, "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'jivs'")

    with pytest.raises(TransientError):
        run(pg, limits={"parallel": 1, "connections": 2}, pause=cut)
    outcome = run(pg, resume=True)
    assert outcome.complete
    assert not outcome.snapshot_one
    for name in "ab":
        assert archives.table(tmp_path / "archive", name)["verification"]["one_snapshot"] is False


def test_schemas_named_like_the_servers_own_are_taken(pg: str, run: Run) -> None:
    name = pg.rpartition("/")[2]
    make(pg, f'alter database "{name}" set standard_conforming_strings = off')
    make(pg, "create schema pgdata", "create table pgdata.t (i int)")
    assert [str(item.table) for item in run(pg).tables] == ["pgdata.t"]


def test_a_partitioned_table_granted_at_its_root_only(pg: str, run: Run) -> None:
    make(pg, "create table p (i int) partition by range (i)", "create table p1 partition of p for values from (0) to (10)",
         "insert into p values (1), (2)", "create role rooted login password 'pw'", "grant select on p to rooted")  # fmt: skip
    url = pg.replace(pg[pg.index("//") + 2 : pg.index("@")], "rooted:pw")
    outcome = run(url)
    assert outcome.complete
    assert outcome.tables[0].archived == 2
    make(pg, "drop owned by rooted", "drop role rooted")


def test_queries_with_a_comment_at_the_end_and_writing_ones(pg: str, run: Run) -> None:
    make(pg, "create table t as select 1 as a")
    assert run(pg, queries=(("q", "select a from t -- all of it"),)).complete
    with pytest.raises(UsageError):
        run(pg, queries=(("q", "with x as (delete from t returning a) select a from x"),))


def test_a_truncate_waits_for_a_query_that_has_not_begun(pg: str, run: Run) -> None:
    """Planning the query when the run begins locks what it reads."""
    import threading

    make(pg, "create table t as select g as a from generate_series(1, 50) g")
    threads = []

    def truncate(step: str) -> None:
        if step == "planned":
            threads.append(threading.Thread(target=make, args=(pg, "truncate t")))
            threads[0].start()
            threading.Event().wait(0.5)

    outcome = run(pg, queries=(("q", "select a from t"),), limits={"connections": 1}, pause=truncate)
    threads[0].join()
    assert outcome.tables[0].archived == 50


@pytest.mark.parametrize(
    ("encoding", "bad", "good"), [("WIN1252", rb"\x81", "ä€"), ("EUC_JP", rb"\xf9a1", "日本語")], ids=["WIN1252", "EUC_JP"]
)
@pytest.mark.parametrize("level", [Level.COUNT, Level.FULL])
def test_bytes_that_the_server_cannot_convert_are_quarantined(
    postgres: PostgresServer, run: Run, tmp_path: Path, encoding: str, bad: bytes, good: str, level: Level
) -> None:
    """One such value makes the server refuse the whole statement; the row stays, and so do all the others."""
    name = f"x{encoding.lower()}{level.value}"
    url = postgres.create(name, f"encoding '{encoding}' template template0 lc_collate 'C' lc_ctype 'C'")
    make(url, "create table t (id int primary key, a text, n numeric(5,2))",
         f"insert into t select 1, convert_from('{bad.decode()}'::bytea, '{encoding}'), 1.5")  # fmt: skip
    with psycopg.connect(url) as connection:
        connection.execute("insert into t select g, %s || g, 'NaN' from generate_series(2, 3000) g", (good,))
    outcome = run(url, level=level, partition_bytes=32 << 10)
    assert outcome.complete, outcome.tables
    rows = archives.rows(tmp_path / "archive", "t").sort_by("id").to_pylist()
    assert len(rows) == 3000
    assert rows[0]["a"] is None
    assert rows[1]["a"] == f"{good}2"
    assert any("decoded and hashed by this process" in note for note in archives.table(tmp_path / "archive", "t")["notes"])
    assert [entry["original"] for entry in archives.quarantine(tmp_path / "archive", "t") if entry["column"] == "a"] == [
        bytes.fromhex(bad.decode()[2:])
    ]
    if level is Level.FULL:
        assert not archives.verdict(tmp_path / "archive", source=url).source_differs
        assert archives.independent(tmp_path / "archive") == 0


@pytest.mark.parametrize("sslmode", ["disable", "require"])
def test_notices_of_the_server_are_no_obstacle(pg: str, run: Run, tmp_path: Path, sslmode: str) -> None:
    """Neither those that settings can keep away, nor the rest."""
    make(pg, "create function loud(i int) returns int language plpgsql as "
             "$$ begin set local client_min_messages = notice; raise notice 'row %: %', i, repeat('x', 500); return i; end $$")  # fmt: skip
    outcome = run(pg, queries=(("q", "select loud(g) as n from generate_series(1, 500) g"),), options={"sslmode": sslmode})
    assert outcome.complete
    assert sorted(archives.rows(tmp_path / "archive", "q").column("n").to_pylist()) == list(range(1, 501))


def test_a_broken_small_table_harms_no_other(pg: str, run: Run, tmp_path: Path) -> None:
    """Read together first, then one by one: the others are verified, and the broken one is named."""
    make(pg, *(f"create table t{n} as select {n} as n" for n in range(5)), "create table u (n int)", "insert into u values (0)",
         "create function broken() returns int language plpgsql volatile as $$ begin raise exception 'no'; end $$",
         "create view t2v as select broken() as n")  # fmt: skip
    outcome = run(pg, tables=("*",))
    assert not outcome.complete
    assert {item.table.name: item.verdict for item in outcome.tables} == {
        **{f"t{n}": "verified" for n in range(5)}, "u": "verified", "t2v": "failed",
    }  # fmt: skip


def test_parts_are_sized_with_what_rows_keep_aside(pg: str, run: Run, tmp_path: Path) -> None:
    """600 rows of 100 kB lie on a few pages of the table itself; as one part they could be resumed as a whole only."""
    make(pg, "create table t (id int, body text)", "alter table t alter body set storage external")
    make(pg, "insert into t select g, repeat('x', 100000) from generate_series(1, 600) g")
    outcome = run(pg, partition_bytes=16 << 20)
    assert outcome.complete
    parts = {segment["partition"] for segment in archives.table(tmp_path / "archive", "t")["segments"]}
    assert len(parts) >= 4


@pytest.mark.parametrize("sslmode", ["disable", "require"])
def test_the_server_has_no_connection_of_a_closed_session(app: App, pg: str, sslmode: str) -> None:
    address = app.address(f"{pg}?sslmode={sslmode}")
    with psycopg.connect(pg, autocommit=True) as watcher:
        watcher.execute("create table t as select g as id from generate_series(1, 5000) g")
        for _ in range(10):
            session = connectors.find(address).open(
                address, replace(app.limits, connections=3), Request(), Throttle(0, app.clock)
            )
            name = session.tables()[0].name
            session.begin([name])
            assert sum(chunk.batch.num_rows for chunk in session.read(session.describe(name), {})) == 5000
            session.close()
            others = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
            assert watcher.execute(others).fetchone() == (0,)
