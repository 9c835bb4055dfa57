"""python -m benchmarks.service [--only NAME ...] [--repeat N]: measure the service, write docs/benchmarks-service.md.

k6, the service and its databases share this machine. Medians of the rounds; absolute times belong to the machine.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import random
import re
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.rivals import ROOT
from benchmarks.service import latency, runs

PAGE = ROOT / "docs/benchmarks-service.md"
SECTIONS: dict[str, tuple[str, Callable[[Path, int], str]]] = {
    "latency": ("Requests", latency.table),
    "claims": ("Claims of runs", runs.claims),
    "small": ("1,000 extractions of 1,000 rows", runs.small),
    "overhead": ("An extraction through the service and on the command line", runs.overhead),
    "jobs": ("Queries, verifications and looks", runs.jobs),
    "load": ("The load test of the deployment guide", runs.load),
}
_HEAD = f"""<!-- Made by `python -m benchmarks.service`. -->

# Benchmarks of the service

k6, the service and its databases on the same machine: {os.cpu_count()} cores, Linux. Medians of the rounds that `--repeat` asks for
(3), after one to warm up. The machine is shared: beside each section stands how long ten million additions in Python took right
before it, and a read of 5 MB in no order, each of which has to wait for the one before. Where neighbours leave nothing of the cache
that cores share, the read takes up to ten times as long, and a request two to four times as much processor time; the additions hardly differ.
Extraction itself: [benchmarks](benchmarks.md).
"""


def _yardstick() -> float:
    """Seconds that a fixed piece of work takes: what the same machine has left for us differs from hour to hour."""
    took = []
    for _ in range(3):
        began, total = time.perf_counter(), 0
        for number in range(10_000_000):
            total += number
        took.append(time.perf_counter() - began)
    return min(took)


def _read() -> float:
    """Nanoseconds that a read takes in a list that fits into the cache which cores share, and into no smaller one."""
    order = list(range(1 << 17))
    random.Random(1).shuffle(order)
    took = []
    for _ in range(3):
        began, place = time.perf_counter(), 0
        for _ in range(1_000_000):
            place = order[place]
        took.append(time.perf_counter() - began)
    return min(took) * 1e9 / 1_000_000


def main() -> None:
    """Measure what was asked for, and replace it in the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service")
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    known = dict(
        re.findall(r"(?s)<!-- (\w+), measured .*? -->\n(.*?)(?=\n<!-- |\Z)", PAGE.read_text() if PAGE.exists() else "")
    )
    dates = dict(re.findall(r"<!-- (\w+), measured (\S+) -->", PAGE.read_text() if PAGE.exists() else ""))
    for name in given.only:
        title, measure = SECTIONS[name]
        yardstick, read = _yardstick(), _read()
        with tempfile.TemporaryDirectory(prefix="jivs-bench-") as folder:
            found = measure(Path(folder), given.repeat).rstrip()
        known[name] = f"## {title}\n\n{found}\n\nYardsticks: {yardstick:.2f} s, {read:.0f} ns.\n"
        dates[name] = dt.datetime.now(dt.UTC).date().isoformat()
        print(known[name], flush=True)
        parts = [f"\n<!-- {one}, measured {dates[one]} -->\n{known[one].rstrip()}\n" for one in SECTIONS if one in known]
        PAGE.write_text(_HEAD + "".join(parts))


if __name__ == "__main__":
    main()
