"""Runs in progress, as the archive itself records them: enough to resume when the catalog is lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow.parquet as pq

from jivs.archive import chain, layout
from jivs.archive.parallel import each
from jivs.domain.archive import Part, TableEnd
from jivs.domain.plan import RunPlan
from jivs.domain.schema import TableName
from jivs.errors import DamagedError, StoreError
from jivs.ports.clock import Clock, stamp
from jivs.ports.store import Store

STALE = timedelta(hours=24)
"""A run without a sign of life for this long is given up by the sweep."""

ALIVE = timedelta(seconds=30)
"""A run whose owner gave a sign of life within this time is not taken over by another process."""


@dataclass(frozen=True, kw_only=True)
class OpenRun:
    """A run that has begun and not been published."""

    plan: RunPlan
    heartbeat: datetime
    owner: str
    stopped: bool
    takeovers: int

    def alive(self, now: datetime) -> bool:
        return not self.stopped and timedelta(0) <= now - self.heartbeat < ALIVE


def begin(store: Store, clock: Clock, plan: RunPlan, owner: str) -> None:
    """Record the plan, once."""
    beat(store, clock, plan.run_id, owner)
    try:
        store.create(layout.run_open(plan.run_id), plan.to_bytes())
    except StoreError:
        with suppress(StoreError):
            store.delete(layout.run_heartbeat(plan.run_id))
        raise


def replan(store: Store, plan: RunPlan) -> None:
    """Replace the plan of a run that goes on under a new snapshot."""
    store.replace(layout.run_open(plan.run_id), plan.to_bytes())


def take_over(store: Store, run: OpenRun, owner: str) -> None:
    """Become the owner of an unfinished run. Of several that saw it in the same state one succeeds; the others get
    AlreadyExistsError.
    """
    store.create(layout.run_takeover(run.plan.run_id, f"{run.takeovers + 1:06d}"), owner.encode())


def beat(store: Store, clock: Clock, run_id: str, owner: str, *, stopped: bool = False) -> None:
    """Record a sign of life, or that the owner stopped in good order."""
    sign = {"time": stamp(clock.now()), "owner": owner, "stopped": stopped}
    store.replace(layout.run_heartbeat(run_id), json.dumps(sign).encode())


def record(store: Store, run_id: str, part: Part) -> None:
    """Record a finished partition: the resume point."""
    store.create(layout.run_part(run_id, part.partition, part.epoch), part.to_bytes())


def record_small(store: Store, run_id: str, parts: Sequence[Part], ends: Sequence[TableEnd]) -> None:
    """Record several small tables that were read to their end, in one file."""
    data = {"parts": [part.to_json() for part in parts], "ends": [ended.to_json() for ended in ends]}
    name = f"{parts[0].partition}-{parts[0].epoch}"
    store.create(layout.run_small(run_id, name), json.dumps(data, ensure_ascii=False).encode())


def _small(store: Store, run_id: str) -> Iterator[dict[str, Any]]:
    for entry in store.list(f"{layout.run_folder(run_id)}small-"):
        yield json.loads(store.read(entry.path))


def open_runs(store: Store) -> list[OpenRun]:
    """All runs with a plan, the newest sign of life first."""
    found = []
    for run_id in _run_ids(store):
        try:
            plan = RunPlan.from_bytes(store.read(layout.run_open(run_id)))
        except FileNotFoundError:
            continue
        except (KeyError, TypeError, ValueError) as error:
            raise DamagedError(f"{layout.run_open(run_id)} in {store.address} is damaged.", detail=repr(error)) from error
        moment, owner, stopped = _sign(store, run_id)
        takeovers = sum(1 for _ in store.list(layout.run_takeover(run_id, "")))
        found.append(OpenRun(plan=plan, heartbeat=moment, owner=owner, stopped=stopped, takeovers=takeovers))
    return sorted(found, key=lambda run: run.heartbeat, reverse=True)


def unpublished(store: Store) -> list[OpenRun]:
    """Runs with a plan that stand in no manifest: what can be resumed."""
    published = {chain.load(store, number).manifest.run_id for number in chain.numbers(store)}
    return [run for run in open_runs(store) if run.plan.run_id not in published]


def parts(store: Store, run_id: str) -> dict[str, Part]:
    """The finished partitions of a run; of several records of one partition the newest epoch."""
    found: dict[str, Part] = {}
    records = []
    for entry in store.list(layout.run_folder(run_id)):
        name = entry.path.rpartition("/")[2]
        if name not in {"open.json", "heartbeat.json"} and not name.startswith(("table-", "owner-", "small-")):
            records.append(entry.path)
    for raw in each(store, store.read, records):
        _newer(found, Part.from_bytes(raw))
    for data in _small(store, run_id):
        for one in data["parts"]:
            _newer(found, Part.from_json(one))
    return found


def _newer(found: dict[str, Part], part: Part) -> None:
    if part.partition not in found or found[part.partition].epoch < part.epoch:
        found[part.partition] = part


def record_table(store: Store, run_id: str, ended: TableEnd) -> None:
    """Record that a table was read to its end and what its source said of it then."""
    store.replace(layout.run_table(run_id, ended.ordinal), ended.to_bytes())


def ended_tables(store: Store, plan: RunPlan) -> dict[TableName, TableEnd]:
    """The tables of a run that were read to their end, in the snapshot that the plan names for them."""
    snapshots = {table.table.name: table.snapshot for table in plan.tables}
    records = [entry.path for entry in store.list(f"{layout.run_folder(plan.run_id)}table-")]
    ends = [TableEnd.from_bytes(raw) for raw in each(store, store.read, records)]
    ends += [TableEnd.from_json(one) for data in _small(store, plan.run_id) for one in data["ends"]]
    return {ended.table: ended for ended in ends if snapshots.get(ended.table) == ended.snapshot}


def forget_parts(store: Store, run_id: str, discarded: Iterable[Part]) -> None:
    """Discard the records of partitions whose rows belong to a lost snapshot; their files go with the next sweep."""
    for part in discarded:
        store.delete(layout.run_part(run_id, part.partition, part.epoch))


def abandon(store: Store, run_id: str) -> None:
    """Give a run up: its records go, its files go with the next sweep."""
    each(store, store.delete, [entry.path for entry in store.list(layout.run_folder(run_id))])


def sweep(store: Store, clock: Clock, gone: Callable[[str], bool]) -> tuple[int, list[str]]:
    """Remove what ended or abandoned runs left behind.

    Removed: records and temporary files of runs that are published, gave no sign of life for 24 hours, or never had a plan
    and their owner is ``gone``; and files that name such a run, or one without any record, and stand in no manifest.
    Returns the number of files removed, and the
    paths that nobody claims: those are reported, not removed.

    Other runs may begin and publish meanwhile. A run gives a sign of life before it writes a file, and removes it only
    after it has published; so files are listed first, signs of life are read next, and manifests last.
    """
    candidates = [entry.path for prefix in ("data/", "quarantine/", "schema/") for entry in store.list(prefix)]
    recorded = _run_ids(store)
    living = {run_id for run_id in recorded if _alive(store, clock, gone, run_id)}
    manifests = [chain.load(store, number).manifest for number in chain.numbers(store)]
    listed = {file.path for manifest in manifests for file in manifest.files}
    published = {manifest.run_id for manifest in manifests}
    removed = 0
    unclaimed = []
    for path in candidates:
        if path in listed:
            continue
        owner = run_of_file(store, path)
        if not owner:
            unclaimed.append(path)
        elif owner in published or owner not in living:
            store.delete(path)
            removed += 1
    for run_id in recorded:
        if run_id in published or run_id not in living:
            abandon(store, run_id)
            removed += 1
    removed += store.clean_spool(lambda name: name in published or not _alive(store, clock, gone, name))
    return removed, unclaimed


def _alive(store: Store, clock: Clock, gone: Callable[[str], bool], run_id: str) -> bool:
    """Whether a run gave a sign of life within a day of now, in either direction: clocks of machines differ.

    A run that has a plan can be resumed, so the end of its process is not its own; one that has none cannot.
    """
    moment, owner, _ = _sign(store, run_id)
    if gone(owner) and not store.exists(layout.run_open(run_id)):
        return False
    return abs(clock.now() - moment) < STALE


def run_of_file(store: Store, path: str) -> str:
    """The run that a file of the archive names (in its footer, or its JSON); empty if it names none."""
    try:
        if path.endswith(".json"):
            return str(json.loads(store.read(path))["run"])
        with store.open(path) as file:
            metadata = pq.read_metadata(file).metadata or {}
        return str(metadata.get(b"jivs.run", b"").decode())
    except StoreError:
        raise
    except Exception:
        return ""


def _run_ids(store: Store) -> list[str]:
    return sorted({entry.path.split("/")[1] for entry in store.list("runs/")})


def _sign(store: Store, run_id: str) -> tuple[datetime, str, bool]:
    try:
        sign: dict[str, Any] = json.loads(store.read(layout.run_heartbeat(run_id)))
        moment = datetime.fromisoformat(sign["time"]).astimezone(UTC)
        return moment, str(sign["owner"]), bool(sign["stopped"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return datetime.fromtimestamp(0, UTC), "", False
