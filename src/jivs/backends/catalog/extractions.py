"""Extractions in the catalog's database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from jivs.backends.catalog import registry, schedules, trail
from jivs.backends.catalog.engine import Engine
from jivs.backends.catalog.tables import extractions, run_logs, runs, sources
from jivs.domain.audit import Deed
from jivs.domain.extraction import Extraction, ExtractionDraft, Job, WhenBusy
from jivs.domain.registry import SourceDraft
from jivs.domain.run import OPEN
from jivs.errors import AlreadyExistsError, ConflictError, JivsError, NotFoundError
from jivs.ports.clock import Clock
from jivs.ports.extractions import Head

_SORTS = {
    "id": extractions.c.id,
    "name": extractions.c.folded,
    "createdAt": extractions.c.created_at,
    "updatedAt": extractions.c.updated_at,
}
_older = runs.alias()
_NEWEST = (
    sa.select(sa.func.max(_older.c.seq))
    .where(_older.c.extraction_id == extractions.c.id)
    .correlate(extractions)
    .scalar_subquery()
)
_JOINED = extractions.join(sources, sources.c.id == extractions.c.source_id).outerjoin(runs, runs.c.seq == _NEWEST)
_SHOWN = sa.select(
    extractions,
    sources.c.name.label("source_name"),
    sources.c.version.label("source_version"),
    runs.c.id.label("last_run"),
    runs.c.state.label("last_state"),
).select_from(_JOINED)


_GIVEN = [column.name for column in extractions.c if column.name != "id"]
_ADD = f"""\
INSERT INTO extractions ({", ".join(_GIVEN)}) VALUES ({", ".join("?" for _ in _GIVEN)}) RETURNING
id, (SELECT name FROM sources WHERE sources.id = source_id), (SELECT version FROM sources WHERE sources.id = source_id)"""
# PostgreSQL keeps a plan that costs the same for all values: so the limit stands in the text and is taken before the joins,
# and the id has one type. Else it plans each time, which takes twice as long as the query.
_HEADS = """\
SELECT few.id, few.version, s.version, few.updated_at, coalesce(r.id, ''), coalesce(r.state, '')
FROM (
  SELECT id, version, updated_at, source_id FROM extractions WHERE id > CAST(? AS BIGINT) ORDER BY id LIMIT {limit}
) few JOIN sources s ON s.id = few.source_id
LEFT JOIN runs r ON r.seq = (SELECT max(seq) FROM runs WHERE extraction_id = few.id)
ORDER BY few.id"""


class SqlExtractions:
    """Extractions in SQLite or PostgreSQL."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def _now(self) -> float:
        return self._clock.now().timestamp()

    def add(self, draft: ExtractionDraft, actor: str, deed: Deed) -> Extraction:
        now = self._now()
        values = self._values(draft, draft.source_id, actor, now)
        try:
            [made], *_ = self._engine.at_once((_ADD, tuple(values.values())), *trail.appending(self._engine, now, deed))
        except sa.exc.IntegrityError as error:
            raise self._refused(draft) from error
        return _made(values, made)

    def add_with_source(
        self, draft: ExtractionDraft, source: SourceDraft, seal: Callable[[str], str], actor: str, deeds: tuple[Deed, Deed]
    ) -> Extraction:
        try:
            with self._engine.write() as connection:
                now = self._now()
                values = self._values(draft, registry.insert(connection, source, seal, now)["id"], actor, now)
                [made], *_ = self._engine.together(
                    connection,
                    (_ADD, tuple(values.values())),
                    *(statement for deed in deeds for statement in trail.appending(self._engine, now, deed)),
                )
        except sa.exc.IntegrityError as error:
            raise self._taken(draft) from error
        return _made(values, made)

    @staticmethod
    def _values(draft: ExtractionDraft, source_id: int, actor: str, now: float) -> dict[str, Any]:
        """Of a new row, in the order of ``_GIVEN``."""
        own = {"source_id": source_id, "version": 1, "created_by": actor, "created_at": now, "updated_at": now}
        values = {**_columns(draft), **own}
        return {name: values[name] for name in _GIVEN}

    @staticmethod
    def _taken(draft: ExtractionDraft) -> AlreadyExistsError:
        return AlreadyExistsError(f"There is an extraction or a source {draft.name} already: take another name.")

    def _refused(self, draft: ExtractionDraft) -> JivsError:
        with self._engine.read() as connection:
            known = connection.execute(sa.select(sources.c.id).where(sources.c.id == draft.source_id)).first()
        return self._taken(draft) if known else NotFoundError(f"There is no source {draft.source_id}.")

    def get(self, extraction_id: int) -> Extraction | None:
        with self._engine.read() as connection:
            row = connection.execute(_SHOWN.where(extractions.c.id == extraction_id)).mappings().first()
        return _extraction(row) if row is not None else None

    def heads(self, asked: Sequence[tuple[int, int]]) -> list[list[Head]]:
        found = self._engine.fetch(*((_HEADS.format(limit=int(limit)), (after,)) for after, limit in asked))
        return [[Head(*row) for row in rows] for rows in found]

    def page(
        self,
        *,
        after: int = 0,
        offset: int = 0,
        limit: int = 100,
        name: str = "",
        source_id: int = 0,
        state: str = "",
        sort: str = "id",
        descending: bool = False,
    ) -> list[Extraction]:
        order = [column.desc() if descending else column for column in dict.fromkeys((_SORTS[sort], extractions.c.id))]
        query = _SHOWN.where(*_filters(name, source_id, state)).order_by(*order).limit(limit).offset(offset)
        if after:
            query = query.where(extractions.c.id > after)
        with self._engine.read() as connection:
            return [_extraction(row) for row in connection.execute(query).mappings()]

    def count(self, *, name: str = "", source_id: int = 0, state: str = "") -> int:
        if not (name or source_id or state):
            return int(self._engine.fetch(("SELECT count(*) FROM extractions", ()))[0][0][0])
        query = sa.select(sa.func.count()).select_from(_JOINED if state else extractions)
        with self._engine.read() as connection:
            return int(connection.execute(query.where(*_filters(name, source_id, state))).scalar_one())

    def change(self, extraction_id: int, version: int, draft: ExtractionDraft, deed: Deed) -> Extraction:
        mine = sa.and_(extractions.c.id == extraction_id, extractions.c.version == version)
        values = {**_columns(draft), "source_id": draft.source_id, "version": version + 1, "updated_at": self._now()}
        try:
            with self._engine.write() as connection:
                if not connection.execute(extractions.update().where(mine).values(values)).rowcount:
                    raise ConflictError(
                        "The extraction was changed or deleted meanwhile: read it again, and then change it."
                    )
                trail.append(self._engine, connection, self._now(), deed)
                row = connection.execute(_SHOWN.where(extractions.c.id == extraction_id)).mappings().one()
        except sa.exc.IntegrityError as error:
            raise self._refused(draft) from error
        return _extraction(row)

    def remove(self, extraction_id: int, deed: Deed) -> bool:
        unended = runs.c.state.in_([state.value for state in OPEN])
        mine = extractions.c.id == extraction_id
        with self._engine.write() as connection:
            if connection.execute(sa.select(extractions.c.id).where(mine).with_for_update()).first() is None:
                return False
            if connection.execute(sa.select(runs.c.id).where(runs.c.extraction_id == extraction_id, unended)).first():
                raise ConflictError(f"Extraction {extraction_id} has a run that has not ended: stop it first.")
            gone = schedules.names_of(connection, extraction_id)
            connection.execute(extractions.delete().where(mine))
            for table in (run_logs, runs):
                connection.execute(table.delete().where(table.c.extraction_id == extraction_id))
            trail.append(self._engine, connection, self._now(), deed)
            for name in gone:
                with_it = Deed(actor=deed.actor, action="schedule.removed", object=f"schedule:{name}")
                trail.append(self._engine, connection, self._now(), with_it)
        return True


def _filters(name: str, source_id: int, state: str) -> list[sa.ColumnElement[bool]]:
    out: list[sa.ColumnElement[bool]] = []
    if name:
        out.append(extractions.c.folded.contains(name.casefold(), autoescape=True))
    if source_id:
        out.append(extractions.c.source_id == source_id)
    if state:
        out.append(runs.c.state == state)
    return out


def _columns(draft: ExtractionDraft) -> dict[str, Any]:
    return {
        "name": draft.name,
        "folded": draft.name.casefold(),
        "description": draft.description,
        "job": draft.job.to_json(),
        "priority": draft.priority,
        "when_busy": draft.when_busy.value,
    }


def _made(values: dict[str, Any], returned: tuple[Any, ...]) -> Extraction:
    fresh = dict(zip(("id", "source_name", "source_version"), returned, strict=True))
    return _extraction({**values, **fresh, "last_run": "", "last_state": ""})


def _extraction(row: Any) -> Extraction:
    return Extraction(
        id=row["id"],
        name=row["name"],
        description=row["description"],
        source_id=row["source_id"],
        source_name=row["source_name"],
        source_version=row["source_version"],
        job=Job.from_json(row["job"]),
        priority=row["priority"],
        when_busy=WhenBusy(row["when_busy"]),
        version=row["version"],
        created_by=row["created_by"],
        created_at=datetime.fromtimestamp(row["created_at"], UTC),
        updated_at=datetime.fromtimestamp(row["updated_at"], UTC),
        last_run=row["last_run"] or "",
        last_state=row["last_state"] or "",
    )
