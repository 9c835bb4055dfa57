"""A run whose worker is the process of the test: what the tests of its end share."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from jivs import bootstrap
from jivs.archive import chain
from jivs.domain.audit import Deed
from jivs.domain.extraction import ExtractionDraft, Job
from jivs.domain.plan import Selection
from jivs.domain.registry import SourceDraft
from jivs.domain.run import Run
from jivs.operations import runs as operations
from jivs.operations.execute import Execution
from jivs.operations.extract import extract
from jivs.operations.job import ExtractJob, Lease, Progress
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

    def due(self) -> Run:
        """What waits for its time: that has come."""
        catalog = str(self.database.with_name("jivs") / "catalog.db")
        with closing(sqlite3.connect(catalog, timeout=30)) as lite, lite:
            lite.execute("update runs set not_before = 1 where not_before > 1")
        return self.claim()

    def start(self) -> Run:
        operations.start(self.service, "test", self.extraction)
        return self.claim()

    def die(self) -> None:
        """The worker's process ends, and its dispatcher sees it."""
        assert self.service.work().lost(self.service.app.owner) == 1

    def publish_and_die(self) -> Run:
        """A run whose worker could not tell the catalog that it had published."""
        run = self.start()
        extract(self.service.app, self.job(run), Progress())
        self.die()
        return run

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


def make_scene(state: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Of a source in SQLite."""
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
