"""Four runs in flight on several worker processes, and what may happen to those: nothing is lost, doubled or told wrong."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import httpx
import psycopg

from jivs.testing.servers import PostgresServer, wait_for

from .scenes import RUNS, fill, freeze, kill, scene


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
        kill(at.process("jivs api"))
        health = httpx.get(f"{at.service.url}/actuator/health", timeout=30)  # it waits for the next process
        assert health.json()["status"] == "UP"
        at.all_end_well()


def test_the_dispatcher_is_killed(tmp_path: Path, database: Path) -> None:
    with scene(tmp_path, database) as at:
        at.start()
        kill(at.process("jivs dispatcher"))
        at.all_end_well()


def test_the_service_is_killed_and_started_again(tmp_path: Path, database: Path) -> None:
    with scene(tmp_path, database) as at:
        at.start()
        processes = [at.service.process.pid, at.process("jivs api"), at.process("jivs dispatcher"), *at.workers()]
        for pid in processes:
            kill(pid)
        at.service.process.wait()
        at.service.start()
        at.api.base_url = httpx.URL(at.service.url)
        at.all_end_well()


def test_a_newer_version_brings_the_schema_up_while_this_one_works(tmp_path: Path, pg: str, database: Path) -> None:
    """A rollout: what is at work goes on, and what is started anew, by this version, works on the newer schema."""
    with scene(tmp_path, database, catalog=pg) as at:
        at.start()
        with psycopg.connect(pg, autocommit=True) as newer:
            newer.execute("alter table runs add column mood text not null default 'calm'")
            newer.execute("create table moods (id int)")
            newer.execute("update alembic_version set version_num = '9999'")
            for pid in (*at.workers(), at.process("jivs api"), at.process("jivs dispatcher")):
                kill(pid)
            at.all_end_well()
            at.one_more()
            [(version,)] = newer.execute("select version_num from alembic_version")
            assert version == "9999", "nobody takes it back"


def test_a_worker_that_was_frozen_past_its_lease_finds_itself_fenced(tmp_path: Path, database: Path) -> None:
    with scene(tmp_path, database) as at:
        at.start()
        frozen = at.workers()[0]
        freeze(at, frozen)
        try:
            at.wait(lambda runs: any(run["failures"] for run in runs))
            time.sleep(1)
        finally:
            os.kill(frozen, signal.SIGCONT)
        at.all_end_well()


def test_the_connections_of_a_frozen_worker_are_ended_before_the_next_one_opens_its_own(
    tmp_path: Path, pg: str, database: Path
) -> None:
    fill(pg)
    with (
        scene(tmp_path, database, source=pg, pace=25_000, EXTRACTION_MAX_PARALLEL_JOBS="6") as at,
        psycopg.connect(pg, autocommit=True) as source,
    ):
        at.start()
        query = "select count(*) from pg_stat_activity where datname = current_database() and application_name like 'jivs %'"

        def opened() -> int:
            return int(source.execute(query).fetchall()[0][0])

        before = 3 * RUNS  # two that read, and one that holds the snapshot
        wait_for(lambda: opened() == before, 30)
        frozen = at.workers()[0]
        freeze(at, frozen)
        try:
            seen = []
            while not any(run["failures"] for run in at.runs()):
                seen.append(opened())
            for _ in range(50):
                seen.append(opened())
                time.sleep(0.05)
        finally:
            os.kill(frozen, signal.SIGCONT)

        assert max(seen) <= before + 1, "the one that ends the others"
        at.all_end_well()


def test_the_source_goes_away_and_comes_back(tmp_path: Path, database: Path) -> None:
    with PostgresServer() as server:
        url = server.create("source")
        fill(url)
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


def test_a_catalog_that_breaks_off_again_and_again_uses_up_no_attempt(tmp_path: Path, pg: str, database: Path) -> None:
    """The source is well, so no run is given up, however few attempts it has."""
    with (
        scene(tmp_path, database, catalog=pg, pace=40_000, attempts=1) as at,
        psycopg.connect(pg, autocommit=True) as connection,
    ):
        at.start()
        end = time.monotonic() + 8
        while time.monotonic() < end:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity "
                "where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend'"
            )
            time.sleep(0.3)
        at.all_end_well()
