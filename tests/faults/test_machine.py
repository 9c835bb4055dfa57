"""The machine's faults: a full disk, a store that fails, an interrupt, little memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from jivs.domain.plan import Level, Selection
from jivs.errors import StoreError
from jivs.operations.extract import extract
from jivs.operations.job import ExtractJob, Progress
from jivs.ports.app import App
from jivs.testing.faults import FaultyStore
from tests import archives
from tests.conftest import Run

JIVS = [sys.executable, "-m", "jivs"]


def fill(url: str, rows: int = 20_000) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            f"create table a as select g as id, md5(g::text) || md5((g + 1)::text) as t from generate_series(1, {rows}) g"
        )


def test_a_full_disk(pg: str, tmp_path: Path) -> None:
    """On a small file system of its own: a sentence, exit 5, and after making room the run goes on."""
    fill(pg, 200_000)
    disk = tmp_path / "disk"
    disk.mkdir()
    script = (
        f'mount -t tmpfs -o size=3m tmpfs {disk} && "$@" extract {pg} --to {disk}/archive --progress none; echo "exit $?";'
        f"ls {disk}/archive/manifests 2>/dev/null; mount -o remount,size=100m {disk};"
        f'"$@" extract {pg} --to {disk}/archive --progress none --resume > /dev/null; echo "exit $?";'
        f'"$@" verify {disk}/archive --level full > /dev/null; echo "exit $?"'
    )
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    done = subprocess.run([*unshare, "bash", "-c", script, "_", *JIVS], capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:3] == ["exit 5", "exit 0", "exit 0"], (done.stdout, done.stderr)
    assert "disk" in done.stderr
    assert "is full" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("failing", ["put data/", "create runs/", "create manifests/", "replace SHA256SUMS", "put schema/"])
def test_a_store_that_fails_once(pg: str, app: App, tmp_path: Path, failing: str) -> None:
    """At each kind of write: the error is passed on, the archive is sound or empty, and the run can be resumed."""
    fill(pg)
    seen: list[str] = []

    def fault(operation: str) -> None:
        if f"before {failing}" in operation and not seen:
            seen.append(operation)
            raise StoreError("The disk is gone.")

    archive = tmp_path / "archive"
    job = ExtractJob(
        address=app.address(pg),
        archive=str(archive),
        selection=Selection(),
        limits=app.limits,
        level=Level.FULL,
        partition_bytes=256 << 10,
    )
    faulty = replace(app, store=lambda address: FaultyStore(app.store(address), fault))
    with pytest.raises(StoreError):
        extract(faulty, job, Progress())
    assert seen
    if list((archive / "manifests").glob("*.json")):
        assert archives.verdict(archive).sound
        outcome = extract(app, job, Progress())
    elif list(archive.glob("runs/*/open.json")):
        outcome = extract(app, replace(job, resume=True), Progress())
    else:
        outcome = extract(app, job, Progress())
    assert outcome.complete
    assert archives.verdict(archive, source=pg).sound
    assert archives.strays(archive) == set()


def test_an_interrupt_stops_cleanly_and_can_be_resumed(pg: str, tmp_path: Path) -> None:
    fill(pg, 400_000)
    archive = tmp_path / "archive"
    command = [*JIVS, "extract", pg, "--to", str(archive), "--max-rows-per-second", "30000", "--progress", "json"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stderr is not None
    while '"event": "progress"' not in process.stderr.readline():
        pass
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert time.monotonic() - began < 10
    assert "--resume" in errors
    assert "Traceback" not in errors
    done = subprocess.run([*JIVS, "extract", pg, "--to", str(archive), "--resume", "--verify", "count"], capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert archives.table(archive, "a")["totals"]["rows"] == 400_000
    assert archives.strays(archive) == set()


def peak(*arguments: str) -> tuple[int, int, str]:
    """Exit code, peak memory in MiB, and errors of a command."""
    code = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], capture_output=True, text=True);"
        "print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, done.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *JIVS, *arguments], capture_output=True, text=True, check=True)
    status, memory, errors = done.stdout.split(" ", 2)
    return int(status), int(memory), errors


@pytest.mark.parametrize("level", ["count", "full"])
def test_memory_stays_under_the_limit_with_rows_of_ten_megabytes(pg: str, tmp_path: Path, level: str) -> None:
    with psycopg.connect(pg, autocommit=True) as connection:
        connection.execute("create table big (id int, b bytea)")
        connection.execute("alter table big alter b set storage external")
        for number in range(24):
            connection.execute("insert into big select %s, decode(repeat('ab', 5242880), 'hex')", (number,))
    status, memory, errors = peak("extract", pg, "--to", str(tmp_path / "archive"), "--verify", level, "--progress", "none")
    assert status == 0, errors
    assert memory < 512


def test_a_row_too_large_is_refused_with_the_settings_name(pg: str, run: Run, tmp_path: Path) -> None:
    with psycopg.connect(pg, autocommit=True) as connection:
        connection.execute("create table a (t text)")
        connection.execute("insert into a select repeat('x', 70 << 20)")
        connection.execute("create table b as select 1 as n")
    outcome = run(pg, level=Level.COUNT)
    assert not outcome.complete
    results = {item.table.name: item for item in outcome.tables}
    assert results["b"].verdict == "verified"
    assert "JIVS_EXTRACTION__MEMORY_LIMIT" in results["a"].reason
    assert [item["name"] for item in archives.manifest(tmp_path / "archive")["tables"]] == ["b"]


def test_memory_does_not_grow_with_the_number_of_rows(pg: str, tmp_path: Path) -> None:
    query = "q=select g, g * 2 as h from generate_series(1, {}) g"
    memory = []
    for number, rows in enumerate((1_000_000, 5_000_000)):
        status, used, errors = peak(
            "extract", pg, "--to", str(tmp_path / str(number)), "--query", query.format(rows), "--progress", "none"
        )
        assert status == 0, errors
        memory.append(used)
    assert memory[1] < 512
    assert memory[1] < memory[0] + 60


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_a_hundred_million_rows(pg: str, tmp_path: Path) -> None:
    status, used, errors = peak(
        "extract", pg, "--to", str(tmp_path / "a"), "--query", "q=select g from generate_series(1, 100000000) g",
        "--progress", "none",
    )  # fmt: skip
    assert status == 0, errors
    assert used < 512
    assert archives.manifest(tmp_path / "a")["tables"][0]["totals"]["rows"] == 100_000_000
