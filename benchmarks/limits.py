"""What the machine allows, and measures that have no rival: the floor, a slow wire, checksums, start-up."""

from __future__ import annotations

import multiprocessing
import socket
import statistics
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import run, server_cpu
from benchmarks.scenarios import DATA, JIVS, Scenario

WIRE = 200_000_000
"""Bytes per second of the slow wire."""


class Proxy:
    """Passes TCP on, at most so many bytes a second over all connections towards the client; in a process of its own."""

    def __init__(self, port: int, rate: int) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._process = multiprocessing.get_context("fork").Process(
            target=_serve, args=(self._listener, port, rate), daemon=True
        )

    def __enter__(self) -> Proxy:
        self._process.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.join()
        self._listener.close()


def _serve(listener: socket.socket, port: int, rate: int) -> None:
    lock = threading.Lock()
    due = [time.monotonic()]

    def pass_on(source: socket.socket, target: socket.socket, *, limited: bool) -> None:
        buffer = bytearray(1 << 18)
        while count := source.recv_into(buffer):
            if limited:
                with lock:
                    now = time.monotonic()
                    due[0] = max(due[0], now - 0.01) + count / rate
                    wait = due[0] - now
                if wait > 0:
                    time.sleep(wait)
            target.sendall(memoryview(buffer)[:count])
        target.shutdown(socket.SHUT_WR)

    while True:
        client, _ = listener.accept()
        server = socket.create_connection(("127.0.0.1", port))
        threading.Thread(target=pass_on, args=(client, server), kwargs={"limited": False}, daemon=True).start()
        threading.Thread(target=pass_on, args=(server, client), kwargs={"limited": True}, daemon=True).start()


def floor(scenario: Scenario, out: Path) -> dict[str, float]:
    """CPU seconds that no reader can avoid: the server's for the cheapest COPY, receiving it, encoding Parquet."""
    before = server_cpu(scenario.server)
    began = time.process_time()
    size = 0
    with psycopg.connect(scenario.url + "?sslmode=disable") as connection:
        received = connection.cursor().copy(f"copy {scenario.table} to stdout (format binary)")
        with received as copy:
            for block in copy:
                size += len(block)
    receive = time.process_time() - began
    server = server_cpu(scenario.server) - before
    files = sorted(path for path in out.rglob("*.parquet") if "quarantine" not in path.parts)
    encode = 0.0
    for path in files:
        table = pq.read_table(path)
        options: dict[str, Any] = {"compression": "zstd", "compression_level": 1, "store_decimal_as_integer": True}
        used = [field.name for field in table.schema if len(table.column(field.name).slice(0, 20000).unique()) < 5000]
        pa.set_cpu_count(1)
        began = time.process_time()
        pq.write_table(table, DATA / "encoded.parquet", use_dictionary=used, **options)
        encode += time.process_time() - began
    (DATA / "encoded.parquet").unlink(missing_ok=True)
    return {"server": server, "receive": receive, "encode": encode, "bytes": size}


def slow_wire(scenario: Scenario, size: float, repeat: int) -> tuple[float, float]:
    """Seconds to move the bytes over the slow wire, and seconds that JiVS takes over it."""
    port = int(scenario.url.rpartition(":")[2].partition("/")[0])
    walls = []
    with Proxy(port, WIRE) as proxy:
        url = scenario.url.replace(f":{port}/", f":{proxy.port}/") + "?sslmode=disable"
        for _ in range(repeat):
            command = [JIVS, "extract", url, "--table", "lineitem", "--progress", "none", "--verify", "none", "--to"]
            walls.append(run([*command, str(DATA / "out")], scenario.server, DATA / "out").wall)
    return size / WIRE, statistics.median(walls)


def checksums(out: Path, repeat: int) -> tuple[float, float]:
    """Seconds of ``sha256sum`` over all files of an archive, one process per core, and of ``jivs verify --level files``."""
    listed = [str(path) for path in out.rglob("*") if path.is_file()]
    script = ["xargs", "-P", str(multiprocessing.cpu_count()), "-n", "4", "sha256sum"]
    theirs, ours = [], []
    for _ in range(repeat):
        began = time.perf_counter()
        subprocess.run(script, input="\n".join(listed), text=True, stdout=subprocess.DEVNULL, check=True)
        theirs.append(time.perf_counter() - began)
        began = time.perf_counter()
        subprocess.run([JIVS, "verify", str(out), "--level", "files"], stdout=subprocess.DEVNULL, check=True)
        ours.append(time.perf_counter() - began)
    return statistics.median(theirs), statistics.median(ours)


def start_up(repeat: int) -> float:
    """Seconds of ``jivs --help``."""
    walls = []
    for _ in range(repeat * 3):
        began = time.perf_counter()
        subprocess.run([JIVS, "--help"], stdout=subprocess.DEVNULL, check=True)
        walls.append(time.perf_counter() - began)
    return statistics.median(walls)
