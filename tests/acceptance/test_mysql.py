"""MariaDB: every type at its extremes, snapshots with and without the lock, key ranges."""

from __future__ import annotations

import struct
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from jivs import connectors
from jivs.domain.plan import Level
from jivs.errors import UnreachableError, UsageError
from jivs.ports.app import App
from jivs.ports.connector import Request
from jivs.testing.servers import PASSWORD, MariaServer, wait_for
from jivs.transfer.throttle import Throttle
from tests import archives
from tests.conftest import Run

CASES: list[tuple[str, list[str]]] = [
    ("tinyint", ["-128", "127"]),
    ("tinyint unsigned", ["255"]),
    ("smallint unsigned", ["65535"]),
    ("mediumint", ["-8388608", "8388607"]),
    ("int(8) zerofill", ["42"]),
    ("bigint", ["-9223372036854775808"]),
    ("bigint unsigned", ["18446744073709551615"]),
    ("float", ["0.1", "-1e-45", "3.4028235e38", "-1e-50"]),
    ("float(7,3)", ["0.1", "1234.567"]),
    ("double", ["5e-324", "-1.7976931348623157e308", "0.1", "2.2250738585072014e-308", "1e22"]),
    ("double(20,5)", ["-0.03178000000000003"]),
    ("decimal(65,30)", ["-99999999999999999999999999999999999.999999999999999999999999999999", "0"]),
    ("decimal(38,10)", ["-0.5", "9999999999999999999999999999.9999999999"]),
    ("decimal(10,2) zerofill", ["1.5"]),
    ("bit(64)", ["b'1111111111111111111111111111111111111111111111111111111111111111'", "b'1'"]),
    ("year", ["0", "1901", "2155"]),
    ("date", ["'0000-00-00'", "'2020-00-15'", "'2021-02-29'", "'0000-03-01'", "'0001-01-01'", "'9999-12-31'"]),
    ("datetime(6)", ["'0000-00-00 00:00:00'", "'2021-02-31 12:00:00.5'", "'9999-12-31 23:59:59.999999'", "'1969-12-31 23:59:59.9'"]),
    ("datetime(3)", ["'0000-00-00'", "'2020-01-01 00:00:00.123'"]),
    ("timestamp(6) null", ["0", "'1970-01-01 00:00:01.000001'", "'2038-01-19 03:14:07.999999'"]),
    ("time(6)", ["'-838:59:59.999999'", "'838:59:59.999999'", "'-00:00:00.000001'", "'24:00:00'"]),
    ("char(10)", ["'a  '", "''"]),
    ("varchar(3000)", ["''", "'N'", "repeat('ä😀', 500)", "'a\\0b'"]),
    ("longtext", ["repeat('x', 70000)"]),
    ("varchar(40) character set latin1", ["'äöü€'", "0x8190"]),
    ("varchar(40) character set latin1 collate latin1_german2_ci", ["'straße'", "'STRASSE '"]),
    ("varchar(40) character set sjis", ["'日本語'", "0x5C", "0x815F"]),
    ("varchar(40) character set ucs2", ["'日本語'", "''"]),
    ("varchar(40) character set utf16", ["'😀'"]),
    ("enum('a','é','')", ["'a'", "'é'", "''"]),
    ("set('x','y')", ["'x,y'", "''"]),
    ("json", ["'{\"a\": 1, \"a\":2}'"]),
    ("blob", ["''", "0x00ff", "repeat(0xab, 3000)"]),
    ("binary(5)", ["'ab'"]),
    ("varbinary(10)", ["0x00"]),
    ("geometry", ["ST_GeomFromText('POINT(1 2)', 4326)", "ST_GeomFromText('POLYGON((0 0,1 1,1 0,0 0))')"]),
    ("uuid", ["'00112233-4455-6677-8899-aabbccddeeff'"]),
    ("inet6", ["'::1'"]),
    ("bool", ["true", "false"]),
]  # fmt: skip


def make(maria: MariaServer, url: str, *statements: str) -> None:
    connection = maria.connect(url.rpartition("/")[2], charset="utf8mb4")
    with connection.cursor() as cursor:
        cursor.execute("set sql_mode = 'ALLOW_INVALID_DATES'")
        for statement in statements:
            cursor.execute(statement)
    connection.close()


def test_every_type_at_its_extremes(my: str, maria: MariaServer, run: Run, tmp_path: Path) -> None:
    """One table per type: the server's hash, the rows read and the files agree, by two verifiers."""
    for number, (type_, values) in enumerate(CASES):
        rows = ", ".join(f"({index}, {value})" for index, value in enumerate([*values, "null"]))
        make(maria, my, f"create table t{number} (id int primary key, v {type_})", f"insert into t{number} values {rows}")
    outcome = run(my)
    assert outcome.complete, [item for item in outcome.tables if item.verdict != "verified"]
    found = archives.verdict(tmp_path / "archive", source=my)
    assert found.sound
    assert not found.source_differs
    assert archives.independent(tmp_path / "archive") == 0


def _values(maria: MariaServer, run: Run, url: str, archive: Path, type_: str, *values: str) -> Any:
    rows = ", ".join(f"({index}, {value})" for index, value in enumerate(values))
    make(maria, url, f"create table v (id int primary key, v {type_})", f"insert into v values {rows}")
    assert run(url, tables=("v",)).complete
    return archives.rows(archive, "v").sort_by("id")


def test_floats_are_what_is_stored_not_what_is_printed(my: str, maria: MariaServer, run: Run, tmp_path: Path) -> None:
    """The server prints FLOAT with 6 digits and rounds DOUBLE(M,D): 0.1 as FLOAT is 0.100000001490116..."""
    found = _values(maria, run, my, tmp_path / "archive", "float", "0.1", "16777217", "-1e-50")
    assert [struct.pack(">f", value).hex() for value in found.column("v").to_pylist()] == [
        "3dcccccd",
        "4b800000",
        "80000000",
    ]


def test_zero_and_partial_dates_stand_beside_the_column(my: str, maria: MariaServer, run: Run, tmp_path: Path) -> None:
    found = _values(maria, run, my, tmp_path / "archive", "date", "'0000-00-00'", "'2020-00-15'", "'2020-01-01'", "null")
    assert [str(value) if value else None for value in found.column("v").to_pylist()] == [None, None, "2020-01-01", None]
    assert found.column("v__text").to_pylist() == ["0000-00-00", "2020-00-15", None, None]


def test_text_that_does_not_convert_is_quarantined_with_its_bytes(
    my: str, maria: MariaServer, run: Run, tmp_path: Path
) -> None:
    found = _values(maria, run, my, tmp_path / "archive", "varchar(9) character set sjis", "0x93FA8750", "'日本'")
    assert found.column("v").to_pylist() == [None, "日本"]
    assert [entry["original"] for entry in archives.quarantine(tmp_path / "archive", "v")] == [bytes.fromhex("93FA8750")]


def test_time_is_microseconds(my: str, maria: MariaServer, run: Run, tmp_path: Path) -> None:
    found = _values(maria, run, my, tmp_path / "archive", "time(6)", "'-838:59:59.999999'", "'-00:00:00.000001'")
    assert found.column("v").to_pylist() == [-3020399999999, -1]


def test_relations_names_and_columns(my: str, maria: MariaServer, run: Run, tmp_path: Path) -> None:
    make(
        maria, my,
        "create table `we``ird/ na.me\nÜ` (`A b` int, `ä` text)", "insert into `we``ird/ na.me\nÜ` values (1, 'x'), (1, 'x')",
        "create table g (a int, b int as (a * 2) virtual, c int as (a * 3) stored, d int invisible default 7)",
        "insert into g (a) values (1)", "create table empty (a int)", "create view v as select a from g",
        "create table mi (a int, b text) engine = myisam", "insert into mi values (1, 'x'), (null, null)",
        "create table hist (a int) with system versioning", "insert into hist values (1)", "update hist set a = 2",
    )  # fmt: skip
    outcome = run(my, tables=("*",))
    assert outcome.complete, outcome.tables
    archive = tmp_path / "archive"
    assert archives.rows(archive, "g").to_pylist() == [{"a": 1, "b": 2, "c": 3, "d": 7}]
    assert archives.table(archive, "mi")["verification"]["one_snapshot"] is False
    assert archives.table(archive, "mi")["notes"] == ["engine MyISAM ignores snapshots"]
    assert archives.table(archive, "g")["verification"]["one_snapshot"] is True
    assert archives.rows(archive, "empty").num_rows == 0
    assert archives.independent(archive) == 0


@pytest.mark.parametrize(("type_", "low"), [("bigint unsigned", 18446744073709548000), ("int", -1500), ("bigint", -(2**63))])
def test_key_ranges_tile_the_table(my: str, maria: MariaServer, run: Run, tmp_path: Path, type_: str, low: int) -> None:
    number = "seq" if low > 0 else "cast(seq as signed)"
    make(maria, my, f"create table t (id {type_} primary key, x varchar(400))",
         f"insert into t select {low} + {number}, repeat('x', 400) from seq_0_to_3000", "analyze table t")  # fmt: skip
    assert run(my, partition_bytes=64 << 10).complete
    table = archives.table(tmp_path / "archive", "t")
    assert len(table["segments"]) > 5
    assert table["totals"]["rows"] == 3001


def test_an_account_without_the_lock_reads_over_one_connection(
    my: str, maria: MariaServer, run: Run, tmp_path: Path
) -> None:
    database = my.rpartition("/")[2]
    make(maria, my, "create table t (a int)", "insert into t values (1)", f"create user plain identified by '{PASSWORD}'",
         f"grant select, show view on {database}.* to plain")  # fmt: skip
    outcome = run(maria.url(database, user="plain"))
    assert outcome.complete
    assert outcome.snapshot_one
    assert any("may not lock" in note and "one connection" in note for note in outcome.notes)
    outcome = run(maria.url(database, user="plain") + "?parallel_without_lock=true")
    assert not outcome.snapshot_one
    assert archives.table(tmp_path / "archive", "t")["verification"]["one_snapshot"] is False
    make(maria, my, "drop user plain")


def test_free_queries(my: str, maria: MariaServer, run: Run, tmp_path: Path) -> None:
    make(maria, my, "create table t (id int, a decimal(9,2), b varchar(9) character set latin1, c blob, d double)",
         "insert into t values (1, 1.5, 'ä', 0x00, 0.1), (2, null, null, null, null)")  # fmt: skip
    query = "select *, count(*) over () n, a + 1 s, now(6) t, concat(b, 'x') u from t;"
    assert run(my, queries=(("q", query.replace("now(6)", "timestamp'2020-01-01 00:00:00.5'")),)).complete
    assert archives.verdict(tmp_path / "archive", source=my).sound
    with pytest.raises(UsageError):
        run(my, queries=(("w", "delete from t"),))


def test_sessions_do_not_depend_on_global_settings(my: str, maria: MariaServer, run: Run) -> None:
    make(maria, my, "create table t (a char(5), b timestamp)", "insert into t values ('x', '2020-06-01 12:00:00')")
    make(maria, my, "set global sql_mode = 'PAD_CHAR_TO_FULL_LENGTH,ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PIPES_AS_CONCAT'",
         "set global time_zone = '+09:00'")  # fmt: skip
    try:
        assert run(my).complete
    finally:
        make(maria, my, "set global sql_mode = default", "set global time_zone = default")


def test_tls(my: str, maria: MariaServer, run: Run) -> None:
    """This server has no certificate: asked for, TLS is an error; preferred, it is done without."""
    make(maria, my, "create table t (a int)")
    assert run(my, level=Level.COUNT).complete
    for mode in ("required", "verify_ca", "verify_identity"):
        with pytest.raises(Exception, match="SSL"):
            run(f"{my}?ssl_mode={mode}")


def test_tls_is_verified_when_asked_for(run: Run, tmp_path: Path) -> None:
    """The encrypted way has a reader of its own: values of several packets, many rows, and a wrong certificate."""
    with MariaServer(tls=True) as server:
        with server.connect("mysql") as connection, connection.cursor() as cursor:
            cursor.execute("create database d")
            cursor.execute("create table d.t (id int primary key, body longtext)")
            cursor.execute("insert into d.t select seq, concat('row ', seq) from seq_1_to_30000")
            cursor.execute("insert into d.t values (0, repeat('ä', 10000000))")
        trusted = f"ssl_mode=verify_identity&ssl_ca={server.certificate}"
        outcomes = [
            run(f"{server.url('d')}?{options}", archive=tmp_path / options[:20])
            for options in (trusted, "ssl_mode=required", "ssl_mode=disabled")
        ]
        assert all(outcome.complete for outcome in outcomes)
        found = [archives.rows(tmp_path / folder, "t") for folder in (trusted[:20], "ssl_mode=disabled")]
        assert sorted(found[0].column("id").to_pylist()) == sorted(found[1].column("id").to_pylist()) == list(range(30001))
        with pytest.raises(Exception, match="certificate"):
            run(f"{server.url('d')}?ssl_mode=verify_ca&ssl_ca=/etc/ssl/certs/ca-certificates.crt")
        with pytest.raises(Exception, match="certificate"):
            run(f"{server.url('d')}?ssl_ca=/etc/ssl/certs/ca-certificates.crt")  # as MySQL's client has it
        assert run(f"{server.url('d')}?ssl_ca={server.certificate}", archive=tmp_path / "implied").complete


@pytest.mark.parametrize("given", ["", "&ssl_ca={}"])
def test_the_name_in_the_certificate_is_checked_whoever_is_trusted(
    app: App, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has a certificate of a trusted authority is not yet the server that was asked for."""
    with MariaServer(tls=True) as server:
        monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))  # the machine trusts it
        for mode, host, works in (
            ("verify_identity", "127.0.0.1", True),
            ("verify_ca", "elsewhere.invalid", True),
            ("verify_identity", "elsewhere.invalid", False),
        ):
            asked = app.address(f"{server.url('mysql')}?ssl_mode={mode}{given.format(server.certificate)}")
            address = replace(asked, host=host, pinned="127.0.0.1")
            session = connectors.find(address).open(address, app.limits, Request(), Throttle(0, app.clock))
            with nullcontext() if works else pytest.raises(UnreachableError, match="Hostname mismatch"):
                assert session.ping().version
            session.close()


@pytest.mark.parametrize(("options", "named"), [
    ("ssl_mode=verify_ca&ssl_ca=/nowhere", "ssl_ca, /nowhere, cannot be used: No such file"),
    ("ssl_mode=required&ssl_cert=/nowhere", "ssl_cert, /nowhere, cannot be used"),
    ("ssl_key=/nowhere", "with ssl_cert"), ("ssl_mode=preferred&ssl_ca=/nowhere", "ssl_mode=verify_ca or verify_identity"),
    ("ssl_mode=disabled&ssl_ca=/nowhere", "ssl_mode=verify_ca or verify_identity"),
])  # fmt: skip
def test_a_file_of_tls_that_cannot_be_used_is_named(my: str, run: Run, options: str, named: str) -> None:
    with pytest.raises(UsageError, match=named):
        run(f"{my}?{options}")


def test_what_a_snapshot_or_an_archive_does_not_hold_is_said(my: str, maria: MariaServer, run: Run, tmp_path: Path) -> None:
    make(maria, my, "create table h (a int) with system versioning", "insert into h values (1)", "update h set a = 2",
         "create table m (a int) engine = myisam", "create view v as select * from m")  # fmt: skip
    assert run(my, tables=("*",)).complete
    archive = tmp_path / "archive"
    assert "their history is not" in archives.table(archive, "h")["notes"][0]
    assert archives.table(archive, "h")["verification"]["one_snapshot"] is True
    assert archives.table(archive, "v")["verification"]["one_snapshot"] is False


def test_odd_defaults_and_keys(my: str, maria: MariaServer, run: Run) -> None:
    make(maria, my, "create table b (a varbinary(4) default x'ff')", "create table k (k time(6) primary key, s char(250))",
         "insert into k select sec_to_time(cast(seq as signed) - 300), 'x' from seq_1_to_2000", "analyze table k")  # fmt: skip
    assert run(my, partition_bytes=16 << 10).complete


KEYS = [
    ("int", "seq"), ("bigint unsigned", "18446744073709551615 - seq"), ("decimal(12,3)", "seq / 8"), ("date", "'2000-01-01' + interval seq day"),
    ("datetime(6)", "'2000-01-01' + interval seq microsecond"), ("timestamp(3)", "'2000-01-01' + interval seq second"),
    ("varchar(20)", "concat('É', seq, '\\'')"), ("char(9) character set latin1 collate latin1_german2_ci", "concat('ß', hex(seq))"),
    ("varchar(9) character set sjis", "concat('日', seq)"), ("varbinary(9)", "unhex(lpad(hex(seq), 6, '0'))"), ("time", "sec_to_time(seq)"),
    ("year", "1901 + seq % 250"), ("enum('b','a')", "1 + seq % 2"), ("double", "seq / 7"),
]  # fmt: skip


@pytest.mark.parametrize(("type_", "value"), KEYS, ids=[type_ for type_, _ in KEYS])
def test_a_pace_pages_by_any_key_without_losing_a_row(my: str, maria: MariaServer, run: Run, type_: str, value: str) -> None:
    """The key is that column and a number, so pages end inside runs of equal values, too."""
    make(maria, my, f"create table t (k {type_}, n int, v int, primary key (k, n))",
         f"insert into t select {value}, {'seq' if type_.startswith(('enum', 'year')) else 'seq % 7'}, seq from seq_1_to_240")  # fmt: skip
    outcome = run(my, limits={"rows_per_second": 3000, "batch_rows": 17, "parallel": 1})
    assert outcome.complete
    assert outcome.tables[0].archived == outcome.tables[0].source_rows > 1


def test_the_server_has_no_connection_of_a_closed_session(app: App, my: str, maria: MariaServer) -> None:
    address = app.address(my)
    watcher = maria.connect("mysql")
    with watcher.cursor() as cursor:
        cursor.execute(f"create table {address.database}.t as select seq as id from seq_1_to_5000")
        for _ in range(10):
            session = connectors.find(address).open(
                address, replace(app.limits, connections=3), Request(), Throttle(0, app.clock)
            )
            name = session.tables()[0].name
            session.begin([name])
            assert sum(chunk.batch.num_rows for chunk in session.read(session.describe(name), {})) == 5000
            session.close()

            def left() -> int:
                query = "select count(*) from information_schema.processlist where db = %s"
                cursor.execute(query, (address.database,))
                return int(cursor.fetchone()[0])  # type: ignore[index]

            wait_for(lambda: left() == 0, 10)  # the server notices a moment later
    watcher.close()
