"""Four runs in flight on several worker processes: what the tests of the service's faults share."""

from __future__ import annotations

import base64
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psycopg

from jivs import bootstrap
from jivs.operations.verify import VerifyJob, verify
from jivs.settings import Settings
from jivs.testing.servers import wait_for
from jivs.testing.service import ServiceProcess

API = "/api/v1/extractions"
RUNS, TABLES, ROWS = 4, 4, 30_000
ENDED = {"COMPLETED", "INCOMPLETE", "FAILED", "CANCELLED"}
KEYS = {"JWT_SECRET": "s" * 40, "ENCRYPTION_KEY": base64.b64encode(bytes(32)).decode()}


class Scene:
    """A service, workers of their own ``beside`` it if there are any, four extractions of one source into four archives, and
    ways to look at its processes. ``pace``: rows per second of all four together.
    """

    def __init__(
        self,
        service: ServiceProcess,
        api: httpx.Client,
        source: str,
        catalog: str,
        *,
        beside: Sequence[ServiceProcess] = (),
        pace: int = 200_000,
        attempts: int = 20,
    ) -> None:
        self.service, self.api, self.catalog, self.beside = service, api, catalog, list(beside)
        self.archives = service.state / "jivs" / "archives"
        given = {"name": "s", "url": source, "maxConnections": 20, "maxRowsPerSecond": pace}
        made = api.post("/api/v1/sources", json=given)
        assert made.status_code == 201, made.text
        self.source = made.json()["id"]
        self.paths = []
        for number in range(RUNS):
            body = {"name": f"x{number}", "sourceId": self.source, "verify": "full", "parallel": 2, "attempts": attempts}
            self.paths.append(api.post(API, json=body).headers["Location"])

    def start(self, *, flying: int = RUNS) -> None:
        """Ask for the four runs, and wait until so many of them read."""
        for path in self.paths:
            answer = self.api.post(f"{path}/start")
            assert answer.status_code == 202, answer.text
        self.wait(lambda runs: sum(run["rows"] > 0 for run in runs) >= flying)

    def start_everywhere(self) -> None:
        """Start them so that each of the machines ``beside`` has one: where one of two was ready so early that it had done the
        work of both, again.
        """
        for _ in range(5):
            self.start()
            if all(self.workers_of(one) for one in self.beside):
                return
            self.all_end_well()
        raise AssertionError(self.printed())

    def runs(self) -> list[dict[str, Any]]:
        """The newest run of each."""
        return [self.api.get(f"{path}/runs", params={"limit": 1}).json()["items"][0] for path in self.paths]

    def wait(self, holds: Callable[[list[dict[str, Any]]], bool], seconds: float = 300) -> list[dict[str, Any]]:
        """Until it holds of the runs; what they were then."""
        end, runs = time.monotonic() + seconds, []
        while time.monotonic() < end:
            try:
                runs = self.runs()
            except (httpx.HTTPError, KeyError):
                time.sleep(0.1)
                continue
            if holds(runs):
                return runs
            time.sleep(0.25)  # each look costs the service, which shares the machine with us, four requests
        raise AssertionError((runs, self.printed()))

    def printed(self) -> list[str]:
        """What the processes said last."""
        return [line for one in (self.service, *self.beside) for line in one.printed[-20:]]

    def all_end_well(self, folder: Path | None = None) -> None:
        """The runs end COMPLETED, and their archives, seen at ``folder``, have every row once."""
        runs = self.wait(lambda runs: all(run["state"] in ENDED for run in runs))
        assert [run["state"] for run in runs] == ["COMPLETED"] * RUNS, (runs, self.printed())
        for number, run in enumerate(runs):
            assert run["rows"] == TABLES * ROWS
            self.sound(number, folder)

    def one_more(self, folder: Path | None = None) -> None:
        """A new run of the first extraction."""
        began = time.monotonic()
        assert self.api.post(f"{self.paths[0]}/start").status_code == 202
        assert time.monotonic() - began < 2, "asking for a run waits for nobody"

        def newest() -> dict[str, Any]:
            run: dict[str, Any] = self.api.get(f"{self.paths[0]}/runs", params={"limit": 1}).json()["items"][0]
            return run

        wait_for(lambda: newest()["state"] in ENDED, 60)
        assert newest()["state"] == "COMPLETED", (newest(), self.printed())
        self.sound(0, folder)

    def sound(self, number: int, folder: Path | None = None) -> None:
        """An archive is what its manifest says, and has every row once."""
        app = bootstrap.build(Settings())
        address = str((folder or self.archives) / f"x{number}")
        verdict = verify(app, VerifyJob(archive=address, level="full", limits=app.limits))
        assert verdict.sound, verdict.findings
        assert verdict.rows == TABLES * ROWS

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

    def workers_of(self, service: ServiceProcess) -> list[int]:
        """Those of them that belong to this service."""
        own = {child for pid in self.dispatchers(service) for child in children(pid)}
        return [pid for pid in self.workers() if pid in own]

    @staticmethod
    def dispatchers(service: ServiceProcess) -> list[int]:
        """Its process that keeps workers, unless that has just ended."""
        return service.parts("jivs dispatcher")

    def process(self, called: str) -> int:
        """The process of the service that is called so."""
        [found] = self.service.parts(called)
        return found

    def log_in(self) -> None:
        """Again: the service listens elsewhere, or the session has ended."""
        self.api.base_url = httpx.URL(self.service.url)
        given = {"username": "admin", "password": self.service.password}
        answer = self.api.post("/api/v1/auth/login", json=given)
        assert answer.status_code == 200, answer.text
        self.api.headers["Authorization"] = f"Bearer {answer.json()['accessToken']}"


def children(pid: int) -> list[int]:
    """The processes that it started."""
    try:
        return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def kill(pid: int) -> None:
    """As ``kill -9`` does."""
    with suppress(ProcessLookupError):  # it was done a moment ago
        os.kill(pid, signal.SIGKILL)


def freeze(at: Scene, pid: int) -> None:
    """Stop a process where it does not hold the lock of a catalog in a file: nobody but itself could let go of that."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        with closing(sqlite3.connect(at.catalog, timeout=1, isolation_level=None)) as lite:
            try:
                lite.execute("begin immediate")
            except sqlite3.OperationalError:
                os.kill(pid, signal.SIGCONT)
                time.sleep(0.05)
            else:
                return


def make_database(path: Path) -> Path:
    """A source in SQLite."""
    with sqlite3.connect(path) as connection:
        for table in range(TABLES):
            connection.execute(f"create table t{table} (id integer primary key, name text, v real)")
            rows = ((number, f"row {number} of {table}", number / 3) for number in range(ROWS))
            connection.executemany(f"insert into t{table} values (?, ?, ?)", rows)
    connection.close()
    return path


def fill(url: str) -> None:
    """A source in PostgreSQL."""
    with psycopg.connect(url, autocommit=True) as connection:
        for table in range(TABLES):
            connection.execute(
                f"create table t{table} as select g as id, 'row ' || g as name from generate_series(1, {ROWS}) g"
            )


@contextmanager
def scene(
    tmp_path: Path,
    database: Path,
    source: str = "",
    catalog: str = "",
    *,
    beside: Sequence[dict[str, Any]] = (),
    inside: Sequence[str] = (),
    pace: int = 200_000,
    attempts: int = 20,
    **more: str,
) -> Iterator[Scene]:
    """A service; with ``beside`` it executes nothing, and there is a ``jivs worker`` for each, started with what is given."""
    settings = {"JIVS_FILE_ROOTS": str(database.parent), "EXTRACTION_MAX_PARALLEL_JOBS": "4", **more}
    if catalog:
        settings |= {"DATABASE_URL": catalog, "STORAGE_LOCAL_PATH": str(tmp_path / "jivs/archives"), **KEYS}
    arguments = ("serve", "--no-workers", "--port", "0") if beside else ()
    with ExitStack() as stack:
        service = stack.enter_context(ServiceProcess(tmp_path, *arguments, inside=inside, **settings))
        others = [
            stack.enter_context(
                ServiceProcess(
                    tmp_path / f"worker{number}",
                    "worker",
                    inside=one.get("inside", ()),
                    **settings | one.get("settings", {}),
                )
            )
            for number, one in enumerate(beside)
        ]
        api = stack.enter_context(service.client())
        yield Scene(
            service,
            api,
            source or f"sqlite:///{database}",
            catalog or str(tmp_path / "jivs" / "catalog.db"),
            beside=others,
            pace=pace,
            attempts=attempts,
        )
