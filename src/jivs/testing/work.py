"""What every adapter of ``ports.work`` and ``ports.extractions`` promises."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from jivs.domain.extraction import Extraction, ExtractionDraft, Job, WhenBusy
from jivs.domain.registry import Source, SourceDraft
from jivs.domain.run import Command, Counts, Order, Run, RunState
from jivs.domain.source import Address
from jivs.errors import AlreadyExistsError, ConflictError, FencedError, NotFoundError
from jivs.ports.extractions import Extractions
from jivs.ports.registry import Registry
from jivs.ports.work import Work
from jivs.testing.clock import FakeClock
from jivs.testing.orders import DEED, JOB, Make, OrdersSuite


class WorkSuite(OrdersSuite):
    """Subclasses give the fixtures ``registry``, ``extractions`` and ``work`` of one fresh catalog on the fixture ``clock``;
    sources without a cap have 10 connections.
    """

    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def source(self, registry: Registry) -> Callable[..., Source]:
        def make(name: str = "s", connections: int = 0) -> Source:
            draft = SourceDraft(name=name, address=Address(scheme="sqlite", database="/x"), max_connections=connections)
            return registry.add_source(draft, lambda _: "", DEED)

        return make

    @pytest.fixture
    def make(self, extractions: Extractions, source: Callable[..., Source]) -> Make:
        sources: list[Source] = []

        def made(name: str = "x", *, of: Source | None = None, job: Job = JOB, **more: object) -> Extraction:
            if of is None:
                sources[:] = sources or [source()]
            draft = ExtractionDraft(name=name, source_id=(of or sources[0]).id, job=job, **more)  # type: ignore[arg-type]
            return extractions.add(draft, "ada", DEED)

        return made

    # -- extractions ------------------------------------------------------------------------------------------------

    def test_an_extraction_is_kept_as_it_was(self, make: Make, extractions: Extractions) -> None:
        made = make("Sales", description="d", priority=3, when_busy=WhenBusy.QUEUE)
        assert made == extractions.get(made.id)
        assert (made.name, made.job, made.priority, made.when_busy) == ("Sales", JOB, 3, WhenBusy.QUEUE)
        assert (made.created_by, made.source_name, made.last_run, made.version) == ("ada", "s", "", 1)
        with pytest.raises(AlreadyExistsError, match="SALES"):
            make("SALES")
        assert extractions.get(made.id + 1) is None

    def test_an_extraction_needs_its_source(self, make: Make, extractions: Extractions, registry: Registry) -> None:
        made = make()
        with pytest.raises(NotFoundError, match="source 99"):
            extractions.add(ExtractionDraft(name="y", source_id=99, job=JOB), "ada", DEED)
        with pytest.raises(NotFoundError, match="source 99"):
            extractions.change(made.id, 1, ExtractionDraft(name="x", source_id=99, job=JOB), DEED)
        with pytest.raises(ConflictError, match="Extractions use source"):
            registry.remove_source(made.source_id, DEED)
        assert extractions.remove(made.id, DEED)
        assert not extractions.remove(made.id, DEED)
        assert registry.remove_source(made.source_id, DEED)

    def test_an_extraction_and_its_source_are_made_together_or_not_at_all(
        self, extractions: Extractions, registry: Registry
    ) -> None:
        draft = ExtractionDraft(name="x", source_id=0, job=JOB)
        new = SourceDraft(name="new", address=Address(scheme="sqlite", database="/x"))
        made = extractions.add_with_source(draft, new, lambda place: f"sealed for {place}", "ada", (DEED, DEED))
        kept = registry.source(made.source_id)
        assert kept is not None
        assert kept.sealed == f"sealed for source:{kept.id}"
        with pytest.raises(AlreadyExistsError):
            extractions.add_with_source(draft, replace(new, name="other"), lambda _: "", "ada", (DEED, DEED))
        assert [one.name for one in registry.sources()] == ["new"]

    def test_only_one_of_two_changes_wins(self, make: Make, extractions: Extractions) -> None:
        made = make()
        draft = ExtractionDraft(name="renamed", source_id=made.source_id, job=replace(JOB, archive="other"))
        changed = extractions.change(made.id, made.version, draft, DEED)
        assert (changed.name, changed.job.archive, changed.version) == ("renamed", "other", 2)
        with pytest.raises(ConflictError, match="meanwhile"):
            extractions.change(made.id, made.version, draft, DEED)

    def test_pages_filters_and_orders(self, make: Make, extractions: Extractions, work: Work) -> None:
        made = [make(name) for name in ("beta", "Alpha", "a%b", "gamma")]
        self.start(work, made[2])
        assert [one.name for one in extractions.page(limit=2)] == ["beta", "Alpha"]
        assert [one.name for one in extractions.page(after=made[1].id)] == ["a%b", "gamma"]
        assert [one.name for one in extractions.page(sort="name")] == ["a%b", "Alpha", "beta", "gamma"]
        down = extractions.page(sort="name", descending=True, offset=1, limit=2)
        assert [one.name for one in down] == ["beta", "Alpha"]
        assert [one.name for one in extractions.page(name="A")] == ["beta", "Alpha", "a%b", "gamma"]
        assert [one.name for one in extractions.page(name="%")] == ["a%b"]
        assert (extractions.count(), extractions.count(name="%"), extractions.count(state="PENDING")) == (4, 1, 1)
        [pending] = extractions.page(state="PENDING")
        assert (pending.name, pending.last_run, pending.last_state) == ("a%b", "r1", "PENDING")
        assert extractions.page(source_id=made[0].source_id + 1) == []

    # -- runs ---------------------------------------------------------------------------------------------------------

    def test_a_run_from_asking_to_its_end(self, make: Make, work: Work, clock: FakeClock) -> None:
        extraction = make()
        asked = self.start(work, extraction)
        assert (asked.state, Job.from_json(asked.job), asked.actor) == (RunState.PENDING, JOB, "ada")
        assert work.waiting() == 1
        run = work.claim("w1", 3)
        assert run is not None
        assert (run.id, run.state, run.owner, run.epoch, run.connections) == ("r1", RunState.RUNNING, "w1", 1, 5)
        assert (work.waiting(), work.claim("w2", 3)) == (0, None)
        kept = work.keep("r1", 1, 3, Counts(rows=7, partitions=2), "reading")
        assert kept is not None
        assert (kept.order, kept.state) == (Order.GO_ON, RunState.RUNNING)
        clock.advance(2)
        assert work.settle("r1", 1, RunState.COMPLETED, counts=Counts(rows=9, bytes=5, partitions=2, partitions_done=2))
        ended = work.run("r1")
        assert ended is not None
        assert (ended.state, ended.counts.rows, ended.lease_until, ended.connections) == (RunState.COMPLETED, 9, None, 0)
        found = work.statistics(extraction.id)
        assert (found.by_state, found.rows, found.bytes, found.average_seconds) == ({"COMPLETED": 1}, 9, 5, 2.0)
        told = [(event.kind, json.loads(event.data)["state"], json.loads(event.data)["rows"]) for event in work.events(0)]
        assert told == [
            ("state", "PENDING", 0), ("state", "RUNNING", 0), ("progress", "RUNNING", 7), ("state", "COMPLETED", 9),
        ]  # fmt: skip
        assert work.events(work.last_event()) == []
        assert work.by_state() == {"COMPLETED": 1}

    def test_a_second_run_is_refused_or_waits(self, make: Make, work: Work) -> None:
        refusing, queueing = make("refusing"), make("queueing", when_busy=WhenBusy.QUEUE)
        self.start(work, refusing, "a1")
        with pytest.raises(ConflictError, match="a1, which is PENDING"):
            self.start(work, refusing, "a2")
        for name in ("b1", "b2"):
            self.start(work, queueing, name)
        first, second = work.claim("w", 3), work.claim("w", 3)
        assert [run and run.id for run in (first, second)] == ["a1", "b1"]
        assert work.claim("w", 3) is None
        assert second is not None
        work.settle("b1", second.epoch, RunState.COMPLETED)
        third = work.claim("w", 3)
        assert third is not None
        assert third.id == "b2"

    def test_of_many_starts_at_once_one_succeeds(self, make: Make, work: Work) -> None:
        extraction, won = make(), []
        barrier = threading.Barrier(6)

        def compete(number: int) -> None:
            barrier.wait()
            with suppress(ConflictError):
                won.append(self.start(work, extraction, f"r{number}").id)

        together(6, compete)
        assert len(won) == 1

    def test_priority_then_age(self, make: Make, work: Work) -> None:
        for name, priority in (("low", -1), ("old", 0), ("new", 0), ("high", 5)):
            self.start(work, make(name, priority=priority), name)
        claimed = [run.id for run in iter(lambda: work.claim("w", 3), None)]
        assert claimed == ["high", "old", "new", "low"]

    def test_the_cap_of_a_source_holds_over_all_workers(self, make: Make, work: Work, source: Callable[..., Source]) -> None:
        small = source("small", 5)
        for number in range(12):
            self.start(work, make(f"x{number}", of=small), f"r{number}")
        self.start(work, make("elsewhere"), "other")
        claimed: list[Run] = []
        together(8, lambda number: claimed.extend(iter(lambda: work.claim(f"w{number}", 60), None)))
        on_small = [run for run in claimed if run.source_id == small.id]
        assert sorted(run.connections for run in on_small) == [2, 2]
        assert {run.id for run in claimed} - {run.id for run in on_small} == {"other"}
        assert work.waiting() == 0
        work.settle(on_small[0].id, on_small[0].epoch, RunState.FAILED, "it broke")
        assert work.waiting() == 10
        assert work.claim("w", 3) is not None

    def test_the_pace_of_a_source_holds_over_all_who_ask(self, work: Work) -> None:
        waits: list[float] = []
        together(8, lambda _: waits.append(work.pace(1, 1_000, 100)))
        assert sorted(waits) == pytest.approx([10 * place - 0.1 for place in range(1, 9)], abs=2)
        assert work.pace(2, 10, 100) < 0.1, "another source has a queue of its own"

    def test_a_queue_of_a_clock_that_was_wrong_keeps_nobody(self, work: Work) -> None:
        work.pace(1, 1_000_000, 1)
        assert work.pace(1, 100, 100) == pytest.approx(0.9, abs=0.5)

    def test_a_single_run_gets_what_it_wants_and_a_cap_of_one_is_enough(
        self, make: Make, work: Work, source: Callable[..., Source]
    ) -> None:
        for number, (cap, parallel, granted) in enumerate(((0, 4, 5), (3, 4, 3), (1, 4, 1), (100, 8, 9), (4, 1, 2))):
            own = source(f"s{number}", cap)
            self.start(work, make(f"x{number}", of=own, job=replace(JOB, parallel=parallel)), f"r{number}")
            run = work.claim("w", 3)
            assert run is not None
            assert run.connections == granted

    def test_who_has_all_of_a_source_gives_up_some_for_who_waits_and_gets_them_back(
        self, make: Make, work: Work, source: Callable[..., Source]
    ) -> None:
        own = source("crowded", 10)
        wide = replace(JOB, parallel=8)
        self.start(work, make("large", of=own, job=wide, when_busy=WhenBusy.QUEUE), "large")
        self.start(work, make("elsewhere"), "elsewhere")
        large = next(run for run in (work.claim("w1", 60), work.claim("w2", 60)) if run is not None and run.id == "large")

        def may_have(taken: int) -> int:
            kept = work.keep("large", large.epoch, 60, Counts(), "reading", taken=taken, most=9)
            assert kept is not None
            return kept.connections

        assert (large.connections, may_have(9)) == (9, 9)
        small = make("small", of=own, job=wide)
        self.start(work, small, "small")
        assert work.claim("w3", 60) is None
        assert may_have(9) == 5
        assert work.claim("w3", 60) is None, "it has not given them up yet"
        assert may_have(7) == 7, "there is room now"
        claimed = work.claim("w3", 60)
        assert claimed is not None
        assert (claimed.id, claimed.connections, may_have(7)) == ("small", 3, 7)
        work.settle("small", claimed.epoch, RunState.COMPLETED)
        assert may_have(7) == 9
        assert may_have(9) == 9

    def test_nothing_is_given_up_for_a_run_that_could_not_begin_anyway(self, make: Make, work: Work) -> None:
        extraction = make(when_busy=WhenBusy.QUEUE, job=replace(JOB, parallel=9))
        self.start(work, extraction, "r1")
        run = work.claim("w1", 60)
        assert run is not None
        self.start(work, extraction, "r2")
        kept = work.keep("r1", run.epoch, 60, Counts(), "reading", taken=10, most=10)
        assert kept is not None
        assert (run.connections, kept.connections) == (10, 10)

    def test_a_silent_worker_is_replaced_and_fenced(self, make: Make, work: Work, clock: FakeClock) -> None:
        self.start(work, make())
        first = work.claim("w1", 3)
        assert work.silent(3) == 0
        clock.advance(2)
        assert first is not None
        assert work.keep("r1", first.epoch, 3, Counts(), "") is not None
        clock.advance(2)
        assert (work.silent(3), work.waiting()) == (0, 0)
        clock.advance(3)
        assert (work.silent(3), work.waiting()) == (1, 1)
        second = work.claim("w2", 3)
        assert second is not None
        assert (second.id, second.epoch, second.failures) == ("r1", 2, 1)
        assert work.keep("r1", first.epoch, 3, Counts(), "") is None
        with pytest.raises(FencedError):
            work.settle("r1", first.epoch, RunState.COMPLETED)
        with pytest.raises(FencedError):
            work.hold("r1", first.epoch)
        work.silent(3)
        clock.advance(4)
        assert work.silent(3) == 1
        third = work.claim("w3", 3)
        assert third is not None
        assert third.failures == 2, "whoever has it now decides whether that is too often"

    def test_a_stop_of_a_run_whose_worker_fell_silent_is_left_to_the_next(
        self, make: Make, work: Work, clock: FakeClock
    ) -> None:
        """It may be published: only the archive knows."""
        self.start(work, make(), "r1")
        first = work.claim("w1", 3)
        assert first is not None
        work.silent(3)
        clock.advance(4)
        work.silent(3)
        assert work.command("r1", Command.STOP, DEED).state is RunState.RUNNING
        second = work.claim("w2", 3)
        assert second is not None
        assert second.order is Order.CANCEL

    def test_a_hold_that_comes_after_an_order_to_go_on_holds_nothing(self, make: Make, work: Work) -> None:
        self.start(work, make(), "r1")
        run = work.claim("w1", 3)
        assert run is not None
        work.command("r1", Command.PAUSE, DEED)
        work.command("r1", Command.RESUME, DEED)
        assert not work.hold("r1", run.epoch)
        now = work.run("r1")
        assert now is not None
        assert now.state is RunState.RUNNING

    def test_the_oldest_runs_come_first_if_they_are_asked_for(self, make: Make, work: Work) -> None:
        extraction = make(when_busy=WhenBusy.QUEUE)
        for number in range(3):
            self.start(work, extraction, f"r{number}")
        assert [one.id for one in work.runs(extraction_id=extraction.id, limit=2, oldest=True)] == ["r0", "r1"]

    def test_a_clock_that_is_set_takes_no_lease_and_keeps_none(self, make: Make, work: Work, clock: FakeClock) -> None:
        self.start(work, make("one"), "r1")
        self.start(work, make("two"), "r2")
        run = work.claim("w1", 3)
        assert run is not None
        work.settle("r1", run.epoch, RunState.PENDING, "no answer", retry_at=clock.now().timestamp() + 10)
        run = work.claim("w1", 3)
        assert run is not None
        assert (run.id, work.silent(3)) == ("r2", 0)
        for jump in (36_000, -72_000):
            clock.jump(jump)
            clock.advance(2)
            assert work.silent(3) == 0
            assert work.keep("r2", run.epoch, 3, Counts(), "") is not None
        again = work.claim("w2", 3)
        assert again is not None
        assert again.id == "r1", "its time comes although the clock that told it was wrong"
        work.silent(3)
        clock.advance(3)
        assert work.silent(3) == 2
        taken = [run.id for run in iter(lambda: work.claim("w3", 3), None)]
        assert taken == ["r1", "r2"]

    def test_a_clock_that_is_set_back_keeps_no_lost_run_waiting(self, make: Make, work: Work, clock: FakeClock) -> None:
        """Also one that had waited for another attempt before."""
        self.start(work, make())
        run = work.claim("host:1:a", 60)
        assert run is not None
        work.settle("r1", run.epoch, RunState.PENDING, "no answer", retry_at=clock.now().timestamp() + 10)
        clock.advance(11)
        assert work.claim("host:1:b", 60) is not None
        clock.jump(-300)
        assert work.lost("host:1:") == 1
        assert work.claim("host:2:a", 60) is not None

    def test_lost_processes_lose_their_leases_at_once(self, make: Make, work: Work) -> None:
        self.start(work, make("one"), "r1")
        self.start(work, make("two"), "r2")
        work.claim("host:11:a", 60)
        work.claim("host:1:b", 60)
        assert work.lost("host:1:") == 1
        again = work.claim("host:2:c", 60)
        assert again is not None
        assert again.id == "r2"
        assert work.claim("host:2:c", 60) is None

    def test_a_held_run_whose_worker_fell_silent_is_looked_at_again(self, make: Make, work: Work) -> None:
        """It may be published: a stop is left to whoever takes it over, too."""
        self.start(work, make())
        run = work.claim("host:1:a", 60)
        assert run is not None
        work.command("r1", Command.PAUSE, DEED)
        assert work.hold("r1", run.epoch)
        assert work.lost("host:1:") == 1
        stopped = work.command("r1", Command.STOP, DEED)
        assert (stopped.state, stopped.order) == (RunState.PAUSED, Order.CANCEL)
        again = work.claim("host:2:b", 60)
        assert again is not None
        assert (again.id, again.state, again.order, again.epoch) == ("r1", RunState.RUNNING, Order.CANCEL, run.epoch + 1)

    def test_a_run_is_asked_for_of_an_extraction_as_it_is(
        self, make: Make, source: Callable[..., Source], work: Work, registry: Registry, extractions: Extractions
    ) -> None:
        made, other = make("one"), make("two", of=source("other"))
        changed = ExtractionDraft(name="one", source_id=other.source_id, job=JOB)
        extractions.change(made.id, made.version, changed, DEED)
        assert registry.remove_source(made.source_id, DEED)
        with pytest.raises(ConflictError, match="was changed in this moment"):
            self.start(work, made)

    def test_another_attempt_waits_for_its_time(self, make: Make, work: Work, clock: FakeClock) -> None:
        self.start(work, make())
        run = work.claim("w", 3)
        assert run is not None
        work.settle("r1", run.epoch, RunState.PENDING, "no answer", retry_at=clock.now().timestamp() + 10)
        assert (work.waiting(), work.claim("w", 3)) == (0, None)
        clock.advance(11)
        again = work.claim("w", 3)
        assert again is not None
        assert (again.failures, again.epoch) == (1, 2)

    def test_attempts_are_counted_from_the_last_progress(self, make: Make, work: Work, clock: FakeClock) -> None:
        self.start(work, make())
        seen = []
        for done, silent in ((0, False), (0, True), (2, True), (1, False), (2, True), (3, False)):
            run = work.claim("host:1:x", 3)
            assert run is not None
            seen.append((run.failures, run.stalled))
            assert work.keep("r1", run.epoch, 3, Counts(partitions=9, partitions_done=done), "") is not None
            if silent:
                assert work.lost("host:1:") == 1
            else:
                counts = Counts(partitions=9, partitions_done=done)
                work.settle("r1", run.epoch, RunState.PENDING, "no answer", counts=counts, retry_at=clock.now().timestamp())
                clock.advance(1)
        run = work.claim("host:1:x", 3)
        assert run is not None
        assert [*seen, (run.failures, run.stalled)] == [(0, 0), (1, 1), (2, 2), (3, 1), (4, 2), (5, 3), (6, 1)]
        work.settle("r1", run.epoch, RunState.PENDING)
        work.command("r1", Command.PAUSE, DEED)
        work.command("r1", Command.RESUME, DEED)
        resumed = work.claim("w", 3)
        assert resumed is not None
        assert (resumed.failures, resumed.stalled) == (0, 0)

    # -- the rest ---------------------------------------------------------------------------------------------------

    def test_logs_are_kept_by_run(self, make: Make, work: Work, clock: FakeClock) -> None:
        extraction = make(when_busy=WhenBusy.QUEUE)
        for name in ("r1", "r2"):
            run = self.start(work, extraction, name)
            work.log(run, [(clock.now(), "INFO", f"{name} first\nline"), (clock.now(), "WARN", f"{name} second")])
        newest = work.lines(extraction_id=extraction.id, limit=3)
        assert [line.message for line in newest] == ["r2 second", "r2 first\nline", "r1 second"]
        assert [line.level for line in work.lines(run_id="r1")] == ["WARN", "INFO"]
        assert [line.run_id for line in work.lines(extraction_id=extraction.id, before=newest[1].seq)] == ["r1", "r1"]

    def test_history_goes_but_for_the_newest(self, make: Make, work: Work, clock: FakeClock) -> None:
        extraction = make()
        for number in range(5):
            run = self.start(work, extraction, f"r{number}")
            work.log(run, [(clock.now(), "INFO", "x")])
            claimed = work.claim("w", 3)
            assert claimed is not None
            work.settle(run.id, claimed.epoch, RunState.COMPLETED)
        assert work.sweep(keep_runs=3, keep_seconds=100) == 2
        assert [run.id for run in work.runs(extraction_id=extraction.id)] == ["r4", "r3", "r2"]
        clock.advance(4000)
        self.start(work, extraction, "r5")
        assert work.sweep(keep_runs=3, keep_seconds=100) == 3
        assert [run.id for run in work.runs()] == ["r5"]
        assert [line.run_id for line in work.lines(extraction_id=extraction.id)] == []
        assert [event.run_id for event in work.events(0)] == ["r5"]

    def test_an_extraction_goes_with_its_runs_once_they_ended(
        self, make: Make, work: Work, extractions: Extractions
    ) -> None:
        extraction = make()
        self.start(work, extraction)
        with pytest.raises(ConflictError, match="has not ended"):
            extractions.remove(extraction.id, DEED)
        work.command("r1", Command.STOP, DEED)
        assert extractions.remove(extraction.id, DEED)
        assert work.run("r1") is None

    def test_no_event_is_missed_by_a_reader_that_goes_on_behind_the_last(self, make: Make, work: Work) -> None:
        made = [make(f"x{number}") for number in range(40)]
        seen: list[str] = []
        done = threading.Event()

        def read() -> None:
            last = 0
            while True:
                ended = done.is_set()
                for event in work.events(last):
                    last = event.id
                    seen.append(event.run_id)
                if ended:
                    return

        reader = threading.Thread(target=read)
        reader.start()
        together(4, lambda number: [self.start(work, one, f"r{one.id}") for one in made[number::4]])
        done.set()
        reader.join()
        assert sorted(seen) == sorted(f"r{one.id}" for one in made)

    def test_runs_are_counted_by_state(self, make: Make, work: Work) -> None:
        assert work.by_state() == {}
        first = make("a", when_busy=WhenBusy.QUEUE)
        for number in range(3):
            self.start(work, first, f"r{number}")
        work.command("r2", Command.STOP, DEED)
        assert work.by_state() == {"PENDING": 2, "CANCELLED": 1}


def together(count: int, act: Callable[[int], object]) -> None:
    """Do it in so many threads at once; raises what one of them raised."""
    failed: list[BaseException] = []

    def one(number: int) -> None:
        try:
            act(number)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]
