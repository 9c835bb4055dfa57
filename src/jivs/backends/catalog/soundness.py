"""What no database checks of itself: whether the tables are those of the code, and references lead somewhere."""

from __future__ import annotations

from collections.abc import Iterator

import sqlalchemy as sa

from jivs.backends.catalog.engine import Engine
from jivs.backends.catalog.tables import metadata


def faults(engine: Engine) -> Iterator[str]:
    """Of a catalog of the newest schema, in sentences."""
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with engine.read() as connection:
        found = compare_metadata(MigrationContext.configure(connection), metadata)
        ours = [change for change in found if "remove_table" not in str(change)[:20]]  # others may have tables beside ours
        if ours:
            yield f"The tables are not those of its schema: {len(ours)} differences, the first is {_named(ours[0])}."
            return
        for table in metadata.sorted_tables:
            yield from _orphans(connection, table)


def _named(change: object) -> str:
    """A difference of alembic: what kind of it, and of which table or column."""
    parts = change[0] if isinstance(change, list) else change
    assert isinstance(parts, tuple)
    names = [str(getattr(part, "name", part)) for part in parts[1:] if part is not None]
    return f"{parts[0]} {' '.join(names)}".strip()


def _orphans(connection: sa.Connection, table: sa.Table) -> Iterator[str]:
    for key in table.foreign_keys:
        other = key.column.table.alias()
        there = sa.exists().where(other.c[key.column.name] == key.parent)
        query = sa.select(sa.func.count()).select_from(table).where(key.parent.is_not(None), ~there)
        if count := connection.execute(query).scalar_one():
            other_name = key.column.table.name
            yield f"{count} rows of {table.name} name a row of {other_name} that is not there ({key.parent.name})."
