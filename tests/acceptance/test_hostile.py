"""One table of what strangers and users with bad intentions send, and the exact answer to each. Behind it, the service is as
it was: it answers, has had no error of its own, has not grown, and has written nowhere but into its state folder.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from jivs.testing.servers import PostgresServer
from jivs.testing.service import ServiceProcess

SECRET = "the-key-that-signs-tokens-of-this-test"
PASSWORD = "seven brown foxes dig"
GROWTH = 96 << 20
"""Bytes by which the API's process may grow over the whole table."""


@dataclass(frozen=True)
class Case:
    """A request and its answer. ``kind``: of the problem, where there is more than one reason for the status."""

    id: str
    method: str
    path: str
    status: int
    kind: str = ""
    body: Any = None
    content: bytes | None = None
    headers: dict[str, str | bytes] = field(default_factory=dict)
    anonymous: bool = False


def archive_sql(id_: str, sql: str, kind: str = "refused") -> Case:
    return Case(f"archive-sql:{id_}", "POST", "/archives/sales/query", 422, kind, {"sql": sql})


def source_sql(id_: str, source_type: str, sql: str, *, where: bool = False) -> Case:
    body = {"name": "hostile", "sourceType": source_type, ("where" if where else "extractionQuery"): sql}
    config = {"database": "{data}/s.db"} if source_type == "SQLITE" else {"host": "127.0.0.1", "database": "x"}
    return Case(f"{source_type.lower()}:{id_}", "POST", "/extractions", 422, "refused", {**body, "connectionConfig": config})


def address(id_: str, url: str, status: int = 403) -> Case:
    return Case(f"address:{id_}", "POST", "/sources", status, "", {"name": f"hostile {id_}", "url": url})


def get(id_: str, path: str, status: int, kind: str = "", **headers: str) -> Case:
    return Case(f"path:{id_}", "GET", path, status, kind, headers={name.replace("_", "-"): v for name, v in headers.items()})


def login(id_: str, content: bytes, status: int, kind: str = "", media: str = "application/json") -> Case:
    headers: dict[str, str | bytes] = {"Content-Type": media}
    return Case(f"body:{id_}", "POST", "/auth/login", status, kind, content=content, headers=headers, anonymous=True)


def named(id_: str, username: str, status: int, password: str = PASSWORD) -> Case:
    body = {"username": username, "password": password, "roles": ["VIEWER"]}
    return Case(f"user:{id_}", "POST", "/users", status, "", body)


def part(content: bytes | dict[str, Any]) -> str:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def signed(head: dict[str, Any], claims: dict[str, Any], key: str = SECRET) -> str:
    text = f"{part(head)}.{part(claims)}"
    return f"{text}.{part(hmac.new(key.encode(), text.encode(), hashlib.sha256).digest())}"


CLAIMS = {"iss": "jivs", "typ": "access", "sub": "1", "name": "admin", "gen": 1, "jti": "x", "exp": 9_999_999_999}
HS256 = {"alg": "HS256"}


def token(id_: str, text: str, status: int = 401) -> Case:
    headers: dict[str, str | bytes] = {"Authorization": f"Bearer {text}"}
    return Case(f"token:{id_}", "GET", "/auth/me", status, "unauthenticated", headers=headers, anonymous=True)


SQL = [
    archive_sql("read-csv", "from read_csv('/etc/passwd')"), archive_sql("read-text", "select content from read_text('/proc/self/environ')"),
    archive_sql("glob", "from glob('/*')"), archive_sql("copy-out", "copy orders to '/tmp/hostile.csv'"), archive_sql("attach", "attach '/tmp/hostile.db' as x"),
    archive_sql("install", "install httpfs"), archive_sql("load", "load httpfs"), archive_sql("pragma", "pragma enable_logging"),
    archive_sql("set", "set enable_external_access = true"), archive_sql("getenv", "select getenv('JWT_SECRET')"),
    archive_sql("http", "from read_parquet('http://169.254.169.254/latest/meta-data')"), archive_sql("s3", "from read_parquet('s3://bucket/x')"),
    archive_sql("two", "select 1; drop view orders"), archive_sql("behind-comment", "select 1 --\n; delete from orders"),
    archive_sql("hidden-dml", "with x as (delete from orders returning *) from x"), archive_sql("into", "select * into x from orders"),
    archive_sql("query-function", "from query('copy orders to ''/tmp/hostile.csv''')"), archive_sql("export", "export database '/tmp/hostile'"),
    archive_sql("secret", "create secret (type s3)"), archive_sql("other", "from read_parquet('../other/data/*/*/*.parquet')"),
    archive_sql("null-byte", "select 1\0; drop view orders", "invalid"), archive_sql("long", "select " + "1," * 60_000, "invalid"),
    source_sql("sleep", "POSTGRESQL", "select pg_sleep(1000)"), source_sql("read-file", "POSTGRESQL", "select pg_read_file('/etc/passwd')"),
    source_sql("escaped-name", "POSTGRESQL", "select U&\"pg_sl\\0065ep\"(1000)"), source_sql("schema-name", "POSTGRESQL", "select pg_catalog . \"pg_ls_dir\" ('/')"),
    source_sql("lo-import", "POSTGRESQL", "select lo_import('/etc/passwd')"), source_sql("dblink-open", "POSTGRESQL", "select dblink_open('x', 'y')"),
    source_sql("xml", "POSTGRESQL", "select query_to_xml_and_xmlschema('delete from t', true, true, '')"), source_sql("advisory", "POSTGRESQL", "select pg_advisory_xact_lock(1)"),
    source_sql("wal", "POSTGRESQL", "select pg_switch_wal()"), source_sql("slot", "POSTGRESQL", "select pg_create_physical_replication_slot('x')"),
    source_sql("program", "POSTGRESQL", "copy t to program 'id'"), source_sql("into", "POSTGRESQL", "select * into y from t"),
    source_sql("cte-dml", "POSTGRESQL", "with x as (insert into t values (1) returning *) select * from x"), source_sql("rows-from", "POSTGRESQL", "select * from rows from (pg_sleep(9))"),
    source_sql("in-order", "POSTGRESQL", "select 1 from t order by (select pg_sleep(9))"), source_sql("aws", "POSTGRESQL", "select aws_s3.query_export_to_s3('select 1', 'b')"),
    source_sql("where-sleep", "POSTGRESQL", "pg_sleep(9) is null", where=True), source_sql("where-union", "POSTGRESQL", "1=1) union select * from secrets --", where=True),
    source_sql("do", "POSTGRESQL", "do $$ begin perform 1; end $$"), source_sql("lock", "POSTGRESQL", "select * from t for no key update"),
    source_sql("executable-comment", "MYSQL", "select 1 /*! into outfile '/tmp/x' */"), source_sql("versioned-comment", "MYSQL", "select /*!50000 load_file('/etc/passwd') */ from t"),
    source_sql("mariadb-comment", "MARIADB", "select 1 /*M! into outfile '/tmp/x' */"), source_sql("comment-in-comment", "MYSQL", "select 1 /* /* */ into outfile '/tmp/x' -- */"),
    source_sql("no-comment", "MYSQL", "select 1 --1 into outfile '/tmp/x'"), source_sql("outfile", "MYSQL", "select * from t into outfile '/tmp/x'"),
    source_sql("dumpfile", "MYSQL", "select * from t into dumpfile '/tmp/x'"), source_sql("load-file", "MYSQL", "select `load_file` (0x2f6574632f706173737764)"),
    source_sql("sleep", "MYSQL", "select if(1, sleep(1000), 0)"), source_sql("wait", "MYSQL", "select master_pos_wait('a', 1)"), source_sql("udf", "MYSQL", "select sys_exec('id')"),
    source_sql("hint", "MYSQL", "select /*+ set_var(max_execution_time=0) */ 1"), source_sql("sequence", "MARIADB", "select next value for s"),
    source_sql("extension", "SQLITE", "select load_extension('x')"), source_sql("attach", "SQLITE", "attach '/tmp/hostile.db' as x"),
    source_sql("pragma", "SQLITE", "pragma writable_schema = 1"), source_sql("two", "SQLITE", "select 1; delete from t"), source_sql("write-file", "SQLITE", "select writefile('/tmp/hostile', 'x')"),
    source_sql("nested-comment", "POSTGRESQL", "select /*/* */ 1 || ' */ 1 as a) as q limit 0; commit; begin read write; delete from victim; select * from (select 1 as a -- '"),
    source_sql("where-nested-comment", "POSTGRESQL", "id = 1 /*/* */ or ' */ and pg_sleep(6) is null -- ' = ''", where=True),
    source_sql("dollar-name", "POSTGRESQL", "select 1 as x$a$, (select pg_sleep(9)) as y, 2 as z$a$"), source_sql("e-text", "POSTGRESQL", r"select E'\' || pg_sleep(9) || '\''"),
    source_sql("ts-stat", "POSTGRESQL", "select * from ts_stat('select to_tsvector(pg_read_file(''/etc/hostname''))')"),
    source_sql("ts-rewrite", "POSTGRESQL", "select ts_rewrite('a'::tsquery, 'select 1')"), source_sql("cron", "POSTGRESQL", "select cron.schedule('* * * * *', 'delete from t')"),
    source_sql("template", "MYSQL", "select {#\n zz (select load_file('/etc/passwd')) } as x, -- #}\n 1 as y"),
    source_sql("where-template", "MARIADB", "id = 1 or {#\n zz sleep(4) } or -- #}\n 1 = 0", where=True), source_sql("odbc", "MYSQL", "select {x sleep(9)}"),
    source_sql("hash", "MARIADB", "select 1 # '\n, sleep(9) -- '"), source_sql("keyring", "MYSQL", "select keyring_key_fetch('x')"),
    source_sql("doubling", "POSTGRESQL", "select " + "decimal(" * 28 + "1" + ")" * 28), source_sql("doubling-brackets", "MYSQL", "select " + "array[" * 28 + "1" + "]" * 28),
    source_sql("doubling-angles", "SQLITE", "select cast(1 as " + "array<" * 28 + "int" + ">" * 28 + ")"),
    source_sql("deep", "SQLITE", "select " + "(" * 30_000 + "1" + ")" * 30_000),
]  # fmt: skip
ADDRESSES = [
    address("metadata", "postgresql://169.254.169.254/x"), address("metadata-mysql", "mysql://169.254.169.254/x"), address("decimal", "postgresql://2852039166/x"),
    address("hex", "postgresql://0xa9fea9fe/x"), address("octal", "postgresql://0251.0376.0251.0376/x"), address("mixed", "postgresql://169.0xfe.43518/x"),
    address("mapped", "postgresql://[::ffff:169.254.169.254]/x"), address("mapped-hex", "postgresql://[::ffff:a9fe:a9fe]/x"), address("compatible", "postgresql://[::a9fe:a9fe]/x"),
    address("nat64", "postgresql://[64:ff9b::a9fe:a9fe]/x"), address("local-nat64", "postgresql://[64:ff9b:1::a9fe:a9fe]/x"), address("6to4", "postgresql://[2002:a9fe:a9fe::1]/x"),
    address("teredo", "postgresql://[2001:0:c000:201::5601:5601]/x"), address("aws-v6", "postgresql://[fd00:ec2::254]/x"), address("alibaba", "postgresql://100.100.100.200/x"),
    address("azure", "postgresql://168.63.129.16/x"), address("nobody", "postgresql://0.0.0.0/x"), address("nobody-short", "postgresql://0/x"), address("nobody-v6", "postgresql://[::]/x"),
    address("link-local-v6", "postgresql://[fe80::1]/x"), address("zone", "postgresql://[fe80::1%25lo]/x"), address("multicast", "postgresql://224.0.0.1/x"), address("broadcast", "postgresql://255.255.255.255/x"),
    address("user-part", "postgresql://127.0.0.1@169.254.169.254/x"), address("user-part-2", "postgresql://127.0.0.1:5432@169.254.169.254/x"), address("fragment", "postgresql://127.0.0.1#@169.254.169.254/x", 422),
    address("two-at", "postgresql://a@127.0.0.1@169.254.169.254/x"), address("socket", "postgresql://%2Fvar%2Frun%2Fpostgresql/x", 422), address("no-host", "postgresql:///x", 422),
    address("two-hosts", "postgresql://127.0.0.1,169.254.169.254/x", 422), address("host-option", "postgresql://127.0.0.1/x?host=169.254.169.254", 422), address("hostaddr", "postgresql://127.0.0.1/x?hostaddr=169.254.169.254", 422),
    address("service-file", "postgresql://127.0.0.1/x?passfile=/etc/passwd", 422), address("mysql-socket", "mysql://127.0.0.1/x?unix_socket=/run/mysqld.sock", 422), address("jdbc", "jdbc:h2:mem:x;INIT=RUNSCRIPT FROM 'http://x'", 422),
    address("http", "http://169.254.169.254/latest/meta-data", 422), address("gopher", "gopher://127.0.0.1:6379/_FLUSHALL", 422), address("environment", "postgresql://u:${{JWT_SECRET}}@127.0.0.1/x", 422),
    address("crlf", "postgresql://127.0.0.1\r\nX: y/x", 422), address("null", "postgresql://127.0.0.1%00.example/x", 422), address("port", "postgresql://127.0.0.1:70000/x", 422),
    address("passwd", "file:///etc/passwd"), address("pattern", "file:///etc/*"), address("up", "file://{data}/../outside.csv"), address("encoded-up", "file://{data}/%2e%2e/outside.csv"),
    address("twice-encoded", "file://{data}/%252e%252e/outside.csv", 201), address("link", "file://{data}/link.csv"), address("through-link", "file://{data}/out/outside.csv"),
    address("prefix", "file://{data}x/a.csv"), address("null-file", "file://{data}/a.csv%00.txt", 422), address("relative", "file://a.csv", 422), address("environ", "sqlite:////proc/self/environ"),
    address("key-file", "postgresql://127.0.0.1/x?sslkey=/etc/passwd"), address("dot-root", "file://{data}/./../../etc/passwd"), address("class-pattern", "file://{data}/[.][.]/outside.csv", 201),
    Case("address:tried-metadata", "POST", "/extractions/test-connection", 403, "forbidden", {"sourceType": "POSTGRESQL", "connectionConfig": {"host": "169.254.169.254", "database": "x"}}),
    Case("address:tried-file", "POST", "/extractions/test-connection", 403, "forbidden", {"sourceType": "FILE", "connectionConfig": {"database": "/etc/passwd"}}),
    Case("address:tried-link", "POST", "/extractions/test-connection", 403, "forbidden", {"sourceType": "FILE", "connectionConfig": {"database": "{data}/*.csv"}}),
    Case("address:tried-folder", "POST", "/extractions/test-connection", 403, "forbidden", {"sourceType": "FILE", "connectionConfig": {"database": "{data}"}}),
]  # fmt: skip
PATHS = [
    get("up", "/archives/%2e%2e", 422), get("up-encoded", "/archives/..%2fother", 404), get("up-twice", "/archives/%252e%252e", 422), get("overlong", "/archives/%c0%ae%c0%ae", 422),
    get("backslash", "/archives/..%5cother", 422), get("null", "/archives/sales%00", 422), get("newline", "/archives/sales%0aX", 422), get("hidden", "/archives/.jivs-shelf", 422),
    get("long", "/archives/" + "a" * 5000, 422), get("file-up", "/archives/sales/files/..%2f..%2f..%2fetc/passwd", 404), get("file-absolute", "/archives/sales/files//etc/passwd", 404),
    get("file-twice", "/archives/sales/files/%252e%252e/x", 404), get("file-overlong", "/archives/sales/files/%c0%ae%c0%ae/x", 404), get("file-null", "/archives/sales/files/README.txt%00", 404),
    get("file-unlisted", "/archives/sales/files/SHA256SUMS", 404), get("number", "/archives/sales?number=99999999999999999999", 422), get("id", "/sources/-1", 404), get("id-huge", "/sources/" + "9" * 400, 404),
    get("run", "/extractions/1/runs/..%2f..%2fetc", 404), get("run-null", "/extractions/1/runs/%00", 422), get("audit-null", "/audit?actor=%00", 422), get("audit-object", "/audit?object=a%00b", 422), get("audit-since", "/audit?since=0.5", 422), get("audit-until", "/audit?until=2000000000", 422), get("audit-zone", "/audit?until=2026-11-30T02:30:00+01:00", 422), get("limit", "/users?limit=1000000", 422), get("size", "/extractions?page=0&size=1000000", 422), get("page", "/extractions?page=99999999999999999999&size=10", 422),
    get("cursor", "/users?cursor=1e400", 422), get("cursor-nan", "/extractions?cursor=NaN", 422), get("sort", "/extractions?page=0&size=10&sort=password_hash,desc", 422), get("sort-sql", "/extractions?page=0&size=10&sort=name;drop", 422),
    get("name-null", "/sources?name=%00", 422), get("regex-name", "/sources?name=" + "(a%2B)%2B" * 12 + "!", 200), get("preview", "/schedules/1/preview?count=100000000", 422), get("event-id", "/events", 422, last_event_id="9" * 400),
    get("event-crlf", "/events", 422, last_event_id="1;x"), get("accept", "/archives/sales/manifest", 200, accept="x/" + "y" * 9000),
    Case("path:trace", "TRACE", "/auth/me", 405), Case("path:connect-like", "PROPFIND", "/sources", 405),
]  # fmt: skip
BODIES = [
    login("deep", b"[" * 200_000, 400), login("deep-object", b'{"a":' * 100_000, 400), login("nan", b'{"username": NaN, "password": "x"}', 422), login("infinity", b'{"username": "x", "password": -Infinity}', 422),
    login("number", b'{"username": "x", "password": ' + b"9" * 100_000 + b"}", 400), login("exponent", b'{"username": "x", "password": 1e999999}', 422), login("twice", b'{"username": "x", "username": ["y"], "password": "x"}', 422),
    login("utf-8", b'{"username": "\xff", "password": "x"}', 400), login("utf-16", '{"username": "x", "password": "x"}'.encode("utf-16"), 401), login("surrogate", b'{"username": "\\ud800", "password": "x"}', 422),
    login("surrogate-password", b'{"username": "x", "password": "\\ud800"}', 422), login("form", b"username=admin&password=x", 415, media="application/x-www-form-urlencoded"), login("xml", b"<!DOCTYPE x SYSTEM 'file:///etc/passwd'><x/>", 415, media="application/xml"),
    login("multipart", b"--x\r\n\r\n--x--", 415, media="multipart/form-data; boundary=x"), login("text", b'{"username": "x", "password": "x"}', 415, media="text/plain"), login("large", b"x" * (1 << 20) + b"x", 413, "too-large"),
    login("unknown-field", b'{"username": "x", "password": "x", "roles": ["ADMIN"]}', 422), login("array", b'[{"username": "x"}]', 422), login("empty", b"", 422), login("null-byte", b'{"username": "x\\u0000", "password": "x"}', 401),
    login("long-password", b'{"username": "x", "password": "' + b"x" * 1_000_000 + b'"}', 422), login("prototype", b'{"__proto__": {"roles": ["ADMIN"]}, "username": "x", "password": "x"}', 422), login("gzip", b"\x1f\x8b\x08\0\0\0", 400),
    Case("body:patterns", "POST", "/extractions", 422, "", {"name": "x", "sourceId": 1, "tables": ["x"] * 10_001}), Case("body:cron", "POST", "/schedules", 422, "", {"name": "x", "extractionId": 1, "cron": "*/" + "9" * 5000 + " * * * *"}),
    Case("body:zone", "POST", "/schedules", 422, "", {"name": "x", "extractionId": 1, "cron": "@daily", "timeZone": "../../../etc/passwd"}), Case("body:archive", "POST", "/extractions", 422, "", {"name": "x", "sourceId": 1, "archive": "../x"}),
    Case("body:regex", "POST", "/extractions", 422, "", {"name": "x", "sourceId": 1, "archive": "a" * 100 + "!"}), Case("body:preferences", "PUT", "/preferences", 422, "", content=b'{"a":' * 40 + b"1" + b"}" * 40, headers={"If-Match": '"0"', "Content-Type": "application/json"}),
    Case("body:bulk", "POST", "/extractions/bulk", 422, "", {"action": "delete", "ids": list(range(1, 1002))}), Case("body:etag", "PUT", "/users/1", 409, "", {"roles": ["ADMIN"]}, headers={"If-Match": '"' + "9" * 3000 + '"'}),
    Case("body:etag-letters", "PUT", "/users/1", 409, "", {"roles": ["ADMIN"]}, headers={"If-Match": '"x\', version=1 --"'}), Case("body:no-etag", "PUT", "/users/1", 428, "", {"roles": ["ADMIN"]}),
    Case("body:null-description", "POST", "/extractions", 422, "invalid", {"name": "null", "sourceId": 1, "description": "a\0b"}), Case("body:null-table", "POST", "/extractions", 422, "invalid", {"name": "null", "sourceId": 1, "tables": ["\0"]}),
    Case("body:null-host", "POST", "/sources", 422, "", {"name": "null", "url": "postgresql://127.0.0.1/x", "username": "a\0b"}), Case("body:null-query-name", "POST", "/extractions", 422, "", {"name": "q", "sourceId": 1, "extractionQuery": "select 1", "queryName": "a\0b"}),
    Case("body:null-preferences", "PUT", "/preferences", 200, "", {"a\0": "\0"}, headers={"If-Match": '"0"'}), Case("body:null-connection", "POST", "/extractions/test-connection", 422, "", {"sourceType": "POSTGRESQL", "connectionConfig": {"host": "127.0.0.1\0", "database": "x\0"}}),
    login("null-name", b'{"username": "admin\\u0000", "password": "x"}', 401), Case("body:surrogate-source", "POST", "/sources", 422, "", content=b'{"name": "s", "url": "postgresql://127.0.0.1/x", "password": "\\udfff"}', headers={"Content-Type": "application/json"}),
    Case("body:etag-digits", "PUT", "/users/1", 409, "", {"roles": ["ADMIN"]}, headers={"If-Match": '"٣"'.encode()}),
]  # fmt: skip
USERS = [
    named("crlf", "x\r\nSet-Cookie: a=b", 422), named("newline", "x\n2026-01-01 ERROR forged", 422), named("escape", "x\x1b[31m", 422), named("null", "x\0", 422), named("space", "admin ", 422),
    named("cyrillic", "аdmin", 422), named("dotless", "adm\u0131n", 422), named("long-s", "u\u017fer", 422), named("kelvin", "\u212aelvin", 422), named("wide", "ａｄｍｉｎ", 422), named("bidi", "nimda\u202e", 422),
    named("case", "ADMIN", 409), named("path", "../admin", 422), named("sql", "x' or 1=1 --", 422), named("html", "<script>", 422), named("template", "{{7*7}}", 422), named("trailing-newline", "admin\n", 422),
    named("long", "x" * 101, 422), named("password-long", "passwordlong", 422, "x" * 1025), named("password-repeats", "passwordrepeats", 422, "aaaaaaaaaaaaaaaaaaaa"), named("password-name", "passwordisthename", 422, "passwordisthename"),
    Case("user:key-crlf", "POST", "/users", 422, "", {}, headers={"Idempotency-Key": "é".encode()}), Case("user:key-long", "POST", "/users", 422, "", {}, headers={"Idempotency-Key": "x" * 256}),
    Case("user:key-tab", "POST", "/users", 422, "", {}, headers={"Idempotency-Key": "a\tb"}), Case("user:source-name", "POST", "/sources", 422, "", {"name": "a\r\nX-Evil: 1", "url": "postgresql://127.0.0.1/x"}),
    Case("user:query-name", "POST", "/extractions", 422, "", {"name": "x\x1b[2J", "sourceId": 1}),
]  # fmt: skip
TOKENS = [
    token("expired", signed(HS256, {**CLAIMS, "exp": 1})), token("none", f"{part({'alg': 'none'})}.{part(CLAIMS)}."), token("none-cased", f"{part({'alg': 'nOnE'})}.{part(CLAIMS)}."),
    token("none-signed", signed({"alg": "none"}, CLAIMS)), token("other-key", signed(HS256, CLAIMS, "x" * 32)), token("empty-key", signed(HS256, CLAIMS, "")), token("hs384", signed({"alg": "HS384"}, CLAIMS)),
    token("rs256", signed({"alg": "RS256"}, CLAIMS)), token("kid-path", signed({**HS256, "kid": "../../../../dev/null"}, CLAIMS, "")), token("kid-sql", signed({**HS256, "kid": "x' union select 'x"}, CLAIMS, "x" * 32)),
    token("jwk", signed({**HS256, "jwk": {"kty": "oct", "k": part(b"x" * 32)}}, CLAIMS, "x" * 32)), token("jku", signed({**HS256, "jku": "http://169.254.169.254/"}, CLAIMS, "x" * 32)), token("crit", signed({**HS256, "crit": ["exp"]}, CLAIMS)),
    token("issuer", signed(HS256, {**CLAIMS, "iss": "other"})), token("type", signed(HS256, {**CLAIMS, "typ": "refresh"})), token("generation", signed(HS256, {**CLAIMS, "gen": 99})),
    token("no-user", signed(HS256, {**CLAIMS, "sub": "999"})), token("sub-sql", signed(HS256, {**CLAIMS, "sub": "1 or 1=1"})), token("sub-huge", signed(HS256, {**CLAIMS, "sub": "9" * 400})),
    token("exp-text", signed(HS256, {**CLAIMS, "exp": "x"})), token("exp-nan", signed(HS256, {**CLAIMS, "exp": float("nan")})), token("exp-infinite", signed(HS256, {**CLAIMS, "exp": float("inf")})), token("no-claims", signed(HS256, {})),
    token("list", signed(HS256, [1])), token("parts", "a.b.c.d.e"), token("long", "A" * 20_000), token("empty", "."), token("deep", f"{part(b'[' * 2000)}.{part(CLAIMS)}.x"),
    Case("token:basic", "GET", "/auth/me", 401, "unauthenticated", headers={"Authorization": "Basic YWRtaW46YWRtaW4="}, anonymous=True), Case("token:in-query", "GET", "/auth/me?access_token={token}", 401, anonymous=True),
    Case("token:in-cookie", "GET", "/auth/me", 401, headers={"Cookie": "access_token={token}"}, anonymous=True), Case("token:bytes", "GET", "/auth/me", 401, headers={"Authorization": b"Bearer \xff\xfe"}, anonymous=True),
    Case("token:refresh-as-access", "GET", "/auth/me", 401, headers={"Authorization": "Bearer {refresh}"}, anonymous=True), Case("token:access-as-refresh", "POST", "/auth/refresh", 401, body={"refreshToken": "{token}"}, anonymous=True),
    Case("token:method-override", "GET", "/users", 401, headers={"X-HTTP-Method-Override": "POST", "X-Original-URL": "/actuator/health", "X-Forwarded-User": "admin"}, anonymous=True),
]  # fmt: skip
CASES = [*SQL, *ADDRESSES, *PATHS, *BODIES, *USERS, *TOKENS]


@dataclass
class Scene:
    """The service under attack, and what was there before."""

    service: ServiceProcess
    folder: Path
    values: dict[str, str]
    files: set[str]
    memory: int

    def filled(self, value: Any) -> Any:
        """The value with what is only known now in its braces."""
        if isinstance(value, dict):
            return {name: self.filled(one) for name, one in value.items()}
        if isinstance(value, str):
            for name, given in self.values.items():
                value = value.replace(f"{{{name}}}", given)
            return value.replace("${{", "${").replace("}}", "}") if "${{" in value else value
        return value

    def send(self, case: Case) -> httpx.Response:
        """What the service answers."""
        headers = {} if case.anonymous else {"Authorization": f"Bearer {self.values['token']}"}
        given: dict[str, Any] = {"headers": {**headers, **self.filled(case.headers)}}
        if case.content is not None:
            given["content"] = case.content
        elif case.body is not None:
            given["json"] = self.filled(case.body)
        with httpx.Client(timeout=30) as client:
            return client.request(case.method, f"{self.service.url}/api/v1{self.filled(case.path)}", **given)


def listing(folder: Path, but: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if not path.is_relative_to(but)}


def api_process(service: ServiceProcess) -> int:
    [found] = service.parts("jivs api")
    return found


def memory(service: ServiceProcess) -> int:
    status = Path(f"/proc/{api_process(service)}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) << 10


def archived(client: httpx.Client, database: Path) -> None:
    body = {"name": "sales", "sourceType": "SQLITE", "connectionConfig": {"database": str(database)}}
    made = client.post("/api/v1/extractions", json=body)
    assert made.status_code == 201, made.text
    run = client.post(f"{made.headers['Location']}/start").headers["Location"]
    end = time.monotonic() + 60
    while (state := client.get(run).json()["state"]) != "COMPLETED":
        assert time.monotonic() < end, state
        time.sleep(0.1)


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def scene(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, postgres: PostgresServer
) -> Iterator[Scene]:
    folder = tmp_path_factory.mktemp("hostile")
    data, home = folder / "data", folder / "home"
    data.mkdir()
    home.mkdir()
    (data / "a.csv").write_text("id\n1\n")
    (folder / "outside.csv").write_text("id\n1\n")
    (data / "link.csv").symlink_to(folder / "outside.csv")
    (data / "out").symlink_to(folder)
    with sqlite3.connect(data / "s.db") as connection:
        connection.execute("create table orders as select 1 as id")
    connection.close()
    given = {
        "JIVS_FILE_ROOTS": str(data), "JWT_SECRET": SECRET, "LOG_LEVEL": "INFO", "LOG_FORMAT": "json", "HOME": str(home), "TMPDIR": str(home),
        "JIVS_QUERY__MEMORY": "256MiB", "EXTRACTION_MAX_PARALLEL_JOBS": "1", "ENCRYPTION_KEY": base64.b64encode(bytes(32)).decode(),
    }  # fmt: skip
    if request.param == "postgresql":
        given["DATABASE_URL"] = postgres.create("hostile")
    with ServiceProcess(folder / "state", **given) as service, service.client() as client:
        archived(client, data / "s.db")
        session = client.post("/api/v1/auth/login", json={"username": "admin", "password": service.password}).json()
        values = {"data": str(data), "token": session["accessToken"], "refresh": session["refreshToken"]}
        for path in ("/archives/sales", "/sources", "/users", "/extractions"):
            assert client.get(f"/api/v1{path}").status_code == 200
        yield Scene(service, folder, values, listing(folder, folder / "state"), memory(service))


def test_there_are_enough_and_each_is_another() -> None:
    assert len(CASES) >= 200
    assert len({case.id for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_hostile(scene: Scene, case: Case) -> None:
    answer = scene.send(case)
    assert answer.status_code == case.status, answer.text[:500]
    if case.status >= 400:
        assert answer.headers["Content-Type"] == "application/problem+json"
        problem = answer.json()
        assert problem["detail"]
        assert problem["type"].startswith("urn:jivs:problem:")
        if case.kind:
            assert problem["type"] == f"urn:jivs:problem:{case.kind}"
        assert SECRET not in answer.text
        assert scene.service.password not in answer.text
    assert "set-cookie" not in answer.headers
    assert "x-evil" not in answer.headers


def test_a_token_that_is_right_is_right(scene: Scene) -> None:
    claims = json.loads(base64.urlsafe_b64decode(scene.values["token"].split(".")[1] + "=="))
    assert scene.send(token("same", signed(HS256, claims), 200)).status_code == 200


def test_a_refresh_token_that_was_used_ends_the_family(scene: Scene) -> None:
    with httpx.Client(base_url=f"{scene.service.url}/api/v1") as client:
        session = client.post("/auth/login", json={"username": "admin", "password": scene.service.password}).json()
        first = {"refreshToken": session["refreshToken"]}
        family, _, secret = session["refreshToken"].partition(".")
        for forged in (f"{'0' * 32}.{secret}", f"{family}.x", f"{family}", f".{secret}", f"{family}.{secret}x", "é.é"):
            assert client.post("/auth/refresh", json={"refreshToken": forged}).status_code == 401
        renewed = client.post("/auth/refresh", json=first)
        if renewed.status_code == 200:
            assert client.post("/auth/refresh", json=first).status_code == 401
            last = {"refreshToken": renewed.json()["refreshToken"]}
            assert client.post("/auth/refresh", json=last).status_code == 401


def test_behind_it_all_the_service_is_as_it_was(scene: Scene) -> None:
    with scene.service.client() as client:
        assert client.get("/api/v1/archives/sales").status_code == 200
        answer = client.post("/api/v1/archives/sales/query", json={"sql": "select count(*) from orders"})
        assert answer.json()["rows"] == [[1]]
        assert client.post("/api/v1/audit/verify").status_code == 200
        kept = client.get("/api/v1/sources?limit=200").json()["items"]
        assert {one["name"] for one in kept} == {"sales", "hostile twice-encoded", "hostile class-pattern"}
        assert client.get("/api/v1/users").json()["nextCursor"] is None
    grown = memory(scene.service) - scene.memory
    assert grown < GROWTH, f"{grown >> 20} MiB"
    assert listing(scene.folder, scene.folder / "state") == scene.files
    assert not [path for path in ("/tmp/x", "/tmp/hostile", "/tmp/hostile.csv", "/tmp/hostile.db") if Path(path).exists()]
    lines = [line for line in scene.service.printed if line.startswith("{")]
    assert len(lines) > len(CASES)
    for line in lines:
        record = json.loads(line)
        assert record.get("status", 0) < 500, line
        assert record["level"] in {"INFO", "WARNING"}, line
    assert not [line for line in scene.service.printed if not line.startswith("{") and "password" not in line.lower()]
