"""Lists, gets and creates of extractions, by k6, with 20,000 runs in the catalog."""

from __future__ import annotations

import json
import os
import sqlite3
import statistics
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from benchmarks.service import bare
from jivs.testing.servers import PostgresServer
from jivs.testing.service import ServiceProcess

EXTRACTIONS, RUNS = 1_000, 20_000
SECONDS = 30
"""Of each round: the first requests of a hundred users, who all connect at once, are a twentieth of ten seconds."""

SECRETS = {"JWT_SECRET": "x" * 48, "ENCRYPTION_KEY": "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="}
_GOALS = {
    ("SQLite", "open"): "p95 <= 5, p99 <= 15",
    ("SQLite", "think"): "p95 <= 20, p99 <= 35",
    ("PostgreSQL", "think"): "p95 <= 40, p99 <= 60",
    ("SQLite", "busy"): ">= 2,000/s, p95 <= 110",
}
_MODES = {
    "open": "1,000 requests/s, whenever they are answered",
    "think": "100 users, 0.5 s between requests",
    "busy": "100 users without a pause",
}
_BARE = {"uvicorn": "(uvicorn alone)", "framework": "(FastAPI alone)"}
_COLUMNS = "id, kind, source, archive, digest, state, message, epoch, owner, created_at, updated_at, extraction_id, source_id, job, rows"


def table(folder: Path, repeat: int) -> str:
    """The section of the page."""
    lines = [
        "50 % lists of 20, 40 % gets, 10 % creates; CPU is that of the process that answers. Above those of JiVS stand two that",
        "look nothing up and know no users: uvicorn with bytes that are there, and FastAPI with what it makes in memory.",
        "",
        "| catalog | load | requests/s | p50 ms | p95 ms | p99 ms | CPU ms per request | failed | goal |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in ("uvicorn", "framework"):
        with bare.serving(name) as (url, pid):
            lines += _rows_of(_BARE[name], url, "none", pid, repeat)
    for catalog in ("SQLite", "PostgreSQL"):
        with _serving(folder / catalog, catalog) as service, service.client() as api:
            [pid] = service.parts("jivs api")
            lines += _rows_of(catalog, service.url, api.headers["Authorization"].partition(" ")[2], pid, repeat)
    return "\n".join(lines) + "\n"


def _rows_of(name: str, url: str, token: str, pid: int, repeat: int) -> Iterator[str]:
    """The rows of the table of what answers at ``url``."""
    for mode, load in _MODES.items():
        found = [_load(url, token, mode, pid) for _ in range(repeat + 1)][1:]
        shown = {key: statistics.median(one[key] for one in found) for key in found[0]}
        print(name, mode, shown, flush=True)
        yield (
            f"| {name} | {load} | {shown['requests_per_second']:,.0f} | {shown['median_ms']:.1f} "
            f"| {shown['p95_ms']:.1f} | {shown['p99_ms']:.1f} | {shown['cpu']:.2f} "
            f"| {max(one['failed'] + one['dropped'] for one in found):g} | {_GOALS.get((name, mode), '')} |"
        )


@contextmanager
def _serving(state: Path, catalog: str) -> Iterator[ServiceProcess]:
    (state / "data").mkdir(parents=True)
    sqlite3.connect(state / "data/s.db").execute("create table t (id)").connection.close()
    given = {"JIVS_FILE_ROOTS": str(state / "data"), "JWT_EXPIRATION": "3600000"}
    if catalog == "SQLite":
        with ServiceProcess(state, **given) as service:
            _fill(service, state)
            with sqlite3.connect(state / "jivs/catalog.db", timeout=30) as lite:
                marks = ", ".join("?" * 15)
                lite.executemany(f"insert into runs ({_COLUMNS}) values ({marks})", _rows())
            lite.close()
            yield service
        return
    with PostgresServer() as server:
        url = server.create("jivs")
        with ServiceProcess(state, DATABASE_URL=url, HIKARI_MAXIMUM_POOL_SIZE="20", **SECRETS, **given) as service:
            _fill(service, state)
            with psycopg.connect(url, autocommit=True) as pg:
                marks = ", ".join(["%s"] * 15)
                pg.cursor().executemany(f"insert into runs ({_COLUMNS}) values ({marks})", list(_rows()))
                pg.execute("vacuum analyze")
            yield service


def _fill(service: ServiceProcess, state: Path) -> None:
    with service.client() as api:
        api.post("/api/v1/sources", json={"name": "s", "url": f"sqlite:///{state}/data/s.db"}).raise_for_status()
        for number in range(EXTRACTIONS):
            api.post("/api/v1/extractions", json={"name": f"x{number}", "sourceId": 1}).raise_for_status()


def _rows() -> Iterator[tuple[Any, ...]]:
    for number in range(RUNS):
        at = 1.79e9 + number
        yield (
            f"r{number}",
            "extract",
            "s",
            "/a",
            "",
            "COMPLETED",
            "",
            1,
            "",
            at,
            at,
            1 + number % EXTRACTIONS,
            1,
            "{}",
            1000,
        )


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def _load(url: str, token: str, mode: str, pid: int) -> dict[str, float]:
    given = {"BASE_URL": url, "TOKEN": token, "MODE": mode, "EXTRACTIONS": str(EXTRACTIONS), "DURATION": f"{SECONDS}s"}
    script = Path(__file__).with_name("latency.js")
    before = _cpu(pid)
    done = subprocess.run(
        [Path(sys.executable).with_name("k6"), "run", "--no-usage-report", "-q", script],
        env={**os.environ, **given}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    requests = found["requests_per_second"] * SECONDS
    return {**found, "cpu": (_cpu(pid) - before) / requests * 1000}
