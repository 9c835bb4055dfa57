"""What a request costs the process that answers: processor time, which other work on the machine hardly changes."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from pathlib import Path
from statistics import median

from jivs.testing.service import ServiceProcess

API = "/api/v1/extractions"
MOST = 0.008
"""Of the CPU time of ``yardstick``: two and a half times what was measured when this was written."""


def yardstick() -> float:
    """CPU seconds of a piece of work like that of a request: how fast this machine is, as busy as it is."""
    began = time.process_time()
    items = [
        {"id": number, "name": f"x{number}", "state": "COMPLETED", "of": [number, str(number)]} for number in range(20_000)
    ]
    for _ in range(3):
        items = json.loads(json.dumps(items))
    return time.process_time() - began


def spent(pid: int) -> float:
    """CPU seconds of a process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")


def test_a_request_costs_little_processor_time(tmp_path: Path) -> None:
    """Five lists, four gets and a create, as the load of the benchmark has them."""
    with sqlite3.connect(tmp_path / "s.db") as database:
        database.execute("create table t (id)")
    with (
        ServiceProcess(tmp_path / "state", JIVS_FILE_ROOTS=str(tmp_path), workers=False) as service,
        service.client() as api,
    ):
        source = api.post("/api/v1/sources", json={"name": "s", "url": f"sqlite:///{tmp_path}/s.db"}).json()["id"]
        [pid] = service.parts("jivs api")
        asked, measures = 0, []
        for number in range(250):
            if number == 50:  # the first ones fill caches
                before, asked = spent(pid), 0
            if number % 50 == 49:
                measures.append(yardstick())
            made = api.post(API, json={"name": f"x{number}", "sourceId": source})
            assert made.status_code == 201
            answers = [api.get(API, params={"limit": 20, "cursor": number}) for _ in range(5)]
            answers += [api.get(made.headers["Location"]) for _ in range(4)]
            assert {answer.status_code for answer in answers} == {200}
            asked += 1 + len(answers)
        assert (spent(pid) - before) / asked <= MOST * median(measures)
