"""How a run ends is decided by its archive, whatever happens to its worker, its user or its catalog in the last moment."""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from jivs import bootstrap
from jivs.archive import chain, runs
from jivs.domain.audit import Deed
from jivs.domain.extraction import ExtractionDraft, Job
from jivs.domain.plan import Selection
from jivs.domain.registry import SourceDraft
from jivs.domain.run import Command, Run, RunState
from jivs.errors import FencedError, InterruptedRunError, StoreError
from jivs.operations import runs as operations
from jivs.operations.execute import Execution
from jivs.operations.extract import extract
from jivs.operations.job import ExtractJob, Gate, Lease, Progress
from jivs.ports.service import Service
from jivs.settings import Settings

DEED = Deed(actor="test", action="x", object="y")
ROWS = 50


@dataclass
class Scene:
    """A service whose worker is this process, and an extraction of one table with one attempt."""

    service: Service
    extraction: int
    database: Path

    def claim(self) -> Run:
        run = self.service.work().claim(self.service.app.owner, 60)
        assert run is not None
        return run

    def start(self) -> Run:
        operations.start(self.service, "test", self.extraction)
        return self.claim()

    def die(self) -> None:
        """The worker's process ends, and its dispatcher sees it."""
        assert self.service.work().lost(self.service.app.owner) == 1

    def job(self, run: Run) -> ExtractJob:
        app = self.service.app
        return ExtractJob(
            address=app.address(f"sqlite:///{self.database}"),
            archive=run.archive,
            selection=Selection(tables=(), queries=()),
            limits=app.limits,
            source_name="s",
            lease=Lease(run_id=run.id, epoch=run.epoch, seconds=60),
        )

    def execute(self, run: Run) -> Run:
        Execution(self.service, run, threading.Event(), 60, lambda: None).run()
        now = self.service.work().run(run.id)
        assert now is not None
        return now

    def manifests(self, run: Run) -> list[str]:
        store = self.service.app.store(run.archive)
        return [chain.load(store, number).manifest.run_id for number in chain.numbers(store)]


@pytest.fixture
def scene(state: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    database = state / "s.db"
    with sqlite3.connect(database) as lite:
        lite.execute("create table t (id integer primary key)")
        lite.executemany("insert into t values (?)", ((number,) for number in range(ROWS)))
    lite.close()
    monkeypatch.setenv("JIVS_FILE_ROOTS", str(state))
    service = bootstrap.build_service(Settings(), process="worker")
    address = service.app.address(f"sqlite:///{database}")
    source = service.registry().add_source(SourceDraft(name="s", address=address, max_connections=0), lambda _: "", DEED)
    draft = ExtractionDraft(name="x", source_id=source.id, job=Job(archive="x", attempts=1))
    return Scene(service, service.extractions().add(draft, "test", DEED).id, database)


def test_a_worker_that_dies_when_it_has_published(scene: Scene) -> None:
    run = scene.start()
    extract(scene.service.app, scene.job(run), Progress())
    scene.die()
    ended = scene.execute(scene.claim())
    assert (ended.state, ended.counts.rows) == (RunState.COMPLETED, ROWS)
    assert scene.manifests(run) == [run.id]


def test_a_worker_that_dies_too_often(scene: Scene) -> None:
    run = scene.start()
    scene.die()
    ended = scene.execute(scene.claim())
    assert ended.state is RunState.FAILED
    assert "Its worker ended 1 times without a word" in ended.message
    assert scene.manifests(run) == []


def test_a_stop_that_comes_when_it_is_published(scene: Scene) -> None:
    run = scene.start()
    extract(scene.service.app, scene.job(run), Progress())
    scene.die()
    assert operations.command(scene.service, "test", scene.extraction, Command.STOP).state is RunState.RUNNING
    assert scene.execute(scene.claim()).state is RunState.COMPLETED


def test_a_sweep_that_fails_is_no_failure_of_the_run(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StoreError("the disk hiccups")

    monkeypatch.setattr(runs, "sweep", full)
    run = scene.start()
    assert scene.execute(run).state is RunState.COMPLETED
    said = scene.service.work().lines(run_id=run.id)
    assert any(line.level == "WARN" and "the disk hiccups" in line.message for line in said)


def test_who_lost_the_lease_in_the_last_moment_publishes_nothing(scene: Scene) -> None:
    run = scene.start()

    def lose(step: str) -> None:
        if step == "before manifest":
            scene.die()
            scene.claim()

    with pytest.raises(FencedError):
        extract(scene.service.app, scene.job(run), Progress(), lose)
    assert scene.manifests(run) == []


def test_rows_of_two_sources_never_meet_in_one_run(scene: Scene, tmp_path: Path) -> None:
    """The source is changed while a run of it waits to go on."""
    other = tmp_path / "other.db"
    for path, name in ((scene.database, "old"), (other, "new")):
        with sqlite3.connect(path) as lite:
            for table in ("t1", "t2"):
                lite.execute(f"create table {table} as select '{name}' as v")
        lite.close()
    run = scene.start()

    job = replace(scene.job(run), selection=Selection(tables=("t1", "t2"), queries=()))
    with pytest.raises(InterruptedRunError):
        extract(scene.service.app, job, Progress(), lambda step: job.gate.stop() if step == "part recorded" else None)
    store = scene.service.app.store(run.archive)
    assert runs.parts(store, run.id)
    changed = replace(job, gate=Gate(), address=scene.service.app.address(f"sqlite:///{other}"))
    outcome = extract(scene.service.app, changed, Progress())
    assert outcome.complete
    state = chain.newest(store)
    assert state is not None
    values = set()
    for table in state.manifest.tables:
        for segment in table.segments:
            with store.open(segment.path) as file:
                values |= set(pq.read_table(file)["v"].to_pylist())
    assert values == {"new"}
