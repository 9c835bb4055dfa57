"""How a run ends is decided by its archive, whatever happens to its worker, its user or its catalog in the last moment."""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
import time
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from jivs.archive import chain, runs
from jivs.domain.extraction import ExtractionDraft, Job
from jivs.domain.plan import Level, RunPlan, Selection
from jivs.domain.run import Command, Counts, Order, Run, RunState
from jivs.errors import ArchiveFormatError, ConflictError, FencedError, InterruptedRunError, SettingsError, StoreError
from jivs.operations import extract as extracting
from jivs.operations import runs as operations
from jivs.operations import shelf
from jivs.operations.execute import Execution
from jivs.operations.extract import extract
from jivs.operations.job import Gate, Progress
from jivs.ports.clock import Clock
from jivs.ports.store import Store

from .endings import DEED, ROWS, Scene


def silent(_: object) -> list[int]:
    """In place of ``chain.numbers``: an archive that cannot be asked."""
    raise StoreError("the store is away")


def test_a_worker_that_dies_when_it_has_published(scene: Scene) -> None:
    run = scene.publish_and_die()
    ended = scene.execute(scene.claim())
    assert (ended.state, ended.counts.rows) == (RunState.COMPLETED, ROWS)
    assert scene.manifests(run) == [run.id]


def test_a_run_that_goes_on_counts_what_was_read_before(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    given = scene.service.extractions().get(scene.extraction)
    assert given is not None
    draft = ExtractionDraft(name="y", source_id=given.source_id, job=Job(archive="y", attempts=2, level=Level.FULL))
    scene.extraction = scene.service.extractions().add(draft, "test", DEED).id
    clean = scene.execute(scene.start())
    assert (clean.state, clean.counts.rows) == (RunState.COMPLETED, ROWS)
    finish, seen = extracting._finish, []

    def fail_once(*given: Any) -> Any:
        if not seen:
            seen.append(True)
            raise StoreError("the store is away for a moment")
        return finish(*given)

    monkeypatch.setattr(extracting, "_finish", fail_once)
    broken = scene.execute(scene.start())
    assert (broken.state, broken.counts) == (RunState.PENDING, clean.counts)
    told: list[Counts] = []
    monkeypatch.setattr(extracting, "_finish", lambda *given: (told.append(telling.counts), finish(*given))[1])
    again = scene.due()
    execution = Execution(scene.service, again, threading.Event(), 60, lambda: None)
    telling = execution._telling
    assert execution.run() is RunState.COMPLETED
    assert told == [clean.counts], "nothing was read again"
    ended = scene.service.work().run(again.id)
    assert ended is not None
    assert ended.counts == clean.counts


def test_an_error_behind_the_manifest_undoes_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise StoreError("the disk is full")

    monkeypatch.setattr(chain, "_finish", full)
    run = scene.start()
    ended = scene.execute(run)
    assert (ended.state, ended.counts.rows, ended.counts.partitions_done) == (RunState.COMPLETED, ROWS, 1)
    assert scene.manifests(run) == [run.id]


def test_an_archive_that_cannot_be_asked_leaves_the_end_open(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with one attempt: the run may be published, and here it is."""
    scene.publish_and_die()
    with monkeypatch.context() as away:
        away.setattr(chain, "numbers", silent)
        left = scene.execute(scene.claim())
        assert (left.state, left.message) == (RunState.PENDING, "the store is away")
    with pytest.raises(ConflictError, match="is published"):
        operations.command(scene.service, "test", scene.extraction, Command.STOP)
    ends = time.monotonic() + 10
    while (claimed := scene.service.work().claim(scene.service.app.owner, 60)) is None:
        assert time.monotonic() < ends
    assert scene.execute(claimed).state is RunState.COMPLETED


def test_a_stopped_run_is_not_cancelled_while_the_archive_cannot_be_asked(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.publish_and_die()
    operations.command(scene.service, "test", scene.extraction, Command.STOP)

    with monkeypatch.context() as away:
        away.setattr(chain, "numbers", silent)
        waits = []
        for attempt in range(3):
            left = scene.execute(scene.due())
            assert (left.state, left.order, left.ended_at) == (RunState.RUNNING, Order.CANCEL, None)
            assert (left.failures, left.stalled) == (attempt + 1, 0)
            waits.append(left.not_before - scene.service.clock.now().timestamp())
        assert waits[0] < waits[1] < waits[2], "so that others have their turn, and the log its room"
        assert scene.service.work().claim(scene.service.app.owner, 60) is None
    assert scene.execute(scene.due()).state is RunState.COMPLETED


def test_a_second_stop_ends_a_run_whose_archive_stays_away(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that waits for another attempt: else its extraction could never be removed."""

    run = scene.start()
    monkeypatch.setattr(chain, "numbers", silent)
    assert scene.execute(run).state is RunState.PENDING
    told = operations.command(scene.service, "test", scene.extraction, Command.STOP)
    assert (told.state, told.order) == (RunState.RUNNING, Order.CANCEL)
    left = scene.execute(scene.due())
    assert (left.state, left.order) == (RunState.RUNNING, Order.CANCEL)
    ended = operations.command(scene.service, "test", scene.extraction, Command.STOP)
    assert (ended.state, ended.order, ended.ended_at is None) == (RunState.CANCELLED, Order.GO_ON, False)
    assert scene.service.extractions().remove(scene.extraction, DEED)


def test_a_second_stop_asks_the_archive_that_is_back(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long before the time at which a worker would look again."""
    scene.publish_and_die()
    with monkeypatch.context() as away:
        away.setattr(chain, "numbers", silent)
        assert scene.execute(scene.claim()).state is RunState.PENDING
        assert operations.command(scene.service, "test", scene.extraction, Command.STOP).state is RunState.RUNNING
        left = scene.execute(scene.due())
        assert left.not_before > scene.service.clock.now().timestamp()
    assert operations.command(scene.service, "test", scene.extraction, Command.STOP).state is RunState.RUNNING
    assert scene.execute(scene.claim()).state is RunState.COMPLETED


@pytest.mark.parametrize("error", [SettingsError("no credentials"), ArchiveFormatError("format 2"), ValueError("a defect")])
def test_whatever_keeps_an_archive_from_being_read_leaves_the_end_open(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def unreadable(_: object) -> list[int]:
        raise error

    scene.publish_and_die()
    with monkeypatch.context() as away:
        away.setattr(chain, "numbers", unreadable)
        left = scene.execute(scene.claim())
        assert (left.state, left.stalled) == (RunState.PENDING, 1), left.message
        assert str(error) in left.message or "A defect of JiVS (ValueError)" in left.message
    assert scene.execute(scene.due()).state is RunState.COMPLETED


def test_what_nobody_can_have_published_fails_of_wrong_settings(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(_: object) -> list[int]:
        raise SettingsError("no credentials")

    run = scene.start()
    monkeypatch.setattr(chain, "numbers", wrong)
    ended = scene.execute(run)
    assert (ended.state, ended.message) == (RunState.FAILED, "no credentials")


def test_a_folder_that_is_not_mounted_is_no_archive_without_manifests(scene: Scene) -> None:
    """Beside a catalog in a file as well: archives may have a volume of their own."""
    shelf.require(scene.service)  # as at the service's start
    run = scene.publish_and_die()
    archives = Path(run.archive).parent
    archives.rename(archives.with_name("volume"))
    archives.mkdir()
    left = scene.execute(scene.claim())
    assert left.state is RunState.PENDING
    assert "not where they were" in left.message
    assert str(archives) not in left.message
    told = operations.command(scene.service, "test", scene.extraction, Command.STOP)
    assert (told.state, told.order) == (RunState.RUNNING, Order.CANCEL)
    archives.rmdir()
    archives.with_name("volume").rename(archives)
    assert scene.execute(scene.due()).state is RunState.COMPLETED


def test_a_stop_that_comes_when_a_worker_leaves_the_end_open(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who stops it saw it at work, and so asked no archive; by the time it is written down nobody is."""
    run = scene.start()
    extract(scene.service.app, scene.job(run), Progress())
    work = scene.service.work()
    command = type(work).command

    def late(*given: Any, **more: Any) -> Run:
        assert work.settle(run.id, run.epoch, RunState.PENDING, "away", retry_at=1e10, doubtful=True)
        return command(*given, **more)

    with monkeypatch.context() as racing:
        racing.setattr(type(work), "command", late)
        told = operations.command(scene.service, "test", scene.extraction, Command.STOP)
    assert (told.state, told.order) == (RunState.RUNNING, Order.CANCEL)
    assert scene.execute(scene.claim()).state is RunState.COMPLETED


def test_a_stop_needs_no_archive_that_can_be_opened(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(_: str) -> Store:
        raise SettingsError("no credentials")

    scene.start()
    scene.die()
    service = replace(scene.service, app=replace(scene.service.app, store=wrong))
    assert operations.command(service, "test", scene.extraction, Command.STOP).state is RunState.RUNNING
    assert operations.command(service, "test", scene.extraction, Command.STOP).state is RunState.CANCELLED


def test_a_defect_in_the_look_is_a_doubt(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: object) -> list[int]:
        raise ValueError("a defect")

    scene.publish_and_die()
    with monkeypatch.context() as away:
        away.setattr(chain, "numbers", broken)
        told = operations.command(scene.service, "test", scene.extraction, Command.STOP)
    assert (told.state, told.order) == (RunState.RUNNING, Order.CANCEL)
    assert scene.execute(scene.claim()).state is RunState.COMPLETED


def test_a_look_that_ends_its_process_is_not_taken_again_at_once(scene: Scene) -> None:
    run = scene.start()
    scene.die()
    operations.command(scene.service, "test", scene.extraction, Command.STOP)
    scene.claim()
    scene.die()
    assert scene.service.work().claim(scene.service.app.owner, 60) is None
    assert scene.execute(scene.due()).state is RunState.CANCELLED
    assert scene.manifests(run) == []


def test_a_stop_while_the_archive_cannot_be_asked_cancels_nothing_yet(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes while the worker is at it, and the worker has published."""
    run = scene.start()
    numbers = chain.numbers

    def failing(*_: object) -> None:
        operations.command(scene.service, "test", scene.extraction, Command.STOP)
        monkeypatch.setattr(chain, "numbers", silent)
        raise StoreError("the store is away")

    monkeypatch.setattr(chain, "_finish", failing)
    left = scene.execute(run)
    assert (left.state, left.order) == (RunState.RUNNING, Order.CANCEL)
    monkeypatch.setattr(chain, "numbers", numbers)
    assert scene.execute(scene.due()).state is RunState.COMPLETED


def test_an_archive_that_was_away_for_long_costs_no_attempt(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    run = scene.start()
    with monkeypatch.context() as away:
        away.setattr(chain, "numbers", silent)
        left = scene.execute(run)
    assert (left.state, left.stalled, left.failures) == (RunState.PENDING, 0, 1)
    assert scene.execute(scene.due()).state is RunState.COMPLETED


def test_a_held_run_whose_worker_died_stays_paused(scene: Scene) -> None:
    """Also with one attempt: nothing of it failed."""
    run = scene.start()
    operations.command(scene.service, "test", scene.extraction, Command.PAUSE)
    assert scene.service.work().hold(run.id, run.epoch)
    scene.die()
    claimed = scene.claim()
    assert (claimed.state, claimed.stalled) == (RunState.PAUSED, 0)
    left = scene.execute(claimed)
    assert (left.state, left.stalled, left.order) == (RunState.PAUSED, 0, Order.GO_ON)
    operations.command(scene.service, "test", scene.extraction, Command.RESUME)
    assert scene.execute(scene.claim()).state is RunState.COMPLETED


def test_a_pause_that_comes_when_it_is_published(scene: Scene) -> None:
    scene.publish_and_die()
    assert operations.command(scene.service, "test", scene.extraction, Command.PAUSE).state is RunState.RUNNING
    assert scene.execute(scene.claim()).state is RunState.COMPLETED


def test_a_stop_of_a_paused_run_that_is_published_lets_a_worker_find_it_so(scene: Scene) -> None:
    """As after the catalog was restored from a backup of the time of the pause."""
    run = scene.start()
    extract(scene.service.app, scene.job(run), Progress())
    operations.command(scene.service, "test", scene.extraction, Command.PAUSE)
    scene.service.work().settle(run.id, run.epoch, RunState.PAUSED)
    with pytest.raises(ConflictError, match="is published"):
        operations.command(scene.service, "test", scene.extraction, Command.STOP)
    assert scene.execute(scene.claim()).state is RunState.COMPLETED


def test_a_lease_that_was_declared_lost_does_not_come_back(scene: Scene) -> None:
    run = scene.start()
    assert scene.service.app.catalog().renew_run(run.id, run.epoch, 60)
    scene.die()
    assert not scene.service.app.catalog().renew_run(run.id, run.epoch, 60)


def test_a_folder_that_cannot_be_read_is_not_empty(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    run = scene.start()
    extract(scene.service.app, scene.job(run), Progress())

    def stale(_: object) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    with monkeypatch.context() as away:
        away.setattr(os, "scandir", stale)
        with pytest.raises(StoreError, match="Stale file handle"):
            operations.published(scene.service, run)
    assert operations.published(scene.service, run) is not None


def test_damage_of_an_old_manifest_is_no_failure_of_the_run(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operations, "_CLOCKS_DIFFER", timedelta(0))
    for _ in range(2):
        assert scene.execute(scene.start()).state is RunState.COMPLETED
    run = scene.start()
    damaged = Path(run.archive) / "manifests" / "00000001.json"
    damaged.chmod(0o600)
    damaged.write_bytes(b"{")
    assert scene.execute(run).state is RunState.COMPLETED
    assert chain.load(scene.service.app.store(run.archive), 3).manifest.run_id == run.id


def test_what_was_counted_stays_when_a_run_is_found_published(scene: Scene) -> None:
    with closing(sqlite3.connect(scene.database)) as lite, lite:
        lite.execute("create table q (v integer)")
        lite.executemany("insert into q values (?)", [(1,), ("nope",)])
    run = scene.start()
    outcome = extract(scene.service.app, scene.job(run), Progress())
    counts = Counts(rows=1, bytes=999, partitions=2, partitions_done=1)
    assert scene.service.work().keep(run.id, run.epoch, 60, counts, "publish") is not None
    scene.die()
    ended = scene.execute(scene.claim()).counts
    rows, values = (sum(getattr(one, name) for one in outcome.tables) for name in ("archived", "quarantined_values"))
    assert ended == Counts(rows=rows, bytes=999, quarantined_values=values, partitions=2, partitions_done=2)


def test_a_plan_of_a_worker_that_was_frozen_costs_an_attempt(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """It woke, and wrote its plan down between the look and the plan of the one who had taken over."""
    given = scene.service.extractions().get(scene.extraction)
    assert given is not None
    draft = ExtractionDraft(name="x", source_id=given.source_id, job=Job(archive="x", attempts=2))
    scene.service.extractions().change(given.id, given.version, draft, DEED)
    begin = runs.begin

    def after_another(store: Store, clock: Clock, plan: RunPlan, owner: str) -> None:
        begin(store, clock, plan, "frozen")
        begin(store, clock, plan, owner)

    run = scene.start()
    with monkeypatch.context() as frozen:
        frozen.setattr(runs, "begin", after_another)
        left = scene.execute(run)
    assert (left.state, left.stalled) == (RunState.PENDING, 1), left.message
    scene.service.clock.sleep(1.5)
    assert scene.execute(scene.claim()).state is RunState.COMPLETED


def test_a_worker_that_dies_too_often(scene: Scene) -> None:
    run = scene.start()
    scene.die()
    ended = scene.execute(scene.claim())
    assert ended.state is RunState.FAILED
    assert "It broke off 1 times" in ended.message
    assert scene.manifests(run) == []


def test_a_stop_that_comes_when_it_is_published(scene: Scene) -> None:
    scene.publish_and_die()
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
