"""Schedules in the catalog's database."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from jivs.backends.catalog import leases, submission, trail
from jivs.backends.catalog.engine import Engine
from jivs.backends.catalog.rows import moment
from jivs.backends.catalog.tables import extractions, schedules
from jivs.domain.audit import Deed
from jivs.domain.schedule import MissedRuns, Schedule, ScheduleDraft, Timing
from jivs.errors import AlreadyExistsError, ConflictError, NotFoundError
from jivs.ports.clock import Clock
from jivs.ports.leases import Lease
from jivs.ports.schedules import Asked

_SORTS = {
    "id": schedules.c.id,
    "name": schedules.c.folded,
    "nextRunAt": schedules.c.next_run_at,
    "createdAt": schedules.c.created_at,
    "updatedAt": schedules.c.updated_at,
}
_SHOWN = sa.select(schedules, extractions.c.name.label("extraction_name")).select_from(
    schedules.join(extractions, extractions.c.id == schedules.c.extraction_id)
)


class SqlSchedules:
    """Schedules in SQLite or PostgreSQL."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def _now(self) -> float:
        return self._clock.now().timestamp()

    def add(self, draft: ScheduleDraft, next_run_at: datetime | None, actor: str, deed: Deed) -> Schedule:
        now = self._now()
        values = {
            **_columns(draft),
            "next_run_at": _seconds(next_run_at),
            "last_run_id": "",
            "last_message": "",
            "version": 1,
            "created_by": actor,
            "created_at": now,
            "updated_at": now,
        }
        try:
            with self._engine.write() as connection:
                submission.hold(connection, draft.extraction_id)
                made = connection.execute(schedules.insert().values(values).returning(schedules.c.id)).scalar_one()
                trail.append(self._engine, connection, now, deed)
                return self._one(connection, made)
        except sa.exc.IntegrityError as error:
            raise _taken(draft) from error

    def get(self, schedule_id: int) -> Schedule | None:
        with self._engine.read() as connection:
            row = connection.execute(_SHOWN.where(schedules.c.id == schedule_id)).mappings().first()
        return _schedule(row) if row is not None else None

    def page(
        self,
        *,
        after: int = 0,
        offset: int = 0,
        limit: int = 100,
        name: str = "",
        extraction_id: int = 0,
        enabled: bool | None = None,
        sort: str = "id",
        descending: bool = False,
    ) -> list[Schedule]:
        order = [
            sa.nulls_last(column.desc() if descending else column.asc())
            for column in dict.fromkeys((_SORTS[sort], schedules.c.id))
        ]
        query = _SHOWN.where(*_filters(name, extraction_id, enabled)).order_by(*order).limit(limit).offset(offset)
        if after:
            query = query.where(schedules.c.id > after)
        with self._engine.read() as connection:
            return [_schedule(row) for row in connection.execute(query).mappings()]

    def count(self, *, name: str = "", extraction_id: int = 0, enabled: bool | None = None) -> int:
        query = sa.select(sa.func.count()).select_from(schedules).where(*_filters(name, extraction_id, enabled))
        with self._engine.read() as connection:
            return int(connection.execute(query).scalar_one())

    def change(
        self,
        schedule_id: int,
        version: int,
        draft: ScheduleDraft,
        deed: Deed,
        *,
        retimed: bool,
        next_run_at: datetime | None,
    ) -> Schedule:
        mine = sa.and_(schedules.c.id == schedule_id, schedules.c.version == version)
        values = {**_columns(draft), "version": version + 1, "updated_at": self._now()}
        if retimed:
            values["next_run_at"] = _seconds(next_run_at)
        try:
            with self._engine.write() as connection:
                submission.hold(connection, draft.extraction_id)
                if not connection.execute(schedules.update().where(mine).values(values)).rowcount:
                    raise ConflictError("The schedule was changed or deleted meanwhile: read it again, and then change it.")
                trail.append(self._engine, connection, self._now(), deed)
                return self._one(connection, schedule_id)
        except sa.exc.IntegrityError as error:
            raise _taken(draft) from error

    def remove(self, schedule_id: int, deed: Deed) -> bool:
        with self._engine.write() as connection:
            if not connection.execute(schedules.delete().where(schedules.c.id == schedule_id)).rowcount:
                return False
            trail.append(self._engine, connection, self._now(), deed)
        return True

    def due(self, now: datetime, limit: int = 100) -> list[Schedule]:
        come = _SHOWN.where(schedules.c.next_run_at <= now.timestamp())
        query = come.order_by(schedules.c.next_run_at, schedules.c.id).limit(limit)
        with self._engine.read() as connection:
            return [_schedule(row) for row in connection.execute(query).mappings()]

    def settle(
        self, lease: Lease, seen: Schedule, following: datetime | None, asked: Asked | None, message: str, deed: Deed
    ) -> Schedule | None:
        now = self._now()
        as_seen = sa.and_(
            schedules.c.id == seen.id,
            schedules.c.version == seen.version,
            schedules.c.next_run_at == _seconds(seen.next_run_at),
        )
        with self._engine.write() as connection:
            leases.require(connection, lease)
            try:
                submission.hold(connection, seen.extraction_id)
            except NotFoundError:  # and with the extraction the schedule
                return None
            moved = schedules.update().where(as_seen).values(next_run_at=_seconds(following))
            if not connection.execute(moved).rowcount:
                return None
            values, run = {"last_message": message}, None
            if asked is not None:
                run, values, deed = self._ask(connection, now, seen, asked, message, deed)
            connection.execute(schedules.update().where(schedules.c.id == seen.id).values(values))
            trail.append(self._engine, connection, now, deed)
            if run is not None:
                submission.tell(self._engine, connection, now, run)
            return self._one(connection, seen.id)

    def _ask(
        self, connection: sa.Connection, now: float, seen: Schedule, asked: Asked, message: str, deed: Deed
    ) -> tuple[Any, dict[str, Any], Deed]:
        """The run, or None; what to keep of it; what was done."""
        extraction = asked.extraction
        try:
            run = submission.submit(self._engine, connection, now, extraction, asked.run_id, asked.archive, seen.actor)
        except ConflictError as error:
            detail = {name: value for name, value in deed.detail.items() if name != "run"}
            refused = replace(deed, action="run.refused", detail={**detail, "why": error.message})
            return None, {"last_message": error.message}, refused
        return run, {"last_run_at": now, "last_run_id": asked.run_id, "last_message": message}, deed

    @staticmethod
    def _one(connection: sa.Connection, schedule_id: int) -> Schedule:
        return _schedule(connection.execute(_SHOWN.where(schedules.c.id == schedule_id)).mappings().one())


def names_of(connection: sa.Connection, extraction_id: int) -> list[str]:
    """The schedules of an extraction, in the caller's transaction."""
    query = sa.select(schedules.c.name).where(schedules.c.extraction_id == extraction_id).order_by(schedules.c.id)
    return list(connection.execute(query).scalars())


def _taken(draft: ScheduleDraft) -> AlreadyExistsError:
    return AlreadyExistsError(f"There is a schedule {draft.name} already: take another name.")


def _filters(name: str, extraction_id: int, enabled: bool | None) -> list[sa.ColumnElement[bool]]:
    out: list[sa.ColumnElement[bool]] = []
    if name:
        out.append(schedules.c.folded.contains(name.casefold(), autoescape=True))
    if extraction_id:
        out.append(schedules.c.extraction_id == extraction_id)
    if enabled is not None:
        out.append(schedules.c.enabled == enabled)
    return out


def _seconds(at: datetime | None) -> float | None:
    return at.timestamp() if at is not None else None


def _columns(draft: ScheduleDraft) -> dict[str, Any]:
    timing = draft.timing
    return {
        "name": draft.name,
        "folded": draft.name.casefold(),
        "extraction_id": draft.extraction_id,
        "cron": timing.cron,
        "time_zone": timing.time_zone,
        "not_before": _seconds(timing.not_before),
        "not_after": _seconds(timing.not_after),
        "missed_runs": draft.missed_runs.value,
        "enabled": draft.enabled,
    }


def _schedule(row: Any) -> Schedule:
    return Schedule(
        id=row["id"],
        name=row["name"],
        extraction_id=row["extraction_id"],
        extraction_name=row["extraction_name"],
        timing=Timing(
            cron=row["cron"],
            time_zone=row["time_zone"],
            not_before=moment(row["not_before"]),
            not_after=moment(row["not_after"]),
        ),
        missed_runs=MissedRuns(row["missed_runs"]),
        enabled=bool(row["enabled"]),
        version=row["version"],
        created_by=row["created_by"],
        created_at=datetime.fromtimestamp(row["created_at"], UTC),
        updated_at=datetime.fromtimestamp(row["updated_at"], UTC),
        next_run_at=moment(row["next_run_at"]),
        last_run_at=moment(row["last_run_at"]),
        last_run_id=row["last_run_id"],
        last_message=row["last_message"],
    )
