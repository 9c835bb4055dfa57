"""Archives over the REST API: listed, proved, queried by strangers, downloaded; nothing else of the machine is reached."""

from __future__ import annotations

import csv
import ctypes
import hashlib
import io
import json
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import psycopg
import pyarrow as pa
import pytest

import jivs
from jivs.api.downloads import attachment
from jivs.domain.access import Role
from jivs.testing.service import ServiceProcess

PASSWORD = "seven brown foxes dig"
CANARY = "c4n4ry"
SECONDS = 30
ODD = '"Größe [1] %2e *?\'; ""x"""'


def extract(url: str, archive: Path, *more: str) -> None:
    command = [
        sys.executable,
        "-m",
        "jivs",
        "extract",
        url,
        "--to",
        str(archive),
        "--progress",
        "none",
        "--verify",
        "full",
        *more,
    ]
    environment = {**os.environ, "XDG_STATE_HOME": str(archive.parent.parent / "state")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Archives: sales (two states), other (a canary), large (one of many megabytes)."""
    folder = tmp_path_factory.mktemp("secret-place")
    shelf = folder / "shelf"
    shelf.mkdir()
    sales = folder / "sales.db"
    with sqlite3.connect(sales) as connection:
        connection.execute("create table orders (id integer primary key, customer text, cents integer)")
        connection.executemany(
            "insert into orders values (?, ?, ?)", ((n, f"customer {n % 7}", n * 100) for n in range(3000))
        )
        connection.execute("create table empty (a text)")
    extract(f"sqlite:///{sales}", shelf / "sales")
    with sqlite3.connect(sales) as connection:
        connection.execute("delete from orders where id >= 1000")
    extract(f"sqlite:///{sales}", shelf / "sales")
    with sqlite3.connect(folder / "other.db") as connection:
        connection.execute("create table hidden as select ? as word", (CANARY,))
        connection.execute(f"create table {ODD} as select 7 as a")
    extract(f"sqlite:///{folder / 'other.db'}", shelf / "other")
    with sqlite3.connect(folder / "large.db") as connection:
        connection.execute("create table noise (id integer primary key, bytes blob)")
        connection.executemany("insert into noise values (?, ?)", ((n, os.urandom(64 << 10)) for n in range(400)))
    extract(f"sqlite:///{folder / 'large.db'}", shelf / "large")
    for name in ("canary.txt", "canary.csv", "canary.json"):
        (folder / name).write_text(CANARY)
    (shelf / "sales" / "tmp").mkdir(exist_ok=True)
    (shelf / "sales" / "tmp" / "canary.parquet").write_text(CANARY)
    return shelf


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, shelf: Path) -> Iterator[ServiceProcess]:
    given = {
        "STORAGE_LOCAL_PATH": str(shelf),
        "JIVS_QUERY__SECONDS": str(SECONDS),
        "JIVS_QUERY__MEMORY": "256MiB",
        "JWT_SECRET": f"{CANARY} {'x' * 40}",
        "MY_PASSWORD": CANARY,
    }
    with ServiceProcess(tmp_path_factory.mktemp("service"), **given) as running:
        yield running


@contextmanager
def login(service: ServiceProcess, username: str, password: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"{service.url}/api/v1", timeout=60) as client:
        answer = client.post("/auth/login", json={"username": username, "password": password})
        assert answer.status_code == 200, answer.text
        client.headers["Authorization"] = f"Bearer {answer.json()['accessToken']}"
        yield client


@pytest.fixture(scope="module")
def admin(service: ServiceProcess) -> Iterator[httpx.Client]:
    with login(service, "admin", service.password) as client:
        yield client


def api_process(service: ServiceProcess) -> int:
    """The process that serves, a child of ``jivs serve``."""
    return next(
        number for number in children(service.process.pid) if b"\0jivs.api\0" in Path(f"/proc/{number}/cmdline").read_bytes()
    )


def children(process: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{process}/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has just ended
            found += [int(number) for number in (task / "children").read_text().split()]
    return found


def limit(process: int, name: str) -> str:
    limits = Path(f"/proc/{process}/limits").read_text().splitlines()
    return next(line for line in limits if line.startswith(name)).removeprefix(name).split()[0]


def memory(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) << 10


def open_files(process: int) -> list[str]:
    """All but connections and those of the catalog, of which there are as many as were needed at once."""
    found = []
    for entry in Path(f"/proc/{process}/fd").iterdir():
        with suppress(FileNotFoundError):
            found.append(str(entry.readlink()))
    return sorted(path for path in found if "catalog.db" not in path and not path.startswith("socket:"))


def until(true: Callable[[], bool], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def ask(client: httpx.Client, sql: str, name: str = "sales", **more: Any) -> httpx.Response:
    return client.post(f"/archives/{name}/query", json={"sql": sql, **more})


def rows(client: httpx.Client, sql: str, name: str = "sales", **more: Any) -> list[list[Any]]:
    answer = ask(client, sql, name, **more)
    assert answer.status_code == 200, answer.text
    return answer.json()["rows"]


def test_archives_are_listed_page_by_page(admin: httpx.Client, shelf: Path) -> None:
    (shelf / "no archive" / "manifests").mkdir(parents=True, exist_ok=True)
    (shelf / "empty").mkdir(exist_ok=True)
    seen, cursor = [], ""
    while cursor is not None:
        page = admin.get("/archives", params={"cursor": cursor, "limit": 2}).json()
        assert len(page["items"]) <= 2
        seen += page["items"]
        cursor = page["nextCursor"]
    assert [one["name"] for one in seen] == ["large", "other", "sales"]
    newest = seen[2]["newest"]
    raw = (shelf / "sales" / "manifests" / "00000002.json").read_bytes()
    assert (newest["number"], newest["tables"], newest["rows"]) == (2, 2, 1000)
    assert newest["sha256"] == hashlib.sha256(raw).hexdigest()
    assert newest["publishedAt"] == json.loads(raw)["created"]
    assert newest["bytes"] == sum(file["bytes"] for file in admin.get("/archives/sales/files").json()["items"])
    assert [one["name"] for one in admin.get("/archives", params={"name": "ALE"}).json()["items"]] == ["sales"]
    assert admin.get("/archives", params={"name": "%"}).json() == {"items": [], "nextCursor": None}


def test_a_damaged_manifest_is_named_and_hides_no_other_archive(admin: httpx.Client, shelf: Path) -> None:
    shutil.copytree(shelf / "other", shelf / "broken")
    (shelf / "broken" / "manifests" / "00000001.json").write_text('{"format_version": 1}')
    (shelf / "newer" / "manifests").mkdir(parents=True)
    (shelf / "newer" / "manifests" / "00000001.json").write_text('{"format_version": 9}')
    try:
        items = {one["name"]: one for one in admin.get("/archives").json()["items"]}
        assert items["broken"]["newest"] is None
        assert "damaged" in items["broken"]["error"]
        assert "upgrade" in items["newer"]["error"]
        assert items["sales"]["error"] == ""
        answers = [
            admin.get("/archives/broken"), admin.get("/archives/newer"), ask(admin, "select 1", "broken"),
            admin.post("/archives/broken/verify", json={}), admin.get("/archives/broken/files/README.txt"), admin.get("/archives"),
        ]  # fmt: skip
        assert [answer.status_code for answer in answers] == [409, 422, 409, 409, 409, 200]
        assert str(shelf) not in "".join(answer.text for answer in answers)
    finally:
        shutil.rmtree(shelf / "broken")
        shutil.rmtree(shelf / "newer")


def test_an_archive_shows_its_tables_and_their_proof(admin: httpx.Client) -> None:
    found = admin.get("/archives/sales").json()
    assert found["state"]["number"] == 2
    assert found["sources"]["sales"]["kind"] == "sqlite"
    tables = {table["name"]: table for table in found["tables"]}
    orders = tables["orders"]
    assert (orders["rows"], orders["level"], orders["verdict"], orders["rowsQuarantined"]) == (1000, "full", "verified", 0)
    assert [(column["name"], column["type"]) for column in orders["columns"]] == [
        ("id", "int64"), ("customer", "text"), ("cents", "int64")
    ]  # fmt: skip
    assert orders["primaryKey"] == ["id"]
    assert admin.get("/archives/sales", params={"number": 1}).json()["state"]["rows"] == 3000
    first = admin.get("/archives/sales", params={"limit": 1}).json()
    rest = admin.get("/archives/sales", params={"limit": 1, "cursor": first["nextCursor"]}).json()
    assert [table["name"] for one in (first, rest) for table in one["tables"]] == ["empty", "orders"]
    assert rest["nextCursor"] is None
    for path, status in (
        ("/archives/nowhere", 404), ("/archives/sales?number=3", 404), ("/archives/sales?number=0", 422), ("/archives/..", 404),
        ("/archives/%2e%2e", 422), ("/archives/.hidden", 422), ("/archives/a%2Fb", 404), ("/archives/empty", 404),
        (f"/archives/{'x' * 101}", 422), ("/archives/sales%00", 422), ("/archives/sales?cursor=-1", 422), ("/archives/sales%0a", 422),
    ):  # fmt: skip
        assert admin.get(path).status_code == status, path


def test_a_manifest_comes_byte_for_byte_with_its_hash(admin: httpx.Client, shelf: Path) -> None:
    for number in (1, 2):
        raw = (shelf / "sales" / "manifests" / f"{number:08d}.json").read_bytes()
        answer = admin.get("/archives/sales/manifest", params={"number": number})
        assert answer.content == raw
        assert answer.headers["ETag"] == f'"{hashlib.sha256(raw).hexdigest()}"'
    tag = answer.headers["ETag"]
    assert admin.get("/archives/sales/manifest").headers["ETag"] == tag
    for given, status in ((tag, 304), (f'"x", W/{tag}', 304), ("*", 304), ('"x"', 200), (tag.strip('"'), 200)):
        assert admin.get("/archives/sales/manifest", headers={"If-None-Match": given}).status_code == status, given
    chain = admin.get("/archives/sales/manifests").json()["items"]
    assert [one["number"] for one in chain] == [2, 1]
    assert chain[0]["previous"] == chain[1]["sha256"]
    page = admin.get("/archives/sales/manifests", params={"limit": 1}).json()
    assert page["nextCursor"] == 2
    assert admin.get("/archives/sales/manifests", params={"cursor": 2}).json()["items"] == chain[1:]


def test_a_flipped_byte_is_found(admin: httpx.Client, shelf: Path) -> None:
    noted = admin.get("/archives/sales").json()["state"]["sha256"]
    for level in ("files", "count", "full"):
        sound = admin.post("/archives/sales/verify", json={"level": level, "expect": noted}).json()
        assert (sound["sound"], sound["findings"], sound["level"]) == (True, [], level), sound
    forged = admin.post("/archives/sales/verify", json={"expect": "0" * 64}).json()
    assert [finding["code"] for finding in forged["findings"]] == ["manifest-forged"]
    path = next(file["path"] for file in admin.get("/archives/sales/files").json()["items"] if "orders" in file["path"])
    segment = shelf / "sales" / path
    before = segment.read_bytes()
    segment.write_bytes(before[:100] + bytes([before[100] ^ 1]) + before[101:])
    try:
        for level in ("files", "full"):
            found = admin.post("/archives/sales/verify", json={"level": level}).json()
            assert not found["sound"]
            assert [(finding["code"], finding["object"]) for finding in found["findings"]] == [("changed", path)]
            assert found["found"] == 1
    finally:
        segment.write_bytes(before)
    assert admin.post("/archives/sales/verify", json={}).json()["sound"]
    for body in ({"level": "deep"}, {"expect": "x"}, {"source": "sqlite:////etc/passwd"}, []):
        assert admin.post("/archives/sales/verify", json=body).status_code == 422
    assert admin.post("/archives/nowhere/verify", json={}).status_code == 404


def test_a_verification_without_end_is_ended(tmp_path: Path, shelf: Path) -> None:
    shutil.copytree(shelf / "other", tmp_path / "shelf" / "stuck")
    (tmp_path / "shelf" / "stuck" / "runs" / "20200101-x").mkdir(parents=True)
    os.mkfifo(tmp_path / "shelf" / "stuck" / "runs" / "20200101-x" / "open.json")
    given = {"JIVS_VERIFICATION__SECONDS": "3", "JIVS_VERIFICATION__CONCURRENT": "1"}
    with (
        ServiceProcess(tmp_path / "state", STORAGE_LOCAL_PATH=str(tmp_path / "shelf"), **given) as running,
        login(running, "admin", running.password) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        process = api_process(running)
        first = pool.submit(client.post, "/archives/stuck/verify", json={})
        until(lambda: bool(children(process)))
        began = time.monotonic()
        busy = client.post("/archives/stuck/verify", json={})
        assert busy.status_code == 429
        assert int(busy.headers["Retry-After"]) > 0
        assert time.monotonic() - began < 2
        ended = first.result()
        assert ended.status_code == 422
        assert ended.json()["type"] == "urn:jivs:problem:over-limit"
        assert "jivs verify" in ended.json()["detail"]
        assert children(process) == []
        with pytest.raises(httpx.ReadTimeout):
            client.post("/archives/stuck/verify", json={}, timeout=0.5)
        until(lambda: children(process) == [], 2)
        outcomes = [
            entry["detail"]["outcome"] for entry in client.get("/audit", params={"object": "archive:stuck"}).json()["items"]
        ]
        assert outcomes == ["over limit", "over limit"]


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


REFUSED = [
    "select * from read_csv('/etc/passwd')", "select * from read_text('{canary}.txt')", "from read_csv('{canary}.csv')", "from '{canary}.csv'",
    "from read_json('{canary}.json')", "from read_blob('{canary}*')", "select * from glob('{canary}*')", "from glob('/*')", "from sniff_csv('{canary}.csv')",
    "from read_text('/proc/self/environ')", "from read_text('/proc/self/cmdline')", "from read_blob('/proc/self/fd/0')", "from read_text('/proc/self/maps')",
    "from read_parquet('{shelf}/other/data/*/*/*.parquet')", "from read_parquet('{other}')", "from parquet_metadata('{other}')", "from parquet_schema('{other}')",
    "from parquet_kv_metadata('{other}')", "from parquet_file_metadata('{other}')", "from parquet_bloom_probe('{other}', 'word', 'x')",
    "from read_parquet('archive://tmp/canary.parquet')", "from read_text('archive://SHA256SUMS')", "from read_text('archive://../other/SHA256SUMS')",
    "from glob('archive://*')", "from read_text('archive://data/../../../canary.txt')", "from read_text('archive://{canary}.txt')", "from read_text('file://{canary}.txt')", "from read_text('SHA256SUMS')",
    "from read_parquet('data/../../other/data/*/*/*.parquet')", "from read_duckdb('{canary}.txt')", "from read_text('https://127.0.0.1:1/x')",
    "from read_csv('s3://bucket/x')", "from read_csv('/dev/stdin')", "copy orders to '{canary}.out'", "copy (select 1) to '/dev/stdout'",
    "attach '{canary}.txt' as x", "attach 'postgres:dbname=x' as x (type postgres)", "detach memory", "install httpfs", "load httpfs", "force install httpfs",
    "update extensions", "set enable_external_access = true", "set lock_configuration = false", "set threads = 100", "set memory_limit = '100GB'", "reset all",
    "pragma database_list", "pragma enable_logging", "call enable_logging()", "from enable_logging(storage = 'file', storage_path = '{canary}.log')",
    "export database '{canary}'", "import database '{canary}'", "create table x as select 1", "create view x as select 1", "create macro f(x) as x",
    "create secret (type s3)", "create persistent secret x (type s3)", "drop view orders", "insert into orders values (1)", "delete from orders", "update orders set id = 1",
    "alter view orders rename to x", "select 1; select 2", "select 1; copy orders to '{canary}.out'", "begin", "vacuum", "checkpoint", "prepare x as select 1",
    "execute x", "use main", "explain select 1", "explain analyze select 1", "selec", "select", "", ";", "-- nothing", "select $1", "select ?", "select 1 /*",
    "select getenv('MY_PASSWORD')", "select * from nope", "from other.hidden", "from hidden", "from job", "from engine", "from sys", "from query_table('hidden')",
    "from query_table(['orders', '{other}'])", "from query('from read_text(''{canary}.txt'')')", "from query('copy orders to ''{canary}.out''')",
    "from query_table('{canary}.csv')", "from json_execute_serialized_sql(json_serialize_sql('from read_text(''{canary}.txt'')'))",
    "from duckdb_extensions()", "select * from orders where id = (from read_text('{canary}.txt'))", "select error('x')",
    "with x as materialized (from read_csv('{canary}.csv')) from x", "select (select content from read_text('{canary}.txt'))", "pivot orders on customer",
    "select 'a'::int", "select 1 // 0 + 'x'", "from pandas_scan(1)", "from arrow_scan(1::bigint, 2::bigint, 3::bigint)", "from python_map_function(1)", "select \x00",
    "from read_parquet(['{other}', '{other}'], encryption_config = {{footer_key: 'x'}})", "select * from read_csv(getvariable('x'))",
    "set variable x = 1", "comment on view orders is 'x'", "select nextval('x')", "from force_checkpoint('memory')", "summarize read_text('{canary}.txt')",
    "describe from '{canary}.csv'", "from create_external_resource('x')",
]  # fmt: skip
HARMLESS = [
    "from which_secret('{canary}', 's3')", "from duckdb_secrets()", "from enable_profiling()", "from pg_settings", "show allowed_paths", "show all", "show variables", "from duckdb_external_file_cache()",
    "from duckdb_settings()", "select * from duckdb_settings() where name in ('allowed_paths', 'secret_directory', 'home_directory', 'temp_directory')",
    "from duckdb_views()", "from duckdb_databases()", "select sql from sqlite_master", "from duckdb_functions()", "from information_schema.tables", "show all tables",
    "select current_setting('allowed_paths')", "select current_setting('temp_directory')", "from duckdb_logs()", "from pragma_database_size()", "describe orders",
    "from duckdb_temporary_files()", "from duckdb_memory()", "from duckdb_variables()", "from query('from orders')", "from query_table('orders')", "summarize orders",
    "from pragma_version()", "from duckdb_log_contexts()", "from pragma_user_agent()", "select version(), current_database(), current_user",
    "select md5(repeat('x', 1000000)), now(), uuid()", "from parquet_metadata('archive://{mine}')", "from read_parquet('archive://{mine}', filename = true)",
]  # fmt: skip
"""What runs, and tells nothing of the machine or of others."""


def test_hostile_queries_are_refused_and_tell_nothing(admin: httpx.Client, service: ServiceProcess, shelf: Path) -> None:
    names = {
        "canary": str(shelf.parent / "canary"), "shelf": str(shelf), "other": str(next((shelf / "other" / "data").rglob("*.parquet"))),
        "mine": next(file["path"] for file in admin.get("/archives/sales/files").json()["items"] if "orders" in file["path"]),
    }  # fmt: skip
    before = sorted(path for path in shelf.parent.rglob("*"))
    texts = [sql.format(**names) for sql in (*REFUSED, *HARMLESS)]
    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(lambda text: ask(admin, text), texts))
    for sql, text, answer in zip(REFUSED, texts, answers, strict=False):
        assert answer.status_code == 422, (sql, answer.text[:300])
        assert answer.json()["type"] in {"urn:jivs:problem:refused", "urn:jivs:problem:invalid"}, (sql, answer.text)
        tells_nothing(answer, sql, text, service, shelf)
    for sql, text, answer in zip(HARMLESS, texts[len(REFUSED) :], answers[len(REFUSED) :], strict=True):
        assert answer.status_code in {200, 422}, (sql, answer.text[:300])
        tells_nothing(answer, sql, text, service, shelf)
    assert sorted(path for path in shelf.parent.rglob("*")) == before


def tells_nothing(answer: httpx.Response, sql: str, text: str, service: ServiceProcess, shelf: Path) -> None:
    """No canary, and no place that the client did not name itself."""
    assert CANARY not in answer.text.replace(text, ""), sql
    for place in (
        str(shelf.parent),
        str(service.state),
        str(Path.home()),
        sys.prefix,
        str(Path(jivs.__file__).parent),
        "Traceback",
        "root:x:0",
        "secret-place",
        "pytest",
    ):
        assert place in text or place not in answer.text, (sql, place, answer.text[:500])


BOMBS = [
    "select count(*) from range(10000000) a, range(10000000) b", "with recursive t(n) as (select 1 union all select n + 1 from t) select count(*) from t",
    "with recursive t(n) as (select 1 union all select n + 1 from t) select max(n) from t", "select approx_quantile(range, 0.5) from range(10000000000)",
    "select sum(length(md5(range::varchar))) from range(10000000000)", "select count(*) from orders a, orders b, orders c, orders d, orders e",
    "with recursive t(n) as (select 'x' union all select n || n from t) select max(n) from t", "select repeat('x', 1000000000)", "select repeat('x', 4000000000)",
    "select repeat('x', 100000000) from range(100)", "select list(range) from range(1000000000)", "select string_agg(repeat('x', 1000), '') from range(10000000)",
    "select range(1000000000)", "select unnest(range(1000000000))", "select list_transform(range(100000000), lambda x: repeat('y', 100))",
    "select list_reduce(range(100000000), lambda a, b: a + b)", "select repeat([1], 1000000000)", "select list_resize([1], 1000000000)",
    "select * from range(10000000000) order by hash(range)", "select count(distinct range) from range(10000000000)", "select lpad('', 1000000000, 'x')",
    "select json_group_array(range) from range(1000000000)", "select histogram(range) from range(1000000000)", "select format('{:1000000000}', 1)",
    "select printf('%1000000000d', 1)", "select string_split(repeat(',', 100000000), ',')", "select bitstring('1', 2000000000)", "select map_from_entries(list((range, range))) from range(100000000)",
    "from query('select ' || repeat('1,', 10000000) || '1')", "from query(repeat('(', 10000000) || 'select 1' || repeat(')', 10000000))",
    "select * from range(100000000) a join range(100000000) b on a.range = b.range", "select regexp_replace(repeat('a', 10000000), 'a', repeat('b', 1000), 'g')",
    "select array_agg(a) over (order by range) from (select range, repeat('x', 100) a from range(10000000))", "select " + "(" * 40_000 + "1" + ")" * 40_000,
    "select " + "-" * 1 + " -".join(["1"] * 30_000), "select " + "[" * 40_000 + "]" * 40_000, "select " + "not " * 20_000 + "true", "select " + " + ".join(["1"] * 30_000),
    "select " + "case when true then " * 4_000 + "1" + " end" * 4_000, "select " + "abs(" * 20_000 + "1" + ")" * 20_000, "select 1 " + "union all select 1 " * 5_000,
    "select * from " + "(select * from " * 5_000 + "orders" + ")" * 5_000, "with " + ", ".join(f"a{n} as (select * from a{n - 1}, a{n - 1} x)" if n else "a0 as (select 1)" for n in range(40)) + " select count(*) from a39",
    "select json('" + "[" * 40_000 + "')", "select json_extract(repeat('[', 10000000) || repeat(']', 10000000), '$[0]')",
    "select " + ", ".join(["repeat('x', 50000000)"] * 50), "select x.* from (select " + ", ".join(f"{n} as a{n}" for n in range(5_000)) + ") x, range(10000)",
]  # fmt: skip


LIMITED = {"urn:jivs:problem:over-limit", "urn:jivs:problem:refused", "urn:jivs:problem:invalid"}


def test_bombs_go_off_in_their_own_process(tmp_path: Path, shelf: Path) -> None:
    given = {"JIVS_QUERY__SECONDS": "2", "JIVS_QUERY__MEMORY": "256MiB", "STORAGE_LOCAL_PATH": str(shelf)}
    with ServiceProcess(tmp_path, **given) as running, login(running, "admin", running.password) as client:
        process = api_process(running)
        with ThreadPoolExecutor(2) as pool:
            assert {answer.status_code for answer in pool.map(lambda sql: ask(client, sql), ["select 1"] * 4)} == {200}
            time.sleep(0.5)  # the files of answers are closed behind them
            before, files = memory(process), open_files(process)
            for sql, answer in zip(BOMBS, pool.map(lambda sql: ask(client, sql), BOMBS), strict=True):
                assert answer.status_code == 422, (sql[:100], answer.text[:300])
                assert answer.json()["type"] in LIMITED, (sql[:100], answer.text[:300])
                assert answer.elapsed.total_seconds() < 4, sql[:100]
                assert len(answer.json()["detail"]) < 3_000, sql[:100]
        assert children(process) == []
        assert rows(client, "select count(*) from orders") == [[1000]]
        until(lambda: len(open_files(process)) <= len(files))
        assert memory(process) < before + (40 << 20)
        for sql in (BOMBS[0], BOMBS[7]):
            assert ask(client, sql).json()["type"] == "urn:jivs:problem:over-limit"


def test_only_so_many_queries_at_once_and_none_for_who_has_left(admin: httpx.Client, service: ServiceProcess) -> None:
    process = api_process(service)

    def wait_and_leave() -> None:
        with pytest.raises(httpx.ReadTimeout):
            admin.post("/archives/sales/query", json={"sql": BOMBS[0]}, timeout=3)

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(wait_and_leave) for _ in range(2)]
        until(lambda: len(children(process)) == 2)
        busy = ask(admin, "select 1")
        assert (busy.status_code, busy.json()["type"]) == (429, "urn:jivs:problem:too-many-requests")
        assert int(busy.headers["Retry-After"]) > 0
        assert admin.get("/archives/sales").status_code == 200
        for one in running:
            one.result()
    until(lambda: children(process) == [], 2)
    assert rows(admin, "select 1") == [[1]]


def test_a_query_whose_process_dies_harms_nobody(admin: httpx.Client, service: ServiceProcess) -> None:
    process = api_process(service)
    for number in (signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT):
        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(ask, admin, BOMBS[0])
            until(lambda: bool(children(process)))
            time.sleep(0.5)
            os.kill(children(process)[0], number)
            answer = running.result()
        assert (answer.status_code, answer.json()["type"]) == (422, "urn:jivs:problem:over-limit"), answer.text
    assert rows(admin, "select 1") == [[1]]


def test_the_process_of_a_query_knows_no_secret_and_has_its_limits(admin: httpx.Client, service: ServiceProcess) -> None:
    process = api_process(service)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask, admin, BOMBS[0])
        until(lambda: bool(children(process)))
        child = children(process)[0]
        until(lambda: limit(child, "Max file size") != "unlimited")
        environment = Path(f"/proc/{child}/environ").read_bytes()
        assert CANARY.encode() not in environment
        assert {one.split(b"=")[0] for one in environment.split(b"\0") if one} <= {
            b"PYTHONPATH",
            b"LD_LIBRARY_PATH",
            b"PYTHONHOME",
            b"LC_CTYPE",
        }
        assert limit(child, "Max data size") == str(256 << 20)
        assert limit(child, "Max core file size") == "0"
        assert int(limit(child, "Max cpu time")) <= 2 * SECONDS + 1
        assert int(limit(child, "Max file size")) <= 64 << 20
        os.kill(child, signal.SIGKILL)
        running.result()
    assert not Path(f"/proc/{child}").exists()


def test_the_cage_holds_what_the_engine_might_let_through(tmp_path: Path) -> None:
    """Where the kernel has Landlock, no file is opened but those below one folder, whatever the engine thinks."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").write_text("mine")
    (tmp_path / "secret").write_text(CANARY)
    (tmp_path / "data" / "link").symlink_to(tmp_path / "secret")
    code = """
import os, socket, sys
from jivs.api import cage
folder = sys.argv[1]
held = cage.confine(folder + "/data")
def fails(act):
    try:
        act()
    except OSError as error:
        return True
    return not held
assert open(folder + "/data/x").read() == "mine"
for act in (lambda: open(folder + "/secret"), lambda: open(folder + "/data/link"), lambda: open("/etc/passwd"), lambda: open("/proc/self/environ"),
            lambda: open(folder + "/data/x", "w"), lambda: open(folder + "/new", "w"), lambda: os.listdir(folder), lambda: os.unlink(folder + "/data/x"),
            lambda: socket.create_connection(("127.0.0.1", int(sys.argv[2]))), lambda: os.kill(os.getppid(), 0)):
    assert fails(act), act
print(held)
"""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-c", code, str(tmp_path), str(listener.getsockname()[1])]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    version = ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint32(1)) if sys.platform == "linux" else -1
    assert done.stdout.strip() == str(version > 0), "the kernel has Landlock, but it was not used"


def test_every_file_of_a_state_can_be_downloaded_and_proves_itself(admin: httpx.Client, tmp_path: Path, shelf: Path) -> None:
    listed, cursor = [], ""
    while cursor is not None:
        page = admin.get("/archives/sales/files", params={"limit": 2, "cursor": cursor}).json()
        listed += page["items"]
        cursor = page["nextCursor"]
    assert [file["path"] for file in listed] == sorted(file["path"] for file in listed)
    assert {file["path"] for file in listed} == {
        line.split("  ")[1] for line in (shelf / "sales" / "SHA256SUMS").read_text().splitlines() if "manifests/" not in line
    }
    for file in listed:
        answer = admin.get(f"/archives/sales/files/{quote(file['path'])}")
        assert answer.status_code == 200, answer.text
        assert hashlib.sha256(answer.content).hexdigest() == file["sha256"]
        assert (answer.headers["Content-Length"], answer.headers["ETag"]) == (str(file["bytes"]), f'"{file["sha256"]}"')
        assert answer.headers["Content-Disposition"].startswith(f'attachment; filename="{file["path"].rpartition("/")[2]}"')
    path = next(file["path"] for file in listed if "orders" in file["path"])
    assert admin.get(f"/archives/sales/files/{path}", params={"number": 1}).status_code == 404
    for bad in ("../other/SHA256SUMS", "..%2f..%2fetc/passwd", "%2e%2e/other/SHA256SUMS", "/etc/passwd", "runs/x", "tmp/canary.parquet", "SHA256SUMS",
                "manifests/00000001.json", f"%2e/{path}", f"data/%2e%2e/{path}", path.upper(), path + "%00", path + "/", "data", ""):  # fmt: skip
        answer = admin.get(f"/archives/sales/files/{bad}")
        assert answer.status_code in {404, 307} or answer.json().get("items"), (bad, answer.text)
        assert CANARY not in answer.text


def test_parts_of_a_file(admin: httpx.Client) -> None:
    file = next(
        one
        for one in admin.get("/archives/large/files").json()["items"]
        if "noise" in one["path"] and one["bytes"] > 1 << 20
    )
    path, size = f"/archives/large/files/{file['path']}", file["bytes"]
    whole = admin.get(path).content
    assert hashlib.sha256(whole).hexdigest() == file["sha256"]
    tag = f'"{file["sha256"]}"'
    for given, first, last in (
        ("bytes=0-0", 0, 0), ("bytes=100-1000099", 100, 1000099), ("bytes=-5", size - 5, size - 1), (f"bytes={size - 1}-", size - 1, size - 1),
        (f"bytes=5-{size * 9}", 5, size - 1), (f"bytes=-{size * 9}", 0, size - 1), ("Bytes = 1 - 2", 1, 2),
    ):  # fmt: skip
        answer = admin.get(path, headers={"Range": given})
        assert answer.status_code == 206, given
        assert answer.headers["Content-Range"] == f"bytes {first}-{last}/{size}"
        assert answer.content == whole[first : last + 1]
    for given in ("bytes=5-2", "bytes=-", "lines=1-2", "bytes=1-2,5-6", "bytes=a-b", "bytes=" + "9" * 100 + "-"):
        answer = admin.get(path, headers={"Range": given})
        assert (answer.status_code, len(answer.content)) == (200, size), given
    for given in (f"bytes={size}-", "bytes=-0", "bytes=999999999999-"):
        answer = admin.get(path, headers={"Range": given})
        assert (answer.status_code, answer.headers["Content-Range"]) == (416, f"bytes */{size}"), given
    assert admin.get(path, headers={"Range": "bytes=0-0", "If-Range": tag}).status_code == 206
    assert admin.get(path, headers={"Range": "bytes=0-0", "If-Range": '"x"'}).status_code == 200
    assert admin.get(path, headers={"If-None-Match": tag}).status_code == 304


def test_who_leaves_in_the_middle_leaves_nothing_open(admin: httpx.Client, service: ServiceProcess) -> None:
    file = max(admin.get("/archives/large/files").json()["items"], key=lambda one: one["bytes"])
    place, process = urlsplit(service.url), api_process(service)
    request = (
        f"GET /api/v1/archives/large/files/{quote(file['path'])} HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: {admin.headers['Authorization']}\r\n\r\n"
    ).encode()
    admin.get("/archives/large")
    before, most = open_files(process), memory(process)
    for _ in range(20):
        with socket.create_connection((place.hostname or "", place.port or 0), timeout=10) as connection:
            connection.sendall(request)
            assert b" 200 " in connection.recv(1000)
    until(lambda: len(open_files(process)) <= len(before))
    waiting = []
    for _ in range(10):  # clients that take nothing hold no more than what is on its way to them
        connection = socket.create_connection((place.hostname or "", place.port or 0), timeout=10)
        connection.sendall(request)
        waiting.append(connection)
    time.sleep(1)
    assert memory(process) < most + (40 << 20)
    assert admin.get("/archives").status_code == 200
    for connection in waiting:
        connection.close()
    until(lambda: len(open_files(process)) <= len(before))


def test_a_file_that_is_not_what_it_was_is_not_sent(admin: httpx.Client, service: ServiceProcess, shelf: Path) -> None:
    path = next(file["path"] for file in admin.get("/archives/sales/files").json()["items"] if "orders" in file["path"])
    segment = shelf / "sales" / path
    before = segment.read_bytes()
    try:
        for change in (lambda: segment.write_bytes(before[:-1]), segment.unlink):
            change()
            answer = admin.get(f"/archives/sales/files/{path}")
            assert (answer.status_code, answer.json()["type"]) == (409, "urn:jivs:problem:integrity")
            asked = ask(admin, "select sum(cents) from orders")
            assert (asked.status_code, asked.json()["type"][17:]) in {(422, "refused"), (409, "integrity")}
            assert path in asked.json()["detail"]
            tells_nothing(asked, "", "", service, shelf)
            assert str(shelf) not in answer.text
    finally:
        segment.write_bytes(before)


def test_names_of_files_stay_names() -> None:
    for path in (
        'data/x"; filename="evil.exe',
        "a/b\r\nSet-Cookie: x=1",
        "x/äöü€.parquet",
        "x/../..",
        "x/\x00",
        "x/" + "y" * 300,
        "x/%0d%0a",
    ):
        shown = attachment(path)
        assert shown.isascii()
        assert shown.isprintable()
        assert shown.count('"') == 2
        assert "/" not in shown.removeprefix("attachment; ")


def test_what_each_role_may(admin: httpx.Client, service: ServiceProcess) -> None:
    path = admin.get("/archives/other/files").json()["items"][0]["path"]
    for role, data in ((Role.VIEWER, 403), (Role.COMPLIANCE_OFFICER, 200), (Role.DATA_ENGINEER, 200)):
        name = role.lower().replace("_", ".")
        assert admin.post("/users", json={"username": name, "password": PASSWORD, "roles": [role]}).status_code == 201
        with login(service, name, PASSWORD) as client:
            for seen in ("", "/other", "/other/manifest", "/other/manifests", "/other/files"):
                answer = client.get(f"/archives{seen}")
                assert answer.status_code == 200
                assert CANARY not in answer.text
            assert ask(client, "from hidden", "other").status_code == data
            assert client.post("/archives/other/verify", json={}).status_code == data
            assert client.get(f"/archives/other/files/{path}").status_code == data


def test_queries_downloads_and_verifications_are_in_the_trail(admin: httpx.Client) -> None:
    sql = "select word from hidden where word = 'a name in a query'"
    assert rows(admin, sql, "other") == []
    ask(admin, "drop table x", "other")
    file = admin.get("/archives/other/files").json()["items"][0]
    admin.get(f"/archives/other/files/{file['path']}", headers={"Range": "bytes=1-3"})
    admin.post("/archives/other/verify", json={"level": "count"})
    found = admin.get("/audit", params={"object": "archive:other", "limit": 4})
    digests = [hashlib.sha256(text.encode()).hexdigest() for text in (sql, "drop table x")]
    assert [(entry["actor"], entry["action"], entry["detail"]) for entry in found.json()["items"]] == [
        ("admin", "archive.verified", {"level": "count", "sound": True, "manifest": 1, "outcome": "done"}),
        ("admin", "archive.downloaded", {"path": file["path"], "first": 1, "bytes": 3}),
        ("admin", "archive.queried", {"sql": digests[1], "manifest": 1, "outcome": "refused"}),
        ("admin", "archive.queried", {"sql": digests[0], "manifest": 1, "rows": 0, "outcome": "done"}),
    ]
    assert "a name in a query" not in found.text
    assert admin.post("/audit/verify").status_code == 200
