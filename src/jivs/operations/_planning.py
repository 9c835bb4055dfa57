"""What a run would read; for a new run and for one that goes on after a crash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jivs.archive import runs
from jivs.archive.writer import readers_that_fit
from jivs.domain.archive import Manifest, Part, TableEnd
from jivs.domain.plan import Bounds, Level, Partition, RunPlan, TablePlan
from jivs.domain.schema import Table, TableKind, TableName
from jivs.domain.source import Limits, Snapshot
from jivs.errors import AlreadyExistsError, ConflictError, SchemaChangedError, UsageError
from jivs.operations.job import ExtractJob, Progress
from jivs.ports.app import App
from jivs.ports.connector import Listing, Session
from jivs.ports.store import Store


def readers(limits: Limits) -> int:
    """Readers at once: as asked, within the connections (the snapshot's holder is one) and the memory."""
    connections = max(1, limits.connections - 1)
    return min(limits.parallel, connections, readers_that_fit(limits))


def plan_run(
    session: Session,
    names: Sequence[TableName],
    snapshot: Snapshot,
    job: ExtractJob,
    *,
    run_id: str,
    source: str,
    digest: str,
    base: int,
) -> RunPlan:
    """Describe and split every table, inside the snapshot."""
    session.prepare(names)
    tables = tuple(
        _plan_table(session, name, number, snapshot, job, base=base, prefix="p") for number, name in enumerate(names)
    )
    return RunPlan(run_id=run_id, source=source, digest=digest, level=job.level, tables=tables, snapshot=snapshot.to_json())


def _plan_table(
    session: Session, name: TableName, number: int, snapshot: Snapshot, job: ExtractJob, *, base: int, prefix: str
) -> TablePlan:
    table = session.describe(name)
    bounds = session.split(table, job.partition_bytes) if table.columns or table.kind is TableKind.FILE else ()
    return TablePlan(table=table, partitions=_number(table, number, bounds, prefix), base=base, snapshot=snapshot.identity)


def _number(table: Table, number: int, bounds: Sequence[Bounds], prefix: str) -> tuple[Partition, ...]:
    rows = table.estimated_rows // max(1, len(bounds)) if table.estimated_rows >= 0 else -1
    return tuple(
        Partition(
            id=f"{prefix}{number + 1:05d}-{ordinal + 1:05d}",
            table=table.name,
            ordinal=ordinal,
            bounds=part,
            estimated_rows=rows,
        )
        for ordinal, part in enumerate(bounds)
    )


class Resumed:
    """What goes on of a run: its plan for the new snapshot, and what is kept of its work."""

    def __init__(self, plan: RunPlan, parts: dict[str, Part], ends: dict[TableName, TableEnd]) -> None:
        self.plan = plan
        self.parts = parts
        self.ends = ends


def take_over(app: App, store: Store, run: runs.OpenRun) -> None:
    """Make an unfinished run our own, before any of its work is touched. Raises ConflictError if somebody was faster."""
    try:
        runs.take_over(store, run, app.owner)
    except AlreadyExistsError as error:
        raise ConflictError(f"Run {run.plan.run_id} was just taken over by another process.") from error
    runs.beat(store, app.clock, run.plan.run_id, app.owner)


def find_open_run(app: App, store: Store, digest: str, level: Level) -> runs.OpenRun:
    """The newest unfinished run that reads the same.

    Raises UsageError where there is none, or only one at another level; ConflictError if it is alive.
    """
    mine = [run for run in runs.unpublished(store) if run.plan.digest == digest]
    if not mine:
        raise UsageError(
            f"There is nothing to resume in {store.address}: no unfinished run reads the same tables of this source. "
            "Leave --resume out to begin a new run."
        )
    if mine[0].plan.level is not level:
        raise UsageError(
            f"Run {mine[0].plan.run_id} was begun with --verify {mine[0].plan.level.value}: resume it with the same, or "
            "begin a new run without --resume."
        )
    if mine[0].alive(app.clock.now()) and not app.gone(mine[0].owner):
        raise ConflictError(
            f"Run {mine[0].plan.run_id} is still being worked on by {mine[0].owner}. Wait for it, or try again "
            f"{int(runs.ALIVE.total_seconds())} seconds after it was killed."
        )
    return mine[0]


def resume(session: Session, store: Store, old: RunPlan, snapshot: Snapshot, job: ExtractJob, progress: Progress) -> Resumed:
    """Carry a run over to a new snapshot.

    Tables read to their end stay with their own snapshot. Of the others only those partitions are kept whose fingerprint
    in the source, under the new snapshot, equals the recorded one: an UPDATE moves rows between ranges, so mixing two
    snapshots in one table would lose and double rows.
    """
    recorded = runs.parts(store, old.run_id)
    ends = runs.ended_tables(store, old)
    kept: dict[str, Part] = {}
    tables = []
    for number, plan in enumerate(old.tables):
        mine = {part.id: recorded[part.id] for part in plan.partitions if part.id in recorded}
        end = ends.get(plan.table.name)
        if end is not None and end.snapshot == plan.snapshot and len(mine) == len(plan.partitions):
            tables.append(plan)
            kept |= mine
            continue
        ends.pop(plan.table.name, None)
        if snapshot.identity == plan.snapshot:
            tables.append(plan)
            kept |= mine
            continue
        new, equal = _carry_over(session, plan, number, mine, snapshot, job, progress)
        runs.forget_parts(store, old.run_id, [part for part_id, part in mine.items() if part_id not in equal])
        tables.append(new)
        kept |= equal
    plan_ = replace(old, tables=tuple(tables), snapshot=snapshot.to_json())
    runs.replan(store, plan_)
    return Resumed(plan_, kept, ends)


def _carry_over(
    session: Session,
    plan: TablePlan,
    number: int,
    mine: dict[str, Part],
    snapshot: Snapshot,
    job: ExtractJob,
    progress: Progress,
) -> tuple[TablePlan, dict[str, Part]]:
    """A table's plan under a new snapshot, and the partitions that proved to be equal."""
    try:
        table = session.describe(plan.table.name)
    except UsageError as error:
        raise SchemaChangedError(f"{plan.table.name} is gone since the run began. Start a new run.") from error
    readable = table.columns or table.kind is TableKind.FILE
    bounds = list(session.split(table, job.partition_bytes)) if readable else []
    old_bounds = [partition.bounds for partition in plan.partitions]
    equal: dict[str, Part] = {}
    if table.same_structure(plan.table) and _tiles(bounds) == _tiles(old_bounds) and job.level is Level.FULL:
        for partition in plan.partitions:
            part = mine.get(partition.id)
            if part is None or not part.source_fingerprint:
                continue
            found = session.fingerprint(table, partition.bounds)
            if str(found) == part.source_fingerprint and found.rows == part.source_rows:
                equal[partition.id] = part
    if equal:
        progress.warned(f"{plan.table.name}: {len(equal)} of {len(mine)} finished partitions are unchanged and kept.")
        fresh = tuple(
            partition if partition.id in equal else replace(partition, id=_next_id(partition.id))
            for partition in plan.partitions
        )
        return replace(plan, table=table, partitions=fresh, snapshot=snapshot.identity), equal
    if mine:
        progress.warned(f"{plan.table.name}: read again, since its snapshot is gone.")
    prefix = _next_prefix(plan)
    return (
        TablePlan(
            table=table,
            partitions=_number(table, number, bounds, prefix),
            base=plan.base,
            snapshot=snapshot.identity,
        ),
        {},
    )


def _tiles(bounds: Sequence[Bounds]) -> list[str]:
    """What the ranges of a table are in: their bounds without the edges ``from`` and ``to``."""
    return sorted({repr(sorted((key, part[key]) for key in part if key not in {"from", "to"})) for part in bounds})


def _next_id(partition: str) -> str:
    """A partition that is read again gets a new name, so that no record of the old one can be taken for it."""
    return f"{_raised(partition.split('p', 1)[0])}p{partition.split('p', 1)[1]}"


def _next_prefix(plan: TablePlan) -> str:
    old = max(
        (partition.id.split("p", 1)[0] for partition in plan.partitions), key=lambda text: (len(text), text), default=""
    )
    return f"{_raised(old)}p"


def _raised(generation: str) -> str:
    return f"r{int(generation.removeprefix('r') or '0') + 1}"


def require_source(manifest: Manifest | None, label: str, address: str, *, named: bool) -> None:
    """Refuse to replace the tables of another database that happens to have the same name."""
    known = manifest.sources.get(label) if manifest else None
    if known is not None and known["address"] != address and not named:
        raise UsageError(
            f"The archive has data of a source named {label} at {known['address']}; this one is {address}. If it is the "
            f"same source at a new address, say --source-name {label}; if not, give it another --source-name."
        )


def check_still_there(chosen: Sequence[Listing], plan: RunPlan) -> list[TableName]:
    """The tables of a run that the source still has."""
    names = {listing.name for listing in chosen}
    gone = [table.table.name for table in plan.tables if table.table.name not in names]
    if gone:
        raise SchemaChangedError(f"Since the run began these tables are gone: {', '.join(map(str, gone))}. Start a new run.")
    return [table.table.name for table in plan.tables]
