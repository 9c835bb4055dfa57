"""The catalog is put back to an older backup, with runs in flight then and now: every run ends in a true state."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from .scenes import KEYS, RUNS, Scene, scene


def test_a_catalog_that_is_older_than_its_archives(tmp_path: Path, database: Path, pg: str) -> None:
    environment = dict(os.environ) | KEYS | {
        "DATABASE_URL": pg, "STORAGE_LOCAL_PATH": str(tmp_path / "jivs/archives"), "XDG_STATE_HOME": str(tmp_path),
    }  # fmt: skip

    def db(*words: str) -> Any:
        done = subprocess.run(
            [sys.executable, "-m", "jivs", "db", *words, "--output", "json"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (done.stdout, done.stderr)
        return json.loads(done.stdout)

    def sound() -> int:
        report = db("check")
        assert report["sound"], report
        return int(report["runs"])

    def again(at: Scene) -> None:
        at.service.start()
        at.log_in()

    with scene(tmp_path, database, catalog=pg) as at:
        before, flying = tmp_path / "before.jivs", tmp_path / "flying.jivs"
        db("backup", str(before))
        at.start()
        db("backup", str(flying))
        at.all_end_well()
        ended = {run["id"] for run in at.runs()}

        at.service.stop()
        db("restore", str(flying))  # it has them RUNNING; they were published since
        sound()
        again(at)
        at.all_end_well()
        assert {run["id"] for run in at.runs()} == ended
        assert len(list((at.archives / "x0" / "manifests").glob("*.json"))) == 1, "nothing was read again"

        at.start()
        at.service.kill()
        db("restore", "--force", str(before))  # it knows nothing of any run
        sound()
        again(at)
        assert [at.api.get(f"{path}/runs").json()["items"] for path in at.paths] == [[]] * RUNS
        for number in range(RUNS):
            at.sound(number)
        at.one_more()
        sound()
