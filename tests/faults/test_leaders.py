"""The scheduler's holder is killed, beside runs in flight: each second of its schedule has one run all the same."""

from __future__ import annotations

from pathlib import Path

import psycopg

from jivs.testing.service import ServiceProcess

from .scenes import KEYS, Scene, kill
from .test_schedulers import Scene as Schedule


def test_the_schedulers_holder_is_killed_while_runs_are_in_flight(tmp_path: Path, database: Path, pg: str) -> None:
    (tmp_path / "a.csv").write_text("id\n1\n")
    settings = {
        "DATABASE_URL": pg,
        "STORAGE_LOCAL_PATH": str(tmp_path / "one/jivs/archives"),
        "JIVS_FILE_ROOTS": f"{tmp_path}:{database.parent}",
        "EXTRACTION_MAX_PARALLEL_JOBS": "3",
        **KEYS,
    }
    with (
        ServiceProcess(tmp_path / "one", **settings) as one,
        ServiceProcess(tmp_path / "two", **settings) as two,
        psycopg.connect(pg, autocommit=True) as catalog,
        one.client() as api,
    ):
        at = Scene(one, api, f"sqlite:///{database}", pg, beside=[two], pace=60_000)
        at.start()
        schedule = Schedule([one, two], catalog, tmp_path)
        schedule.wait_for_times(1)
        pid, epoch = schedule.holder()
        kill(pid)
        schedule.taken_over(epoch, 6)
        schedule.wait_for_times(2)
        at.all_end_well()
        schedule.end()
