"""What an operator sees of a running service: metrics, health, the management listener, logs."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from jivs import bootstrap
from jivs.api.management import create
from jivs.backends.metrics import families as known
from jivs.domain.access import Role
from jivs.domain.source import Secret
from jivs.operations import users
from jivs.operations.health import Health
from jivs.settings import Settings
from jivs.testing.metrics import samples, value
from jivs.testing.servers import PASSWORD as SERVER_PASSWORD
from jivs.testing.servers import PostgresServer, RedisServer, free_port, wait_for
from jivs.testing.service import ServiceProcess

PASSWORD = "seven brown foxes dig"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path_factory.mktemp("service"), HIKARI_MAXIMUM_POOL_SIZE="9") as running:
        yield running


@pytest.fixture
def public(service: ServiceProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url) as client:
        yield client


@pytest.fixture
def private(service: ServiceProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.management) as client:
        yield client


@pytest.fixture(scope="module")
def tokens(service: ServiceProcess) -> dict[Role, str]:
    """Access tokens of an ADMIN and of a VIEWER."""
    with httpx.Client(base_url=service.url) as client:

        def login(name: str, password: str) -> str:
            answer = client.post("/api/v1/auth/login", json={"username": name, "password": password})
            return f"Bearer {answer.json()['accessToken']}"

        admin = login("admin", service.password)
        body = {"username": "viewer", "password": PASSWORD, "roles": ["VIEWER"]}
        assert client.post("/api/v1/users", json=body, headers={"Authorization": admin}).status_code == 201
        return {Role.ADMIN: admin, Role.VIEWER: login("viewer", PASSWORD)}


# -- metrics ----------------------------------------------------------------------------------------------------------


def test_the_first_scrape_has_every_metric(tmp_path: Path) -> None:
    with ServiceProcess(tmp_path) as fresh, httpx.Client(base_url=fresh.url) as client:
        answer = client.get("/actuator/prometheus")
        told = {name for name, _ in samples(answer.text)}
        for family in (*known.RECORDED, *known.COMPUTED):
            suffixes = ("_bucket", "_sum", "_count") if family.kind == "histogram" else ("",)
            assert {f"{family.name}{suffix}" for suffix in suffixes} <= told, family.name
        assert {"process_cpu_seconds_total", "process_resident_memory_bytes", "python_gc_collections_total"} <= told
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert value(answer.text, "jivs_runs", state="RUNNING") == 0
        asked = client.get("/actuator/prometheus", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
        assert asked.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
        assert asked.text.endswith("# EOF\n")


def test_requests_are_measured_by_route(public: httpx.Client, tokens: dict[Role, str]) -> None:
    name = "http_server_request_duration_seconds_count"
    before = public.get("/actuator/prometheus").text
    for number in range(1, 21):
        public.get(f"/nowhere/{number}")
        public.get(f"/api/v1/sources/{number}", headers={"Authorization": tokens[Role.ADMIN]})
    after = public.get("/actuator/prometheus").text
    grown = {key: count for key, count in samples(after).items() if key[0] == name and count > samples(before).get(key, 0)}
    routes = {dict(labels)["route"]: count for (_, labels), count in grown.items() if dict(labels)["status"] == "404"}
    assert routes == {"other": 20, "/api/v1/sources/{source_id}": 20}
    assert value(after, "extraction_duration_count") == 0


def test_lists_of_extractions_count_also_where_they_are_answered_early(
    public: httpx.Client, private: httpx.Client, tokens: dict[Role, str], service: ServiceProcess
) -> None:
    level = "/actuator/loggers/jivs.access"
    private.put(level, json={"configuredLevel": "INFO"})
    asked = {"method": "GET", "route": "/api/v1/extractions", "status": "200"}
    name = "http_server_request_duration_seconds_count"
    before = public.get("/actuator/prometheus").text
    for path in ("/api/v1/extractions", "/api/v1/extractions?limit=7", "/api/v1/extractions?page=0"):
        assert public.get(path, headers={"Authorization": tokens[Role.VIEWER]}).status_code == 200
    after = public.get("/actuator/prometheus").text
    private.put(level, json={"configuredLevel": None})
    assert (value(after, name, **asked) or 0) - (value(before, name, **asked) or 0) == 3
    assert (value(after, "extraction_duration_count") or 0) - (value(before, "extraction_duration_count") or 0) == 3
    told = "jivs.access: GET /api/v1/extractions 200"
    wait_for(lambda: sum(told in line for line in service.printed) >= 3, 5)
    lines = [line for line in service.printed if told in line]
    assert len(lines) == 3
    assert all(line.endswith("viewer\n") for line in lines)


def test_the_pool_is_open_as_a_whole(public: httpx.Client, private: httpx.Client) -> None:
    wait_for(lambda: value(public.get("/actuator/prometheus").text, "hikaricp_connections", pool="HikariPool-1") == 9, 10)
    pools = private.get("/actuator/pools").json()
    assert pools["catalog"]["HikariPool-1"]["limit"] == 9
    assert pools["sources"] == {}


def test_what_was_measured_is_gone_with_the_service(tmp_path: Path) -> None:
    with ServiceProcess(tmp_path, TMPDIR=str(tmp_path)):
        assert [path.name for path in tmp_path.glob("jivs-metrics-*/counter_*.db")]
    assert not list(tmp_path.glob("jivs-metrics-*"))


# -- health -----------------------------------------------------------------------------------------------------------


def test_details_of_health_are_for_who_runs_it(public: httpx.Client, private: httpx.Client, tokens: dict[Role, str]) -> None:
    plain = public.get("/actuator/health").json()
    assert plain == {"status": "UP", "components": {name: {"status": "UP"} for name in ("db", "diskSpace", "archives")}}
    for bearer in (tokens[Role.VIEWER], "Bearer nonsense", "Basic eDp5"):
        assert public.get("/actuator/health", headers={"Authorization": bearer}).json() == plain
    for full in (
        public.get("/actuator/health", headers={"Authorization": tokens[Role.ADMIN]}).json(),
        private.get("/actuator/health").json(),
    ):
        assert full["components"]["db"]["details"]["database"].startswith("SQLite")
        assert full["components"]["diskSpace"]["details"]["free"] > 0


def test_a_catalog_that_is_down_takes_down_what_it_has_to_and_no_more(tmp_path: Path) -> None:
    server = PostgresServer()
    with server:
        given = {
            "DATABASE_URL": server.create("catalog"),
            "JWT_SECRET": "s" * 40,
            "ENCRYPTION_KEY": base64.b64encode(bytes(range(32))).decode(),
            "HIKARI_CONNECTION_TIMEOUT": "2000",
        }
        with (
            ServiceProcess(tmp_path, **given) as running,
            httpx.Client(base_url=running.url, timeout=20) as public,
            httpx.Client(base_url=running.management, timeout=20) as private,
        ):
            assert public.get("/actuator/readiness").status_code == 404
            assert public.get("/actuator/health/readiness").status_code == 200
            assert value(public.get("/actuator/prometheus").text, "jivs_catalog_up") == 1
            server.stop(signal.SIGQUIT)
            wait_for(lambda: public.get("/actuator/health/readiness").status_code == 503, 15)
            assert public.get("/actuator/health/liveness").json() == {"status": "UP"}
            down = public.get("/actuator/health")
            assert (down.status_code, down.json()["status"]) == (503, "DOWN")
            parts = down.json()["components"]
            assert (parts["db"], parts["diskSpace"]) == ({"status": "DOWN"}, {"status": "UP"})
            error = private.get("/actuator/health").json()["components"]["db"]["details"]["error"]
            assert "catalog" in error
            assert "jivs:" not in error
            wait_for(lambda: value(public.get("/actuator/prometheus").text, "jivs_catalog_up") == 0, 15)
            began = time.monotonic()
            text = public.get("/actuator/prometheus").text
            assert time.monotonic() - began < 3
            assert value(text, "jivs_queue_depth") is None
            assert value(text, "extraction_records_total") == 0
            server.start()
            wait_for(lambda: public.get("/actuator/health").status_code == 200, 20)
            wait_for(lambda: value(public.get("/actuator/prometheus").text, "jivs_catalog_up") == 1, 15)


def test_what_the_service_can_do_without_is_shown_and_no_more(tmp_path: Path) -> None:
    with RedisServer() as cache:
        given = {"REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(cache.port), "REDIS_PASSWORD": SERVER_PASSWORD}
        given |= {"RABBITMQ_HOST": "127.0.0.1", "RABBITMQ_PORT": str(free_port())}
        with ServiceProcess(tmp_path, **given) as running, httpx.Client(base_url=running.url, timeout=20) as public:

            def states() -> dict[str, str]:
                answer = public.get("/actuator/health")
                assert (answer.status_code, answer.json()["status"]) == (200, "UP")
                return {name: one["status"] for name, one in answer.json()["components"].items()}

            up = dict.fromkeys(("db", "diskSpace", "archives", "redis"), "UP")
            wait_for(lambda: states() == {**up, "rabbit": "DOWN"}, 15)
            cache.stop()
            wait_for(lambda: states()["redis"] == "DOWN", 15)
            told = httpx.get(f"{running.management}/actuator/health").json()["components"]["redis"]["details"]["error"]
            assert told == f"Redis at 127.0.0.1:{cache.port} does not answer; the service goes on without it."
            assert public.get("/actuator/health/readiness").status_code == 200


# -- the management listener ------------------------------------------------------------------------------------------


def test_what_the_process_is_doing(private: httpx.Client, public: httpx.Client) -> None:
    threads = private.get("/actuator/threaddump").json()["threads"]
    names = {thread["name"] for thread in threads}
    assert {"MainThread", "management", "gc-pauses"} <= names
    main = next(thread for thread in threads if thread["name"] == "MainThread")
    assert any("api/server.py" in line for line in main["stack"])
    memory = private.get("/actuator/memory").json()
    assert memory["process"]["resident"] > 1 << 20
    assert len(memory["python"]["collector"]) == 3
    assert "extraction_records_total" in private.get("/actuator/prometheus").text
    assert private.get("/actuator/health/liveness").status_code == 200
    for path in ("threaddump", "pools", "memory", "loggers"):
        assert public.get(f"/actuator/{path}").status_code == 404


def test_levels_change_while_it_runs(private: httpx.Client, public: httpx.Client, service: ServiceProcess) -> None:
    path = "/actuator/loggers/jivs.access"
    assert private.get(path).json() == {"configuredLevel": None, "effectiveLevel": "WARNING"}
    assert private.post(path, json={"configuredLevel": "INFO"}).status_code == 204
    assert private.get("/actuator/loggers").json()["loggers"]["jivs.access"] == {
        "configuredLevel": "INFO",
        "effectiveLevel": "INFO",
    }
    public.get("/actuator/info")
    wait_for(lambda: any("jivs.access: GET /actuator/info 200" in line for line in service.printed), 5)
    assert private.put(path, json={"configuredLevel": None}).status_code == 204
    assert private.get(path).json()["effectiveLevel"] == "WARNING"
    assert any("Logger jivs.access: INFO instead of WARNING" in line for line in service.printed)
    for level in ("LOUD", "debug", 7):
        assert private.post(path, json={"configuredLevel": level}).status_code == 422
    for method in ("GET", "PUT"):
        assert private.request(method, "/actuator/loggers/no.such", json={"configuredLevel": "INFO"}).status_code == 404
    root = "/actuator/loggers/ROOT"
    assert private.put(root, json={"configuredLevel": "OFF"}).status_code == 204
    assert private.get(root).json()["effectiveLevel"] == "OFF"
    assert private.put(root, json={"configuredLevel": None}).status_code == 204
    assert private.get(root).json()["effectiveLevel"] == "WARNING"


def test_pages_of_other_sites_reach_nothing(private: httpx.Client, service: ServiceProcess) -> None:
    """A browser on the machine would carry them here: as another name of 127.0.0.1, or as a form."""
    for headers in (
        {"Host": "evil.example"},
        {"Host": "evil.example:9010"},
        {"Origin": "https://evil.example"},
        {"Host": ""},
    ):
        for path in ("threaddump", "health", "prometheus"):
            assert private.get(f"/actuator/{path}", headers=headers).status_code == 403, headers
    assert private.get("/actuator/memory", headers={"Host": "localhost:9010"}).status_code == 200
    form = {"Content-Type": "text/plain"}
    body = '{"configuredLevel": "DEBUG"}'
    assert private.post("/actuator/loggers/ROOT", content=body, headers=form).status_code == 415


@pytest.mark.parametrize("address", ["0.0.0.0", "::", "192.0.2.7", "management.example"])
def test_off_loopback_it_is_for_admins(address: str) -> None:
    service = bootstrap.build_service(Settings(), process="api")
    made = users.first_admin(service)
    assert made is not None
    users.add(service, "test", "viewer", Secret(PASSWORD), frozenset({Role.VIEWER}))
    bearers = [
        {"Authorization": f"Bearer {users.login(service, name, password, 'test').access_token}"}
        for name, password in (("viewer", Secret(PASSWORD)), ("admin", made[1]))
    ]
    transport = httpx.ASGITransport(create(service, Health(service), address=address))

    async def ask() -> None:
        async with httpx.AsyncClient(transport=transport, base_url="http://jivs.example:9010") as client:
            for path in ("threaddump", "pools", "memory", "loggers", "loggers/ROOT"):
                codes = [(await client.get(f"/actuator/{path}", headers=given)).status_code for given in ({}, *bearers)]
                assert codes == [401, 403, 200]
            for path in ("prometheus", "health/liveness", "health/readiness", "info"):  # for Prometheus and Kubernetes
                assert (await client.get(f"/actuator/{path}")).status_code == 200
            body = {"configuredLevel": "DEBUG"}
            codes = [(await client.put("/actuator/loggers/jivs", json=body, headers=given)).status_code for given in bearers]
            assert codes == [403, 204]
            shown = ["details" in (await client.get("/actuator/health", headers=given)).text for given in ({}, *bearers)]
            assert shown == [False, False, True]

    try:
        asyncio.run(ask())
    finally:
        logging.getLogger("jivs").setLevel(logging.NOTSET)


def test_a_port_in_use_is_named_and_none_is_needed(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(RuntimeError, match=rf"127.0.0.1:{port}.*MANAGEMENT_PORT"):
            ServiceProcess(tmp_path, MANAGEMENT_PORT=port).start()
    with ServiceProcess(tmp_path, MANAGEMENT_PORT="-1") as running:
        assert running.management == ""
        assert not any("Management" in line for line in running.printed)
    free = str(free_port())
    with ServiceProcess(tmp_path, MANAGEMENT_PORT=free) as running:
        assert running.management == f"http://127.0.0.1:{free}"


def test_it_answers_when_the_service_does_not(tmp_path: Path) -> None:
    """Every thread that serves requests waits for the only connections to the catalog."""
    with (
        ServiceProcess(tmp_path, HIKARI_MAXIMUM_POOL_SIZE="2", HIKARI_CONNECTION_TIMEOUT="2000") as running,
        httpx.Client(base_url=running.management, timeout=3) as private,
        httpx.Client(base_url=running.url, timeout=3) as public,
    ):
        database = str(tmp_path / "jivs" / "catalog.db")
        code = "import sqlite3, sys; c = sqlite3.connect(sys.argv[1], isolation_level=None); c.execute('begin immediate')"
        command = [sys.executable, "-c", f"{code}; print(1, flush=True); sys.stdin.read()", database]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert holder.stdin is not None
        assert holder.stdout is not None
        holder.stdout.readline()
        codes: list[int] = []

        def attempt() -> None:
            with httpx.Client(base_url=running.url, timeout=30) as client:
                body = {"username": "nobody", "password": "x"}
                answer = client.post("/api/v1/auth/login", json=body)
                codes.append(answer.status_code)
                if answer.status_code == 503:
                    assert answer.json()["detail"].startswith("Connection pool exhausted")

        threads = [threading.Thread(target=attempt) for _ in range(50)]
        for thread in threads:
            thread.start()
        wait_for(lambda: private.get("/actuator/pools").json()["catalog"]["HikariPool-1"]["pending"] > 10, 10)
        assert public.get("/actuator/health/liveness").status_code == 200
        assert value(public.get("/actuator/prometheus").text, "hikaricp_connections_pending", pool="HikariPool-1")
        assert len(private.get("/actuator/threaddump").json()["threads"]) > 20
        time.sleep(2.2)
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()
        for thread in threads:
            thread.join()
        assert set(codes) <= {401, 429, 503}
        assert 503 in codes


# -- logs -------------------------------------------------------------------------------------------------------------


def busy(running: ServiceProcess) -> list[str]:
    """Use everything that takes a secret; what must be in no log."""
    source_password = secrets.token_urlsafe(20)
    level = f"{running.management}/actuator/loggers/sqlalchemy.engine"
    assert httpx.put(level, json={"configuredLevel": "DEBUG"}).status_code == 204
    with httpx.Client(base_url=running.url) as client:
        session = client.post("/api/v1/auth/login", json={"username": "admin", "password": running.password}).json()
        client.headers["Authorization"] = f"Bearer {session['accessToken']}"
        client.post("/api/v1/users", json={"username": "ada", "password": PASSWORD, "roles": ["VIEWER"]})
        source = {"name": "s", "url": f"postgresql://reader:{source_password}@127.0.0.1:1/x?connect_timeout=1"}
        client.post("/api/v1/sources", json=source)
        client.post(
            "/api/v1/sources", json={**source, "url": "postgresql://reader@127.0.0.1:1/x", "password": source_password}
        )
        client.post("/api/v1/sources/1/test")
        client.post("/api/v1/auth/refresh", json={"refreshToken": session["refreshToken"]})
        client.get("/api/v1/users", params={"token": session["accessToken"]})
        client.get(f"/{PASSWORD}")
    keys = json.loads((running.state / "jivs" / "keys.json").read_text())
    return [source_password, PASSWORD, session["accessToken"], session["refreshToken"], *map(str, keys.values())]


@pytest.mark.parametrize("form", ["console", "json"])
def test_logs_are_records_and_hold_no_secret_at_any_level(tmp_path: Path, form: str) -> None:
    with ServiceProcess(tmp_path, LOG_LEVEL="DEBUG", LOG_FORMAT=form, JIVS_GC_PAUSE="0") as running:
        hidden = busy(running)
        trace = "0af7651916cd43dd8448eb211c80319c"
        with httpx.Client(base_url=running.url) as client:
            client.get("/actuator/info", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
        wait_for(lambda: any(trace in line for line in running.printed), 5)
        wait_for(lambda: any("GC pause of" in line for line in running.printed), 5)
    text = "".join(running.printed)
    for one in (*hidden, "argon2id$"):
        assert one not in text
    assert "sqlalchemy.engine" in text  # statements, but no values
    assert text.count(running.password) == 1  # the line that tells the first one
    lines = [line.rstrip("\n") for line in running.printed if not line.startswith(("First user", "It is shown"))]
    if form == "json":
        records = [json.loads(line) for line in lines]
        assert {record["level"] for record in records} <= {"DEBUG", "INFO", "WARNING", "ERROR"}
        access = next(record for record in records if record.get("traceId") == trace and record["logger"] == "jivs.access")
        assert (access["method"], access["route"], access["status"]) == ("GET", "/actuator/info", 200)
        assert {record["user"] for record in records if record["logger"] == "jivs.access"} == {"", "admin"}
    else:
        head = re.compile(r"\S+Z (DEBUG|INFO|WARNING|ERROR) \[[0-9a-f]*\] [\w.]+: |(JiVS|Management) is at http|  \| ")
        assert [line for line in lines if not head.match(line)] == []
        assert any(f"INFO [{trace}] jivs.access: GET /actuator/info 200" in line for line in lines)
