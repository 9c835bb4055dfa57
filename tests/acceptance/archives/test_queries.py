"""Queries of archives over the REST API: every value as it is, in every form."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from urllib.parse import quote

import httpx
import psycopg
import pyarrow as pa

from jivs.testing.service import ServiceProcess
from tests.acceptance.archives.scene import (
    ODD,
    SECONDS,
    ask,
    extract,
    login,
    rows,
)


def test_a_query_gives_rows(admin: httpx.Client) -> None:
    answer = ask(
        admin, "select customer, count(*) as orders, sum(cents) as cents from orders group by 1 order by 1 limit 2;  -- x"
    )
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found["columns"] == [
        {"name": "customer", "type": "VARCHAR"}, {"name": "orders", "type": "BIGINT"}, {"name": "cents", "type": "HUGEINT"}
    ]  # fmt: skip
    assert found["rows"] == [["customer 0", 143, 7107100], ["customer 1", 143, 7121400]]
    assert found["truncated"] is False
    assert 0 < found["seconds"] < SECONDS
    assert answer.headers["JiVS-Manifest"] == "2"
    assert rows(admin, "select count(*) from main.orders", asOf=1) == [[3000]]
    assert rows(admin, "show tables") == [["empty"], ["orders"]]
    assert rows(admin, "select * from empty") == []
    limited = ask(admin, "select id from orders order by id desc", limit=3)
    assert limited.json()["rows"] == [[999], [998], [997]]
    assert (limited.json()["truncated"], limited.headers["JiVS-Truncated"], limited.headers["JiVS-Rows"]) == (
        True,
        "true",
        "3",
    )
    assert ask(admin, "select id from orders", limit=1000).json()["truncated"] is False
    most = ask(admin, "select * from range(20000)", limit=100_000).json()
    assert (len(most["rows"]), most["truncated"]) == (10_000, True)
    wide = ask(admin, "select repeat('x', 40000) from range(1000)").json()
    assert (len(wide["rows"]), wide["truncated"]) == ((32 << 20) // 40_006, True)
    for body in ({}, {"sql": ""}, {"sql": "select 1", "limit": -1}, {"sql": "select 1", "asOf": 0}, {"sql": "x" * 100_001},
                 {"sql": "select 1", "memory": 1}, {"sql": 7}, {"sql": "select '\ud800'"}):  # fmt: skip
        raw = json.dumps(body).encode()
        assert (
            admin.post("/archives/sales/query", content=raw, headers={"Content-Type": "application/json"}).status_code == 422
        )
    assert ask(admin, "select 1", asOf=7).status_code == 404
    assert ask(admin, "select 1", "nowhere").status_code == 404


def test_a_table_with_an_odd_name_is_a_table(admin: httpx.Client) -> None:
    assert rows(admin, f"select a from {ODD}", "other") == [[7]]
    path = next(
        file["path"] for file in admin.get("/archives/other/files").json()["items"] if "%c3%b6" in file["path"].lower()
    )
    assert admin.get(f"/archives/other/files/{quote(path)}").status_code == 200


EXACT = [
    ("9007199254740991", 2**53 - 1), ("9007199254740992", str(2**53)), ("-9007199254740993::bigint", str(-(2**53) - 1)),
    ("18446744073709551615::ubigint", str(2**64 - 1)), ("(2::hugeint ** 0)::hugeint", 1),
    ("170141183460469231731687303715884105727::hugeint", str(2**127 - 1)), ("0.1::decimal(38,20)", "0.10000000000000000000"),
    ("-12345678901234567890.123456789::decimal(38,9)", "-12345678901234567890.123456789"), ("0.1::double", 0.1), ("1e300::double", 1e300),
    ("0.1::float", 0.10000000149011612), ("'nan'::double", "NaN"), ("'inf'::double", "Infinity"), ("'-inf'::float", "-Infinity"),
    ("'\\x00\\xFF'::blob", "AP8="), ("date '290000-12-31'", "290000-12-31"), ("date '0044-03-15 (BC)'", "0044-03-15 (BC)"),
    ("'infinity'::date", "infinity"), ("timestamp '294246-12-31 23:59:59.999999'", "294246-12-31 23:59:59.999999"),
    ("timestamptz '2020-02-29 12:00:00.000001+02'", "2020-02-29 10:00:00.000001+00"), ("time '23:59:59.999999'", "23:59:59.999999"),
    ("timestamp_ns '2020-01-01 00:00:00.123456789'", "2020-01-01 00:00:00.123456789"), ("interval '1 month 2 days 3 microseconds'", "1 month 2 days 00:00:00.000003"),
    ("null", None), ("true", True), ("''", ""), ("'ä€😀\n\"'", 'ä€😀\n"'), ("'6f6e6500-0000-0000-0000-000000000001'::uuid", "6f6e6500-0000-0000-0000-000000000001"),
    ("[1, 9007199254740993]", [1, "9007199254740993"]), ("{'a': 1.10::decimal(4,2), 'b': [date '99999-01-01', null]}", {"a": "1.10", "b": ["99999-01-01", None]}),
    ("map {'a': 1}", "{a=1}"), ("'101'::bit", "101"), ("[1, 2]::int[2]", [1, 2]), ("'a'::enum('a', 'b')", "a"), ("[{'x': 'inf'::double}]", [{"x": "Infinity"}]),
]  # fmt: skip


def test_no_value_is_rounded(admin: httpx.Client) -> None:
    found = rows(admin, "select " + ", ".join(sql for sql, _ in EXACT))[0]
    for (sql, expected), value in zip(EXACT, found, strict=True):
        assert (value, type(value)) == (expected, type(expected)), sql


def test_values_of_a_source_come_back_as_they_were(pg: str, tmp_path: Path) -> None:
    with psycopg.connect(pg, autocommit=True) as connection:
        connection.execute(
            "create schema s; create table s.t (a bigint, b numeric(30,10), c timestamptz, d date, e bytea, f float8)"
        )
        connection.execute(
            "insert into s.t values (9223372036854775807, 12345678901234567890.0123456789, '4713-01-01 00:00:00+00 BC', '5874897-12-31', "
            "'\\x00ff', 'NaN'), (-1, -0.0000000001, 'infinity', '2020-01-01', '', '-Infinity')"
        )
    (tmp_path / "shelf").mkdir()
    extract(f"{pg}?sslmode=disable", tmp_path / "shelf" / "exact")
    with (
        ServiceProcess(tmp_path / "state", STORAGE_LOCAL_PATH=str(tmp_path / "shelf")) as running,
        login(running, "admin", running.password) as client,
    ):
        found = rows(client, "select a, b, c, c__text, d, e, f from s.t order by a desc", "exact")
        assert found == [
            ["9223372036854775807", "12345678901234567890.0123456789", "4713-01-01 (BC) 00:00:00+00", None, "5874897-12-31", "AP8=", "NaN"],
            [-1, "-0.0000000001", None, "infinity", "2020-01-01", "", "-Infinity"],
        ]  # fmt: skip


def test_results_as_csv_and_arrow(admin: httpx.Client) -> None:
    sql = "select 1 as a, null as \"b,\", '' as c, 'x\"y\n,' as d, 170141183460469231731687303715884105727::hugeint as e, [1.5] as f, true as g"
    answer = admin.post("/archives/sales/query", json={"sql": sql}, headers={"Accept": "text/csv"})
    assert answer.headers["Content-Type"].startswith("text/csv")
    assert answer.text.splitlines()[1].startswith('1,,"",')
    assert list(csv.reader(io.StringIO(answer.text, newline=""))) == [
        ["a", "b,", "c", "d", "e", "f", "g"], ["1", "", "", 'x"y\n,', str(2**127 - 1), '["1.5"]', "true"]
    ]  # fmt: skip
    kind = "application/vnd.apache.arrow.stream"
    sql = "select id, date '290000-01-01' as d, 1.5::decimal(9,2) as e, 2::hugeint ** 0 as f, 5::hugeint as g from orders"
    answer = admin.post("/archives/sales/query", json={"sql": sql, "limit": 700}, headers={"Accept": kind})
    assert (answer.status_code, answer.headers["Content-Type"]) == (200, kind), answer.text
    table = pa.ipc.open_stream(answer.content).read_all()
    assert (table.num_rows, answer.headers["JiVS-Truncated"]) == (700, "true")
    assert [str(table.schema.field(name).type) for name in ("id", "d", "e", "g")] == [
        "int64",
        "date32[day]",
        "decimal128(9, 2)",
        "string",
    ]
    for sql, problem in (
        ("select error('x')", "refused"), ("select case when range = 70000 then error('late') else range end from range(100000) offset 69000", "refused"),
        ("select customer::int from orders", "refused"), ("select repeat('x', 10000000) from range(1000)", "over-limit"), ("from read_text('/etc/passwd')", "refused"),
    ):  # fmt: skip
        answer = admin.post("/archives/sales/query", json={"sql": sql}, headers={"Accept": kind})
        assert (answer.status_code, answer.json()["type"]) == (422, f"urn:jivs:problem:{problem}"), answer.text
    for given, status in (("image/png", 406), ("image/png, */*;q=0.1", 200), ("text/*", 200), ("", 200), ("x" * 5000, 406)):
        assert (
            admin.post("/archives/sales/query", json={"sql": "select 1"}, headers={"Accept": given}).status_code == status
        ), given
