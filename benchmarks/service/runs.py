"""Runs: how fast they are claimed, how many small ones end, what the service adds to one, and the guide's load test."""

from __future__ import annotations

import multiprocessing
import os
import re
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import psycopg

from benchmarks.rivals import ROOT
from jivs.backends.catalog.engine import Engine
from jivs.backends.catalog.extractions import SqlExtractions
from jivs.backends.catalog.registry import SqlRegistry
from jivs.backends.catalog.sql import SqlCatalog
from jivs.backends.catalog.work import SqlWork
from jivs.backends.clock import SystemClock
from jivs.domain.audit import Deed
from jivs.domain.extraction import ExtractionDraft, Job
from jivs.domain.registry import SourceDraft
from jivs.domain.run import RunState
from jivs.domain.source import Address
from jivs.testing.servers import PostgresServer
from jivs.testing.service import ServiceProcess

CLAIMED, CLAIMERS, SMALL, ROWS = 4_000, 4, 1_000, 6_000_000
RUNNERS = 2, 4
"""Of 100 users of the load test."""
_DEED = Deed(actor="bench", action="run.started", object="extraction:x")


def claims(folder: Path, repeat: int) -> str:
    """Runs that wait are claimed by several processes at once, as workers do it, and partitions by one."""
    lines = [
        f"{CLAIMED:,} runs of 40 sources wait; {CLAIMERS} processes claim one after the other, and end each before the next.",
        "One process claims and completes partitions of a run that has 10,000.",
        "",
        "| catalog | runs/s | partitions/s | goal, of partitions |",
        "| --- | --- | --- | --- |",
    ]
    with PostgresServer() as server:
        for catalog, goal in (("SQLite", ">= 3,000"), ("PostgreSQL", ">= 500")):
            rates, parts = [], []
            for number in range(repeat):
                lite = f"sqlite:///{folder}/{number}.db"
                url = server.create(f"claims{number}") if catalog == "PostgreSQL" else lite
                rates.append(_claim_all(url))
                parts.append(_claim_parts(url))
            print(catalog, rates, parts, flush=True)
            lines.append(f"| {catalog} | {statistics.median(rates):,.0f} | {statistics.median(parts):,.0f} | {goal} |")
    return "\n".join(lines) + "\n"


def _claim_all(url: str) -> float:
    engine, clock = Engine(Address.parse(url, lambda _: None)), SystemClock()
    registry, kept = SqlRegistry(engine, clock), SqlExtractions(engine, clock)
    work = SqlWork(engine, clock, connections=100_000, parallel=4)
    for number in range(40):
        draft = SourceDraft(name=f"s{number}", address=Address(scheme="sqlite", database="/x"), max_connections=0)
        registry.add_source(draft, lambda _: "", _DEED)
    for number in range(CLAIMED):
        draft_ = ExtractionDraft(name=f"x{number}", source_id=1 + number % 40, job=Job(archive=f"a{number}"))
        work.submit(kept.add(draft_, "bench", _DEED), f"r{number}", "/a", "bench", _DEED)
    engine.close()
    context = multiprocessing.get_context("spawn")
    ready, begin = context.Barrier(CLAIMERS + 1), context.Event()
    processes = [context.Process(target=_claimer, args=(url, ready, begin, name)) for name in range(CLAIMERS)]
    for process in processes:
        process.start()
    ready.wait()
    began = time.perf_counter()
    begin.set()
    for process in processes:
        process.join()
    assert {process.exitcode for process in processes} == {0}
    return CLAIMED / (time.perf_counter() - began)


def _claim_parts(url: str) -> float:
    engine, clock = Engine(Address.parse(url, lambda _: None)), SystemClock()
    catalog, work = SqlCatalog(engine, clock), SqlWork(engine, clock, connections=10, parallel=4)
    extraction = SqlExtractions(engine, clock).get(1)
    assert extraction is not None
    work.submit(extraction, "large", "/a", "bench", _DEED)
    run = work.claim("host:1:x", 600)
    assert run is not None
    catalog.add_steps("large", [f"p{number}" for number in range(10_000)])
    began, done = time.perf_counter(), 0
    while done < CLAIMED and (step := catalog.claim_step("large", "host:1:x", 600, run_epoch=run.epoch)) is not None:
        catalog.complete_step("large", step.partition, step.epoch, 1)
        done += 1
    took = time.perf_counter() - began
    engine.close()
    return done / took


def _claimer(url: str, ready: object, begin: object, name: int) -> None:
    engine = Engine(Address.parse(url, lambda _: None))
    work = SqlWork(engine, SystemClock(), connections=100_000, parallel=4)
    ready.wait()  # type: ignore[attr-defined]
    begin.wait()  # type: ignore[attr-defined]
    while (run := work.claim(f"host:{os.getpid()}:{name}", 600)) is not None:
        work.settle(run.id, run.epoch, RunState.COMPLETED)
    engine.close()


def small(folder: Path, repeat: int) -> str:
    """From the first start to the end of the last of many small extractions."""
    (folder / "data").mkdir()
    with sqlite3.connect(folder / "data/s.db") as lite:
        lite.execute("create table t (id integer primary key, name text, v real)")
        lite.executemany("insert into t values (?, ?, ?)", ((number, f"n{number}", number / 3) for number in range(1000)))
    lite.close()
    took = []
    for number in range(repeat):
        with ServiceProcess(folder / f"state{number}", JIVS_FILE_ROOTS=str(folder)) as service, service.client() as api:
            source = {"name": "s", "url": f"sqlite:///{folder}/data/s.db", "maxConnections": 100}
            own = api.post("/api/v1/sources", json=source).json()["id"]
            made = [api.post("/api/v1/extractions", json={"name": f"x{one}", "sourceId": own}) for one in range(SMALL)]
            ids = [answer.json()["id"] for answer in made]
            began = time.perf_counter()
            for first in range(0, SMALL, 500):
                api.post("/api/v1/extractions/bulk", json={"action": "start", "ids": ids[first : first + 500]})
            _until(lambda: _count(api, "COMPLETED") == SMALL, 600)
            took.append(time.perf_counter() - began)
            print("small", took[-1], flush=True)
    return f"All have ended {statistics.median(took):.1f} s after the first was started (goal: 60 s).\n"


def jobs(folder: Path, repeat: int) -> str:
    """A query, a verification and a look that have little to do: through the service, and as a process that is started anew."""
    (folder / "data").mkdir()
    database = folder / "data/s.db"
    with sqlite3.connect(database) as lite:
        lite.execute("create table t (id integer primary key, name text)")
        lite.executemany("insert into t values (?, ?)", ((number, f"n{number}") for number in range(1000)))
    lite.close()
    own = {**os.environ, "XDG_STATE_HOME": str(folder / "own")}
    given = {"JIVS_FILE_ROOTS": str(folder), "STORAGE_LOCAL_PATH": str(folder / "shelf")}
    with ServiceProcess(folder / "state", workers=False, **given) as service, service.client() as api:
        jivs, archive = [sys.executable, "-m", "jivs"], str(folder / "shelf/a")
        subprocess.run(
            [*jivs, "extract", f"sqlite:///{database}", "--to", archive], check=True, capture_output=True, env=own
        )
        file = next(Path(archive).rglob("data/**/*.parquet"))
        source = api.post("/api/v1/sources", json={"name": "s", "url": f"sqlite:///{database}"}).headers["Location"]
        count = "select count(*) from t"
        lines = ["| job | service ms | the first ms | a new process ms |", "| --- | --- | --- | --- |"]
        for name, path, body, command in (
            ("query", "/api/v1/archives/a/query", {"sql": count}, [*jivs, "query", archive, count]),
            ("verification", "/api/v1/archives/a/verify", {}, [*jivs, "verify", archive]),
            ("look at a source", f"{source}/test", {}, [*jivs, "discover", f"sqlite:///{database}"]),
            ("(DuckDB in Python, the same file)", "", {}, [sys.executable, "-c", f"import duckdb; duckdb.sql(\"select count(*) from '{file}'\").fetchall()"]),
        ):  # fmt: skip
            served, started = [], []
            for _ in range(5 * repeat):
                if path:
                    served.append(api.post(path, json=body).raise_for_status().elapsed.total_seconds() * 1000)
                began = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True, env=own)
                started.append((time.perf_counter() - began) * 1000)
            print(name, served, started, flush=True)
            here = f"{statistics.median(served[1:]):.0f} | {served[0]:.0f}" if path else "|"
            lines.append(f"| {name} | {here} | {statistics.median(started[1:]):.0f} |")
    return "In turn, 1,000 rows.\n\n" + "\n".join(lines) + "\n"


def _count(api: httpx.Client, state: str) -> int:
    found = api.get("/api/v1/extractions", params={"page": 0, "size": 1, "status": state}).json()
    return int(found["total"])


def overhead(folder: Path, repeat: int) -> str:
    """One table of PostgreSQL, in turn: `jivs extract`, and the service, from the request to the end of the run."""
    alone, served = [], []
    with PostgresServer() as server:
        url = _orders(server, ROWS)
        with ServiceProcess(folder / "state") as service, service.client() as api:
            source = api.post("/api/v1/sources", json={"name": "s", "url": url}).json()["id"]
            for number in range(repeat + 1):
                began = time.perf_counter()
                subprocess.run(
                    [sys.executable, "-m", "jivs", "extract", url, "--to", str(folder / f"cli{number}"), "--parallel", "4"],
                    check=True, capture_output=True, env={**os.environ, "XDG_STATE_HOME": str(folder / "own")},
                )  # fmt: skip
                alone.append(time.perf_counter() - began)
                body = {"name": f"x{number}", "sourceId": source, "parallel": 4}
                path = api.post("/api/v1/extractions", json=body).headers["Location"]
                began = time.perf_counter()
                api.post(f"{path}/start").raise_for_status()
                _until(partial(_completed, api, path), 600)
                served.append(time.perf_counter() - began)
                print("overhead", alone[-1], served[-1], flush=True)
    cli, own = statistics.median(alone[1:]), statistics.median(served[1:])
    return (
        f"{ROWS:,} rows of 4 columns of PostgreSQL, verified by count.\n\n"
        "| command line s | service s | goal: 1.05 x + 0.5 | records/min through the service |\n| --- | --- | --- | --- |\n"
        f"| {cli:.2f} | {own:.2f} | {1.05 * cli + 0.5:.2f} | {ROWS / own * 60:,.0f} |\n"
    )


def _completed(api: httpx.Client, path: str) -> bool:
    return bool(api.get(path).json()["status"] == "COMPLETED")


def load(folder: Path, repeat: int) -> str:
    """`load-tests/extraction-load-test.js` with 100 users, of whom some extract all the time; a round of two minutes of each."""
    del repeat
    sections = []
    with PostgresServer() as server, ServiceProcess(folder / "state") as service:
        given = {
            "BASE_URL": service.url,
            "PASSWORD": service.password,
            "SOURCE_URL": _orders(server, ROWS),
            "TABLES": "public.orders",
        }
        for runners in RUNNERS:
            done = subprocess.run(
                [Path(sys.executable).with_name("k6"), "run", "--no-usage-report", "-q", "--vus", "100", "--duration", "2m",
                 ROOT / "load-tests/extraction-load-test.js"],
                env={**os.environ, **given, "RUNNERS": str(runners)}, capture_output=True, text=True, check=False,
            )  # fmt: skip
            print(done.stdout, done.stderr[-500:], flush=True)
            table = "\n".join(line for line in done.stdout.splitlines() if line.startswith("|"))
            said = re.search(r"\d+ requests, .*", done.stdout)
            sections.append(f"{runners} of 100 users extract:\n\n{table}\n\n{said and said[0]}\n")
    return (
        f"100 users for two minutes, some of whom extract {ROWS:,} rows of PostgreSQL again and again. A run takes 5 of the 10 connections\n"
        "that its source may have: with more than two at once the pool is full, which the criterion of its utilization tells.\n\n"
        + "\n".join(sections)
    )


def _orders(server: PostgresServer, rows: int) -> str:
    url = server.create("sales")
    with psycopg.connect(url, autocommit=True) as pg:
        pg.execute(
            "create table orders as select g as id, g * 1.5::float8 as price, repeat('x', 40) || g as name, now() as at "
            f"from generate_series(1, {rows}) g"
        )
        pg.execute("vacuum analyze orders")
    return url


def _until(true: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.01)
