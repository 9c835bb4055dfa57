"""Four runs in flight on several worker processes, and what may happen to those: nothing is lost, doubled or told wrong."""

from __future__ import annotations

import base64
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from jivs import bootstrap
from jivs.operations.verify import VerifyJob, verify
from jivs.settings import Settings
from jivs.testing.servers import PostgresServer
from jivs.testing.service import ServiceProcess

API = "/api/v1/extractions"
RUNS, TABLES, ROWS = 4, 4, 30_000
ENDED = {"COMPLETED", "INCOMPLETE", "FAILED", "CANCELLED"}


class Scene:
    """A service, four extractions of one source into four archives, and ways to look at its processes."""

    def __init__(self, service: ServiceProcess, api: httpx.Client, source: str, catalog: str) -> None:
        self.service, self.api, self.catalog = service, api, catalog
        made = api.post(
            "/api/v1/sources", json={"name": "s", "url": source, "maxConnections": 20, "maxRowsPerSecond": 200_000}
        )
        self.source = made.json()["id"]
        self.paths = []
        for number in range(RUNS):
            body = {"name": f"x{number}", "sourceId": self.source, "verify": "full", "parallel": 2, "attempts": 20}
            self.paths.append(api.post(API, json=body).headers["Location"])

    def start(self) -> None:
        for path in self.paths:
            assert self.api.post(f"{path}/start").status_code == 202
        self.wait(lambda runs: sum(run["rows"] > 0 for run in runs) >= 2)

    def runs(self) -> list[dict[str, Any]]:
        return [self.api.get(f"{path}/runs", params={"limit": 1}).json()["items"][0] for path in self.paths]

    def wait(self, holds: Callable[[list[dict[str, Any]]], bool], seconds: float = 120) -> list[dict[str, Any]]:
        end, runs = time.monotonic() + seconds, []
        while time.monotonic() < end:
            try:
                runs = self.runs()
            except (httpx.HTTPError, KeyError):
                time.sleep(0.1)
                continue
            if holds(runs):
                return runs
            time.sleep(0.03)
        raise AssertionError((runs, self.service.printed[-30:]))

    def all_end_well(self) -> None:
        runs = self.wait(lambda runs: all(run["state"] in ENDED for run in runs))
        assert [run["state"] for run in runs] == ["COMPLETED"] * RUNS, (runs, self.service.printed[-30:])
        app = bootstrap.build(Settings())
        for number, run in enumerate(runs):
            address = str(self.service.state / "jivs" / "archives" / f"x{number}")
            verdict = verify(app, VerifyJob(archive=address, level="full", limits=app.limits))
            assert verdict.sound, verdict.findings
            assert (verdict.rows, run["rows"]) == (TABLES * ROWS, TABLES * ROWS)

    def workers(self) -> list[int]:
        """The processes that have a run now."""
        query = "select owner from runs where state = 'RUNNING' and owner <> ''"
        if self.catalog.startswith("postgresql"):
            with psycopg.connect(self.catalog) as pg:
                owners = [row[0] for row in pg.execute(query)]
        else:
            lite = sqlite3.connect(self.catalog, timeout=10)
            owners = [row[0] for row in lite.execute(query)]
            lite.close()
        return [int(owner.split(":")[1]) for owner in owners]

    def process(self, module: str) -> int:
        """The child of the service that runs this module."""
        [found] = [pid for pid in children(self.service.process.pid) if module in command(pid)]
        return found


def children(pid: int) -> list[int]:
    try:
        return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def command(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def kill(pid: int) -> None:
    with suppress(ProcessLookupError):  # it was done a moment ago
        os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "s.db"
    with sqlite3.connect(path) as connection:
        for table in range(TABLES):
            connection.execute(f"create table t{table} (id integer primary key, name text, v real)")
            rows = ((number, f"row {number} of {table}", number / 3) for number in range(ROWS))
            connection.executemany(f"insert into t{table} values (?, ?, ?)", rows)
    connection.close()
    return path


@contextmanager
def scene(tmp_path: Path, database: Path, source: str = "", catalog: str = "") -> Iterator[Scene]:
    given = {"JIVS_FILE_ROOTS": str(database.parent), "EXTRACTION_MAX_PARALLEL_JOBS": "4"}
    if catalog:
        key = base64.b64encode(bytes(32)).decode()
        given |= {
            "DATABASE_URL": catalog,
            "JWT_SECRET": "s" * 40,
            "ENCRYPTION_KEY": key,
            "STORAGE_LOCAL_PATH": str(tmp_path / "jivs/archives"),
        }
    with ServiceProcess(tmp_path, **given) as service, service.client() as api:
        yield Scene(service, api, source or f"sqlite:///{database}", catalog or str(tmp_path / "jivs" / "catalog.db"))


def test_a_killed_worker(tmp_path: Path, database: Path) -> None:
    with scene(tmp_path, database) as at:
        at.start()
        workers = at.workers()
        assert len(set(workers)) >= 2
        began = time.monotonic()
        kill(workers[0])
        at.wait(lambda runs: any(run["failures"] for run in runs))
        assert time.monotonic() - began < 10  # one second where nothing else runs
        at.all_end_well()


def test_the_api_is_killed(tmp_path: Path, database: Path) -> None:
    with scene(tmp_path, database) as at:
        at.start()
        kill(at.process("jivs.api"))
        health = httpx.get(f"{at.service.url}/actuator/health", timeout=30)  # it waits for the next process
        assert health.json()["status"] == "UP"
        at.all_end_well()


def test_the_dispatcher_is_killed(tmp_path: Path, database: Path) -> None:
    with scene(tmp_path, database) as at:
        at.start()
        kill(at.process("jivs.worker"))
        at.all_end_well()


def test_the_service_is_killed_and_started_again(tmp_path: Path, database: Path) -> None:
    with scene(tmp_path, database) as at:
        at.start()
        processes = [at.service.process.pid, at.process("jivs.api"), at.process("jivs.worker"), *at.workers()]
        for pid in processes:
            kill(pid)
        at.service.process.wait()
        at.service.start()
        at.api.base_url = httpx.URL(at.service.url)
        at.all_end_well()


def test_a_worker_that_was_frozen_past_its_lease_finds_itself_fenced(tmp_path: Path, database: Path) -> None:
    with scene(tmp_path, database) as at:
        at.start()
        frozen = at.workers()[0]
        os.kill(frozen, signal.SIGSTOP)
        try:
            at.wait(lambda runs: any(run["failures"] for run in runs))
            time.sleep(1)
        finally:
            os.kill(frozen, signal.SIGCONT)
        at.all_end_well()


def test_the_source_goes_away_and_comes_back(tmp_path: Path, database: Path) -> None:
    with PostgresServer() as server:
        url = server.create("source")
        with psycopg.connect(url, autocommit=True) as connection:
            for table in range(TABLES):
                connection.execute(
                    f"create table t{table} as select g as id, 'row ' || g as name from generate_series(1, {ROWS}) g"
                )
        with scene(tmp_path, database, source=url) as at:
            at.start()
            server.crash()
            time.sleep(0.5)
            server.start()
            at.all_end_well()


def test_the_catalogs_database_goes_away_and_comes_back(tmp_path: Path, database: Path) -> None:
    durable = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
    with PostgresServer(**durable) as server, scene(tmp_path, database, catalog=server.create("catalog")) as at:
        at.start()
        server.crash()
        time.sleep(0.5)
        server.start()
        at.all_end_well()


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_fifty_rounds_of_everything(tmp_path: Path, database: Path) -> None:
    chance = random.Random(7)
    with scene(tmp_path, database) as at:
        for _ in range(50):
            at.start()
            for _ in range(chance.randint(1, 3)):
                time.sleep(chance.random())
                what = chance.choice(["worker", "worker", "frozen", "api", "dispatcher", "service"])
                workers = at.workers()
                if what == "worker" and workers:
                    kill(chance.choice(workers))
                elif what == "frozen" and workers:
                    pid = chance.choice(workers)
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGSTOP)
                        time.sleep(4)
                        os.kill(pid, signal.SIGCONT)
                elif what in {"api", "dispatcher"}:
                    for pid in children(at.service.process.pid):
                        if {"api": "jivs.api", "dispatcher": "jivs.worker"}[what] in command(pid):
                            kill(pid)
                elif what == "service":
                    at.service.kill()
                    at.service.start()
                    at.api.base_url = httpx.URL(at.service.url)
            at.all_end_well()
