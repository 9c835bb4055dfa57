"""The clock on the wall is set by hours while four runs are in flight: no lease is lost by it, no run is held, no time comes
twice. A machine that is too busy may cost one of the leases, whatever the clock says, but not that of every run.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from jivs.testing.wall import WallClock

from .scenes import kill, scene

HOUR = 3600


def test_the_services_clock_jumps_to_and_fro(tmp_path: Path, database: Path) -> None:
    clock = WallClock(tmp_path)
    with scene(tmp_path, database, pace=60_000, **clock.settings) as at:
        first = at.api.headers["Authorization"]
        at.start(flying=4)
        clock.set(5 * HOUR)
        assert at.api.get("/api/v1/auth/me").status_code == 401, "the session is over by this clock"
        at.log_in()
        assert at.api.post("/api/v1/auth/logout").status_code == 204
        ended = at.api.headers["Authorization"]
        at.log_in()
        time.sleep(2)  # some turns of whoever looks for silent workers
        clock.set(-5 * HOUR)
        time.sleep(2)
        assert at.api.get("/api/v1/auth/me").status_code == 200
        assert at.api.get("/api/v1/auth/me", headers={"Authorization": ended}).status_code == 401, "it was ended"
        assert at.api.get("/api/v1/auth/me", headers={"Authorization": first}).status_code == 200
        lost = sum(run["failures"] for run in at.runs())
        assert lost < 2, "leases go by that clock"
        kill(at.workers()[0])
        at.wait(lambda runs: sum(run["failures"] for run in runs) > lost, 20)
        at.all_end_well()


def test_workers_whose_clocks_differ_by_hours(tmp_path: Path, database: Path, pg: str) -> None:
    """One of two jumps ahead and back; when the other dies, with its machine, its runs are taken over all the same."""
    clock = WallClock(tmp_path)
    beside = [{"settings": clock.settings}, {}]
    given = {"EXTRACTION_MAX_PARALLEL_JOBS": "3"}
    with scene(tmp_path, database, catalog=pg, beside=beside, pace=60_000, **given) as at:
        body = {"name": "s", "extractionId": int(at.paths[0].rsplit("/", 1)[1]), "cron": "@yearly", "missedRuns": "RUN_ONCE"}
        assert at.api.post("/api/v1/schedules", json=body).status_code == 201
        at.start_everywhere()
        before = 0
        for _ in range(4):  # a machine that stands still for seconds loses leases, too, but not with each jump
            jumping, known = len(at.workers_of(at.beside[0])), before
            clock.set(5 * HOUR)
            time.sleep(3.5)
            clock.set(-5 * HOUR)
            time.sleep(1)
            before = sum(run["failures"] for run in at.runs())
            if before - known < max(2, jumping):
                break
        else:
            pytest.fail("leases go by that clock")
        machine = at.beside[1]
        lost = at.workers_of(machine)
        assert lost
        for pid in (machine.process.pid, *at.dispatchers(machine), *lost):
            kill(pid)
        machine.process.wait()
        at.all_end_well()
        assert sum(run["failures"] for run in at.runs()) >= before + len(lost)
        with psycopg.connect(pg) as connection:
            row = connection.execute("select count(*) from runs where actor like 'schedule:%'").fetchone()
            assert row == (0,), "no time has come"
            soon = datetime.now(UTC) + timedelta(days=1)
            assert connection.execute("select next_run_at > %s from schedules", (soon.timestamp(),)).fetchone() == (True,)
