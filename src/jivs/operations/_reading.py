"""The bounded parallel readers of a run: claim a partition, read it, write it, prove it, record it."""

from __future__ import annotations

import errno
import itertools
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar

from jivs import logs
from jivs.archive import runs
from jivs.archive.reader import batches, quarantined_cells
from jivs.archive.writer import SegmentStore, SegmentWriter
from jivs.domain.archive import Part, Proof, TableEnd, TableState
from jivs.domain.fingerprint import EMPTY, Fingerprint
from jivs.domain.plan import Level, Partition, RunPlan, TablePlan
from jivs.domain.run import Step
from jivs.domain.schema import TableName
from jivs.errors import (
    ConflictError,
    FatalError,
    FencedError,
    IntegrityError,
    InterruptedRunError,
    JivsError,
    SchemaChangedError,
    SnapshotLostError,
    StoreError,
    TransientError,
    UserError,
)
from jivs.operations import _measured
from jivs.operations._sharing import CancelledError, Offers, Share, Take
from jivs.operations._small import Later, groups, names
from jivs.operations.job import ExtractJob, Progress
from jivs.ports.app import App
from jivs.ports.connector import Chunk, Session
from jivs.ports.store import Store
from jivs.transfer.conform import conform
from jivs.wire.rowhash import RowHasher

_LOG = logging.getLogger(__name__)
_T = TypeVar("_T")
LEASE_SECONDS = 10.0
_RENEW_SECONDS = 2.0
_PATIENCE = 3
_TAKEN_OVER = "Another process took this run over: it goes on there."
_ATTEMPTS = 3
_HEAVY = 2
"""So many times the size that partitions are cut for, and one is shared."""

_DEFECT = "a defect of JiVS ({}) kept the table from being read; run again with JIVS_LOG_LEVEL=DEBUG and report it"


@dataclass
class Reading:
    """The state of a run's reading, shared by its threads."""

    app: App
    store: Store
    session: Session
    plan: RunPlan
    job: ExtractJob
    progress: Progress
    epoch: int
    pause: Callable[[str], None] = lambda _: None
    parts: dict[str, Part] = field(default_factory=dict)
    ends: dict[TableName, TableEnd] = field(default_factory=dict)
    failed: dict[TableName, JivsError] = field(default_factory=dict)
    seconds: dict[TableName, float] = field(default_factory=dict)
    fatal: BaseException | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _held: dict[str, int] = field(default_factory=dict)
    _counts: dict[TableName, Future[int]] = field(default_factory=dict)
    _offers: Offers = field(default_factory=Offers)

    def run(self, readers: int) -> None:
        """Read all partitions that are not finished. Raises what stopped the run as a whole."""
        self._tables = {plan.table.name: plan for plan in self.plan.tables}
        self._ordinals = {plan.table.name: number for number, plan in enumerate(self.plan.tables)}
        self._groups = groups(self.plan, set(self.parts))
        keeper = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._ended = threading.Event()
        keeper.start()
        try:
            self._end_tables()
            with _measured.readers(self.app.metrics, self.job, readers), ThreadPoolExecutor(readers, "reader") as pool:
                for future in [pool.submit(logs.carried(self._loop)) for _ in range(readers)]:
                    future.result()
            if self.fatal is None and not self.job.gate.stopped:
                self._end_tables()
        finally:
            self._ended.set()
            keeper.join()
        if self.fatal is not None:
            raise self.fatal
        self.job.gate.passed()

    def require_lease(self) -> None:
        """Raises FencedError if another process took the run over."""
        if not self.app.catalog().renew_run(self.plan.run_id, self.epoch, self._lease):
            raise FencedError(_TAKEN_OVER)

    @property
    def _lease(self) -> float:
        return self.job.lease.seconds if self.job.lease else LEASE_SECONDS * 3

    def _end_tables(self) -> None:
        """End every table whose partitions are all finished, also one whose end failed when its last partition did."""
        for plan in self.plan.tables:
            try:
                self._maybe_end(plan)
            except (UserError, SchemaChangedError, IntegrityError, FatalError) as error:
                self.failed.setdefault(plan.table.name, error)
                self.progress.warned(f"{plan.table.name}: {error.message}")

    # -- threads --------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        while self.fatal is None and not self.job.gate.stopped:
            try:
                with self._offers.at_work() as share:
                    step = self.app.catalog().claim_step(
                        self.plan.run_id, self.app.owner, LEASE_SECONDS, run_epoch=self.epoch
                    )
                    if step is not None:
                        self._held[step.partition] = step.epoch
                        try:
                            self._step(step, share)
                        finally:
                            self._held.pop(step.partition, None)
                        continue
                other = self._offers.wait()
                if other is None:
                    self._count_ahead()
                    return
                other.help()
            except BaseException as error:
                self._stop(error)
                return

    def _keep(self) -> None:
        """Renew the leases."""
        stopping = 0
        while not self._ended.wait(min(_RENEW_SECONDS, self._lease / 3)):
            try:
                self.require_lease()
                if self.job.room is not None:
                    self.job.room.fit(self.session.resize)
                catalog, alive = self.app.catalog(), True
                for partition, epoch in list(self._held.items()):
                    still = catalog.renew_step(self.plan.run_id, partition, epoch, LEASE_SECONDS)
                    alive = alive and (still or partition not in self._held)
                if not alive:
                    raise FencedError(_TAKEN_OVER)
            except JivsError as error:
                self._stop(error)
                return
            stopping += self.job.gate.stopped
            if stopping > _PATIENCE:  # a statement that takes its time keeps a reader from asking at the gate
                self.session.interrupt()

    def _stop(self, error: BaseException) -> None:
        with self._lock:
            if self.fatal is None and not self.job.gate.stopped:
                self.fatal = error
        self.session.interrupt()

    # -- one partition --------------------------------------------------------------------------------------------

    def _step(self, step: Step, share: Share) -> None:
        group = self._groups[step.partition]
        if len(group) == 1 or not self._read_small(step, group):
            for partition in group:
                if partition.id in self.parts or partition.table in self.failed:
                    continue
                error = self._one(partition, step.epoch, share)
                if len(group) > 1 and isinstance(error, TransientError) and not self._stops(error):
                    error = self._one(partition, step.epoch, share)  # the attempts of a group are not those of one table
                if error is not None and not self._gives_up(partition, step, error):
                    return
        self._held.pop(step.partition, None)
        if len(group) == 1 and group[0].table in self.failed:
            self.app.catalog().release_step(self.plan.run_id, step.partition, step.epoch, failed=True)
            return
        rows = sum(self.parts[one.id].rows for one in group if one.id in self.parts)
        if not self.app.catalog().complete_step(self.plan.run_id, step.partition, step.epoch, rows):
            raise FencedError(f"Partition {step.partition} has another owner now.")

    def _one(self, partition: Partition, epoch: int, share: Share) -> JivsError | None:
        """Read, prove and record a partition. What went wrong, if anything did."""
        plan = self._tables[partition.table]
        began = time.monotonic()
        try:
            part = self._read(plan, partition, epoch, share)
            runs.record(self.store, self.plan.run_id, part)
            self.pause("part recorded")
            self._finished(part, time.monotonic() - began)
            self._maybe_end(plan)
        except JivsError as error:
            return error
        except Exception as error:
            return FatalError(_DEFECT.format(type(error).__name__), detail="".join(traceback.format_exception(error)))
        return None

    def _finished(self, part: Part, seconds: float) -> None:
        with self._lock:
            self.parts[part.partition] = part
            self.seconds[part.table] = self.seconds.get(part.table, 0.0) + seconds
        _measured.finished(self.app.metrics, part)
        self.progress.partition(part.table, part.partition)

    def _gives_up(self, partition: Partition, step: Step, error: JivsError) -> bool:
        """True: the table is given up. False: the step is free again, for another attempt. Raises what stops the run."""
        catalog = self.app.catalog()
        again = isinstance(error, TransientError) and not isinstance(error, StoreError)
        if self._stops(error) or again:
            self._held.pop(step.partition, None)
            catalog.release_step(self.plan.run_id, step.partition, step.epoch)
            if self._stops(error) or step.attempts >= _ATTEMPTS:
                raise error
            self.progress.warned(f"{partition.table}, partition {partition.id}: {error.message} Trying again.")
            self.app.clock.sleep(0.2 * 2**step.attempts)
            return False
        with self._lock:
            if self.failed.setdefault(partition.table, error) is error:
                _measured.given_up(self.app.metrics, self._tables[partition.table], self.parts)
        if error.detail:
            _LOG.debug("%s: %s", partition.table, error.detail)
        self.progress.warned(f"{partition.table}: {error.message}")
        return True

    def _stops(self, error: JivsError) -> bool:
        """Whether an error, or an order that came meanwhile, ends the run as a whole."""
        ends = isinstance(error, (InterruptedRunError, ConflictError, SnapshotLostError, StoreError))
        return ends or self.job.gate.stopped or self.fatal is not None

    # -- many small tables ------------------------------------------------------------------------------------------

    def _read_small(self, step: Step, group: list[Partition]) -> bool:
        """Read the tables of a group together. False: that failed, and nothing of it counts; read them one by one."""
        began = time.monotonic()
        later = Later(self.store)
        writers: list[SegmentWriter] = []
        try:
            parts = self._small_parts(step, group, later, writers)
        except JivsError as error:
            if self._stops(error):
                self._gives_up(group[0], step, error)
            _LOG.debug("%s: %s", names(group), error.message)
            return False
        except OSError as error:
            self._gives_up(group[0], step, _disk_error(self.store, error))
            return False
        except Exception:
            _LOG.debug("%s", names(group), exc_info=True)
            return False
        finally:
            for writer in writers:
                writer.abandon()
            later.discard()
        for part in parts:
            self._finished(part, (time.monotonic() - began) / len(parts))
        return True

    def _small_parts(self, step: Step, group: list[Partition], later: Later, writers: list[SegmentWriter]) -> list[Part]:
        plans = [self._tables[partition.table] for partition in group]
        tables = [plan.table for plan in plans]
        full = self.job.level is Level.FULL
        hashers = [RowHasher(table.columns) for table in tables]
        writers += [self._writer(plan, partition, step.epoch, later) for plan, partition in zip(plans, group, strict=True)]
        with _closed(self.session.read_small(tables)) as chunks:
            done = 0
            for number, chunk in chunks:
                for writer in writers[done:number]:  # in order: one table's rows are held, and one file open, at a time
                    writer.finish()
                done = number
                self._add(plans[number], writers[number], hashers[number] if full else None, chunk)
        for writer in writers[done:]:
            writer.finish()
        later.flush()
        self.pause("segments written")
        ends = self.session.ends(tables, count=self.job.level is not Level.NONE)
        parts, ended = [], []
        for plan, partition, writer, hasher, (count, changed) in zip(plans, group, writers, hashers, ends, strict=True):
            archived = self._read_back(plan, partition, writer, hasher) if full else None
            source = self.session.fingerprint(plan.table, partition.bounds) if full else None
            parts.append(self._part(plan, partition, step.epoch, writer, source, archived))
            ended.append(self._end(plan, count, changed))
        runs.record_small(self.store, self.plan.run_id, parts, ended)
        self.pause("part recorded")
        with self._lock:
            self.ends.update({end.table: end for end in ended})
        return parts

    # -- one partition --------------------------------------------------------------------------------------------

    def _writer(
        self, plan: TablePlan, partition: Partition, epoch: int, store: SegmentStore, ordinals: Iterator[int] | None = None
    ) -> SegmentWriter:
        return SegmentWriter(
            store=store,
            source=self.plan.source,
            partition=partition,
            run_id=self.plan.run_id,
            epoch=epoch,
            columns=plan.table.columns,
            key=plan.table.primary_key,
            limits=self.job.limits,
            ordinals=ordinals,
        )

    def _read(self, plan: TablePlan, partition: Partition, epoch: int, share: Share) -> Part:
        """Read a partition slice by slice, together with readers that have nothing else to do."""
        full = self.job.level is Level.FULL and bool(plan.table.columns)
        ordinals = itertools.count()

        def drain(take: Take, *, least: int = 0) -> SegmentWriter:
            writer = self._writer(plan, partition, epoch, self.store, ordinals)
            hasher = RowHasher(plan.table.columns) if full else None
            try:
                while (bounds := take()) is not None:
                    with _closed(self.session.read(plan.table, bounds)) as chunks:
                        for chunk in chunks:
                            self._add(plan, writer, hasher, chunk, share)
                writer.finish(least)
            finally:
                writer.abandon()
            self.pause("segments written")
            return writer

        try:
            share.offer(self.session.slices(plan.table, partition.bounds), drain, _HEAVY * self.job.partition_bytes)
            try:
                writer = drain(share.first, least=1)
            except CancelledError:
                share.joined()  # raises what stopped a helper
                raise
            for other in share.joined():
                writer.absorb(other)
            archived = self._read_back(plan, partition, writer, RowHasher(plan.table.columns)) if full else None
        except OSError as error:
            raise _disk_error(self.store, error) from error
        finally:
            share.cancel()
        source = self.session.fingerprint(plan.table, partition.bounds) if full else None
        return self._part(plan, partition, epoch, writer, source, archived)

    def _part(
        self,
        plan: TablePlan,
        partition: Partition,
        epoch: int,
        writer: SegmentWriter,
        source: Fingerprint | None,
        archived: Fingerprint | None,
    ) -> Part:
        return Part(
            partition=partition.id,
            table=partition.table,
            epoch=epoch,
            snapshot=plan.snapshot,
            segments=tuple(writer.segments),
            quarantine=tuple(writer.quarantine),
            fingerprint=str(writer.fingerprint) if archived is not None else "",
            archive_fingerprint=str(archived) if archived is not None else "",
            source_fingerprint=str(source) if source is not None else "",
            source_rows=source.rows if source is not None else -1,
        )

    def _add(
        self, plan: TablePlan, writer: SegmentWriter, hasher: RowHasher | None, chunk: Chunk, share: Share | None = None
    ) -> None:
        self.job.gate.passed()
        if self.fatal is not None:
            raise InterruptedRunError("Stopped. Go on with: --resume")
        if share is not None:
            share.require()
            share.grew(chunk.batch.nbytes)
        rows = conform(plan.table.columns, chunk)
        fingerprint = hasher.fingerprint(rows.batch, rows.overrides) if hasher else None
        writer.add(rows.batch, values=rows.values, rows=rows.rows, fingerprint=fingerprint)
        self.progress.advanced(plan.table.name, rows.batch.num_rows + len(rows.rows), rows.batch.nbytes)
        self.pause("batch")

    def _read_back(self, plan: TablePlan, partition: Partition, writer: SegmentWriter, hasher: RowHasher) -> Fingerprint:
        """A: what the files hold, read from the disk again."""
        state = table_state(plan, self.plan, [_part_of(partition, writer)])
        cells = quarantined_cells(self.store, state)
        total = EMPTY
        for segment in writer.segments:
            for batch, overrides in batches(self.store, state, segment, cells.get(segment.sha256, {})):
                total += hasher.fingerprint(batch, overrides)
        return total

    # -- one table ------------------------------------------------------------------------------------------------

    def _maybe_end(self, plan: TablePlan) -> None:
        """When the last partition is finished: ask the source, inside the snapshot, what the table should have had."""
        name = plan.table.name
        with self._lock:
            if name in self.ends or name in self.failed or any(part.id not in self.parts for part in plan.partitions):
                return
        counts = self.job.level is not Level.NONE or not plan.table.columns
        count = self._count(plan) if counts else -1
        ended = self._end(plan, count, self.session.changed(plan.table))
        runs.record_table(self.store, self.plan.run_id, ended)
        with self._lock:
            self.ends[name] = ended
        self.pause("table ended")

    def _count(self, plan: TablePlan) -> int:
        """The source's count; asked for once, whoever comes first."""
        with self._lock:
            known = self._counts.get(plan.table.name)
            asked = self._counts.setdefault(plan.table.name, Future())
        if known is None:
            try:
                asked.set_result(self.session.count(plan.table, {}))
            except BaseException as error:
                with self._lock:
                    del self._counts[plan.table.name]
                asked.set_exception(error)
                raise
        return asked.result()

    def _count_ahead(self) -> None:
        """With nothing left to read, have the source count what others still read: the snapshot is the same."""
        if self.job.level is Level.NONE:
            return
        for plan in self.plan.tables:
            with self._lock:
                name = plan.table.name
                done = name in self.ends or name in self.failed or name in self._counts or len(plan.partitions) < 2
            if done or self.fatal is not None or self.job.gate.stopped:
                continue
            with suppress(JivsError):  # whoever ends the table asks again, and says it
                self._count(plan)

    def _end(self, plan: TablePlan, count: int, changed: str) -> TableEnd:
        name = plan.table.name
        return TableEnd(table=name, ordinal=self._ordinals[name], snapshot=plan.snapshot, source_rows=count, changed=changed)


@contextmanager
def _closed(rows: Iterator[_T]) -> Iterator[Iterator[_T]]:
    """Close a reading at the end of the block, early or not."""
    try:
        yield rows
    finally:
        close = getattr(rows, "close", None)
        if close is not None:
            close()


def _part_of(partition: Partition, writer: SegmentWriter) -> Part:
    return Part(
        partition=partition.id,
        table=partition.table,
        epoch=0,
        snapshot="",
        segments=tuple(writer.segments),
        quarantine=tuple(writer.quarantine),
    )


def table_state(plan: TablePlan, run: RunPlan, parts: list[Part], proof: Proof | None = None) -> TableState:
    """A table as a manifest lists it."""
    return TableState(
        source=run.source,
        name=plan.table.name,
        kind=plan.table.kind,
        columns=plan.table.columns,
        primary_key=plan.table.primary_key,
        segments=tuple(segment for part in parts for segment in part.segments),
        quarantine=tuple(file for part in parts for file in part.quarantine),
        proof=proof or Proof(level="none", verdict="", snapshot="", one_snapshot=False),
        run_id=run.run_id,
        changed_in=0,
        notes=plan.table.notes,
    )


def _disk_error(store: Store, error: OSError) -> JivsError:
    place = getattr(error, "filename", None) or f"the files on their way to {store.address}"
    if error.errno in {errno.EMFILE, errno.ENFILE}:
        return StoreError("Too many files are open: raise the limit (ulimit -n), then go on with --resume.")
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StoreError(f"The disk of {place} is full: free some space, then go on with --resume.")
    return StoreError(f"Writing {place} failed: {error.strerror or error}. Check the disk, then go on with --resume.")
