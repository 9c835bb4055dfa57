"""Several runs and readers on one archive at once: none harms another."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from jivs.archive import runs
from jivs.backends.store.local import LocalStore
from jivs.domain.plan import Level, Selection
from jivs.errors import ConflictError, UsageError
from jivs.operations.extract import extract
from jivs.operations.job import ExtractJob, Progress
from jivs.ports.app import App
from tests import archives
from tests.conftest import Run

ROOT = Path(__file__).parent.parent.parent


def make(path: Path, rows: int = 300) -> str:
    connection = sqlite3.connect(path)
    connection.execute("create table t (id integer primary key, v text)")
    connection.executemany("insert into t values (?, ?)", ((n, f"{path.stem} {n}") for n in range(rows)))
    connection.commit()
    connection.close()
    return f"sqlite:///{path}"


def test_a_sweep_never_takes_a_file_of_a_run_that_began_meanwhile(run: Run, tmp_path: Path) -> None:
    """The other run begins when this one is about to sweep, and publishes after it."""
    mine, other = make(tmp_path / "mine.db"), make(tmp_path / "other.db")
    threads: list[threading.Thread] = []
    swept, written = threading.Event(), threading.Event()

    def hold(step: str) -> None:
        if step == "segments written":
            written.set()
            swept.wait(20)

    def begin(step: str) -> None:
        if step == "before sweep":
            threads.append(threading.Thread(target=lambda: run(other, pause=hold)))
            threads[0].start()
            written.wait(20)

    assert run(mine, pause=begin).complete
    swept.set()
    threads[0].join()
    assert {item["source"] for item in archives.manifest(tmp_path / "archive")["tables"]} == {"mine", "other"}
    assert archives.verdict(tmp_path / "archive").sound


def test_processes_that_run_against_each_other(tmp_path: Path) -> None:
    """Two processes extract again and again into one archive while a third verifies it: always sound."""
    urls = [make(tmp_path / f"s{number}.db") for number in range(2)]
    archive = tmp_path / "archive"
    code = (
        "import sys; from jivs.cli.main import app\n"
        "for _ in range(6):\n"
        "    try: app(sys.argv[1:], standalone_mode=False)\n"
        "    except SystemExit as stop: assert stop.code in (0, None), stop.code\n"
        "    except BaseException as error: assert getattr(error, 'exit_code', 0) == 0, error\n"
    )
    commands = [["extract", url, "--to", str(archive), "--progress", "none", "--verify", "full"] for url in urls]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    processes = [
        subprocess.Popen([sys.executable, "-c", code, *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                         text=True, env=environment)
        for command in commands
    ]  # fmt: skip
    unsound = []
    while any(process.poll() is None for process in processes):
        if archive.exists() and list((archive / "manifests").glob("*.json")):
            verdict = archives.verdict(archive, "files")
            if not verdict.sound:
                unsound.append([finding for finding in verdict.findings if finding.severity == "error"])
    for process in processes:
        _, errors = process.communicate()
        assert process.returncode == 0, errors[-1500:]
    assert unsound == []
    found = archives.verdict(archive)
    assert found.sound
    assert found.manifest > 4


def test_of_two_that_resume_at_once_one_goes_on(app: App, run: Run, tmp_path: Path) -> None:
    """Even with catalogs of their own: the archive decides who owns the run."""
    url = make(tmp_path / "s.db")

    class Died(BaseException):
        pass

    def die(step: str) -> None:
        if step == "part recorded":
            raise Died

    with pytest.raises(Died):
        run(url, pause=die)
    store = LocalStore(tmp_path / "archive")
    [seen] = runs.unpublished(store)
    runs.take_over(store, seen, "somebody else")
    from jivs.operations import _planning

    with pytest.raises(ConflictError, match="taken over"):
        _planning.take_over(app, store, seen)


def test_a_run_is_resumed_at_its_own_level_and_with_its_own_options(app: App, tmp_path: Path) -> None:
    url = make(tmp_path / "s.db")

    class Died(BaseException):
        pass

    def die(step: str) -> None:
        if step == "part recorded":
            raise Died

    job = ExtractJob(
        address=app.address(url),
        archive=str(tmp_path / "archive"),
        selection=Selection(),
        limits=app.limits,
        level=Level.COUNT,
    )
    gone = replace(app, gone=lambda _: True)
    with pytest.raises(Died):
        extract(app, job, Progress(), die)
    with pytest.raises(UsageError, match="--verify count"):
        extract(gone, replace(job, level=Level.FULL, resume=True), Progress())
    with pytest.raises(UsageError, match="nothing to resume"):
        extract(gone, replace(job, options={"timeout": "3"}, resume=True), Progress())
    assert extract(gone, replace(job, resume=True), Progress()).complete


def test_signs_of_life_that_lie(app: App, tmp_path: Path) -> None:
    """A clock that runs ahead, and a damaged record, keep nobody from resuming."""
    url = make(tmp_path / "s.db")

    class Died(BaseException):
        pass

    def die(step: str) -> None:
        if step == "part recorded":
            raise Died

    archive = tmp_path / "archive"
    job = ExtractJob(
        address=app.address(url), archive=str(archive), selection=Selection(), limits=app.limits, level=Level.COUNT
    )
    for sign in ('{"time": "2099-01-01T00:00:00Z", "owner": "x", "stopped": false}', '{"time": 7}', "[]"):
        with pytest.raises(Died):
            extract(app, job, Progress(), die)
        [heartbeat] = archive.glob("runs/*/heartbeat.json")
        heartbeat.write_text(sign)
        assert extract(replace(app, gone=lambda _: True), replace(job, resume=True), Progress()).complete


def test_a_reader_of_progress_that_goes_away_stops_nothing(tmp_path: Path) -> None:
    url = make(tmp_path / "s.db", 100_000)
    archive = tmp_path / "archive"
    command = f"{sys.executable} -m jivs extract {url} --to {archive} --progress json 2>&1 >/dev/null | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert archives.table(archive, "t")["totals"]["rows"] == 100_000


def test_a_folder_is_made_while_somebody_removes_it_because_it_is_empty(tmp_path: Path) -> None:
    """Services that start together on one shelf do that to each other."""
    store, done = LocalStore(tmp_path / "shelf"), threading.Event()

    def tidy(pause: float) -> None:
        while not done.wait(pause):
            with suppress(OSError):
                (tmp_path / "shelf" / "tmp").rmdir()

    for pause, write in (
        (0, lambda number: store.spool),
        (0.0005, lambda number: store.create(f"x{number}", b"x")),
    ):
        done.clear()
        threads = [threading.Thread(target=tidy, args=(pause,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for number in range(500):
                write(number)
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert len(list(store.list("x"))) == 500
