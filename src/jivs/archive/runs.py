"""Runs in progress, as the archive itself records them: enough to resume when the catalog is lost."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow.parquet as pq

from jivs.archive import chain, layout
from jivs.domain.archive import Part, TableEnd
from jivs.domain.plan import RunPlan
from jivs.domain.schema import TableName
from jivs.errors import DamagedError
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

    def alive(self, now: datetime) -> bool:
        return not self.stopped and now - self.heartbeat < ALIVE


def begin(store: Store, clock: Clock, plan: RunPlan, owner: str) -> None:
    """Record the plan, once."""
    beat(store, clock, plan.run_id, owner)
    store.create(layout.run_open(plan.run_id), plan.to_bytes())


def replan(store: Store, plan: RunPlan) -> None:
    """Replace the plan of a run that goes on under a new snapshot."""
    store.replace(layout.run_open(plan.run_id), plan.to_bytes())


def beat(store: Store, clock: Clock, run_id: str, owner: str, *, stopped: bool = False) -> None:
    """Record a sign of life, or that the owner stopped in good order."""
    sign = {"time": stamp(clock.now()), "owner": owner, "stopped": stopped}
    store.replace(layout.run_heartbeat(run_id), json.dumps(sign).encode())


def record(store: Store, run_id: str, part: Part) -> None:
    """Record a finished partition: the resume point."""
    store.create(layout.run_part(run_id, part.partition, part.epoch), part.to_bytes())


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
        found.append(OpenRun(plan=plan, heartbeat=moment, owner=owner, stopped=stopped))
    return sorted(found, key=lambda run: run.heartbeat, reverse=True)


def unpublished(store: Store) -> list[OpenRun]:
    """Runs with a plan that stand in no manifest: what can be resumed."""
    published = {chain.load(store, number).manifest.run_id for number in chain.numbers(store)}
    return [run for run in open_runs(store) if run.plan.run_id not in published]


def parts(store: Store, run_id: str) -> dict[str, Part]:
    """The finished partitions of a run; of several records of one partition the newest epoch."""
    found: dict[str, Part] = {}
    for entry in store.list(layout.run_folder(run_id)):
        name = entry.path.rpartition("/")[2]
        if name in {"open.json", "heartbeat.json"} or name.startswith("table-"):
            continue
        part = Part.from_bytes(store.read(entry.path))
        if part.partition not in found or found[part.partition].epoch < part.epoch:
            found[part.partition] = part
    return found


def record_table(store: Store, run_id: str, ended: TableEnd) -> None:
    """Record that a table was read to its end and what its source said of it then."""
    store.replace(layout.run_table(run_id, ended.ordinal), ended.to_bytes())


def ended_tables(store: Store, run_id: str) -> dict[TableName, TableEnd]:
    """The tables of a run that were read to their end."""
    found = {}
    for entry in store.list(f"{layout.run_folder(run_id)}table-"):
        ended = TableEnd.from_bytes(store.read(entry.path))
        found[ended.table] = ended
    return found


def forget_parts(store: Store, run_id: str, discarded: Iterable[Part]) -> None:
    """Discard the records of partitions whose rows belong to a lost snapshot; their files go with the next sweep."""
    for part in discarded:
        store.delete(layout.run_part(run_id, part.partition, part.epoch))


def abandon(store: Store, run_id: str) -> None:
    """Give a run up: its records go, its files go with the next sweep."""
    for entry in list(store.list(layout.run_folder(run_id))):
        store.delete(entry.path)


def sweep(store: Store, clock: Clock) -> tuple[int, list[str]]:
    """Remove what ended or abandoned runs left behind.

    Removed: records and temporary files of runs that are published, that have no plan, or that gave no sign of life for
    24 hours, and segments that name such a run in their footer and stand in no manifest. Returns the number of files
    removed, and the paths that nobody claims: those are reported, not removed.
    """
    now = clock.now()
    living = {run.plan.run_id for run in unpublished(store) if now - run.heartbeat < STALE}
    removed = 0
    for run_id in _run_ids(store):
        if run_id not in living:
            abandon(store, run_id)
            removed += 1
    removed += store.clean_spool(living)
    listed = listed_files(store)
    unclaimed = []
    for prefix in ("data/", "quarantine/", "schema/"):
        for entry in list(store.list(prefix)):
            if entry.path in listed:
                continue
            owner = run_of_file(store, entry.path)
            if not owner:
                unclaimed.append(entry.path)
            elif owner not in living:
                store.delete(entry.path)
                removed += 1
    return removed, unclaimed


def listed_files(store: Store) -> set[str]:
    """Every path that any manifest of the chain names."""
    return {file.path for number in chain.numbers(store) for file in chain.load(store, number).manifest.files}


def run_of_file(store: Store, path: str) -> str:
    """The run that a file of the archive names (in its footer, or its JSON); empty if it names none."""
    try:
        if path.endswith(".json"):
            return str(json.loads(store.read(path))["run"])
        with store.open(path) as file:
            metadata = pq.read_metadata(file).metadata or {}
        return str(metadata.get(b"jivs.run", b"").decode())
    except Exception:
        return ""


def _run_ids(store: Store) -> list[str]:
    return sorted({entry.path.split("/")[1] for entry in store.list("runs/")})


def _sign(store: Store, run_id: str) -> tuple[datetime, str, bool]:
    try:
        sign: dict[str, Any] = json.loads(store.read(layout.run_heartbeat(run_id)))
        return datetime.fromisoformat(sign["time"]), sign["owner"], sign["stopped"]
    except (FileNotFoundError, ValueError, KeyError):
        return datetime.fromtimestamp(0, UTC), "", False
