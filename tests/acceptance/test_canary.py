"""A canary in every field that holds a secret, on ways that succeed and ways that fail; afterwards it is looked for everywhere."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import httpx
import psycopg
import pytest

from jivs.testing.servers import PASSWORD as REDIS_PASSWORD
from jivs.testing.servers import PostgresServer, RedisServer, free_port
from jivs.testing.service import ServiceProcess
from tests.acceptance.test_tracing import Receiver

CORE = "c4n4ry5"
"""Part of every canary; it needs no quoting anywhere."""

KEYS = base64.b64encode(f"{CORE}-of-encryption-keys-xxxxxx"[:32].encode()).decode()


def canary(where: str) -> str:
    """A secret that is no other one, with characters that have to be quoted in URLs, shells, SQL and JSON."""
    return f"{CORE}-{where}-%/@:'\"\\é"


def forms() -> list[bytes]:
    """How a canary may look: as it is, and in base64 whatever stands before it."""
    found = [CORE.encode(), CORE.encode("utf-16-le"), CORE.encode().hex().encode()]
    for before in range(3):
        text = base64.b64encode(b"\0" * before + CORE.encode()).decode().rstrip("=")
        first = (before * 8 + 5) // 6
        found.append(text[first : (before + len(CORE)) * 8 // 6].encode())
    return found


@dataclass
class Harvest:
    """All bytes that came out somewhere, each under the name of the place."""

    found: dict[str, bytes] = field(default_factory=dict)

    def add(self, place: str, content: str | bytes) -> None:
        """Keep what a place has."""
        self.found[place] = content.encode(errors="replace") if isinstance(content, str) else content

    def answer(self, answer: httpx.Response, what: str) -> httpx.Response:
        """Keep an answer, headers too."""
        self.add(f"answer {len(self.found)}: {what}", f"{answer.headers}\n".encode() + answer.content)
        return answer

    def folder(self, name: str, folder: Path) -> None:
        """Keep every file below a folder."""
        for path in folder.rglob("*"):
            with suppress(FileNotFoundError):
                if path.is_file() and path.name != "keys.json":
                    self.add(f"{name}: {path.relative_to(folder)}", path.read_bytes())

    def places(self, secrets: list[bytes]) -> list[tuple[str, bytes]]:
        """Where one of them is, with what stands around it."""
        out = []
        for place, content in self.found.items():
            for secret in secrets:
                if (at := content.find(secret)) >= 0:
                    out.append((place, content[max(0, at - 80) : at + 80]))
        return out


def test_the_forms_are_found() -> None:
    for before in ("", "x", "xy", "user:"):
        encoded = base64.b64encode(f"{before}{canary('x')}".encode())
        assert any(form in encoded for form in forms()), before
    assert any(form in quote(canary("x")).encode() for form in forms())


def processes(number: int) -> Iterator[int]:
    yield number
    with suppress(FileNotFoundError, ProcessLookupError):
        for task in Path(f"/proc/{number}/task").iterdir():
            for child in (task / "children").read_text().split():
                yield from processes(int(child))


@contextmanager
def role(pg: str) -> Iterator[dict[str, str]]:
    """A source whose password is a canary."""
    place = urlsplit(pg)
    user = f"canary_{place.path.removeprefix('/')}"
    with psycopg.connect(pg, autocommit=True) as connection:
        name = psycopg.sql.Identifier(user)
        connection.execute(psycopg.sql.SQL("create role {} login password {}").format(name, canary("source")))
        connection.execute(psycopg.sql.SQL("create table seen as select 1 as id; grant select on seen to {}").format(name))
    yield {"url": f"postgresql://{place.hostname}:{place.port}{place.path}", "username": user, "password": canary("source")}
    with psycopg.connect(pg, autocommit=True) as connection:
        connection.execute(psycopg.sql.SQL("drop owned by {0}; drop role {0}").format(name))


def use_sources(client: httpx.Client, all_: Harvest, source: dict[str, str], nobody: int) -> None:
    """Sources that work, that refuse, that are not there, and bodies that say them wrongly."""
    url, user = source["url"], source["username"]
    quoted = quote(canary("url"), safe="")
    for number, body in enumerate([
        source, {**source, "password": canary("wrong")}, {"url": url.replace("://", f"://{user}:{quoted}@")},
        {"url": f"{url}?user={user}&password={quoted}"}, {**source, "url": f"postgresql://127.0.0.1:{nobody}/x"},
        {**source, "url": f"mysql://127.0.0.1:{nobody}/x"}, {**source, "url": f"postgresql://nobody-{nobody}.invalid/x"},
        {"url": f"postgresql://u:{canary('unquoted')}@127.0.0.1/x"}, {"url": canary("as-url")}, {"url": f"postgresql://u:{quoted}@127.0.0.1:{quoted}/x"},
        {**source, "pasword": canary("misspelt")}, {**source, "password": [canary("list")]}, {**source, "password": {"is": canary("object")}},
        {"url": f"{url}?sslpassword={quoted}"}, {"url": f"jdbc:postgresql://127.0.0.1:{nobody}/x?user=u&password={quoted}"}, {"url": f"file:///x?password={quoted}"},
    ]):  # fmt: skip
        made = all_.answer(client.post("/sources", json={"name": f"source {number}", **body}), f"source {number}")
        if made.status_code == 201:
            path = made.headers["Location"].removeprefix("/api/v1")
            for call in (client.get(path), client.post(f"{path}/test"), client.get(f"{path}/tables")):
                all_.answer(call, f"{call.request.method} {path}")
            changed = {"name": f"source {number}", **source, "password": canary("changed")}
            all_.answer(client.put(path, json=changed, headers={"If-Match": made.headers["ETag"]}), "change")
    for config in (
        {"url": url, "username": user, "password": canary("source")}, {"host": "127.0.0.1", "port": nobody, "database": "x", "password": canary("refused")},
        {"host": "127.0.0.1", "database": "x", "options": {"password": canary("option")}}, {"host": "127.0.0.1", "database": "x", "password": 7, "token": canary("field")},
    ):  # fmt: skip
        body = {"sourceType": "POSTGRESQL", "connectionConfig": config}
        all_.answer(client.post("/extractions/test-connection", json=body), "test-connection")
        all_.answer(
            client.post("/extractions", json={"name": "x", **body, "options": {"sslpassword": canary("job")}}), "job options"
        )


def use_runs(client: httpx.Client, all_: Harvest, source: dict[str, str], nobody: int) -> None:
    """A run that succeeds, and one each that is refused and finds nobody; queries of the archive."""
    for name, more in (
        ("good", {}),
        ("wrong", {"password": canary("run")}),
        ("gone", {"url": f"postgresql://127.0.0.1:{nobody}/x"}),
    ):
        body = {
            "name": name,
            "sourceType": "POSTGRESQL",
            "connectionConfig": {**source, **more},
            "attempts": 2,
            "verify": "full",
        }
        headers = {"Idempotency-Key": f"{CORE}-key-{name}"}
        made = all_.answer(client.post("/extractions", json=body, headers=headers), "extraction")
        assert made.status_code == 201, made.text
        assert client.post("/extractions", json=body, headers=headers).headers["Idempotent-Replayed"]
        path = made.headers["Location"].removeprefix("/api/v1")
        place = all_.answer(client.post(f"{path}/start"), "start").headers["Location"].removeprefix("/api/v1")
        end = time.monotonic() + 60
        while (state := client.get(place).json()["state"]) not in {"COMPLETED", "FAILED"}:
            assert time.monotonic() < end, state
            time.sleep(0.2)
        assert state == ("COMPLETED" if name == "good" else "FAILED")
        for call in (client.get(place), client.get(f"{path}/logs"), client.get(path), client.get(f"{path}/statistics")):
            all_.answer(call, f"run {name}")
    for sql in ("select * from seen", "select nothing from seen", "from duckdb_settings()", "select getenv('JWT_SECRET')"):
        all_.answer(client.post("/archives/good/query", json={"sql": sql}), sql)
    all_.answer(client.post("/archives/good/verify", json={"level": "full"}), "verify")


def use_users(client: httpx.Client, all_: Harvest) -> list[str]:
    """Accounts and sessions; the tokens that were given."""
    user = {"username": "ada", "password": canary("user"), "roles": ["ADMIN"]}
    made = all_.answer(client.post("/users", json=user), "user")
    assert made.status_code == 201, made.text
    for body in (
        {"username": "ada", "password": canary("login-wrong")}, {"username": canary("as-name"), "password": "x"}, {"username": "ada", "password": [canary("login-list")]},
        {"username": canary("both"), "password": canary("both")}, {"username": "ada", "passwort": canary("login-misspelt")}, {"user": "ada", "username": {"a": canary("login-object")}},
    ):  # fmt: skip
        all_.answer(client.post("/auth/login", json=body), "login")
    all_.answer(
        client.post("/auth/login", content=f'{{"password": "{CORE}'.encode(), headers={"Content-Type": "application/json"}),
        "cut",
    )
    all_.answer(
        client.post("/users", json={"username": canary("new-name"), "password": canary("new"), "roles": ["VIEWER"]}), "user"
    )
    all_.answer(client.post("/users", json={"username": "short", "password": CORE, "roles": ["VIEWER"]}), "short")
    own = client.post("/auth/login", json={"username": "ada", "password": canary("user")}).json()
    bearer = {"Authorization": f"Bearer {own['accessToken']}"}
    path = f"/users/{made.json()['id']}/password"
    for old, new in ((canary("old-wrong"), canary("next")), (canary("user"), CORE), (canary("user"), canary("next"))):
        all_.answer(client.put(path, json={"oldPassword": old, "newPassword": new}, headers=bearer), "password")
    again = client.post("/auth/login", json={"username": "ada", "password": canary("next")}).json()
    renewed = client.post("/auth/refresh", json={"refreshToken": again["refreshToken"]}).json()
    all_.answer(client.post("/auth/refresh", json={"refreshToken": again["refreshToken"]}), "used twice")
    all_.answer(client.post("/auth/refresh", json={"refreshToken": f"{CORE}.{CORE}"}), "no token")
    all_.answer(client.get("/auth/me", headers={"Authorization": f"Bearer {CORE}.{CORE}.{CORE}"}), "no token")
    all_.answer(client.get("/auth/me", headers={"Authorization": f"Basic {CORE}"}), "basic")
    return [one[name] for one in (own, again, renewed) for name in ("accessToken", "refreshToken")]


def commands(all_: Harvest, state: Path, settings: dict[str, str]) -> None:
    """What the command line shows of the same settings."""
    environment = {**os.environ, **settings, "XDG_STATE_HOME": str(state)}
    for line in ("doctor --output json", "config show --output json", "config show", "user list", "db check"):
        done = subprocess.run(
            [sys.executable, "-m", "jivs", *line.split()], env=environment, capture_output=True, check=False, timeout=60
        )
        assert done.stdout or done.stderr
        all_.add(f"jivs {line}", done.stdout + done.stderr)


def settings_with(nobody: int, collector: Receiver, form: str) -> dict[str, str]:
    """A canary in each setting that holds a secret."""
    return {
        "JWT_SECRET": canary("jwt-secret-which-is-long-enough"), "ENCRYPTION_KEY": KEYS, "RABBITMQ_HOST": "127.0.0.1", "RABBITMQ_PORT": str(nobody),
        "RABBITMQ_PASSWORD": canary("rabbit"), "AWS_ACCESS_KEY": "key", "AWS_SECRET_KEY": canary("aws"), "LOG_LEVEL": "DEBUG", "LOG_FORMAT": form,
        "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer%20{CORE}", "OTEL_BSP_SCHEDULE_DELAY": "100",
        "EXTRACTION_MAX_PARALLEL_JOBS": "1", "JIVS_NETWORKS": "", "HIKARI_MAXIMUM_POOL_SIZE": "6",
    }  # fmt: skip


def everywhere(all_: Harvest, service: ServiceProcess, client: httpx.Client) -> None:
    """What a running service shows without being asked for a secret."""
    for path in ("/actuator/prometheus", "/actuator/health", "/actuator/info", "/v3/api-docs"):
        all_.answer(httpx.get(f"{service.url}{path}"), path)
    for path in ("health", "prometheus", "info", "threaddump", "pools", "memory", "loggers", "env", "configprops"):
        all_.answer(httpx.get(f"{service.management}/actuator/{path}"), f"management {path}")
    for path in ("/audit?limit=200", "/sources", "/extractions", "/users", "/archives", "/archives/good/manifest"):
        all_.answer(client.get(path), path)
    for number in processes(service.process.pid):
        with suppress(FileNotFoundError, ProcessLookupError):
            all_.add(f"command line of {number}", Path(f"/proc/{number}/cmdline").read_bytes())


@pytest.mark.parametrize("form", ["console", "json"])
def test_a_canary_is_found_nowhere(tmp_path: Path, pg: str, postgres: PostgresServer, form: str) -> None:
    all_, nobody, collector = Harvest(), free_port(), Receiver()
    settings = settings_with(nobody, collector, form)
    with RedisServer() as cache, role(pg) as source:
        settings |= {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(cache.port), "REDIS_PASSWORD": REDIS_PASSWORD}
        if form == "json":
            settings |= {"DATABASE_URL": postgres.create(f"catalog_{tmp_path.name[-1]}_{nobody}")}
        with ServiceProcess(tmp_path, **settings) as service, service.client() as logged_in:
            with httpx.Client(base_url=f"{service.url}/api/v1", headers=logged_in.headers, timeout=60) as client:
                use_sources(client, all_, source, nobody)
                tokens = use_users(client, all_)
                use_runs(client, all_, source, nobody)
                everywhere(all_, service, client)
            tokens.append(logged_in.headers["Authorization"].removeprefix("Bearer "))
            commands(all_, tmp_path, settings)
            all_.folder("state, at work", tmp_path)
            redis = cache.client()
            all_.add(
                "redis",
                b"\n".join(
                    key + b"=" + (redis.get(key) or b"") for key in redis.scan_iter() if redis.type(key) == b"string"
                ),
            )
        if form == "json":
            with psycopg.connect(settings["DATABASE_URL"]) as catalog:
                tables = catalog.execute("select tablename from pg_tables where schemaname = 'public'").fetchall()
                for (table,) in tables:
                    rows = catalog.execute(psycopg.sql.SQL("select t::text from {} t").format(psycopg.sql.Identifier(table)))
                    all_.add(f"catalog: {table}", "\n".join(row[0] for row in rows.fetchall()))
    collector.close()
    all_.folder("state", tmp_path)
    all_.add("log", "".join(service.printed))
    all_.add("spans", str(collector.spans))
    assert all_.found["spans"].count(b"trace_id") > 20
    assert all_.found["log"].count(b"\n") > 100
    if form == "json":
        for line in "".join(service.printed).splitlines():
            if line.startswith("{"):
                json.loads(line)
    said: list[Any] = all_.places([*forms(), *(token.encode() for token in tokens), REDIS_PASSWORD.encode()])
    assert said == []
