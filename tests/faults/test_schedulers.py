"""Two services on one catalog, one of which has the duty of the scheduler: killed, frozen, taken over; no time is lost or comes
twice.
"""

from __future__ import annotations

import base64
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from jivs.backends.catalog import leases
from jivs.backends.catalog.engine import Engine
from jivs.backends.catalog.leases import SqlLeases
from jivs.domain.source import Address
from jivs.testing.servers import wait_for
from jivs.testing.service import ServiceProcess

from .scenes import kill


class Scene:
    """The services, and what the catalog says of them. ``schedule``: one of every second, made in the catalog itself."""

    def __init__(self, services: list[ServiceProcess], catalog: psycopg.Connection[Any], folder: Path) -> None:
        self.services, self.catalog = services, catalog
        with services[0].client() as api:
            config = {"database": str(folder / "a.csv")}
            body = {"name": "x", "sourceType": "FILE", "connectionConfig": config, "whenBusy": "QUEUE"}
            extraction = api.post("/api/v1/extractions", json=body).json()["id"]
            made = api.post("/api/v1/schedules", json={"name": "s", "extractionId": extraction, "cron": "@yearly"})
            assert made.status_code == 201, made.text
        self.begun = datetime.now(UTC).replace(microsecond=0) + timedelta(seconds=2)
        catalog.execute("update schedules set cron = '* * * * * *', next_run_at = %s", (self.begun.timestamp(),))

    def holder(self) -> tuple[int, int]:
        """The process that has the duty, and its epoch."""
        row = self.catalog.execute("select owner, epoch from leases where name = 'scheduler'").fetchone()
        assert row is not None
        return int(row[0].split(":")[1] or 0) if row[0] else 0, int(row[1])

    def process(self, service: ServiceProcess) -> int:
        """The dispatcher of a service."""
        [found] = service.parts("jivs dispatcher")
        return found

    def of(self, pid: int) -> ServiceProcess:
        """The service that a dispatcher belongs to."""
        return next(one for one in self.services if self.process(one) == pid)

    def standing(self) -> bool:
        """Whether every service has its dispatcher."""
        return all(one.parts("jivs dispatcher") for one in self.services)

    def fired(self) -> list[datetime]:
        """The times that got a run, in the order in which they did."""
        rows = self.catalog.execute(
            "select detail::json->>'due' from audit where actor = 'schedule:s' order by seq"
        ).fetchall()
        times = [datetime.fromisoformat(row[0]) for row in rows]
        [runs] = self.catalog.execute("select count(*) from runs").fetchone() or (None,)
        assert runs >= len(times)
        return times

    def taken_over(self, epoch: int, seconds: float) -> tuple[int, float]:
        """Who has the duty after this epoch, and how long that took."""
        began = time.monotonic()
        while (found := self.holder())[1] == epoch:
            assert time.monotonic() - began < seconds, "nobody took over"
            time.sleep(0.02)
        return found[0], time.monotonic() - began

    def wait_for_times(self, count: int, seconds: float = 20) -> None:
        before, end = len(self.fired()), time.monotonic() + seconds
        while len(self.fired()) < before + count:
            assert time.monotonic() < end, self.fired()[-3:]
            time.sleep(0.1)

    def end(self) -> None:
        """Every second has had its run, once, in order."""
        times = self.fired()
        assert times == [self.begun + timedelta(seconds=number) for number in range(len(times))]
        runs = self.catalog.execute("select count(*), count(distinct id) from runs where actor = 'schedule:s'").fetchone()
        assert runs is not None
        assert runs[0] == runs[1] >= len(times)


@contextmanager
def scene(tmp_path: Path, url: str) -> Iterator[Scene]:
    (tmp_path / "a.csv").write_text("id\n1\n")
    given = {
        "DATABASE_URL": url, "JWT_SECRET": "s" * 40, "ENCRYPTION_KEY": base64.b64encode(bytes(32)).decode(), "JIVS_FILE_ROOTS": str(tmp_path),
        "STORAGE_LOCAL_PATH": str(tmp_path / "archives"), "EXTRACTION_MAX_PARALLEL_JOBS": "1", "LOG_LEVEL": "INFO",
    }  # fmt: skip
    with (
        ServiceProcess(tmp_path / "one", **given) as one,
        ServiceProcess(tmp_path / "two", **given) as two,
        psycopg.connect(url, autocommit=True) as catalog,
    ):
        yield Scene([one, two], catalog, tmp_path)


def test_holders_that_are_killed_and_frozen_lose_no_time_and_double_none(tmp_path: Path, pg: str) -> None:
    with scene(tmp_path, pg) as at:
        at.wait_for_times(2)
        pid, epoch = at.holder()
        first = at.of(pid)
        other = next(one for one in at.services if one is not first)

        for victim in (first.process.pid, pid):  # the service and its dispatcher, so that nobody starts that again
            kill(victim)
        taker, took = at.taken_over(epoch, 5)
        assert taker == at.process(other), took
        at.wait_for_times(2)
        first.process.wait()
        first.start()

        pid, epoch = at.holder()
        os.kill(pid, signal.SIGSTOP)
        try:
            taker, took = at.taken_over(epoch, 5)
            assert taker == at.process(first), took
            at.wait_for_times(3)
        finally:
            os.kill(pid, signal.SIGCONT)
        at.wait_for_times(3)

        pid, epoch = at.holder()
        kill(pid)  # the dispatcher alone
        _, took = at.taken_over(epoch, 5)
        at.wait_for_times(2)

        pid, epoch = at.holder()
        ended = at.of(pid)
        ended.stop()  # in good order: nobody has to wait
        [left] = [one for one in at.services if one is not ended]
        taker, took = at.taken_over(epoch, 1)
        assert taker == at.process(left), took
        at.wait_for_times(2)
        at.end()


def test_a_holder_that_stands_still_inside_a_transaction_does_not_hold_up_the_next_one(pg: str) -> None:
    """As a frozen process would: PostgreSQL ends the transaction, and with it its locks."""
    engine = Engine(Address.parse(pg, lambda _: None))
    kept = SqlLeases(engine)
    held = kept.take("scheduler", "one", None)
    assert held is not None
    ended: list[BaseException] = []
    frozen = threading.Event()

    def freeze() -> None:
        try:
            with engine.write() as connection:
                leases.require(connection, held)
                frozen.set()
                time.sleep(6)
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=freeze)
    thread.start()
    assert frozen.wait(10)
    began = time.monotonic()
    taken = kept.take("scheduler", "two", held)
    assert time.monotonic() - began < 5
    assert taken is not None
    assert taken.epoch == 2
    thread.join()
    assert len(ended) == 1, "it learns that it was ended"
    engine.close()


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_twenty_rounds_of_killing_and_freezing_the_holder(tmp_path: Path, pg: str) -> None:
    with scene(tmp_path, pg) as at:
        at.wait_for_times(2)
        for number in range(20):
            wait_for(at.standing, 20)  # a process that was killed again and again is not started at once
            time.sleep(2)
            pid, epoch = at.holder()
            if number % 2:
                kill(pid)
                at.taken_over(epoch, 5)
            else:
                os.kill(pid, signal.SIGSTOP)
                try:
                    at.taken_over(epoch, 5)
                finally:
                    os.kill(pid, signal.SIGCONT)
            at.wait_for_times(2)
        at.end()
