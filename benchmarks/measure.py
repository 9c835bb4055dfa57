"""One run of one contender: wall time, CPU time of client and server, peak memory, size of what it wrote."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_WATCH = """
import os, resource, subprocess, sys, time
began = time.perf_counter()
status = subprocess.call(sys.argv[1:])
wall = time.perf_counter() - began
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(end=f"\\0{wall} {used.ru_utime + used.ru_stime} {used.ru_maxrss}")
sys.exit(status)
"""
"""Starts the contender from a small process: the peak memory of a process begins with that of the one it was forked from."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """Seconds, MB and bytes."""

    wall: float
    client: float
    server: float
    memory: int
    size: int


def server_cpu(pid: int | None) -> float:
    """CPU seconds of a server and of all its children, the ended ones included; 0 without a server."""
    if pid is None:
        return 0.0
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


def run(command: Sequence[str], server: int | None, out: Path) -> Measure:
    """Run a command to its end and look at what it used. Raises RuntimeError if it fails."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    before = server_cpu(server)
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _WATCH, *command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    printed, _, figures = done.stdout.decode(errors="replace").rpartition("\x00")
    if done.returncode:
        raise RuntimeError(printed[-500:])
    wall, client, memory = map(float, figures.split())
    time.sleep(0.2)
    size = sum(path.stat().st_size for path in out.rglob("*.parquet") if "quarantine" not in path.parts)
    return Measure(
        wall=wall,
        client=client,
        server=server_cpu(server) - before,
        memory=int(memory) >> 10,
        size=size,
    )
