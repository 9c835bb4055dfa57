"""Extract: from a source to a verified archive."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from jivs import logs
from jivs.archive import chain, runs
from jivs.archive.schemas import SchemaFiles
from jivs.domain.archive import Proof, TableState
from jivs.domain.fingerprint import EMPTY, Fingerprint
from jivs.domain.plan import Level, RunPlan, TablePlan
from jivs.domain.run import Run, RunState
from jivs.domain.schema import TableName
from jivs.domain.source import Address, Limits, ServerInfo, Snapshot
from jivs.errors import (
    ConflictError,
    FencedError,
    InterruptedRunError,
    JivsError,
    SchemaChangedError,
    StoreError,
    TransientError,
)
from jivs.operations import _planning as planning
from jivs.operations._reading import LEASE_SECONDS, Reading, table_state
from jivs.operations._run_id import new_run_id
from jivs.operations._small import groups
from jivs.operations.job import ExtractJob, Lease, Outcome, Progress, TableResult
from jivs.operations.select import choose, left_out
from jivs.ports.app import App
from jivs.ports.connector import Connector, Narrowing, Request, Session
from jivs.ports.store import Store
from jivs.transfer.reconcile import Sides, differences
from jivs.transfer.throttle import Throttle
from jivs.wire import native

_BEAT_SECONDS = 5.0
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Opened:
    """A source ready to be read."""

    address: Address
    connector: Connector
    label: str
    limits: Limits
    digest: str


def prepare(app: App, job: ExtractJob) -> Opened:
    """Find the connector of the job's address. Nothing is connected yet."""
    address = replace(job.address, options={**job.address.options, **job.options})
    connector = app.connector(address)
    label = job.source_name or connector.label(address)
    limits = replace(job.limits, reserved=app.store(job.archive).memory)
    limits = replace(limits, parallel=planning.readers(limits))
    return Opened(
        address=address,
        connector=connector,
        label=label,
        limits=limits,
        digest=job.selection.digest(f"{label} {address.shown} {sorted(address.options.items())}"),
    )


def open_session(app: App, job: ExtractJob, opened: Opened) -> Session:
    """A session with the job's queries, columns and pace."""
    selection = job.selection
    narrowing = Narrowing(columns=selection.columns, where=selection.where)
    run = job.lease.run_id if job.lease is not None else ""
    request = Request(queries=dict(selection.queries), narrowing=narrowing, run=run)
    pace = job.pace or Throttle(opened.limits.rows_per_second, app.clock)
    return opened.connector.open(opened.address, opened.limits, request, pace)


def plan(app: App, job: ExtractJob) -> RunPlan:
    """What a run would read, in which partitions; reads no rows and writes nothing."""
    opened = prepare(app, job)
    link = chain.newest(app.store(job.archive))
    planning.require_source(link.manifest if link else None, opened.label, opened.address.shown, named=bool(job.source_name))
    with closing(open_session(app, job, opened)) as session:
        names = [listing.name for listing in choose(session.tables(), job.selection)]
        snapshot = session.begin(names)
        return planning.plan_run(session, names, snapshot, job, run_id="", source=opened.label, digest=opened.digest, base=0)


def extract(app: App, job: ExtractJob, progress: Progress, pause: Callable[[str], None] = lambda _: None) -> Outcome:
    """Run an extraction to its end. ``pause`` hears the name of each step: tests end the process there.

    Raises what kept the run from ending: InterruptedRunError and TransientError leave it resumable.
    """
    began = app.clock.monotonic()
    opened = prepare(app, job)
    job = replace(job, limits=opened.limits)
    store = app.store(job.archive)
    link = chain.newest(store)
    named = bool(job.source_name)
    planning.require_source(link.manifest if link else None, opened.label, opened.address.shown, named=named)
    old = _unfinished(app, store, opened, job, progress)
    with closing(open_session(app, job, opened)) as session, app.metrics.source_pool(opened.label, session.connections):
        if job.room is not None:
            job.room.fit(session.resize)
        _require(app, job.lease)  # who looks at the source first, ends what an earlier worker has open there
        server = session.ping()
        listings = session.tables()
        chosen = choose(listings, job.selection)
        names = planning.check_still_there(chosen, old.plan) if old else [listing.name for listing in chosen]
        notes = [note for note in [left_out(listings, chosen)] if note]
        for note in notes:
            progress.warned(note)
        progress.phase("snapshot")
        snapshot = session.begin(names)
        chain.repair(store)
        base = link.manifest.number if link else 0
        run_id = old.plan.run_id if old else job.lease.run_id if job.lease else new_run_id(app.clock)
        if old is not None:
            planning.take_over(app, store, old)
        with _beating(app, store, run_id), logs.run(run_id):
            job.gate.passed()
            if old is None:
                planned = planning.plan_run(
                    session, names, snapshot, job, run_id=run_id, source=opened.label, digest=opened.digest, base=base
                )
                runs.begin(store, app.clock, planned, app.owner)
                work = planning.Resumed(planned, {}, {})
            else:
                work = planning.resume(session, store, old.plan, snapshot, job, progress)
            _LOG.info("Run %s of %s, archive %s: %s", run_id, opened.address.shown, store.address, native.path())
            if not native.available():
                progress.warned(f"Slower than need be: {native.path()}.")
            pause("planned")
            outcome = _run(app, store, session, opened, job, work, server, snapshot, notes, progress, pause)
    pause("before sweep")
    try:
        runs.sweep(store, app.clock, app.gone)
    except (JivsError, OSError) as error:  # the run is published, whatever is left lying about: the next sweep removes it
        progress.warned(f"What earlier runs left behind could not be removed: {getattr(error, 'message', error)}")
    return replace(outcome, seconds=app.clock.monotonic() - began)


def _unfinished(app: App, store: Store, opened: Opened, job: ExtractJob, progress: Progress) -> runs.OpenRun | None:
    """The run to go on with, if there is one that reads the same: rows of two sources never meet in one run."""
    if job.lease is None:
        return planning.find_open_run(app, store, opened.digest, job.level) if job.resume else None
    run_id = job.lease.run_id
    found = next((run for run in runs.open_runs(store) if run.plan.run_id == run_id), None)
    if found is None or found.plan.digest == opened.digest:
        return found
    progress.warned("The source was changed since the run began: all of it is read again.")
    runs.abandon(store, run_id)
    return None


@contextmanager
def _beating(app: App, store: Store, run_id: str) -> Iterator[None]:
    """Give signs of life to other processes for as long as the block lasts, however long planning takes."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(_BEAT_SECONDS):
            with suppress(StoreError):  # whoever writes next will say it
                runs.beat(store, app.clock, run_id, app.owner)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _run(
    app: App,
    store: Store,
    session: Session,
    opened: Opened,
    job: ExtractJob,
    work: planning.Resumed,
    server: ServerInfo,
    snapshot: Snapshot,
    notes: list[str],
    progress: Progress,
    pause: Callable[[str], None],
) -> Outcome:
    """Read, compare and publish, as the owner of the run in the catalog."""
    with _recorded(app, store, opened, work, job.lease) as epoch:
        reading = Reading(
            app=app,
            store=store,
            session=session,
            plan=work.plan,
            job=job,
            progress=progress,
            epoch=epoch,
            pause=pause,
            parts=work.parts,
            ends=work.ends,
        )
        kept = work.parts.values()
        progress.planned(work.plan, len(kept), sum(part.rows + part.quarantined_rows for part in kept))
        reading.run(opened.limits.parallel)
        progress.phase("publish")
        reading.require_lease()
        outcome = _finish(app, reading, opened, server, snapshot, notes, pause)
        app.metrics.verification_failed(sum(result.verdict == "differs" for result in outcome.tables))
        if job.lease is None:
            state = RunState.COMPLETED if outcome.complete else RunState.INCOMPLETE
            app.catalog().transition(work.plan.run_id, epoch, state)
    return outcome


@contextmanager
def _recorded(app: App, store: Store, opened: Opened, work: planning.Resumed, lease: Lease | None) -> Iterator[int]:
    """The run in the catalog, under our lease. The archive's own records decide; the catalog follows them."""
    catalog = app.catalog()
    plan_ = work.plan
    epoch = lease.epoch if lease is not None else _claimed(app, store, opened, plan_)
    _require(app, lease)
    catalog.drop_steps(
        plan_.run_id,
        [step.partition for step in catalog.steps(plan_.run_id) if step.partition not in work.parts],
    )
    catalog.add_steps(plan_.run_id, sorted(work.parts), done=True)
    catalog.add_steps(plan_.run_id, groups(plan_, set(work.parts)))
    try:
        yield epoch
    except (InterruptedRunError, TransientError):
        if lease is None:
            catalog.transition(plan_.run_id, epoch, RunState.PAUSED)
            catalog.release_run(plan_.run_id, epoch)
        runs.beat(store, app.clock, plan_.run_id, app.owner, stopped=True)
        raise
    except FencedError:
        raise
    except JivsError as error:
        if lease is None:
            catalog.transition(plan_.run_id, epoch, RunState.FAILED, error.message)
        runs.abandon(store, plan_.run_id)
        raise


def _require(app: App, lease: Lease | None) -> None:
    """Raises FencedError if the run has another owner now."""
    if lease is not None and not app.catalog().renew_run(lease.run_id, lease.epoch, lease.seconds):
        raise FencedError(f"Run {lease.run_id} has another owner now.")


def _claimed(app: App, store: Store, opened: Opened, plan_: RunPlan) -> int:
    """Make the run known to the catalog, if it is not, and claim it; its epoch."""
    catalog = app.catalog()
    known = catalog.run(plan_.run_id)
    if known is None:
        now = app.clock.now()
        catalog.create_run(
            Run(
                id=plan_.run_id,
                kind="extract",
                source=f"{opened.label} {opened.address.shown}",
                archive=store.address,
                digest=opened.digest,
                state=RunState.PENDING,
                created_at=now,
                updated_at=now,
            )
        )
    dead = known.epoch if known is not None and app.gone(known.owner) else -1
    epoch = catalog.claim_run(plan_.run_id, app.owner, LEASE_SECONDS * 3, instead_of=dead)
    if epoch is None:
        raise ConflictError(f"Run {plan_.run_id} has another owner; try again in {LEASE_SECONDS * 3:.0f} seconds.")
    if known is None or known.state in {RunState.PENDING, RunState.PAUSED}:
        catalog.transition(plan_.run_id, epoch, RunState.RUNNING)
    return epoch


def _facts(opened: Opened, server: ServerInfo) -> dict[str, Any]:
    """What a manifest says of a source."""
    return {
        "kind": opened.connector.kind,
        "address": opened.address.shown,
        "product": server.product,
        "version": server.version,
        "notes": list(server.notes),
    }


def _finish(
    app: App,
    reading: Reading,
    opened: Opened,
    server: ServerInfo,
    snapshot: Snapshot,
    notes: list[str],
    pause: Callable[[str], None],
) -> Outcome:
    """Compare both sides of every table and publish those that agree."""
    store, planned, job = reading.store, reading.plan, reading.job
    results: list[TableResult] = []
    states: list[TableState] = []
    failed: list[dict[str, str]] = []
    current = chain.newest(store)
    one = snapshot.one and _shared(planned)
    mine = {table_plan.table.name for table_plan in planned.tables}
    before = [state for state in (current.manifest.tables if current else ()) if state.source == planned.source]
    schemas = SchemaFiles(store, planned, job.selection, [state for state in before if state.name in mine])
    for table_plan in planned.tables:
        result, state = _judge(reading, table_plan, one=one)
        results.append(result)
        if state is None:
            failed.append({"table": str(table_plan.table.name), "reason": result.reason})
        else:
            states.append(replace(state, schema_file=schemas.add(table_plan.table)))
    schemas.write()
    published = chain.publish(
        store,
        app.clock,
        chain.Proposal(
            run_id=planned.run_id,
            source=planned.source,
            source_facts=_facts(opened, server),
            tables=states,
            bases={table.table.name: table.base for table in planned.tables},
            failed=failed,
            notes=[*notes, *snapshot.notes],
        ),
        pause,
        reading.require_lease,
    )
    results = [_overtaken(result) if result.table in published.overtaken else result for result in results]
    return Outcome(
        run_id=planned.run_id,
        complete=all(result.verdict in {"verified", "archived"} for result in results),
        schema_changed=any(isinstance(error, SchemaChangedError) for error in reading.failed.values()),
        level=reading.job.level,
        snapshot_one=one and all(item.table.in_snapshot for item in planned.tables),
        manifest=published.link.manifest.number,
        manifest_sha256=published.link.sha256,
        tables=tuple(results),
        notes=(*notes, *snapshot.notes, *server.notes),
        seconds=0.0,
    )


def _judge(reading: Reading, table_plan: TablePlan, *, one: bool) -> tuple[TableResult, TableState | None]:
    """A table's verdict; its state if it may be published. ``one``: the whole run was read in one snapshot."""
    name, level = table_plan.table.name, reading.job.level
    error = reading.failed.get(name)
    seconds = reading.seconds.get(name, 0.0)
    if error is not None:
        return _result(name, "failed", seconds, reason=error.message), None
    end = reading.ends[name]
    parts = [reading.parts[partition.id] for partition in table_plan.partitions]
    bare = not table_plan.table.columns
    rejected = sum(part.quarantined_rows for part in parts)
    archived = end.source_rows - rejected if bare else sum(part.rows for part in parts)
    full = level is Level.FULL and not bare
    read = _sum((part.rows, part.fingerprint) for part in parts) if full else None
    written = _sum((part.rows, part.archive_fingerprint) for part in parts) if full else None
    source = _sum((part.source_rows, part.source_fingerprint) for part in parts) if full else None
    sides = Sides(
        archived_rows=archived,
        quarantined_rows=rejected,
        source_rows=end.source_rows if level is not Level.NONE or bare else None,
        source=source,
        read=read,
        archive=written,
    )
    compared = Level.COUNT if bare and level is Level.FULL else level
    reasons = [*differences(compared, sides), *([f"the table {end.changed}"] if end.changed else [])]
    proof = Proof(
        level=level.value,
        verdict="differs" if reasons else ("archived" if level is Level.NONE else "verified"),
        snapshot=table_plan.snapshot,
        one_snapshot=one and table_plan.table.in_snapshot,
        source_rows=end.source_rows,
        source_fingerprint=str(source) if source else "",
        read_fingerprint=str(read) if read else "",
        archive_fingerprint=str(written) if written else "",
    )
    state = table_state(table_plan, reading.plan, parts, proof)
    with suppress(JivsError):  # reading may have added to them; a table kept from before may be gone by now
        state = replace(state, notes=reading.session.describe(name).notes)
    if bare:
        state = replace(state, zero_column_rows=archived)
    result = TableResult(
        table=name,
        source_rows=end.source_rows,
        archived=archived,
        quarantined_rows=rejected,
        quarantined_values=state.values_quarantined,
        verdict=proof.verdict,
        seconds=seconds,
        reason="; ".join(reasons),
    )
    return result, None if reasons else state


def _shared(planned: RunPlan) -> bool:
    """Whether all tables of a run were read in one snapshot; not so after a resume that kept finished tables."""
    return len({item.snapshot for item in planned.tables}) <= 1


def _result(name: TableName, verdict: str, seconds: float, reason: str) -> TableResult:
    return TableResult(
        table=name,
        source_rows=-1,
        archived=0,
        quarantined_rows=0,
        quarantined_values=0,
        verdict=verdict,
        seconds=seconds,
        reason=reason,
    )


def _overtaken(result: TableResult) -> TableResult:
    return replace(result, verdict="overtaken", reason="another run published this table meanwhile; its state was kept")


def _sum(parts: Any) -> Fingerprint:
    total = EMPTY
    for rows, text in parts:
        total += Fingerprint.parse(rows, text)
    return total
