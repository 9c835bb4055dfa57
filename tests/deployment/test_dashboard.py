"""The dashboard, shown: each of its queries asked of a real Prometheus that scraped the service while it was used."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import psycopg
import pytest

from jivs.testing.servers import PASSWORD, PostgresServer, RedisServer, wait_for
from jivs.testing.service import ServiceProcess
from tests.deployment.deployed import panel_queries
from tests.deployment.prometheus import PostgresExporter, Prometheus, RedisExporter

API = "/api/v1/extractions"
ROWS, RATE = 150_000, 30_000
FIRING = {"name": "known", "rules": [{"alert": "AlertThatFires", "expr": "vector(1)", "labels": {"severity": "info"}}]}


@dataclass
class Shown:
    """A Prometheus, and from when until when the service was in use."""

    prometheus: Prometheus
    since: float
    until: float


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, redis: RedisServer) -> Iterator[Shown]:
    state = tmp_path_factory.mktemp("service")
    with ExitStack() as stack:
        database = stack.enter_context(PostgresServer())
        catalog, source = database.create("jivs"), database.create("sales")
        with psycopg.connect(source, autocommit=True) as pg:
            pg.execute(f"create table orders as select g as id, repeat('x', 60) as v from generate_series(1, {ROWS}) g")
            pg.execute("create table prices (id int, price numeric(10, 2))")
            pg.execute("insert into prices values (1, 9.99), (2, 'NaN')")
        settings = {
            "DATABASE_URL": catalog, "REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(redis.port), "REDIS_PASSWORD": PASSWORD,
            "JWT_SECRET": "x" * 48, "ENCRYPTION_KEY": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=",
        }  # fmt: skip
        service = stack.enter_context(ServiceProcess(state, **settings))
        targets = {
            "jivs-backend": f"{service.url}/actuator/prometheus",
            "postgres": f"{stack.enter_context(PostgresExporter(database, 'jivs')).url}/metrics",
            "redis": f"{stack.enter_context(RedisExporter(redis)).url}/metrics",
        }
        prometheus = stack.enter_context(Prometheus(targets=targets, rules=[FIRING]))
        wait_for(lambda: len(prometheus.get("query", query="up == 1")["result"]) == len(targets), 20)
        since = time.time()
        with service.client() as api:
            use(api, source, state)
        time.sleep(2.5)  # two more scrapes
        yield Shown(prometheus, since, time.time())


def use(api: httpx.Client, source: str, state: Path) -> None:
    """A run that takes some seconds, and what else has figures: values that are put aside, an archive that is damaged."""
    kept = {"name": "sales", "url": source, "maxRowsPerSecond": RATE}
    source_id = api.post("/api/v1/sources", json=kept).json()["id"]
    made = api.post(API, json={"name": "orders", "sourceId": source_id, "verify": "full"})
    path = made.headers["Location"]
    assert api.post(f"{path}/start").status_code == 202

    def ended() -> bool:
        for _ in range(5):
            api.get(path), api.get(f"{path}/statistics"), api.get("/api/v1/sources"), api.get("/api/v1/nothing")
        return str(api.get(path).json()["status"]) in {"COMPLETED", "FAILED", "INCOMPLETE"}

    wait_for(ended, 60)
    assert api.get(path).json()["status"] == "COMPLETED"
    next((state / "jivs" / "archives" / "orders").rglob("*.parquet")).write_bytes(b"")
    assert api.post("/api/v1/archives/orders/verify", json={"level": "files"}).json()["sound"] is False


EXPECTED: dict[str, Callable[[float], bool]] = {
    "Extraction throughput (all processes) A": lambda rate: 0 < rate < 60 * RATE * 1.5,
    "API latency p95 A": lambda seconds: 0 < seconds < 10,
    "Cache hit rate A": lambda share: 0 < share <= 1,
    "Connection pool utilization A": lambda share: 0 < share <= 1,
    "Error rate A": lambda share: share >= 0,
    "Runs by state A": lambda runs: runs == 1,
    "Readers and batch size A": lambda readers: readers >= 1,
    "Duration of runs A": lambda seconds: seconds > 0,
    "Failed verifications, quarantined values A": lambda count: count > 0,
    "Failed verifications, quarantined values B": lambda count: count > 0,
    "Metadata pool A": lambda count: count >= 0,
    "Memory A": lambda size: size > 10 << 20,
    "PostgreSQL transactions A": lambda rate: rate > 0,
    "Firing alerts A": lambda count: count == 1,
}
"""What at least one value of these shows; of the others, there is a number."""


def test_expectations_are_of_panels_that_there_are() -> None:
    assert set(EXPECTED) <= set(panel_queries())


@pytest.mark.parametrize("panel", panel_queries())
def test_every_panel_shows_what_happened(shown: Shown, panel: str) -> None:
    values = shown.prometheus.values(panel_queries()[panel], shown.since, shown.until)
    assert values, "an empty panel"
    assert all(math.isfinite(value) and value >= 0 for value in values)
    assert any(map(EXPECTED.get(panel, lambda _: True), values)), values[-20:]
