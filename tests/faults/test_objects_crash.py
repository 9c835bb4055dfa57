"""Processes that die, and processes that meet, at an archive in an object store."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from jivs import bootstrap
from jivs.archive import chain
from jivs.backends.store.s3 import S3Place, S3Store
from jivs.backends.store.s3_access import S3Access
from jivs.domain.plan import Level, Selection
from jivs.domain.source import Limits, Secret
from jivs.errors import StoreError
from jivs.operations.extract import extract
from jivs.operations.job import ExtractJob, Progress
from jivs.ports.app import App
from jivs.ports.clock import Clock
from jivs.ports.store import Store
from jivs.settings import Settings
from jivs.testing.clock import FakeClock
from jivs.testing.relay import Relay
from jivs.testing.servers import S3Server, wait_for
from tests import archives

CHILD = Path(__file__).parent / "child.py"
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def app(bucket: str) -> App:
    return bootstrap.build(Settings())


def child(url: str, archive: str, number: int, *more: str, state: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_STATE_HOME": str(state), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(CHILD), url, archive, str(number), "full", *more]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def make(path: Path, rows: int = 900) -> str:
    connection = sqlite3.connect(path)
    connection.execute("create table a (id integer primary key, t text)")
    connection.executemany("insert into a values (?, ?)", ((n, f"{path.stem} {n}") for n in range(rows)))
    connection.execute("create table b as select * from a where id < 100")
    connection.commit()
    connection.close()
    return f"sqlite:///{path}"


def prints(store: Store) -> dict[str, tuple[int, str]]:
    """Rows and fingerprint of each table."""
    manifest = json.loads(chain.require(store).manifest.to_bytes())
    return {
        item["name"]: (item["totals"]["rows"], item["verification"]["archive_fingerprint"]) for item in manifest["tables"]
    }


def test_a_slice_of_the_kill_points(app: App, bucket: str, tmp_path: Path) -> None:
    url = make(tmp_path / "s.db")
    counted = child(url, f"s3://{bucket}/undisturbed", 0, state=tmp_path / "state")
    assert counted.returncode == 0, counted.stderr
    total = int(counted.stdout.split()[0])
    assert total > 60
    for number in range(4, total, total // 2):
        archive, state = f"s3://{bucket}/{number}", tmp_path / str(number)
        store = app.store(archive)
        killed = child(url, archive, number, state=state)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        if chain.numbers(store):
            assert archives.verdict(archive).sound, number
        again = child(url, archive, 0, "resume", state=state)
        if "nothing to resume" in again.stderr:  # killed before it had begun, or after it had published
            again = child(url, archive, 0, state=state)
        assert again.returncode == 0, (number, again.stderr[-2000:])
        assert archives.verdict(archive, source=url).findings == (), number
        assert prints(store) == prints(app.store(f"s3://{bucket}/undisturbed")), number
        assert archives.strays(archives.copy(store, tmp_path / "copy" / str(number))) == set(), number
        assert [path for path in (state / "jivs" / "spool").rglob("*") if path.is_file()] == [], number


def test_a_process_that_dies_while_it_sends(
    app: App, objects: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is there under the name of a segment but the whole of it; the run goes on."""
    draw = random.Random(1)
    connection = sqlite3.connect(tmp_path / "s.db")
    connection.execute("create table t (id integer primary key, noise blob)")
    connection.executemany("insert into t values (?, ?)", ((n, draw.randbytes(4000)) for n in range(15_000)))
    connection.commit()
    connection.close()
    archive = f"s3://{bucket}/a"
    command = [
        sys.executable,
        "-m",
        "jivs",
        "extract",
        f"sqlite:///{tmp_path / 's.db'}",
        "--to",
        archive,
        "--verify",
        "full",
    ]
    with Relay(objects.port) as relay:
        monkeypatch.setenv("JIVS_S3_ENDPOINT", relay.url)
        process = subprocess.Popen([*command, "--progress", "none"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(lambda: relay.asked > 3_000_000, 60)
        process.kill()
        process.wait()
    store = app.store(archive)
    for entry in store.list("data/"):
        assert hashlib.sha256(store.read(entry.path)).hexdigest() in entry.path
    monkeypatch.setenv("JIVS_S3_ENDPOINT", objects.url)
    done = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert archives.verdict(archive).findings == ()
    assert archives.table(archives.copy(store, tmp_path / "copy"), "t")["totals"]["rows"] == 15_000


def test_an_endpoint_that_goes_away_leaves_a_run_to_resume(
    app: App, objects: S3Server, bucket: str, tmp_path: Path, limits: Limits
) -> None:
    archive = f"s3://{bucket}/a"
    job = ExtractJob(
        address=app.address(make(tmp_path / "s.db", 200_000)),
        archive=archive,
        selection=Selection(),
        limits=limits,
        level=Level.FULL,
    )
    with Relay(objects.port) as relay:
        access = S3Access(
            endpoint=relay.url, region=objects.region, key=objects.key, secret=Secret(objects.secret), attempts=2
        )
        behind = S3Store(S3Place(access, bucket, "a"), tmp_path / "spools")
        relay.after, relay.cut_requests = 20_000, 100_000  # no segment comes through
        with pytest.raises(StoreError, match="JIVS_S3_ENDPOINT"):
            extract(replace(app, store=lambda _: behind), job, Progress())
    assert list(app.store(archive).list("data/s/a/")) == []
    assert chain.numbers(app.store(archive)) == []
    assert extract(app, replace(job, resume=True), Progress()).complete
    assert archives.verdict(archive).findings == ()


def test_of_many_that_publish_at_once_each_gets_one_number(app: App, bucket: str, clock: Clock) -> None:
    """Sixteen proposals at one moment: sixteen manifests, in one chain."""
    store = app.store(f"s3://{bucket}/race")
    start = threading.Barrier(16)
    numbers: list[int] = []

    def publish(name: int) -> None:
        proposal = chain.Proposal(
            run_id=f"run-{name}", source="s", source_facts={}, tables=(), bases={}, failed=(), notes=()
        )
        start.wait()
        numbers.append(chain.publish(store, clock, proposal).link.manifest.number)

    threads = [threading.Thread(target=publish, args=(name,)) for name in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers) == list(range(1, 17)) == chain.numbers(store)
    links = [chain.load(store, number) for number in range(1, 17)]
    assert {link.manifest.run_id for link in links} == {f"run-{name}" for name in range(16)}
    assert all(after.manifest.previous == before.sha256 for before, after in pairwise(links))


@pytest.fixture
def clock() -> Clock:
    return FakeClock()


def test_processes_that_run_against_each_other(app: App, bucket: str, tmp_path: Path) -> None:
    """Two processes extract into one archive, again and again, while a third verifies it."""
    urls = [make(tmp_path / f"s{number}.db", 100) for number in range(2)]
    archive = f"s3://{bucket}/shared"
    code = (
        "import sys, time; from jivs.cli.main import app\n"
        "for _ in range(3):\n"
        "    try: app(sys.argv[1:], standalone_mode=False)\n"
        "    except SystemExit as stop: assert stop.code in (0, None), stop.code\n"
        "    except BaseException as error: assert getattr(error, 'exit_code', 0) == 0, error\n"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, "extract", url, "--to", archive, "--progress", "none", "--verify", "full"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )
        for url in urls
    ]  # fmt: skip
    unsound = []
    while any(process.poll() is None for process in processes):
        if chain.numbers(app.store(archive)):
            verdict = archives.verdict(archive, "files")
            unsound += [finding for finding in verdict.findings if finding.severity == "error"]
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors[-1500:]
    assert unsound == []
    assert chain.numbers(app.store(archive)) == list(range(1, 7))
    assert archives.verdict(archive).findings == ()
