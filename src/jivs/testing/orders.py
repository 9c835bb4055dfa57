"""What every adapter of ``ports.work`` promises of runs that are told to stop, to pause or to go on."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from jivs.domain.audit import Deed
from jivs.domain.extraction import Extraction, ExtractionDraft, Job, WhenBusy
from jivs.domain.plan import Level, Selection
from jivs.domain.registry import Source
from jivs.domain.run import Command, Counts, Order, Run, RunState
from jivs.errors import ConflictError, NotFoundError
from jivs.ports.extractions import Extractions
from jivs.ports.registry import Registry
from jivs.ports.work import Work
from jivs.testing.clock import FakeClock

DEED = Deed(actor="ada", action="tested", object="extraction:x")
JOB = Job(
    archive="sales",
    selection=Selection(tables=("a.*",), queries=(("q", "select 1"),), columns=("x",), where="x > 1"),
    level=Level.FULL,
    options={"infer": "true"},
    parallel=4,
    attempts=2,
)
Make = Callable[..., Extraction]


class OrdersSuite:
    """Part of ``WorkSuite``, whose fixtures it uses."""

    @staticmethod
    def start(work: Work, extraction: Extraction, run_id: str = "r1") -> Run:
        return work.submit(extraction, run_id, "/archives/sales", "ada", DEED)

    def test_what_needs_no_worker_is_done_at_once(self, make: Make, work: Work) -> None:
        self.start(work, make())
        assert work.command("r1", Command.PAUSE, DEED).state is RunState.PAUSED
        assert work.claim("w", 3) is None
        with pytest.raises(ConflictError, match="cannot be paused"):
            work.command("r1", Command.PAUSE, DEED)
        assert work.command("r1", Command.RESUME, DEED).state is RunState.PENDING
        assert work.command("r1", Command.STOP, DEED).state is RunState.CANCELLED
        for command in Command:
            with pytest.raises(ConflictError, match="is CANCELLED"):
                work.command("r1", command, DEED)
        with pytest.raises(NotFoundError):
            work.command("unknown", Command.STOP, DEED)

    def test_a_worker_hears_what_it_is_told(self, make: Make, work: Work) -> None:
        self.start(work, make())
        run = work.claim("w", 3)
        assert run is not None
        told = work.command("r1", Command.PAUSE, DEED)
        assert (told.state, told.order) == (RunState.RUNNING, Order.PAUSE)
        kept = work.keep("r1", run.epoch, 3, Counts(), "")
        assert kept is not None
        assert kept.order is Order.PAUSE
        work.hold("r1", run.epoch)
        assert work.command("r1", Command.RESUME, DEED).state is RunState.RUNNING
        kept = work.keep("r1", run.epoch, 3, Counts(), "")
        assert kept is not None
        assert (kept.order, kept.state) == (Order.GO_ON, RunState.RUNNING)
        assert not work.settle("r1", run.epoch, RunState.PAUSED), "it was told to go on"
        work.command("r1", Command.PAUSE, DEED)
        work.hold("r1", run.epoch)
        assert work.settle("r1", run.epoch, RunState.PAUSED)
        assert work.command("r1", Command.RESUME, DEED).state is RunState.PENDING
        again = work.claim("w", 3)
        assert again is not None
        assert again.failures == 0
        work.command("r1", Command.STOP, DEED)
        with pytest.raises(ConflictError, match="told to cancel"):
            work.command("r1", Command.RESUME, DEED)
        assert work.settle("r1", again.epoch, RunState.CANCELLED)

    def test_a_run_that_was_done_when_it_was_held_ends_as_it_is(self, make: Make, work: Work) -> None:
        self.start(work, make())
        run = work.claim("w", 3)
        assert run is not None
        work.command("r1", Command.PAUSE, DEED)
        work.hold("r1", run.epoch)
        work.command("r1", Command.STOP, DEED)
        assert work.settle("r1", run.epoch, RunState.COMPLETED)
        ended = work.run("r1")
        assert ended is not None
        assert (ended.state, ended.order) == (RunState.COMPLETED, Order.GO_ON)

    def test_a_run_that_was_let_go_of_is_stopped_at_once(self, make: Make, work: Work, clock: FakeClock) -> None:
        self.start(work, make())
        run = work.claim("w", 3)
        assert run is not None
        clock.advance(3600)  # somebody set the clock: that ends no lease
        assert work.command("r1", Command.PAUSE, DEED).state is RunState.RUNNING
        work.settle("r1", run.epoch, RunState.PAUSED)
        assert work.command("r1", Command.STOP, DEED, doubtful=False).state is RunState.CANCELLED
        assert work.keep("r1", run.epoch, 3, Counts(), "") is None

    def test_a_run_that_was_let_go_of_unseen_is_left_to_who_asks_its_archive(self, make: Make, work: Work) -> None:
        self.start(work, make())
        run = work.claim("w", 3)
        assert run is not None
        work.settle("r1", run.epoch, RunState.PENDING, doubtful=True)
        told = work.command("r1", Command.STOP, DEED)
        assert (told.state, told.order) == (RunState.RUNNING, Order.CANCEL)
        looked = work.claim("w", 3)
        assert looked is not None
        assert work.settle("r1", looked.epoch, RunState.CANCELLED)

    @pytest.mark.parametrize(
        ("order", "given_back_as", "then"),
        [
            (Command.STOP, RunState.PENDING, RunState.CANCELLED),
            (Command.PAUSE, RunState.PENDING, RunState.PAUSED),
            (Command.STOP, RunState.PAUSED, RunState.CANCELLED),
            (Command.STOP, RunState.COMPLETED, RunState.COMPLETED),
        ],
    )
    def test_what_a_run_was_told_in_the_moment_in_which_it_is_given_back_is_done(
        self, make: Make, work: Work, order: Command, given_back_as: RunState, then: RunState
    ) -> None:
        self.start(work, make(when_busy=WhenBusy.QUEUE))
        run = work.claim("w", 3)
        assert run is not None
        work.command("r1", order, DEED)
        assert work.settle("r1", run.epoch, given_back_as)
        found = work.run("r1")
        assert found is not None
        assert (found.state, found.order, found.ended_at is not None) == (then, Order.GO_ON, then.ended)

    def test_a_look_whether_a_run_is_published_takes_no_connection(self, make: Make, work: Work) -> None:
        """Of a source that others read with all that it may have."""
        first = make("first")
        self.start(work, first)
        self.start(work, make("second", of=first), "r2")
        told = work.claim("gone", 3)
        other = work.claim("w", 3)
        assert told is not None
        assert other is not None
        assert work.lost("gone") == 1
        kept = work.keep(other.id, other.epoch, 3, Counts(), "", taken=other.connections, most=1000)
        assert kept is not None
        work.command(told.id, Command.STOP, DEED)
        assert work.waiting() == 1
        looked = work.claim("w2", 3)
        assert looked is not None
        assert (looked.id, looked.order, looked.connections) == (told.id, Order.CANCEL, 0)
        kept = work.keep(told.id, looked.epoch, 3, Counts(), "", most=0)
        assert kept is not None
        assert kept.connections == 0
        assert work.settle(told.id, looked.epoch, RunState.CANCELLED)

    def test_a_run_that_is_resumed_while_somebody_looks_goes_on_at_once(self, make: Make, work: Work) -> None:
        self.start(work, make())
        assert work.claim("gone", 3) is not None
        work.command("r1", Command.PAUSE, DEED)
        assert work.lost("gone") == 1
        looked = work.claim("w", 3)
        assert looked is not None
        work.command("r1", Command.RESUME, DEED)
        assert not work.settle("r1", looked.epoch, RunState.PAUSED)
        assert work.settle("r1", looked.epoch, RunState.PENDING)
        assert work.claim("w", 3) is not None

    def test_a_run_that_was_resumed_goes_on_at_once_also_where_who_looks_dies(self, make: Make, work: Work) -> None:
        self.start(work, make())
        assert work.claim("gone", 3) is not None
        work.command("r1", Command.PAUSE, DEED)
        assert work.lost("gone") == 1
        assert work.claim("gone", 3) is not None
        work.command("r1", Command.RESUME, DEED)
        assert work.lost("gone") == 1
        assert work.claim("w", 3) is not None

    def test_a_source_is_not_deleted_under_a_run(
        self, make: Make, work: Work, extractions: Extractions, registry: Registry, source: Callable[..., Source]
    ) -> None:
        old, new = source("old"), source("new")
        extraction = make("moved", of=old)
        self.start(work, extraction)
        moved = ExtractionDraft(name="moved", source_id=new.id, job=JOB)
        extractions.change(extraction.id, extraction.version, moved, DEED)
        with pytest.raises(ConflictError, match="Run r1 uses source"):
            registry.remove_source(old.id, DEED)
        work.command("r1", Command.STOP, DEED)
        assert registry.remove_source(old.id, DEED)

    def test_events_keep_their_numbers_when_old_ones_go(self, make: Make, work: Work, clock: FakeClock) -> None:
        self.start(work, make())
        last = work.last_event()
        clock.advance(7200)
        work.sweep(keep_runs=1, keep_seconds=1e9)
        work.command("r1", Command.STOP, DEED)
        assert [event.id for event in work.events(last)] == [last + 1]
