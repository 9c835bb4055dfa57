"""The bounded parallel readers of a run: claim a partition, read it, write it, prove it, record it."""

from __future__ import annotations

import errno
import logging
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa

from jivs.archive import runs
from jivs.archive.reader import batches, quarantined_cells
from jivs.archive.writer import SegmentWriter
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
from jivs.operations.job import ExtractJob, Progress
from jivs.ports.app import App
from jivs.ports.connector import Session
from jivs.ports.store import Store
from jivs.transfer.conform import conform
from jivs.wire.rowhash import RowHasher

_LOG = logging.getLogger(__name__)
LEASE_SECONDS = 10.0
_RENEW_SECONDS = 2.0
_ATTEMPTS = 3
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

    def run(self, readers: int) -> None:
        """Read all partitions that are not finished. Raises what stopped the run as a whole."""
        self._tables = {plan.table.name: plan for plan in self.plan.tables}
        self._ordinals = {plan.table.name: number for number, plan in enumerate(self.plan.tables)}
        self._partitions = {partition.id: partition for partition in self.plan.partitions}
        keeper = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._ended = threading.Event()
        keeper.start()
        try:
            self._end_tables()
            with ThreadPoolExecutor(max_workers=readers, thread_name_prefix="reader") as pool:
                for future in [pool.submit(self._loop) for _ in range(readers)]:
                    future.result()
            if self.fatal is None and not self.job.stop.is_set():
                self._end_tables()
        finally:
            self._ended.set()
            keeper.join()
        if self.fatal is not None:
            raise self.fatal
        if self.job.stop.is_set():
            raise InterruptedRunError("Stopped. Go on with: --resume")

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
        while self.fatal is None and not self.job.stop.is_set():
            try:
                step = self.app.catalog().claim_step(self.plan.run_id, self.app.owner, LEASE_SECONDS)
                if step is None:
                    return
                self._held[step.partition] = step.epoch
                try:
                    self._step(step)
                finally:
                    self._held.pop(step.partition, None)
            except BaseException as error:
                self._stop(error)
                return

    def _keep(self) -> None:
        """Renew the leases."""
        while not self._ended.wait(_RENEW_SECONDS):
            try:
                catalog = self.app.catalog()
                alive = catalog.renew_run(self.plan.run_id, self.epoch, LEASE_SECONDS * 3)
                for partition, epoch in list(self._held.items()):
                    still = catalog.renew_step(self.plan.run_id, partition, epoch, LEASE_SECONDS)
                    alive = alive and (still or partition not in self._held)
                if not alive:
                    raise FencedError("Another process took this run over: it goes on there.")
            except JivsError as error:
                self._stop(error)
                return

    def _stop(self, error: BaseException) -> None:
        with self._lock:
            if self.fatal is None and not self.job.stop.is_set():
                self.fatal = error
        self.session.interrupt()

    # -- one partition --------------------------------------------------------------------------------------------

    def _step(self, step: Step) -> None:
        partition = self._partitions[step.partition]
        plan = self._tables[partition.table]
        catalog = self.app.catalog()
        if plan.table.name in self.failed:
            catalog.release_step(self.plan.run_id, partition.id, step.epoch, failed=True)
            return
        began = time.monotonic()
        try:
            part = self._read(plan, partition, step.epoch)
            runs.record(self.store, self.plan.run_id, part)
            self.pause("part recorded")
            self._held.pop(partition.id, None)
            self._commit(partition, step, part)
            with self._lock:
                self.parts[partition.id] = part
                self.seconds[partition.table] = self.seconds.get(partition.table, 0.0) + time.monotonic() - began
            self.progress.partition(partition.table, partition.id)
            self._maybe_end(plan)
        except JivsError as error:
            self._failed(plan, partition, step, error)
        except Exception as error:
            detail = "".join(traceback.format_exception(error))
            self._failed(plan, partition, step, FatalError(_DEFECT.format(type(error).__name__), detail=detail))

    def _commit(self, partition: Partition, step: Step, part: Part) -> None:
        if not self.app.catalog().complete_step(self.plan.run_id, partition.id, step.epoch, part.rows):
            raise FencedError(f"Partition {partition.id} has another owner now.")

    def _failed(self, plan: TablePlan, partition: Partition, step: Step, error: JivsError) -> None:
        """Try again, give the table up, or stop the run."""
        catalog = self.app.catalog()
        self._held.pop(partition.id, None)
        if (
            self.job.stop.is_set()
            or self.fatal is not None
            or isinstance(error, (InterruptedRunError, ConflictError, SnapshotLostError, StoreError))
        ):
            catalog.release_step(self.plan.run_id, partition.id, step.epoch)
            raise error
        if isinstance(error, TransientError):
            catalog.release_step(self.plan.run_id, partition.id, step.epoch)
            if step.attempts >= _ATTEMPTS:
                raise error
            self.progress.warned(f"{plan.table.name}, partition {partition.id}: {error.message} Trying again.")
            self.app.clock.sleep(0.2 * 2**step.attempts)
            return
        with self._lock:
            self.failed.setdefault(plan.table.name, error)
        catalog.release_step(self.plan.run_id, partition.id, step.epoch, failed=True)
        if error.detail:
            _LOG.debug("%s: %s", plan.table.name, error.detail)
        self.progress.warned(f"{plan.table.name}: {error.message}")

    def _read(self, plan: TablePlan, partition: Partition, epoch: int) -> Part:
        full = self.job.level is Level.FULL and bool(plan.table.columns)
        writer = SegmentWriter(
            store=self.store,
            source=self.plan.source,
            partition=partition,
            run_id=self.plan.run_id,
            epoch=epoch,
            columns=plan.table.columns,
            key=plan.table.primary_key,
            limits=self.job.limits,
        )
        try:
            hasher = RowHasher(plan.table.columns)
            self._stream(plan, partition, writer, hasher if full else None)
            read = writer.fingerprint
            archived = self._read_back(plan, partition, writer, hasher) if full else EMPTY
        except OSError as error:
            writer.abandon()
            raise _disk_error(self.store, error) from error
        except BaseException:
            writer.abandon()
            raise
        source: Fingerprint | None = None
        if full:
            source = self.session.fingerprint(plan.table, partition.bounds)
        return Part(
            partition=partition.id,
            table=partition.table,
            epoch=epoch,
            snapshot=plan.snapshot,
            segments=tuple(writer.segments),
            quarantine=tuple(writer.quarantine),
            fingerprint=str(read) if full else "",
            archive_fingerprint=str(archived) if full else "",
            source_fingerprint=str(source) if source else "",
            source_rows=source.rows if source else -1,
        )

    def _stream(self, plan: TablePlan, partition: Partition, writer: SegmentWriter, hasher: RowHasher | None) -> None:
        source = self.session.read(plan.table, partition.bounds)
        try:
            for chunk in source:
                if self.job.stop.is_set() or self.fatal is not None:
                    raise InterruptedRunError("Stopped. Go on with: --resume")
                rows = conform(plan.table.columns, chunk)
                fingerprint = hasher.fingerprint(rows.batch, rows.overrides) if hasher else None
                writer.add(rows.batch, values=rows.values, rows=rows.rows, fingerprint=fingerprint)
                self.progress.advanced(partition.table, rows.batch.num_rows + len(rows.rows), rows.batch.nbytes)
                self.pause("batch")
        finally:
            close = getattr(source, "close", None)
            if close is not None:
                close()
        writer.finish()
        self.pause("segments written")

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
        ended = TableEnd(
            table=name,
            ordinal=self._ordinals[name],
            snapshot=plan.snapshot,
            source_rows=self.session.count(plan.table, {}) if counts else -1,
            changed=self.session.changed(plan.table),
        )
        runs.record_table(self.store, self.plan.run_id, ended)
        with self._lock:
            self.ends[name] = ended
        self.pause("table ended")


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
    if isinstance(error, pa.ArrowException) and error.errno is None:
        return StoreError(f"Writing to {store.address} failed: {error}. Check the disk, then go on with --resume.")
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return StoreError(f"The disk of {store.address} is full: free some space, then go on with --resume.")
    return StoreError(f"Writing to {store.address} failed: {error.strerror}. Check the disk, then go on with --resume.")
