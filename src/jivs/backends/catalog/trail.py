"""The audit trail in the catalog's database: every entry is written in the transaction of what it tells of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import sqlalchemy as sa

from jivs.backends.catalog.engine import Engine
from jivs.backends.catalog.prepared import Prepared, parameter
from jivs.backends.catalog.tables import audit
from jivs.domain.audit import GENESIS, Deed, Entry, Wanted, chained
from jivs.errors import DamagedError

_APPENDING = 0x6A697661
"""The advisory lock of whoever appends: the chain has one end. (In SQLite there is one writer anyway.)"""

_PAGE = 1000
_LAST = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1"
_APPEND = Prepared(audit.insert().values({column.name: parameter(column.name, column.type) for column in audit.c}))


def append(engine: Engine, connection: sa.Connection, at: float, deed: Deed) -> None:
    """Add an entry to the end of the chain, in the caller's transaction."""
    last = engine.ask_locked(connection, _APPENDING, _LAST)
    seq, previous = (last[0][0] + 1, last[0][1]) if last else (1, GENESIS)
    entry = {
        "seq": seq,
        "at": at,
        "actor": deed.actor,
        "action": deed.action,
        "object": deed.object,
        "detail": json.dumps(deed.detail, sort_keys=True),
        "hash": chained(previous, seq, at, deed),
    }
    _APPEND(connection, **entry)


def page(engine: Engine, wanted: Wanted, *, before: int, limit: int) -> list[Entry]:
    """The newest entries first."""
    query = sa.select(audit).order_by(audit.c.seq.desc()).limit(limit)
    query = query.where(
        *([audit.c.seq < before] if before else []),
        *([audit.c.actor == wanted.actor] if wanted.actor else []),
        *([audit.c.action == wanted.action] if wanted.action else []),
        *([audit.c.object == wanted.object] if wanted.object else []),
        *([audit.c.at >= wanted.since] if wanted.since is not None else []),
        *([audit.c.at < wanted.until] if wanted.until is not None else []),
    )
    with engine.read() as connection:
        return [_entry(row) for row in connection.execute(query).mappings()]


def everything(engine: Engine) -> Iterator[Entry]:
    """All entries, the oldest first, page by page."""
    last = 0
    while True:
        with engine.read() as connection:
            query = sa.select(audit).where(audit.c.seq > last).order_by(audit.c.seq).limit(_PAGE)
            found = [_entry(row) for row in connection.execute(query).mappings()]
        yield from found
        if len(found) < _PAGE:
            return
        last = found[-1].seq


def _entry(row: Any) -> Entry:
    """Raises DamagedError for what nobody of us can have written."""
    texts = ("actor", "action", "object", "detail", "hash")
    detail: Any = None
    if all(isinstance(row[name], str) for name in texts) and isinstance(row["at"], (int, float)):
        with suppress(ValueError):
            detail = json.loads(row["detail"])
    if not isinstance(detail, dict):
        raise DamagedError(f"The audit trail is damaged at entry {row['seq']}: it was changed, removed or added later.")
    deed = Deed(actor=row["actor"], action=row["action"], object=row["object"], detail=detail)
    return Entry(seq=row["seq"], at=row["at"], deed=deed, hash=row["hash"])
