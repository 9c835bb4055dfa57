"""A claimed run from beginning to end, in a worker: under its lease, within its limits, ended in a true state."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import Enum
from random import SystemRandom

from jivs import logs
from jivs.archive import runs as records
from jivs.domain.extraction import Job
from jivs.domain.plan import RunPlan
from jivs.domain.run import Counts, Order, Run, RunState, stalled
from jivs.domain.schema import TableName
from jivs.errors import AlreadyExistsError, CatalogError, DamagedError, FatalError, FencedError, JivsError, TransientError
from jivs.operations import _guard, sources
from jivs.operations.extract import extract
from jivs.operations.job import ExtractJob, Gate, Lease, Outcome, Progress, Room
from jivs.operations.runs import published
from jivs.ports.cache import CacheName
from jivs.ports.service import Service
from jivs.ports.work import Kept
from jivs.transfer.throttle import SharedThrottle

LEASE_SECONDS = 3.0
"""A worker that could not renew its lease for so long stops."""

LETTING_GO_SECONDS = 1.0
"""So much longer it has to let go of the source. Then its process ends, and another worker takes the run over."""

_BEAT_SECONDS = 1.0
_LONGEST_WAIT = 300.0
_LONGEST_DOUBT = 60.0
"""Until the archive or the catalog is asked again, which takes little where it answers."""

_TELLING_SECONDS = 30.0
"""For so long a catalog that does not answer is told again what a run came to, unless somebody else takes it over."""

_AGAIN_SECONDS = 0.25

_LOG = logging.getLogger(__name__)


class Why(Enum):
    """Why a run was stopped before its end."""

    CANCELLED = "cancelled"
    PAUSED = "paused"
    DRAINED = "the worker is shut down"
    TIMEOUT = "timeout"
    SILENT = "the catalog could not be reached for as long as the lease lasts"


_ORDERED = {Order.CANCEL: Why.CANCELLED, Order.PAUSE: Why.PAUSED}


def _defect(error: Exception) -> FatalError:
    return FatalError(f"A defect of JiVS ({type(error).__name__}) ended the run: see the workers' log.")


@dataclass
class _Telling(Progress):
    """Counts what a run does and collects what it says, until the keeper passes it on."""

    service: Service
    counts: Counts
    stage: str = "starting"
    lines: list[tuple[datetime, str, str]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def _count(self, **more: int) -> None:
        with self.lock:
            self.counts = replace(self.counts, **{name: getattr(self.counts, name) + add for name, add in more.items()})

    def say(self, level: str, message: str) -> None:
        with self.lock:
            self.lines.append((self.service.clock.now(), level, message))

    def said(self) -> list[tuple[datetime, str, str]]:
        with self.lock:
            lines, self.lines = self.lines, []
        return lines

    def planned(self, plan: RunPlan, resumed: int, rows: int) -> None:
        self.stage = "reading"
        with self.lock:
            read = self.counts.bytes
            self.counts = Counts(partitions=len(plan.partitions), partitions_done=resumed, rows=rows, bytes=read)
        again = f", {resumed} of them finished before" if resumed else ""
        self.say("INFO", f"{len(plan.tables)} tables in {len(plan.partitions)} partitions{again}.")

    def advanced(self, table: TableName, rows: int, size: int) -> None:  # noqa: ARG002 - as the base has it
        self._count(rows=rows, bytes=size)

    def partition(self, table: TableName, partition: str) -> None:  # noqa: ARG002 - as the base has it
        self._count(partitions_done=1)

    def warned(self, message: str) -> None:
        self.say("WARN", message)

    def phase(self, name: str) -> None:
        self.stage = name


class Execution:
    """One claimed run. ``drain`` is set by whoever wants the worker to end; ``leave`` ends the process at once."""

    def __init__(
        self, service: Service, run: Run, drain: threading.Event, hold_seconds: float, leave: Callable[[], None]
    ) -> None:
        self._service = service
        self._run = run
        self._drain = drain
        self._hold_seconds = hold_seconds
        self._leave = leave
        self._job = Job.from_json(run.job)
        self._gate = Gate()
        self._room = Room(run.connections)
        self._taken = run.connections
        self._most = self._readers() + 1 if run.connections else 0
        self._why = _ORDERED.get(run.order)
        self._telling = _Telling(service, run.counts)  # until it is planned, what an earlier worker did
        self._given_up = False
        self._doubtful = False
        self._begun = run.epoch > 1  # or it was paused and resumed, or restored from a backup: so it may have been
        self._ended = threading.Event()
        self._renewed = service.clock.monotonic()

    def run(self) -> RunState | None:
        """Execute it; the state that it was left in, None if another worker has it now."""
        app, run = self._service.app, self._run
        begun = app.tracing.span("run", run__id=run.id, run__kind=run.kind, run__epoch=run.epoch, source=run.source)
        with begun as span, logs.run(run.id, span.trace_id):
            state = self._execute()
            span.note(run__state=state.value if state else "")
            if state is RunState.FAILED:
                span.fail(state.value)
        if state is not None and state.ended and run.started_at is not None:
            seconds = (self._service.clock.now() - run.started_at).total_seconds()
            app.metrics.run_ended(run.kind, state, max(0.0, seconds))  # somebody may have set the clock
        return state

    def _execute(self) -> RunState | None:
        keeper = threading.Thread(target=logs.carried(self._keep), name="keeper", daemon=True)
        watcher = threading.Thread(target=logs.carried(self._watch), name="lease", daemon=True)
        keeper.start()
        watcher.start()
        try:
            state, message, retry_at = self._work()
        except FencedError:
            if self._why is not Why.SILENT:
                return None
            self._doubtful = True  # nobody failed: it goes on when the catalog is back, unless somebody else has it then
            state, message, retry_at = RunState.PENDING, f"Stopped: {Why.SILENT.value}.", 0.0
        finally:
            self._ended.set()
            keeper.join()
            watcher.join()
            self._gate.stop()
        return self._settle(state, message, retry_at)

    # -- the work -------------------------------------------------------------------------------------------------

    def _work(self) -> tuple[RunState, str, float]:
        """What it came to: a state, a sentence, and when to try again. Raises FencedError."""
        try:
            return self._published() or self._told_before() or self._too_often() or self._ended_as(self._extract())
        except FencedError:
            raise
        except JivsError as error:
            return self._after(error)
        except Exception as error:
            _LOG.exception("Run %s failed", self._run.id)
            return self._after(_defect(error))

    def _after(self, error: JivsError) -> tuple[RunState, str, float]:
        """What it came to when something kept it from its end: the manifest may be there all the same."""
        try:
            if published := self._published():
                return published
        except DamagedError as damaged:
            error = damaged if self._why is None else error
        except Exception as silent:  # nobody can say how it ended before the archive can be read
            unread = silent if isinstance(silent, JivsError) else _defect(silent)
            self._doubtful = self._begun or isinstance(silent, TransientError)  # else nobody read anything
            if not self._doubtful:
                error = unread
            elif self._why not in {Why.PAUSED, Why.DRAINED, Why.SILENT}:
                _LOG.warning("Run %s: %s %s", self._run.id, unread.message, unread.detail)
                self._telling.say("WARN", f"{unread.message} Whether the run is published cannot be told before.")
                return RunState.PENDING, unread.message, self._later()
        return self._interrupted() if self._why is not None else self._failed(error)

    def _extract(self) -> Outcome:
        self._begun = True
        service, job = self._service, self._job
        source = sources.get(service, self._run.source_id)
        address = _guard.checked(service.guard, sources.opened(service, source))
        limits = service.app.limits
        rate = source.max_rows_per_second or limits.rows_per_second
        return extract(
            service.app,
            ExtractJob(
                address=address,
                archive=self._run.archive,
                selection=job.selection,
                limits=replace(
                    limits,
                    parallel=self._readers(),
                    connections=self._most,
                    batch_rows=min(filter(None, (job.batch_rows, limits.batch_rows)), default=0),
                ),
                level=job.level,
                source_name=source.name,
                options=job.options,
                gate=self._gate,
                lease=Lease(run_id=self._run.id, epoch=self._run.epoch, seconds=LEASE_SECONDS),
                pace=self._pace(source.id, rate),
                room=self._room,
            ),
            self._telling,
        )

    def _pace(self, source_id: int, rate: int) -> SharedThrottle:
        """Rows per second that all runs of a source have together."""
        service = self._service
        return SharedThrottle(rate, service.clock, lambda rows: service.work().pace(source_id, rows, rate), self._gate.rest)

    def _readers(self) -> int:
        """How many it would have, were it alone."""
        return self._job.parallel or self._service.app.limits.parallel

    def _published(self) -> tuple[RunState, str, float] | None:
        """How the run ended, if it is published and the catalog does not know: its worker ended before it could say so, or
        the catalog was restored from a backup.
        """
        manifest = published(self._service, self._run)
        if manifest is None:
            return None
        mine = [table for table in manifest.tables if table.run_id == self._run.id]
        counts = self._telling.counts
        self._telling.counts = replace(
            counts,
            rows=sum(table.rows for table in mine),
            quarantined_rows=sum(table.rows_quarantined for table in mine),
            quarantined_values=sum(table.values_quarantined for table in mine),
            partitions_done=counts.partitions,
        )
        if manifest.failed:
            return RunState.INCOMPLETE, "; ".join(f"{one['table']}: {one['reason']}" for one in manifest.failed), 0.0
        return RunState.COMPLETED, "", 0.0

    def _told_before(self) -> tuple[RunState, str, float] | None:
        """What it was to be before this worker had it, if it was to stop."""
        return self._interrupted() if self._run.order is not Order.GO_ON else None

    def _too_often(self) -> tuple[RunState, str, float] | None:
        """Whether its workers ended too often."""
        if self._run.stalled < self._job.attempts:
            return None
        self._given_up = True
        times = f"{self._run.stalled} times, and nothing got done in between"
        return RunState.FAILED, f"It broke off {times}: out of memory? See its log, and the workers'.", 0.0

    def _ended_as(self, outcome: Outcome) -> tuple[RunState, str, float]:
        for table in outcome.tables:
            level = "ERROR" if table.reason else "INFO"
            self._telling.say(level, f"{table.table}: {table.archived:,} rows, {table.verdict}. {table.reason}".rstrip())
        self._telling.counts = replace(
            self._telling.counts,
            rows=sum(table.archived for table in outcome.tables),
            quarantined_rows=sum(table.quarantined_rows for table in outcome.tables),
            quarantined_values=sum(table.quarantined_values for table in outcome.tables),
        )
        if outcome.complete:
            return RunState.COMPLETED, "", 0.0
        return RunState.INCOMPLETE, "; ".join(f"{one.table}: {one.reason}" for one in outcome.tables if one.reason), 0.0

    def _failed(self, error: JivsError) -> tuple[RunState, str, float]:
        _LOG.info("Run %s: %s %s", self._run.id, error.message, error.detail)
        if isinstance(error, CatalogError):  # which says nothing of the source: no failure to give up by
            self._doubtful = True
            self._telling.say("WARN", error.message)
            return RunState.PENDING, error.message, self._later()
        if not isinstance(error, (TransientError, AlreadyExistsError)):  # the latter: of a worker that was frozen, and woke
            return RunState.FAILED, error.message, 0.0
        failed = stalled(self._run, self._telling.counts.partitions_done)
        if failed >= self._job.attempts:
            self._given_up = True
            return RunState.FAILED, f"{error.message} Tried {self._job.attempts} times.", 0.0
        self._telling.say("WARN", error.message)
        return RunState.PENDING, error.message, self._soon(failed)

    def _later(self) -> float:
        """When to try again what is no failure to give up by."""
        return self._soon(self._run.failures - self._run.stalled + 1, _LONGEST_DOUBT)

    def _soon(self, failed: int, longest: float = _LONGEST_WAIT) -> float:
        """When to try again, after so many failures in a row."""
        wait = min(longest, 2.0 ** min(failed - 1, 20)) * SystemRandom().uniform(0.75, 1.25)
        self._telling.say("INFO", f"Trying again in {wait:.0f} s.")
        return self._service.clock.now().timestamp() + wait

    def _interrupted(self) -> tuple[RunState, str, float]:
        match self._why:
            case Why.CANCELLED:
                self._given_up = True
                return RunState.CANCELLED, "", 0.0
            case Why.PAUSED:
                return RunState.PAUSED, "", 0.0
            case Why.TIMEOUT:
                self._given_up = True
                return RunState.FAILED, f"It took longer than its timeout of {self._job.timeout_seconds} s.", 0.0
            case Why.SILENT:
                raise FencedError(f"Run {self._run.id}: {Why.SILENT.value}.")
        return RunState.PENDING, "", 0.0

    def _abandon(self) -> None:
        try:
            records.abandon(self._service.app.store(self._run.archive), self._run.id)
        except JivsError as error:  # the next sweep removes them
            _LOG.info("Run %s: %s", self._run.id, error.message)

    def _settle(self, state: RunState, message: str, retry_at: float) -> RunState | None:
        """Tell the catalog; None if another worker has the run now, or it could not be told."""
        if not self._doubtful:
            self._telling.say("ERROR" if state is RunState.FAILED else "INFO", f"{state.value}. {message}".rstrip())
        until = self._service.clock.monotonic() + _TELLING_SECONDS
        lines = self._telling.said()
        while True:
            try:
                self._service.work().log(self._run, lines)
                lines = []
                state = self._told(state, message, retry_at)
                break
            except FencedError:
                return None
            except JivsError as error:  # whoever takes it over finds it published, or goes on with it
                lasting = not isinstance(error, TransientError) or self._service.clock.monotonic() > until
                if lasting or self._drain.wait(_AGAIN_SECONDS):
                    _LOG.warning(
                        "Run %s is %s, which the catalog could not be told: %s", self._run.id, state.value, error.message
                    )
                    return None
        if self._given_up and state.ended:
            self._abandon()
        self._service.cache.drop(CacheName.EXTRACTION_STATS, str(self._run.extraction_id))
        return state

    def _told(self, state: RunState, message: str, retry_at: float) -> RunState:
        work, run, counts, doubtful = self._service.work(), self._run, self._telling.counts, self._doubtful
        if work.settle(run.id, run.epoch, state, message, counts=counts, retry_at=retry_at, doubtful=doubtful):
            return state
        state = RunState.PENDING  # it was resumed in the moment in which its place was given up
        work.settle(run.id, run.epoch, state, counts=counts, doubtful=doubtful)
        return state

    # -- the lease and the orders -----------------------------------------------------------------------------------

    def _keep(self) -> None:
        clock = self._service.clock
        last, worked = clock.monotonic(), 0.0
        held: float | None = None
        while not self._ended.wait(_BEAT_SECONDS) and self._why is not Why.SILENT:
            beat = clock.monotonic()
            worked += 0.0 if held is not None else beat - last
            last = beat
            try:
                held = self._beat(held)
                self._renewed = beat
            except FencedError:
                self._stop(Why.SILENT)
                return
            except JivsError as error:
                _LOG.info("Run %s: %s", self._run.id, error.message)
            if self._drain.is_set():
                self._stop(Why.DRAINED)
            if 0 < self._job.timeout_seconds < worked and held is None:
                self._stop(Why.TIMEOUT)

    def _watch(self) -> None:
        """Stop when the lease is over, also while its renewal waits for a catalog that does not answer. What reads may wait
        for it too, with its connections to the source open, which are no longer this run's: then the process ends.
        """
        clock = self._service.clock
        while (left := self._renewed + LEASE_SECONDS - clock.monotonic()) > 0:
            if self._ended.wait(left):
                return
        self._stop(Why.SILENT)
        if not self._ended.wait(LETTING_GO_SECONDS):
            _LOG.warning("Run %s: %s. This process ends.", self._run.id, Why.SILENT.value)
            self._leave()

    def _beat(self, held: float | None) -> float | None:
        """Renew the lease, and do as was ordered; since when the run is held, if it is. Raises FencedError."""
        work, clock = self._service.work(), self._service.clock
        counts, stage, taken = self._telling.counts, self._telling.stage, self._room.taken
        if taken < self._room.allowed:  # no more can join the snapshot
            self._most = taken
        kept = work.keep(self._run.id, self._run.epoch, LEASE_SECONDS, counts, stage, taken=taken, most=self._most)
        if kept is None:
            raise FencedError(f"Run {self._run.id} has another owner now.")
        if taken < self._taken:
            self._service.queue.publish(self._run.id)  # somebody waits for what it gave up
        self._taken = taken
        self._room.allow(kept.connections)
        work.log(self._run, self._telling.said())
        if kept.order is Order.CANCEL:
            self._stop(Why.CANCELLED)
            return held
        if kept.order is Order.GO_ON or not self._holds(kept):
            self._gate.open()
            return None
        if held is not None and clock.monotonic() - held > self._hold_seconds:
            self._stop(Why.PAUSED)
        return clock.monotonic() if held is None else held

    def _holds(self, kept: Kept) -> bool:
        """Pause, and say so; False if it was told to go on meanwhile."""
        self._gate.close()
        return kept.state is RunState.PAUSED or self._service.work().hold(self._run.id, self._run.epoch)

    def _stop(self, why: Why) -> None:
        if self._why is None:
            self._why = why
            self._gate.stop()
