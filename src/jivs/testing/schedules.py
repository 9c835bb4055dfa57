"""What every adapter of ``ports.schedules``, ``ports.leases`` and ``ports.preferences`` promises."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from jivs.domain.access import Role
from jivs.domain.audit import Deed
from jivs.domain.extraction import Extraction, ExtractionDraft, Job, WhenBusy
from jivs.domain.registry import SourceDraft
from jivs.domain.run import Command, RunState
from jivs.domain.schedule import MissedRuns, Schedule, ScheduleDraft, Timing
from jivs.domain.source import Address
from jivs.errors import AlreadyExistsError, ConflictError, FencedError, NotFoundError
from jivs.ports.accounts import Accounts
from jivs.ports.extractions import Extractions
from jivs.ports.leases import Lease, Leases
from jivs.ports.preferences import PreferencesRecord
from jivs.ports.registry import Registry
from jivs.ports.schedules import Asked, Schedules
from jivs.ports.work import Work
from jivs.testing.clock import FakeClock
from jivs.testing.work import together

DEED = Deed(actor="ada", action="tested", object="schedule:x", detail={"run": "r", "due": "then"})
TIMING = Timing(
    cron="30 2 * * MON-FRI",
    time_zone="Europe/Berlin",
    not_before=datetime(2026, 1, 1, 1, 2, 3, 456789, tzinfo=UTC),
    not_after=datetime(2199, 12, 31, tzinfo=UTC),
)
Make = Callable[..., Schedule]


class SchedulesSuite:
    """Subclasses give the fixtures ``registry``, ``extractions``, ``work``, ``accounts``, ``leases``, ``schedules`` and
    ``preferences`` of one fresh catalog on the fixture ``clock``.
    """

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def extract(self, registry: Registry, extractions: Extractions) -> Callable[..., Extraction]:
        def make(name: str = "e", when_busy: WhenBusy = WhenBusy.REFUSE) -> Extraction:
            address = Address(scheme="sqlite", database="/x")
            source = registry.add_source(SourceDraft(name=f"s of {name}", address=address), lambda _: "", DEED)
            draft = ExtractionDraft(name=name, source_id=source.id, job=Job(archive="a"), when_busy=when_busy)
            return extractions.add(draft, "ada", DEED)

        return make

    @pytest.fixture
    def make(self, extract: Callable[..., Extraction], schedules: Schedules, clock: FakeClock) -> Make:
        made: list[Extraction] = []

        def schedule(
            name: str = "nightly", *, of: Extraction | None = None, due: float | None = 0.0, **more: Any
        ) -> Schedule:
            if of is None:
                made[:] = made or [extract()]
            draft = ScheduleDraft(name=name, extraction_id=(of or made[0]).id, **{"timing": TIMING, **more})
            at = None if due is None else clock.now() + timedelta(seconds=due)
            return schedules.add(draft, at, "ada", DEED)

        return schedule

    @pytest.fixture
    def lease(self, leases: Leases) -> Lease:
        taken = leases.take("scheduler", "one", None)
        assert taken is not None
        return taken

    @staticmethod
    def ask(extractions: Extractions, schedule: Schedule, run_id: str) -> Asked:
        extraction = extractions.get(schedule.extraction_id)
        assert extraction is not None
        return Asked(extraction=extraction, run_id=run_id, archive="/archives/a")

    # -- schedules --------------------------------------------------------------------------------------------------

    def test_a_schedule_is_kept_as_it_was(self, make: Make, schedules: Schedules, clock: FakeClock) -> None:
        made = make("Nightly", missed_runs=MissedRuns.RUN_ONCE, due=0.25)
        assert made == schedules.get(made.id)
        assert (made.name, made.timing, made.missed_runs, made.enabled) == ("Nightly", TIMING, MissedRuns.RUN_ONCE, True)
        assert (made.extraction_name, made.created_by, made.version, made.actor) == ("e", "ada", 1, "schedule:Nightly")
        assert made.next_run_at == clock.now() + timedelta(seconds=0.25)
        assert (made.last_run_at, made.last_run_id, made.last_message) == (None, "", "")
        assert schedules.get(made.id + 1) is None

    def test_names_are_taken_once_and_extractions_have_to_be_there(
        self, make: Make, schedules: Schedules, accounts: Accounts
    ) -> None:
        made = make("Straße")
        before = len(accounts.deeds())
        with pytest.raises(AlreadyExistsError, match="STRASSE"):
            make("STRASSE")
        draft = ScheduleDraft(name="y", extraction_id=99, timing=TIMING)
        with pytest.raises(NotFoundError, match="extraction 99"):
            schedules.add(draft, None, "ada", DEED)
        with pytest.raises(NotFoundError, match="extraction 99"):
            schedules.change(made.id, 1, draft, DEED, retimed=False, next_run_at=None)
        assert len(accounts.deeds()) == before
        assert schedules.get(made.id) == made

    def test_only_one_of_two_changes_wins_and_a_due_time_stays_due(
        self, make: Make, schedules: Schedules, clock: FakeClock
    ) -> None:
        made = make()
        draft = ScheduleDraft(name="renamed", extraction_id=made.extraction_id, timing=TIMING, enabled=False)
        changed = schedules.change(made.id, 1, draft, DEED, retimed=False, next_run_at=None)
        assert (changed.name, changed.enabled, changed.version) == ("renamed", False, 2)
        assert changed.next_run_at == made.next_run_at
        with pytest.raises(ConflictError, match="meanwhile"):
            schedules.change(made.id, 1, draft, DEED, retimed=True, next_run_at=clock.now())
        other = replace(draft, timing=Timing(cron="@daily"))
        retimed = schedules.change(made.id, 2, other, DEED, retimed=True, next_run_at=None)
        assert (retimed.next_run_at, retimed.timing) == (None, Timing(cron="@daily"))
        assert schedules.remove(made.id, DEED)
        assert not schedules.remove(made.id, DEED)

    def test_pages_filters_and_orders(self, make: Make, schedules: Schedules, extract: Callable[..., Extraction]) -> None:
        other = extract("other")
        make("beta", due=30)
        second = make("Alpha", due=None, enabled=False)
        make("a%b", due=10, of=other)
        make("gamma", due=20)

        def names(**given: Any) -> list[str]:
            found = [one.name for one in schedules.page(**given)]
            filters = {name: value for name, value in given.items() if name in {"name", "extraction_id", "enabled"}}
            if filters == given:
                assert schedules.count(**filters) == len(found)
            return found

        assert names() == ["beta", "Alpha", "a%b", "gamma"]
        assert names(limit=2) == ["beta", "Alpha"]
        assert names(after=second.id) == ["a%b", "gamma"]
        assert names(sort="name") == ["a%b", "Alpha", "beta", "gamma"]
        assert names(sort="name", descending=True, offset=1, limit=2) == ["beta", "Alpha"]
        assert names(sort="nextRunAt") == ["a%b", "gamma", "beta", "Alpha"]
        assert names(sort="nextRunAt", descending=True) == ["beta", "gamma", "a%b", "Alpha"]
        assert names(name="A") == ["beta", "Alpha", "a%b", "gamma"]
        assert names(name="%") == ["a%b"]
        assert names(extraction_id=other.id) == ["a%b"]
        assert (names(enabled=False), names(enabled=True, name="a%")) == (["Alpha"], ["a%b"])

    def test_a_schedule_goes_with_its_extraction_and_that_is_in_the_trail(
        self, make: Make, schedules: Schedules, extractions: Extractions, accounts: Accounts
    ) -> None:
        made = [make("one"), make("two")]
        assert extractions.remove(
            made[0].extraction_id, Deed(actor="bob", action="extraction.removed", object="extraction:e")
        )
        assert schedules.page() == []
        told = [(entry.deed.actor, entry.deed.action, entry.deed.object) for entry in accounts.deeds(limit=3)]
        assert told[::-1] == [
            ("bob", "extraction.removed", "extraction:e"),
            ("bob", "schedule.removed", "schedule:one"),
            ("bob", "schedule.removed", "schedule:two"),
        ]

    # -- times that have come ------------------------------------------------------------------------------------------

    def test_what_is_due_comes_in_the_order_of_its_times(self, make: Make, schedules: Schedules, clock: FakeClock) -> None:
        for name, due in (("later", 1.0), ("now", 0.0), ("before", -5.0), ("never", None)):
            make(name, due=due)
        assert [one.name for one in schedules.due(clock.now())] == ["before", "now"]
        assert [one.name for one in schedules.due(clock.now(), limit=1)] == ["before"]

    def test_a_time_is_seen_to_once(
        self, make: Make, schedules: Schedules, extractions: Extractions, work: Work, accounts: Accounts, lease: Lease,
        clock: FakeClock,
    ) -> None:  # fmt: skip
        made = make()
        following = clock.now() + timedelta(days=1)
        deed = Deed(actor=made.actor, action="run.started", object="extraction:e", detail={"run": "r1"})
        settled = schedules.settle(lease, made, following, self.ask(extractions, made, "r1"), "", deed)
        assert settled == schedules.get(made.id)
        assert settled is not None
        assert (settled.next_run_at, settled.last_run_at, settled.last_run_id) == (following, clock.now(), "r1")
        assert (settled.last_message, settled.version) == ("", made.version)
        run = work.run("r1")
        assert run is not None
        assert (run.state, run.actor, run.extraction_id) == (RunState.PENDING, "schedule:nightly", made.extraction_id)
        assert [event.kind for event in work.events(0)] == ["state"]
        assert accounts.deeds(limit=1)[0].deed == deed
        count = len(accounts.deeds())
        assert schedules.settle(lease, made, following, self.ask(extractions, made, "r2"), "", deed) is None
        assert (work.run("r2"), len(accounts.deeds())) == (None, count)

    def test_of_many_who_see_to_a_time_one_does(
        self, make: Make, schedules: Schedules, extractions: Extractions, work: Work, lease: Lease
    ) -> None:
        made, done = make(), []

        def compete(number: int) -> None:
            asked = self.ask(extractions, made, f"r{number}")
            done.append(schedules.settle(lease, made, None, asked, "", DEED))

        together(6, compete)
        assert len([one for one in done if one is not None]) == 1
        assert len(work.runs()) == 1

    def test_whoever_lost_the_duty_does_nothing(
        self, make: Make, schedules: Schedules, extractions: Extractions, work: Work, leases: Leases, lease: Lease
    ) -> None:
        made = make()
        taken = leases.take("scheduler", "two", lease)
        assert taken is not None
        with pytest.raises(FencedError, match="scheduler"):
            schedules.settle(lease, made, None, self.ask(extractions, made, "r1"), "", DEED)
        assert schedules.get(made.id) == made
        assert work.runs() == []
        assert schedules.settle(taken, made, None, self.ask(extractions, made, "r1"), "", DEED) is not None

    def test_a_refusal_is_kept_and_told(
        self, make: Make, schedules: Schedules, extractions: Extractions, work: Work, accounts: Accounts, lease: Lease,
        clock: FakeClock,
    ) -> None:  # fmt: skip
        made = make()
        work.submit(self.ask(extractions, made, "r0").extraction, "r0", "/archives/a", "ada", DEED)
        following = clock.now() + timedelta(hours=1)
        refused = schedules.settle(lease, made, following, self.ask(extractions, made, "r1"), "", DEED)
        assert refused is not None
        assert (refused.next_run_at, refused.last_run_id, refused.last_run_at) == (following, "", None)
        assert "has run r0, which is PENDING" in refused.last_message
        assert work.run("r1") is None
        told = accounts.deeds(limit=1)[0].deed
        assert (told.action, told.detail) == ("run.refused", {"due": "then", "why": refused.last_message})
        work.command("r0", Command.STOP, DEED)
        clock.advance(3600)
        again = schedules.settle(lease, refused, None, self.ask(extractions, made, "r1"), "", DEED)
        assert again is not None
        assert (again.last_run_id, again.last_message, again.next_run_at) == ("r1", "", None)

    def test_a_time_may_pass_without_a_run(
        self, make: Make, schedules: Schedules, work: Work, accounts: Accounts, lease: Lease
    ) -> None:
        made = make()
        settled = schedules.settle(lease, made, None, None, "skipped", DEED)
        assert settled is not None
        assert (settled.last_message, settled.last_run_id, work.runs()) == ("skipped", "", [])
        assert accounts.deeds(limit=1)[0].deed == DEED

    @pytest.mark.parametrize("what", ["changed", "removed", "extraction"])
    def test_what_was_changed_in_between_is_left_alone(
        self, make: Make, schedules: Schedules, extractions: Extractions, work: Work, lease: Lease, what: str
    ) -> None:
        made = make()
        asked = self.ask(extractions, made, "r1")
        if what == "changed":
            draft = ScheduleDraft(name="n", extraction_id=made.extraction_id, timing=TIMING)
            schedules.change(made.id, 1, draft, DEED, retimed=False, next_run_at=None)
        elif what == "removed":
            schedules.remove(made.id, DEED)
        else:
            extractions.remove(made.extraction_id, DEED)
        assert schedules.settle(lease, made, None, asked, "", DEED) is None
        assert work.runs() == []

    def test_no_run_is_left_of_an_extraction_that_goes_while_it_is_asked_for(
        self, extract: Callable[..., Extraction], make: Make, schedules: Schedules, extractions: Extractions, work: Work,
        lease: Lease,
    ) -> None:  # fmt: skip
        made = [make(f"n{number}", of=extract(f"e{number}", WhenBusy.QUEUE)) for number in range(12)]
        asked = [self.ask(extractions, one, f"r{one.id}") for one in made]

        def act(number: int) -> None:
            for one, ask in zip(made, asked, strict=True):
                if number == 0:
                    schedules.settle(lease, one, None, ask, "", DEED)
                elif number == 1:
                    with suppress(NotFoundError):
                        work.submit(ask.extraction, f"u{one.id}", "/archives/a", "ada", DEED)
                else:
                    with suppress(ConflictError):
                        extractions.remove(one.extraction_id, DEED)

        together(3, act)
        assert {run.extraction_id for run in work.runs()} <= {one.id for one in extractions.page()}

    # -- leases ------------------------------------------------------------------------------------------------------

    def test_a_duty_has_one_holder_and_each_a_higher_epoch(self, leases: Leases) -> None:
        assert leases.lease("d") is None
        first = leases.take("d", "one", None)
        assert first == Lease(name="d", owner="one", epoch=1, beat=0) == leases.lease("d")
        assert first is not None
        assert leases.take("d", "two", None) is None
        renewed = leases.renew(first)
        assert renewed == replace(first, beat=1) == leases.lease("d")
        assert leases.take("d", "two", first) is None, "it showed that it is alive"
        second = leases.take("d", "two", renewed)
        assert second == Lease(name="d", owner="two", epoch=2, beat=0)
        assert leases.renew(first) is None
        leases.give_back(first)
        assert leases.lease("d") == second
        assert leases.take("other", "one", None) is not None

    def test_what_was_given_back_is_free(self, leases: Leases) -> None:
        first = leases.take("d", "one", None)
        assert first is not None
        leases.give_back(first)
        free = leases.lease("d")
        assert free is not None
        assert free.free
        second = leases.take("d", "two", free)
        assert second is not None
        assert (second.owner, second.epoch, second.free) == ("two", 2, False)

    def test_of_many_who_take_a_duty_one_does(self, leases: Leases) -> None:
        seen: Lease | None = None
        for _ in range(3):
            taken: list[Lease | None] = []

            def take(number: int, seen: Lease | None = seen, taken: list[Lease | None] = taken) -> None:
                taken.append(leases.take("d", f"owner{number}", seen))

            together(5, take)
            [seen] = [one for one in taken if one is not None]

    # -- preferences ---------------------------------------------------------------------------------------------------

    def test_preferences_are_each_users_own_and_go_with_the_user(
        self, preferences: PreferencesRecord, accounts: Accounts
    ) -> None:
        admin = frozenset({Role.ADMIN})
        ada, bob = accounts.add("ada", "h", admin, DEED), accounts.add("bob", "h", admin, DEED)
        assert (preferences.get(ada.id).document, preferences.get(ada.id).version) == ("{}", 0)
        kept = preferences.put(ada.id, 0, '{ "ünï": "\\ud800\\u0000" }')
        assert kept == preferences.get(ada.id)
        assert (kept.document, kept.version) == ('{ "ünï": "\\ud800\\u0000" }', 1)
        assert preferences.get(bob.id).version == 0
        for version in (0, 2):
            with pytest.raises(ConflictError, match="meanwhile"):
                preferences.put(ada.id, version, "{}")
        with pytest.raises(ConflictError):
            preferences.put(bob.id, 1, "{}")
        assert preferences.put(ada.id, 1, "{}").version == 2
        accounts.remove(ada.id, DEED)
        assert preferences.get(ada.id).version == 0
        with pytest.raises(NotFoundError):
            preferences.put(ada.id, 0, "{}")

    def test_of_many_who_change_preferences_one_does(self, preferences: PreferencesRecord, accounts: Accounts) -> None:
        user = accounts.add("ada", "h", frozenset({Role.ADMIN}), DEED)
        won = []

        def put(number: int) -> None:
            with suppress(ConflictError):
                won.append(preferences.put(user.id, 0, f'{{"n": {number}}}'))

        together(6, put)
        assert [preferences.get(user.id)] == won
