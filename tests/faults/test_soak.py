"""Sixty rounds of faults, each with four runs in flight: embedded, with brokers, over a network that is cut, on full disks."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from jivs.testing.disk import SmallDisk
from jivs.testing.network import FarPostgres, Network
from jivs.testing.servers import PostgresServer, RabbitServer, RedisServer, Server
from jivs.testing.service import ServiceProcess
from jivs.testing.wall import WallClock

from .scenes import ENDED, KEYS, Scene, fill, kill, scene
from .test_brokers import with_rabbit, with_redis
from .test_cuts import far_scene

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

Fault = Callable[[], None]
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}
HOUR = 3600


class Rounds:
    """Rounds of one scene. ``took``: the seconds from each kill -9 of a worker until another process had its run; ``beside``:
    where another fault was played right before, so that its dispatcher may be gone as well.
    """

    def __init__(self, at: Scene, seed: int) -> None:
        self.at, self.chance, self.took, self.beside = at, random.Random(seed), list[float](), list[float]()
        self.alone = True

    def play(self, faults: dict[str, Fault], count: int) -> None:
        """Each round two faults, each fault as often as the others."""
        names: list[str] = []
        for _ in range(count):
            self.at.start()
            names = names if len(names) >= 2 else [*names, *self.chance.sample(sorted(faults), len(faults))]
            played = (names.pop(), names.pop())
            for name in played:
                time.sleep(self.chance.random())
                self.alone = faults[name] == self.worker and (name == played[0] or faults[played[0]] == self.worker)
                faults[name]()
            try:
                self.at.all_end_well()
            except AssertionError as error:
                error.add_note(f"after {played}")
                raise

    def worker(self) -> None:
        """kill -9, and how long until its run goes on."""
        before = owners(self.at)
        if not before:
            return
        run = self.chance.choice(sorted(before))
        kill(before[run])
        began = time.monotonic()
        while time.monotonic() - began < 20:
            now, ended = owners(self.at).get(run), self.state(run) in ENDED
            if ended:  # it had told of its end a moment ago
                return
            if now not in {None, before[run]}:
                (self.took if self.alone else self.beside).append(time.monotonic() - began)
                return
            time.sleep(0.01)
        raise AssertionError("nobody took the run over")

    def state(self, run: str) -> str:
        """Of a run."""
        return next((one["state"] for one in self.at.runs() if one["id"] == run), "")

    def frozen(self) -> None:
        """Past its lease, and then awake."""
        workers = self.at.workers()
        if workers:
            pid = self.chance.choice(workers)
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                time.sleep(6)
                os.kill(pid, signal.SIGCONT)

    def api(self) -> None:
        """kill -9; nothing if it is just being started again."""
        for pid in self.at.service.parts("jivs api"):
            kill(pid)

    def dispatcher(self) -> None:
        """The same with one of the dispatchers, which may have the scheduler's duty."""
        for pid in self.at.dispatchers(self.chance.choice(self.at.beside or [self.at.service])):
            kill(pid)

    def service(self) -> None:
        """kill -9 of all at once, and a new start."""
        again(self.at, self.at.service)
        self.at.log_in()

    def told(self, capsys: pytest.CaptureFixture[str], name: str) -> None:
        """Print what was measured."""
        with capsys.disabled():
            sys.stdout.write(
                f"\n{name}: {len(self.took)} workers killed, their runs went on after {statistics.median(self.took):.2f} s "
                f"(median), {max(self.took):.2f} s (longest); {len(self.beside)} beside another fault, after "
                f"{max(self.beside, default=0.0):.2f} s at most\n"
            )


def owners(at: Scene) -> dict[str, int]:
    """The process of each run that is at work."""
    query = "select id, owner from runs where state = 'RUNNING' and owner <> ''"
    if at.catalog.startswith("postgresql"):
        with psycopg.connect(at.catalog) as pg:
            found = pg.execute(query).fetchall()
    else:
        lite = sqlite3.connect(at.catalog, timeout=10)
        found = lite.execute(query).fetchall()
        lite.close()
    return {run: int(owner.split(":")[1]) for run, owner in found}


def again(at: Scene, service: ServiceProcess) -> None:
    """All processes of a service end at once, as on a machine without power; then it starts again."""
    dispatchers = at.dispatchers(service)
    for pid in (*at.workers_of(service), *dispatchers):
        kill(pid)
    service.kill()
    service.start()


def test_thirty_rounds_embedded(tmp_path: Path, database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock = WallClock(tmp_path)
    with scene(tmp_path, database, pace=100_000, **clock.settings) as at:
        rounds = Rounds(at, 7)

        def jump() -> None:
            for hours in (10, -10, 0):
                clock.set(hours * HOUR)
                time.sleep(rounds.chance.random())
            at.log_in()

        faults: dict[str, Fault] = {
            "worker": rounds.worker,
            "another worker": rounds.worker,
            "frozen": rounds.frozen,
            "api": rounds.api,
            "dispatcher": rounds.dispatcher,
            "service": rounds.service,
            "clock": jump,
        }
        rounds.play(faults, 30)
        rounds.told(capsys, "Embedded")


def test_twenty_rounds_with_brokers(tmp_path: Path, database: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clock = WallClock(tmp_path)
    with PostgresServer(**DURABLE) as server, PostgresServer() as source, RabbitServer() as rabbit, RedisServer() as redis:
        fill(source.create("source"))
        given = {"EXTRACTION_MAX_PARALLEL_JOBS": "3", **with_rabbit(rabbit), **with_redis(redis)}
        beside = [{"settings": clock.settings}, {}]
        url = server.create("catalog")
        with scene(tmp_path, database, source=source.url("source"), catalog=url, beside=beside, pace=60_000, **given) as at:
            rounds = Rounds(at, 8)
            backup = tmp_path / "older.jivs"

            def db(*words: str) -> None:
                settings = KEYS | {
                    "DATABASE_URL": url,
                    "STORAGE_LOCAL_PATH": str(at.archives),
                    "XDG_STATE_HOME": str(tmp_path),
                }
                command = [sys.executable, "-m", "jivs", "db", *words]
                done = subprocess.run(
                    command, env=os.environ | settings | with_redis(redis), capture_output=True, check=False
                )
                assert done.returncode == 0, done.stderr.decode()

            def jump() -> None:
                for hours in (5, -5, 0):
                    clock.set(hours * HOUR)
                    time.sleep(1.5)

            def restore() -> None:
                db("backup", str(backup))
                time.sleep(1)
                services = (at.service, *at.beside)
                for service in services:
                    service.kill()
                db("restore", "--force", str(backup))
                for service in services:
                    service.start()
                at.log_in()

            def crash(which: Server) -> Fault:
                def act() -> None:
                    which.crash()
                    time.sleep(rounds.chance.random())
                    which.start()

                return act

            def restart(which: Server) -> Fault:
                def act() -> None:
                    which.stop()
                    which.start()

                return act

            faults: dict[str, Fault] = {
                "worker": rounds.worker,
                "another worker": rounds.worker,
                "frozen": rounds.frozen,
                "api": rounds.api,
                "dispatcher": rounds.dispatcher,
                "machine": lambda: again(at, rounds.chance.choice(at.beside)),
                "clock": jump,
                "older backup": restore,
                "FLUSHALL": lambda: redis.client().flushall(),
                "RabbitMQ killed": crash(rabbit),
                "RabbitMQ restarted": restart(rabbit),
                "Redis killed": crash(redis),
                "Redis restarted": restart(redis),
                "catalog killed": crash(server),
                "catalog restarted": restart(server),
                "source killed": crash(source),
                "source restarted": restart(source),
            }
            rounds.play(faults, 20)
            rounds.told(capsys, "Broker")


def test_eight_rounds_of_cuts(tmp_path: Path, database: Path) -> None:
    with (
        Network(2) as network,
        FarPostgres(network) as server,
        far_scene(tmp_path, database, network, server, pace=60_000) as at,
    ):
        rounds = Rounds(at, 9)

        def cut(*names: str, seconds: float) -> Fault:
            def act() -> None:
                side = rounds.chance.choice([1, 2])
                for name in names:
                    network.cut(side, name)
                time.sleep(seconds)
                for name in names:
                    network.heal(side, name)

            return act

        faults: dict[str, Fault] = {
            "catalog, for a moment": cut("catalog", seconds=1),
            "catalog": cut("catalog", seconds=8),
            "source, for a moment": cut("source", seconds=2),
            "source": cut("source", seconds=20),
            "both": cut("catalog", "source", seconds=8),
            "worker": rounds.worker,
        }
        rounds.play(faults, 8)


def test_six_rounds_of_full_disks(tmp_path: Path, database: Path) -> None:
    archives, catalog = SmallDisk(tmp_path / "archives", 200), SmallDisk(tmp_path / "jivs", 20)
    inside = [*archives.inside, *catalog.inside]
    with scene(tmp_path, database, inside=inside, pace=60_000, STORAGE_LOCAL_PATH=str(archives.folder)) as at:
        pid = at.service.process.pid
        at.catalog = str(catalog.seen(pid) / "catalog.db")
        for number in range(6):
            disk = (archives, catalog)[number % 2]
            at.start()
            disk.fill(pid)
            time.sleep(1 + number)
            disk.free(pid)
            at.all_end_well(archives.seen(pid))
