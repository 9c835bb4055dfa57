"""Queries that mean harm: nothing else of the machine is reached, and nobody else is harmed."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from jivs.testing.service import ServiceProcess
from tests.acceptance.archives.scene import (
    CANARY,
    SECONDS,
    api_process,
    ask,
    children,
    limit,
    login,
    memory,
    open_files,
    rows,
    tells_nothing,
    until,
)

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
    with ServiceProcess(tmp_path, **given, workers=False) as running, login(running, "admin", running.password) as client:
        process = api_process(running)
        with ThreadPoolExecutor(2) as pool:
            assert {answer.status_code for answer in pool.map(lambda sql: ask(client, sql), ["select 1"] * 4)} == {200}
            time.sleep(0.5)  # the files of answers are closed behind them
            before, files = memory(process), open_files(process)
            for sql, answer in zip(BOMBS, pool.map(lambda sql: ask(client, sql), BOMBS), strict=True):
                assert answer.status_code == 422, (sql[:100], answer.text[:300])
                assert answer.json()["type"] in LIMITED, (sql[:100], answer.text[:300])
                assert answer.elapsed.total_seconds() < 10, sql[:100]
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
