"""Lists of what has an id and a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa


def part(
    table: sa.Table,
    sorts: Mapping[str, sa.ColumnElement[Any]],
    *,
    after: int,
    offset: int,
    limit: int,
    name: str,
    sort: str,
    descending: bool,
) -> sa.Select[Any]:
    """The rows with ids above ``after``, in one of the orders ``sorts`` or that of their ids."""
    order = [column.desc() if descending else column for column in dict.fromkeys((sorts.get(sort, table.c.id), table.c.id))]
    query = sa.select(table).where(*named(table, name)).order_by(*order).limit(limit).offset(offset)
    return query.where(table.c.id > after) if after else query


def named(table: sa.Table, name: str) -> list[sa.ColumnElement[bool]]:
    """The condition that a name has this in it, whatever its case."""
    return [table.c.folded.contains(name.casefold(), autoescape=True)] if name else []


def count(table: sa.Table, name: str) -> sa.Select[Any]:
    """How many there are of that name."""
    return sa.select(sa.func.count()).select_from(table).where(*named(table, name))
