"""Schedules on both databases: what the record promises, and what is made of times that come, are missed or come again."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jivs import bootstrap
from jivs.backends.catalog.accounts import SqlAccounts
from jivs.backends.catalog.engine import Engine
from jivs.backends.catalog.extractions import SqlExtractions
from jivs.backends.catalog.leases import SqlLeases
from jivs.backends.catalog.preferences import SqlPreferences
from jivs.backends.catalog.registry import SqlRegistry
from jivs.backends.catalog.schedules import SqlSchedules
from jivs.backends.catalog.work import SqlWork
from jivs.domain.audit import Deed
from jivs.domain.extraction import ExtractionDraft, Job, WhenBusy
from jivs.domain.registry import SourceDraft
from jivs.domain.run import Command, RunState
from jivs.domain.schedule import MissedRuns, Schedule, ScheduleDraft, Timing
from jivs.domain.source import Address
from jivs.errors import FencedError, UnreachableError
from jivs.operations import extractions, firing, schedules
from jivs.operations.leading import Leadership
from jivs.ports.service import Service
from jivs.settings import Settings
from jivs.testing.clock import FakeClock
from jivs.testing.schedules import SchedulesSuite
from jivs.testing.servers import wait_for
from jivs.worker.scheduler import Scheduler

DAY = 86_400.0
DEED = Deed(actor="ada", action="tested", object="x")


class _Schedules(SchedulesSuite):
    @pytest.fixture
    def engine(self) -> Engine:
        raise NotImplementedError

    @pytest.fixture
    def registry(self, engine: Engine, clock: FakeClock) -> SqlRegistry:
        return SqlRegistry(engine, clock)

    @pytest.fixture
    def extractions(self, engine: Engine, clock: FakeClock) -> SqlExtractions:
        return SqlExtractions(engine, clock)

    @pytest.fixture
    def work(self, engine: Engine, clock: FakeClock) -> SqlWork:
        return SqlWork(engine, clock, connections=10, parallel=4)

    @pytest.fixture
    def accounts(self, engine: Engine, clock: FakeClock) -> SqlAccounts:
        return SqlAccounts(engine, clock)

    @pytest.fixture
    def leases(self, engine: Engine) -> SqlLeases:
        return SqlLeases(engine)

    @pytest.fixture
    def schedules(self, engine: Engine, clock: FakeClock) -> SqlSchedules:
        return SqlSchedules(engine, clock)

    @pytest.fixture
    def preferences(self, engine: Engine) -> SqlPreferences:
        return SqlPreferences(engine)


class TestSqliteSchedules(_Schedules):
    @pytest.fixture
    def engine(self, lite_catalog: Address) -> Engine:
        return Engine(lite_catalog)


class TestPostgreSQLSchedules(_Schedules):
    @pytest.fixture
    def engine(self, pg_catalog: str) -> Iterator[Engine]:
        engine = Engine(Address.parse(pg_catalog, lambda _: None))
        yield engine
        engine.close()


del SchedulesSuite, _Schedules


class Replica:
    """A process that may have the duty: it looks for schedules whose time has come whenever it is told to."""

    def __init__(self, service: Service, owner: str) -> None:
        self.service = replace(service, app=replace(service.app, owner=owner))
        self.leadership = Leadership(self.service, "scheduler")

    def look(self) -> bool:
        """Whether it has the duty."""
        if self.leadership.step() is None:
            return False
        firing.fire(self.service, self.leadership.step)
        return True


class Scene:
    """One catalog, a clock, an extraction, and replicas."""

    def __init__(self, service: Service, clock: FakeClock, when_busy: WhenBusy) -> None:
        self.service, self.clock = service, clock
        source = SourceDraft(name="s", address=Address(scheme="sqlite", database="/x"))
        kept = service.registry().add_source(source, lambda _: "", DEED)
        draft = ExtractionDraft(name="e", source_id=kept.id, job=Job(archive="a"), when_busy=when_busy)
        self.extraction = service.extractions().add(draft, "ada", DEED)

    def schedule(self, cron: str = "0 2 * * *", **more: Any) -> int:
        given = {name: more.pop(name) for name in ("time_zone", "not_before", "not_after") if name in more}
        timing = Timing(cron=cron, **given)
        draft = ScheduleDraft(name=cron, extraction_id=self.extraction.id, timing=timing, **more)
        return schedules.add(self.service, "ada", draft).id

    def shown(self, schedule_id: int) -> Schedule:
        return schedules.get(self.service, schedule_id)

    def fired(self) -> list[str]:
        """The times that got a run, in the order in which they did, from the trail."""
        entries = [entry.deed for entry in self.service.accounts().trail() if entry.deed.action == "run.started"]
        assert len(entries) == len(self.service.work().runs(limit=10_000))
        return [str(deed.detail["due"])[:19] for deed in entries]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()  # 2026-01-01 00:00, a Thursday


@pytest.fixture(params=["sqlite", "postgresql"])
def service(request: pytest.FixtureRequest, clock: FakeClock) -> Iterator[Service]:
    url = "" if request.param == "sqlite" else request.getfixturevalue("pg_catalog")
    made = bootstrap.build_service(
        Settings(database_url=url, jwt_secret="s" * 40, encryption_key=base64.b64encode(bytes(32)).decode())  # type: ignore[arg-type]
    )
    address = Address.parse(url, lambda _: None) if url else Address(scheme="sqlite", database=str(Settings().catalog_path))
    engine = Engine(address)
    yield replace(
        made,
        clock=clock,
        accounts=lambda: SqlAccounts(engine, clock),
        registry=lambda: SqlRegistry(engine, clock),
        extractions=lambda: SqlExtractions(engine, clock),
        work=lambda: SqlWork(engine, clock, connections=10, parallel=4),
        schedules=lambda: SqlSchedules(engine, clock),
        leases=lambda: SqlLeases(engine),
    )
    engine.close()


@pytest.fixture
def scene(service: Service, clock: FakeClock) -> Scene:
    return Scene(service, clock, WhenBusy.QUEUE)


@pytest.fixture
def replica(service: Service) -> Replica:
    return Replica(service, "one")


def test_a_schedule_asks_for_its_runs_at_its_times(scene: Scene, replica: Replica, clock: FakeClock) -> None:
    one = scene.schedule("0 2 * * *", time_zone="Europe/Berlin")
    assert scene.shown(one).next_run_at == datetime(2026, 1, 1, 1, tzinfo=UTC)
    for _ in range(3 * 24 * 2):
        replica.look()
        clock.advance(1800)
    assert scene.fired() == ["2026-01-01T01:00:00", "2026-01-02T01:00:00", "2026-01-03T01:00:00"]
    shown = scene.shown(one)
    assert shown.next_run_at == datetime(2026, 1, 4, 1, tzinfo=UTC)
    run = scene.service.work().run(shown.last_run_id)
    assert run is not None
    assert (run.actor, run.archive.rpartition("/")[2]) == ("schedule:0 2 * * *", "a")
    assert shown.last_run_at == run.created_at


@pytest.mark.parametrize(("policy", "runs"), [(MissedRuns.SKIP, 0), (MissedRuns.RUN_ONCE, 1)])
def test_times_that_were_missed_get_one_run_or_none(
    scene: Scene, replica: Replica, clock: FakeClock, policy: MissedRuns, runs: int
) -> None:
    one = scene.schedule("*/5 * * * *", missed_runs=policy)
    clock.advance(5 * DAY + 100)
    for _ in range(5):
        replica.look()
    assert len(scene.fired()) == runs
    shown = scene.shown(one)
    assert shown.next_run_at == datetime(2026, 1, 6, 0, 5, tzinfo=UTC)
    assert ("skipped" in shown.last_message) is (policy is MissedRuns.SKIP)
    skipped = [entry.deed for entry in scene.service.accounts().deeds() if entry.deed.action == "run.skipped"]
    assert [deed.detail["due"] for deed in skipped] == ["2026-01-01T00:05:00.000000Z"] * (1 - runs)
    clock.advance(200)
    replica.look()
    assert scene.fired()[runs:] == ["2026-01-06T00:05:00"]
    assert scene.shown(one).last_message == ""


def test_a_time_that_is_a_little_late_is_not_missed_and_stands_for_those_that_are(
    scene: Scene, replica: Replica, clock: FakeClock
) -> None:
    scene.schedule("0 2 * * *", missed_runs=MissedRuns.RUN_ONCE)
    clock.advance(2 * DAY + 7200 + 59)
    replica.look()
    replica.look()
    assert scene.fired() == ["2026-01-03T02:00:00"]


@pytest.mark.parametrize("late", [0, 59.9, 60, 60.1, 61])
def test_a_minute_is_what_a_time_may_be_late(scene: Scene, replica: Replica, clock: FakeClock, late: float) -> None:
    scene.schedule("0 2 * * *")
    clock.advance(7200 + late)
    replica.look()
    assert len(scene.fired()) == (late <= 60)


def test_the_wall_clock_is_set_forward_and_back_again(scene: Scene, replica: Replica, clock: FakeClock) -> None:
    """By days: a jump forward makes no crowd of runs, and on the way back no time comes twice."""
    once, never = scene.schedule("0 * * * *", missed_runs=MissedRuns.RUN_ONCE), scene.schedule("30 * * * *")
    replica.look()
    clock.jump(2 * DAY + 600)
    for _ in range(4):
        assert replica.look(), "nobody loses the duty when a clock is set"
    assert scene.fired() == ["2026-01-01T01:00:00"]
    assert scene.shown(once).next_run_at == datetime(2026, 1, 3, 1, tzinfo=UTC)
    assert "skipped" in scene.shown(never).last_message
    clock.jump(-2 * DAY)
    for _ in range(51 * 6):
        assert replica.look()
        clock.advance(600)
    assert scene.fired()[1:] == [
        "2026-01-03T00:30:00", "2026-01-03T01:00:00", "2026-01-03T01:30:00", "2026-01-03T02:00:00", "2026-01-03T02:30:00",
        "2026-01-03T03:00:00",
    ]  # fmt: skip
    assert {scene.shown(one).last_message for one in (once, never)} == {""}


def test_switching_off_and_on_begins_anew_after_the_clock_was_wrong(
    scene: Scene, replica: Replica, clock: FakeClock
) -> None:
    one = scene.schedule("0 * * * *")
    clock.jump(365 * DAY)
    replica.look()
    clock.jump(-365 * DAY)
    wrong = scene.shown(one)
    assert wrong.next_run_at is not None
    assert wrong.next_run_at.year == 2027
    draft = ScheduleDraft(name="n", extraction_id=wrong.extraction_id, timing=wrong.timing, enabled=False)
    off = schedules.change(scene.service, "ada", one, wrong.version, draft)
    assert off.next_run_at is None
    on = schedules.change(scene.service, "ada", one, off.version, replace(draft, enabled=True))
    assert on.next_run_at == datetime(2026, 1, 1, 1, tzinfo=UTC)


def test_a_change_that_leaves_the_times_alone_leaves_what_is_due(scene: Scene, replica: Replica, clock: FakeClock) -> None:
    one = scene.schedule("0 2 * * *")
    clock.advance(7201)
    shown = scene.shown(one)
    draft = ScheduleDraft(name="other", extraction_id=shown.extraction_id, timing=shown.timing)
    schedules.change(scene.service, "ada", one, shown.version, draft)
    replica.look()
    assert scene.fired() == ["2026-01-01T02:00:00"]
    shown = scene.shown(one)
    schedules.change(scene.service, "ada", one, shown.version, replace(draft, timing=Timing(cron="1 2 * * *")))
    assert scene.shown(one).next_run_at == datetime(2026, 1, 1, 2, 1, tzinfo=UTC)


def test_what_is_switched_off_or_over_asks_for_nothing(scene: Scene, replica: Replica, clock: FakeClock) -> None:
    off = scene.schedule("0 1 * * *", enabled=False)
    last = datetime(2026, 1, 2, 2, tzinfo=UTC)
    over = scene.schedule("0 2 * * *", not_after=last)
    later = scene.schedule("0 3 * * *", not_before=datetime(2026, 1, 3, 3, tzinfo=UTC))
    for _ in range(24 * 4):
        replica.look()
        clock.advance(3600)
    assert sorted(scene.fired()) == [
        "2026-01-01T02:00:00", "2026-01-02T02:00:00", "2026-01-03T03:00:00", "2026-01-04T03:00:00",
    ]  # fmt: skip
    assert (scene.shown(off).next_run_at, scene.shown(over).next_run_at) == (None, None)
    assert [one.astimezone(UTC) for one in schedules.preview(scene.service, off, 2)] == [
        datetime(2026, 1, day, 1, tzinfo=UTC) for day in (5, 6)
    ]
    assert schedules.preview(scene.service, over, 5) == []
    assert len(schedules.preview(scene.service, later, 100)) == 100


def test_a_run_that_has_not_ended_refuses_the_next_one(service: Service, replica: Replica, clock: FakeClock) -> None:
    scene = Scene(service, clock, WhenBusy.REFUSE)
    one = scene.schedule("0 * * * *")
    clock.advance(3600)
    replica.look()
    clock.advance(3600)
    replica.look()
    shown = scene.shown(one)
    assert shown.next_run_at == datetime(2026, 1, 1, 3, tzinfo=UTC)
    assert f"has run {shown.last_run_id}, which is PENDING" in shown.last_message
    assert scene.fired() == ["2026-01-01T01:00:00"]
    service.work().command(shown.last_run_id, Command.STOP, DEED)
    clock.advance(3600)
    replica.look()
    assert scene.fired() == ["2026-01-01T01:00:00", "2026-01-01T03:00:00"]
    assert scene.shown(one).last_message == ""


def test_a_pattern_that_is_none_any_more_is_said_and_stops_nobody_else(
    scene: Scene, replica: Replica, clock: FakeClock
) -> None:
    bad, good = scene.schedule("0 1 * * *"), scene.schedule("30 1 * * *")
    shown = scene.shown(bad)
    timing = Timing(cron="0 1 * * *", time_zone="Mars/Olympus")
    draft = ScheduleDraft(name="bad", extraction_id=shown.extraction_id, timing=timing)
    scene.service.schedules().change(bad, 1, draft, DEED, retimed=False, next_run_at=None)
    clock.advance(3600)
    replica.look()
    clock.advance(1800)
    replica.look()
    assert (scene.shown(bad).next_run_at, "Mars/Olympus" in scene.shown(bad).last_message) == (None, True)
    assert scene.shown(good).last_run_id


def test_one_of_several_has_the_duty_until_it_falls_silent(service: Service, clock: FakeClock) -> None:
    one, two = Replica(service, "one"), Replica(service, "two")
    assert (one.look(), two.look()) == (True, False)
    for _ in range(20):
        clock.advance(0.25)
        assert (one.look(), two.look()) == (True, False)
    lost = 0.0
    while not two.look():
        clock.advance(0.25)
        lost += 0.25
    assert 3 <= lost <= 4
    clock.advance(2)
    assert (one.look(), two.look()) == (False, True)
    two.leadership.end()
    assert one.look(), "what was given back is taken at once"
    assert not two.look()


def test_whoever_was_frozen_between_looking_and_acting_does_nothing(scene: Scene, clock: FakeClock) -> None:
    scene.schedule("0 2 * * *")
    one, two = Replica(scene.service, "one"), Replica(scene.service, "two")
    one.look()
    two.look()
    clock.advance(7200)
    held = one.leadership.step()
    assert held is not None
    seen = scene.service.schedules().due(clock.now())
    two.look()  # the beat of the one that is about to be frozen
    for _ in range(20):  # it is
        clock.advance(0.25)
        two.look()
    assert scene.fired() == ["2026-01-01T02:00:00"]
    with pytest.raises(FencedError):
        scene.service.schedules().settle(held, seen[0], None, None, "", DEED)
    assert not one.look()
    assert scene.fired() == ["2026-01-01T02:00:00"]


def test_a_clock_that_differs_between_replicas_makes_no_time_come_twice(scene: Scene, clock: FakeClock) -> None:
    scene.schedule("0 * * * *", missed_runs=MissedRuns.RUN_ONCE)
    behind = FakeClock(clock.now() - timedelta(minutes=20))
    ahead = Replica(scene.service, "ahead")
    late = Replica(replace(scene.service, clock=behind), "late")
    for number in range(200):
        turn = ahead if number % 40 < 20 else late  # each of them falls silent now and then
        for _ in range(5):
            turn.look()
            for one in (clock, behind):
                one.advance(60)
    times = scene.fired()
    assert times == [f"2026-01-01T{hour:02}:00:00" for hour in range(1, 17)]


def test_an_extraction_takes_its_schedules_along(scene: Scene, replica: Replica, clock: FakeClock) -> None:
    scene.schedule("0 2 * * *")
    clock.advance(7200)
    extractions.remove(scene.service, "ada", scene.extraction.id)
    replica.look()
    assert scene.service.schedules().page() == []
    assert scene.service.work().by_state().get(RunState.PENDING) is None


def test_whoever_has_the_duty_sweeps(service: Service, clock: FakeClock) -> None:
    made = [
        Scheduler(replace(service, app=replace(service.app, owner=owner)), keep_runs=1, keep_days=1)
        for owner in ("one", "two")
    ]
    for one in made:
        one._look()
    accounts = service.accounts()
    accounts.end_session("old", clock.now().timestamp() + 1 - 7 * 86_400, DEED)  # it is kept for a week longer
    clock.advance(2)
    for one in made:
        one._look()
    assert accounts.is_revoked("old"), "it was swept a moment ago"
    for _ in range(597):
        clock.advance(1)
        for one in made:
            one._look()
    clock.advance(1)
    made[1]._look()
    assert accounts.is_revoked("old"), "it has not got the duty"
    made[0]._look()
    assert not accounts.is_revoked("old")


def test_a_defect_does_not_end_the_scheduler(service: Service) -> None:
    failures = iter([RuntimeError("a defect"), UnreachableError("The catalog cannot be read.")])
    left = []

    def leases() -> SqlLeases:
        if (error := next(failures, None)) is not None:
            raise error
        left.append(1)
        return service.leases()  # type: ignore[return-value]

    scheduler = Scheduler(replace(service, leases=leases), keep_runs=1, keep_days=1)
    scheduler.start()
    wait_for(lambda: len(left) >= 2, 20)
    scheduler.end()
    scheduler.join(10)
    found = service.leases().lease("scheduler")
    assert found is not None
    assert found.free, "it gave the duty back"
