"""Sources in the catalog's database."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from jivs.backends.catalog import listing, submission, trail
from jivs.backends.catalog.engine import Engine
from jivs.backends.catalog.tables import runs, sources
from jivs.domain.audit import Deed
from jivs.domain.registry import Source, SourceDraft, place
from jivs.domain.source import Address
from jivs.errors import AlreadyExistsError, ConflictError
from jivs.ports.clock import Clock

_SORTS = {"name": sources.c.folded, "createdAt": sources.c.created_at, "updatedAt": sources.c.updated_at}

_ONE = f"SELECT {', '.join(sources.c.keys())} FROM sources WHERE id = CAST(? AS BIGINT)"


class SqlRegistry:
    """Sources in SQLite or PostgreSQL."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._engine = engine
        self._clock = clock

    def _now(self) -> float:
        return self._clock.now().timestamp()

    def add_source(self, draft: SourceDraft, seal: Callable[[str], str], deed: Deed) -> Source:
        try:
            with self._engine.write() as connection:
                found = _source(insert(connection, draft, seal, self._now()))
                trail.append(self._engine, connection, self._now(), deed)
        except sa.exc.IntegrityError as error:
            raise AlreadyExistsError(f"There is a source {draft.name} already: take another name.") from error
        return found

    def source(self, source_id: int) -> Source | None:
        found = self._engine.fetch((_ONE, (source_id,)))[0]
        return _source(dict(zip(sources.c.keys(), found[0], strict=True))) if found else None

    def sources(
        self,
        *,
        after: int = 0,
        offset: int = 0,
        limit: int = 100,
        name: str = "",
        sort: str = "id",
        descending: bool = False,
    ) -> list[Source]:
        query = listing.part(
            sources, _SORTS, after=after, offset=offset, limit=limit, name=name, sort=sort, descending=descending
        )
        with self._engine.read() as connection:
            return [_source(row) for row in connection.execute(query).mappings()]

    def count_sources(self, *, name: str = "") -> int:
        with self._engine.read() as connection:
            return int(connection.execute(listing.count(sources, name)).scalar_one())

    def change_source(self, source_id: int, version: int, draft: SourceDraft, sealed: str | None, deed: Deed) -> Source:
        mine = sa.and_(sources.c.id == source_id, sources.c.version == version)
        values = {**_columns(draft), "version": version + 1, "updated_at": self._now()}
        if sealed is not None:
            values["sealed"] = sealed
        try:
            with self._engine.write() as connection:
                row = connection.execute(sources.update().where(mine).values(values).returning(sources)).mappings().first()
                if row is None:
                    raise ConflictError("The source was changed or deleted meanwhile: read it again, and then change it.")
                trail.append(self._engine, connection, self._now(), deed)
        except sa.exc.IntegrityError as error:
            raise AlreadyExistsError(f"There is a source {draft.name} already: take another name.") from error
        return _source(row)

    def remove_source(self, source_id: int, deed: Deed) -> bool:
        try:
            with self._engine.write() as connection:
                waiting = sa.select(runs.c.id).where(runs.c.source_id == source_id, runs.c.state.in_(submission.UNENDED))
                run = connection.execute(waiting.limit(1)).first()
                if run is not None:
                    raise ConflictError(f"Run {run.id} uses source {source_id}: wait for its end, or stop it.")
                if not connection.execute(sources.delete().where(sources.c.id == source_id)).rowcount:
                    return False
                trail.append(self._engine, connection, self._now(), deed)
        except sa.exc.IntegrityError as error:
            raise ConflictError(
                f"Extractions use source {source_id}: delete them first, or give them another source."
            ) from error
        return True

    def reseal(self, source_id: int, before: str, after: str, deed: Deed) -> bool:
        with self._engine.write() as connection:
            mine = sa.and_(sources.c.id == source_id, sources.c.sealed == before)
            if not connection.execute(sources.update().where(mine).values(sealed=after)).rowcount:
                return False
            trail.append(self._engine, connection, self._now(), deed)
        return True


def insert(connection: sa.Connection, draft: SourceDraft, seal: Callable[[str], str], now: float) -> Any:
    """A new row, its password sealed for its place, in the caller's transaction."""
    values = {**_columns(draft), "sealed": "", "version": 1, "created_at": now, "updated_at": now}
    made = connection.execute(sources.insert().values(values).returning(sources.c.id)).scalar_one()
    sealed = sources.update().where(sources.c.id == made).values(sealed=seal(place(made)))
    return connection.execute(sealed.returning(sources)).mappings().one()


def _columns(draft: SourceDraft) -> dict[str, Any]:
    address = draft.address
    return {
        "name": draft.name,
        "folded": draft.name.casefold(),
        "scheme": address.scheme,
        "host": address.host,
        "port": address.port,
        "database": address.database,
        "username": address.username,
        "options": json.dumps(address.options, sort_keys=True),
        "max_connections": draft.max_connections,
        "max_rows_per_second": draft.max_rows_per_second,
    }


def _source(row: Any) -> Source:
    return Source(
        id=row["id"],
        name=row["name"],
        address=Address(
            scheme=row["scheme"],
            host=row["host"],
            port=row["port"],
            database=row["database"],
            username=row["username"],
            options=json.loads(row["options"]),
        ),
        sealed=row["sealed"],
        max_connections=row["max_connections"],
        max_rows_per_second=row["max_rows_per_second"],
        version=row["version"],
        created_at=datetime.fromtimestamp(row["created_at"], UTC),
        updated_at=datetime.fromtimestamp(row["updated_at"], UTC),
    )
