"""Disks that fill up beneath four runs in flight: nothing is half-published, it is said, and it goes on when there is room."""

from __future__ import annotations

import time
from pathlib import Path

from jivs.testing.disk import SmallDisk

from .scenes import RUNS, scene


def test_the_archives_disk_is_full(tmp_path: Path, database: Path) -> None:
    disk = SmallDisk(tmp_path / "jivs" / "archives", 60)
    given = {"STORAGE_LOCAL_PATH": str(disk.folder)}
    with scene(tmp_path, database, inside=disk.inside, pace=100_000, attempts=2, **given) as at:
        pid = at.service.process.pid
        at.start(flying=4)
        disk.fill(pid)
        runs = at.wait(lambda runs: all(run["state"] == "FAILED" for run in runs))
        for run in runs:
            assert "is full: free some space" in run["message"], run
            assert "Tried 2 times" in run["message"], run
        seen = disk.seen(pid)
        assert not list(seen.glob("*/manifests/*.json"))
        assert len(at.api.get("/api/v1/extractions").json()["items"]) == RUNS
        disk.free(pid)
        at.start()
        at.all_end_well(seen)
        assert not list(seen.glob("*/spool/*"))


def test_the_catalogs_disk_is_full(tmp_path: Path, database: Path) -> None:
    folder = tmp_path / "jivs"
    disk = SmallDisk(folder, 12)
    archives = tmp_path / "archives"
    archives.mkdir()
    with scene(tmp_path, database, inside=disk.inside, pace=60_000, STORAGE_LOCAL_PATH=str(archives)) as at:
        pid = at.service.process.pid
        at.catalog = str(disk.seen(pid) / "catalog.db")
        at.start(flying=4)
        disk.fill(pid)
        refused = at.api.post("/api/v1/sources", json={"name": "t" * 100, "url": f"sqlite:///{database}"})
        end = time.monotonic() + 20
        while refused.status_code == 201 and time.monotonic() < end:  # the last page has room for a few
            name = f"{time.monotonic_ns()}".ljust(100, "t")
            refused = at.api.post("/api/v1/sources", json={"name": name, "url": f"sqlite:///{database}"})
        assert refused.status_code == 503, refused.text
        problem = refused.json()
        assert problem["type"] == "urn:jivs:problem:unavailable"
        assert "disk is full" in problem["detail"], problem
        assert "free some space" in problem["detail"], problem
        assert refused.headers["Retry-After"]
        time.sleep(4)  # longer than leases last
        disk.free(pid)
        at.all_end_well(archives)
        at.one_more(archives)
        assert at.api.post("/api/v1/audit/verify").status_code == 200
