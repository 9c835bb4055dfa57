"""python -m benchmarks [--repeat N] [--scale S] [--tables N] [--only NAME ...]: measure, check, write docs/benchmarks.md.

Every contender runs in a process of its own, in turn, several rounds; what it wrote is checked before its time counts. Medians
are reported, and ratios to the first contender of the table: absolute times belong to the machine.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import re
import shutil
import statistics
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import psycopg

from benchmarks import limits, scenarios
from benchmarks.measure import Measure, run
from benchmarks.rivals import ROOT
from benchmarks.scenarios import DATA, Scenario
from jivs.testing.servers import MariaServer, PostgresServer

_HEAD = (
    "| | wall s | from .. to | ratio | client CPU-s | server CPU-s | peak MB | output MB | result |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def measured(scenario: Scenario, repeat: int) -> str:
    """A section of the page."""
    found: dict[str, list[Measure]] = {}
    verdicts: dict[str, str] = {}
    for number in range(repeat + 1):  # the first round warms up and is left out
        for name, command in scenario.contenders().items():
            if verdicts.get(name, "").startswith("failed"):
                continue
            out = Path(tempfile.mkdtemp(dir=DATA / "outputs")) / "out"  # fresh: a folder just emptied is slow to fill
            try:
                one = run(command(out), scenario.server, out)
                verdicts[name] = scenario.check(out)
            except (RuntimeError, OSError) as error:
                verdicts[name] = f"failed: {' '.join(str(error).split())[-90:]}"
                continue
            if number:
                found.setdefault(name, []).append(one)
            print(f"{scenario.name} {number} {name}: {one.wall:.2f} s, {one.client:.2f} + {one.server:.2f} CPU-s, "
                  f"{one.memory} MB, {verdicts[name]}", flush=True)  # fmt: skip
    shutil.rmtree(DATA / "outputs")
    (DATA / "outputs").mkdir()
    lines = [_line(name, runs, next(iter(found.values())), verdicts[name]) for name, runs in found.items()]
    lines += [f"| {name} | | | | | | | | {verdict} |" for name, verdict in verdicts.items() if name not in found]
    note = f"\n{scenario.note}\n" if scenario.note else ""
    return f"## {scenario.title}\n{note}\n{_HEAD}\n" + "\n".join(lines) + "\n"


def _line(name: str, runs: list[Measure], first: list[Measure], verdict: str) -> str:
    def median(of: Callable[[Measure], float]) -> float:
        return statistics.median(map(of, runs))

    walls = sorted(one.wall for one in runs)
    ratio = median(lambda one: one.wall) / statistics.median(one.wall for one in first)
    return (
        f"| {name} | {median(lambda one: one.wall):.2f} | {walls[0]:.2f} .. {walls[-1]:.2f} | {ratio:.2f} "
        f"| {median(lambda one: one.client):.2f} | {median(lambda one: one.server):.2f} "
        f"| {median(lambda one: one.memory):.0f} | {median(lambda one: one.size) / 1e6:.1f} | {verdict} |"
    )


def others(lineitem: Scenario, repeat: int) -> str:
    """The measures without a rival."""
    out = DATA / "outputs" / "kept"
    first = run(lineitem.contenders()["JiVS, not verified"](out), lineitem.server, out)
    bottom = limits.floor(lineitem, out)
    sum_seconds, verify_seconds = limits.checksums(out, repeat)
    wire, over_wire = limits.slow_wire(lineitem, bottom["bytes"], repeat)
    with psycopg.connect(lineitem.url) as connection:
        began = dt.datetime.now(dt.UTC)
        connection.execute(f"select count(*) from {lineitem.table}")
        count = (dt.datetime.now(dt.UTC) - began).total_seconds()
    cores = os.cpu_count() or 1
    least = (bottom["server"] + bottom["receive"] + bottom["encode"]) / cores
    rows = [
        ("Floor of `lineitem` on this machine: (server's CPU of one COPY + receiving + encoding) / cores, s",
         f"{least:.2f} = ({bottom['server']:.2f} + {bottom['receive']:.2f} + {bottom['encode']:.2f}) / {cores}"),
        ("JiVS, not verified, to that floor (one run)", f"{first.wall / least:.2f}"),
        (f"The same over a wire of {limits.WIRE // 10**6} MB/s, to the time of moving the bytes", f"{over_wire / wire:.2f} ({over_wire:.2f} s)"),
        ("The source's own `count(*)`, s", f"{count:.2f}"),
        ("`jivs verify --level files` to `sha256sum` with a process per core", (f"{verify_seconds / sum_seconds:.2f} "
         f"({verify_seconds:.2f} s, {sum_seconds:.2f} s)")),
        ("`jivs --help`, ms", f"{limits.start_up(repeat) * 1000:.0f}"),
    ]  # fmt: skip
    shutil.rmtree(DATA / "outputs")
    (DATA / "outputs").mkdir()
    return "## Limits\n\n| | |\n| --- | --- |\n" + "\n".join(f"| {what} | {value} |" for what, value in rows) + "\n"


def large(lineitem: Scenario, repeat: int) -> str:
    """What ten times as many rows cost, against a rival, against a tenth of them, and in checksums."""
    scenario = scenarios.tenfold(lineitem)
    out = DATA / "outputs" / "kept"
    table = measured(scenario, repeat)
    pairs = []
    for _ in range(repeat):
        short, long = (run(one.contenders()["JiVS, not verified"](out), one.server, out) for one in (lineitem, scenario))
        pairs.append((long.wall / short.wall, long.memory, short.memory))
    times, more, less = (statistics.median(one[index] for one in pairs) for index in range(3))
    sum_seconds, verify_seconds = limits.checksums(out, repeat)
    shutil.rmtree(out)
    return (
        f"{table}\nMedians of {repeat} rounds. Ten times the rows take {times:.2f} times as long, with {more:.0f} MB at the peak against {less:.0f}. On that archive "
        f"`jivs verify --level files`\ntakes {verify_seconds:.2f} s, `sha256sum` with a process per core {sum_seconds:.2f} s: "
        f"{verify_seconds / sum_seconds:.2f}.\n"
    )


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1)
    parser.add_argument("--tables", type=int, default=10_000)
    parser.add_argument("--only", nargs="*", default=[], help="names of scenarios, or their beginnings")
    given = parser.parse_args()

    def wanted(name: str) -> bool:
        return not given.only or any(name.startswith(only) or only.startswith(name) for only in given.only)

    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="jivs-bench-")
    shutil.rmtree(DATA / "outputs", ignore_errors=True)
    (DATA / "outputs").mkdir(parents=True)
    sections: dict[str, str] = {}
    if wanted("postgresql"):
        with ExitStack() as stack:
            server = stack.enter_context(PostgresServer(shared_buffers="2GB", max_locks_per_transaction="256"))
            found = scenarios.postgres(server, given.scale, given.tables)
            for scenario in found:
                if wanted(scenario.name):
                    sections[scenario.name] = measured(scenario, given.repeat)
                    if scenario.name == "postgresql-lineitem":
                        sections["limits"] = others(scenario, given.repeat)
            if wanted("postgresql-tenfold"):
                sections["postgresql-tenfold"] = large(found[0], given.repeat)
    if wanted("mariadb"):
        buffers = {"innodb-buffer-pool-size": "2G"}
        with MariaServer(**buffers) as maria:
            sections |= {one.name: measured(one, given.repeat) for one in scenarios.mariadb(maria, given.scale)}
    if wanted("sqlite"):
        sections |= {one.name: measured(one, given.repeat) for one in scenarios.sqlite(given.scale)}
    write(sections)


PAGE = ROOT / "docs" / "benchmarks.md"
_SECTION = re.compile(r"<!-- (\S+), measured \S+ -->\n(.*?)(?=\n<!-- |\n`make bench`)", re.DOTALL)


def write(sections: dict[str, str]) -> None:
    """Put the sections into the page; those that were not measured this time stay, each with its date."""
    today = f"{dt.date.today():%Y-%m-%d}"  # noqa: DTZ011
    old = PAGE.read_text(encoding="utf-8") if PAGE.exists() else ""
    kept = {match[1]: match[0].rstrip() for match in _SECTION.finditer(old)}
    kept |= {name: f"<!-- {name}, measured {today} -->\n{text.rstrip()}" for name, text in sections.items()}
    info = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in info if "model name" in line), "")
    ordered = sorted(kept, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))
    PAGE.write_text(
        "<!-- Made by `make bench`. -->\n\n# Benchmarks\n\n"
        f"To Parquet, Zstandard level 1, over TCP on loopback without TLS. {cpu}, {os.cpu_count()} cores shared by client and "
        f"server,\n{platform.system()}, Python {platform.python_version()}. Medians of five rounds after one to warm up, unless "
        "said otherwise, the contenders\nin turn; every result was checked for rows, sums and what is named in its line. `ratio` is "
        "to the first line; peak memory is the\nclient's.\n\n"
        + "\n\n".join(kept[name] for name in ordered)
        + "\n\n`make bench` measures again, on your machine. Rivals run in environments of their own, in the best configuration that\n"
        "their documentation gives and a trial confirmed (`benchmarks/rivals.py`).\n",
        encoding="utf-8",
    )


_ORDER = (
    "postgresql-lineitem",
    "limits",
    "postgresql-tenfold",
    "postgresql-orders",
    "postgresql-wide",
    "postgresql-texts",
    "postgresql-many",
)


if __name__ == "__main__":
    main()
