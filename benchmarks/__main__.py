"""python -m benchmarks [--repeat N] [--scale S]: measure, check the results, write docs/benchmarks.md.

Every contender runs in a process of its own, in turn, several rounds; what it wrote is checked for rows and sums before its
time counts. Wall time, the client's CPU time and peak memory are of that process, the server's CPU time of all its processes.
Medians are reported, and ratios to JiVS: absolute times belong to the machine.
"""

from __future__ import annotations

import argparse
import datetime as dt
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path

import duckdb
import psycopg

from benchmarks.rivals import RIVALS, environment
from jivs.testing.servers import PostgresServer

ROOT = Path(__file__).parent.parent
DATA = ROOT / "bench-data"
COLUMNS = """l_orderkey bigint not null, l_partkey bigint not null, l_suppkey bigint not null, l_linenumber integer not null,
l_quantity numeric(15,2) not null, l_extendedprice numeric(15,2) not null, l_discount numeric(15,2) not null,
l_tax numeric(15,2) not null, l_returnflag char(1) not null, l_linestatus char(1) not null, l_shipdate date not null,
l_commitdate date not null, l_receiptdate date not null, l_shipinstruct char(25) not null, l_shipmode char(10) not null,
l_comment varchar(44) not null"""
SUMS = (
    "count(*), sum(l_orderkey), sum(l_extendedprice), sum(l_discount), min(l_shipdate)::varchar, max(l_receiptdate)::varchar"
)


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One run of one contender."""

    wall: float
    client: float
    server: float
    memory: int
    size: int


def server_cpu(pid: int) -> float:
    """CPU seconds of a server and of all its children, the ended ones included."""
    ticks = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(entry.name) == pid:
                ticks += sum(map(int, fields[11:15]))
            elif int(fields[1]) == pid:
                ticks += sum(map(int, fields[11:13]))
    return ticks / os.sysconf("SC_CLK_TCK")


def measure(command: Sequence[str], server: int, out: Path) -> Measure:
    """Run a command to its end and look at what it used. Raises RuntimeError if it fails."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    before, began = server_cpu(server), time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - began
    process.returncode = status
    if status:
        raise RuntimeError(printed.decode()[-500:])
    time.sleep(0.2)
    size = sum(path.stat().st_size for path in out.rglob("*.parquet") if "quarantine" not in path.parts)
    return Measure(
        wall=wall,
        client=usage.ru_utime + usage.ru_stime,
        server=server_cpu(server) - before,
        memory=usage.ru_maxrss >> 10,
        size=size,
    )


def check(out: Path, expected: tuple[object, ...]) -> str:
    """Whether the files hold the same rows: exact, or in what they differ."""
    files = [str(path) for path in out.rglob("*.parquet")]
    row = duckdb.sql(f"select {SUMS}, typeof(any_value(l_extendedprice)) from read_parquet({files})").fetchall()[0]
    if row[0] != expected[0]:
        return f"WRONG: {row[0]} rows"
    if "DECIMAL" not in str(row[-1]):
        return f"decimals became {row[-1]}"
    return "exact" if tuple(map(number, row[:-1])) == tuple(map(number, expected)) else "WRONG sums"


def number(value: object) -> object:
    """Numbers by their value, whatever their scale; everything else as text."""
    try:
        return Decimal(str(value))
    except InvalidOperation:
        return str(value)


def seed(url: str, scale: float) -> tuple[object, ...]:
    """TPC-H lineitem, made by tpchgen-cli; what its rows count and sum to."""
    DATA.mkdir(exist_ok=True)
    source = DATA / f"lineitem-{scale}.tbl"
    if not source.exists():
        generator = environment("tpchgen", ["tpchgen-cli"]) / "tpchgen-cli"
        folder = Path(tempfile.mkdtemp(dir=DATA))
        subprocess.run([generator, "tbl", "-s", str(scale), "--tables=lineitem", "-o", folder], check=True)
        (folder / "lineitem.tbl").rename(source)
        shutil.rmtree(folder)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"create table lineitem ({COLUMNS})")
        with (
            connection.cursor() as cursor,
            cursor.copy("copy lineitem from stdin with (delimiter '|')") as copy,
            source.open("rb") as rows,
        ):
            while block := rows.readlines(1 << 20):
                copy.write(b"".join(line.rstrip(b"|\n") + b"\n" for line in block))
        connection.execute("vacuum analyze lineitem")
        return connection.execute(f"select {SUMS} from lineitem").fetchall()[0]


def contenders(url: str) -> dict[str, Callable[[Path], list[str]]]:
    """Name -> command line for an output folder."""
    jivs = [str(Path(sys.executable).parent / "jivs"), "extract", url, "--table", "lineitem", "--progress", "none", "--to"]
    own: dict[str, Callable[[Path], list[str]]] = {
        "JiVS, count verified": lambda out: [*jivs, str(out)],
        "JiVS, not verified": lambda out: [*jivs, str(out), "--verify", "none"],
        "JiVS, fully verified": lambda out: [*jivs, str(out), "--verify", "full"],
    }
    return own | {name: (lambda out, make=make: make(url, out)) for name, make in RIVALS.items()}


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeat", type=int, default=5)
    parser.add_argument("--scale", type=float, default=1)
    given = parser.parse_args()
    os.environ["XDG_STATE_HOME"] = tempfile.mkdtemp(prefix="jivs-bench-")
    with PostgresServer(shared_buffers="2GB") as server:
        assert server.process is not None
        url = server.create("tpch")
        expected = seed(url, given.scale)
        found: dict[str, list[Measure]] = {}
        verdicts: dict[str, str] = {}
        for number in range(given.repeat + 1):  # the first round warms up and is left out
            for name, command in contenders(url).items():
                if verdicts.get(name, "").startswith("failed"):
                    continue
                out = DATA / "out"
                try:
                    one = measure(command(out), server.process.pid, out)
                except (RuntimeError, OSError) as error:
                    verdicts[name] = f"failed: {str(error).splitlines()[-1][:80]}"
                    continue
                verdicts[name] = check(out, expected)
                if number:
                    found.setdefault(name, []).append(one)
                print(
                    f"{number} {name}: {one.wall:.2f} s, {one.client:.2f} + {one.server:.2f} CPU-s, {one.memory} MB, {verdicts[name]}"
                )
        shutil.rmtree(DATA / "out", ignore_errors=True)
    write(found, verdicts, given.scale, int(str(expected[0])))


def write(found: dict[str, list[Measure]], verdicts: dict[str, str], scale: float, rows: int) -> None:
    """The page, from the medians."""

    def median(name: str, of: Callable[[Measure], float]) -> float:
        return statistics.median(of(one) for one in found[name])

    base = median("JiVS, count verified", lambda one: one.wall)
    lines = []
    for name, measured in found.items():
        walls = sorted(one.wall for one in measured)
        lines.append(
            f"| {name} | {median(name, lambda one: one.wall):.2f} | {walls[0]:.2f} to {walls[-1]:.2f} "
            f"| {median(name, lambda one: one.wall) / base:.2f} | {median(name, lambda one: one.client):.1f} "
            f"| {median(name, lambda one: one.server):.1f} | {median(name, lambda one: one.memory):.0f} "
            f"| {median(name, lambda one: one.size) / 1e6:.0f} | {verdicts[name]} |"
        )
    lines += [f"| {name} | | | | | | | | {verdict} |" for name, verdict in verdicts.items() if name not in found]
    cpu = next(
        (line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        "",
    )
    (ROOT / "docs" / "benchmarks.md").write_text(
        "<!-- Made by `make bench`. -->\n\n# Benchmarks\n\n"
        f"PostgreSQL `lineitem` (TPC-H, scale {scale:g}: {rows:,} rows of 16 columns) to Parquet, zstd level 1, over TCP on loopback.\n"
        f"{dt.date.today():%Y-%m-%d}, {cpu}, {os.cpu_count()} cores shared by client and server, {platform.system()}, Python "  # noqa: DTZ011
        f"{platform.python_version()}.\nMedians of {max(len(all_) for all_ in found.values())} rounds, the contenders in turn; every result "
        "was checked for rows and sums.\n\n"
        "| | wall s | from .. to | to JiVS | client CPU-s | server CPU-s | peak MB | output MB | decimals |\n"
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n" + "\n".join(lines) + "\n\n"
        "`make bench` measures again, on your machine. Rivals run in environments of their own, in the best configuration that\n"
        "their documentation gives.\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
