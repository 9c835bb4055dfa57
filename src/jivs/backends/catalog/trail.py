"""The audit trail in the catalog's database: every entry is written in the transaction of what it tells of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import sqlalchemy as sa

from jivs.backends.catalog.engine import Engine, Question
from jivs.backends.catalog.tables import audit
from jivs.domain.audit import GENESIS, Deed, Entry, Wanted, said
from jivs.errors import DamagedError
from jivs.ports.accounts import CARRIED_OUT, KEY

_APPENDING = 0x6A697661
"""The advisory lock of whoever appends: the chain has one end. (In SQLite there is one writer anyway.)"""

_PAGE = 1000
_APPEND = """\
INSERT INTO audit (seq, at, actor, action, object, detail, hash)
SELECT e.seq + 1, ?, ?, ?, ?, ?, {hash} FROM (
  SELECT coalesce(max(seq), 0) AS seq, coalesce(max(hash), '{genesis}') AS hash
  FROM (SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1) last
) e"""
_CARRIED_OUT = f"UPDATE idempotency_keys SET status = {CARRIED_OUT}, body = ? WHERE scope = ? AND status = 0"
# What ``chained`` computes, by the database: the lock is had for as long as that takes, not for two ways to us and back.
_HASHED = "encode(sha256(convert_to('[\"' || e.hash || '\", ' || (e.seq + 1) || ', ' || CAST(? AS TEXT), 'UTF8')), 'hex')"


def append(engine: Engine, connection: sa.Connection, at: float, deed: Deed, *, changing: bool = True) -> None:
    """Add an entry to the end of the chain, in the caller's transaction, which is ``changing`` something else with it."""
    engine.together(connection, *appending(engine, at, deed, changing=changing))


def appending(engine: Engine, at: float, deed: Deed, *, changing: bool = True) -> list[Question]:
    """The statements that do."""
    hashed = "chained(e.hash, e.seq + 1, ?)" if engine.embedded else _HASHED
    detail = json.dumps(deed.detail, sort_keys=True)
    values = (at, deed.actor, deed.action, deed.object, detail, said(at, deed))
    done = [(_CARRIED_OUT, (deed.object, KEY.get()))] if changing and KEY.get() else []
    return [*done, *engine.locking(_APPENDING), (_APPEND.format(hash=hashed, genesis=GENESIS), values)]


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
