"""New runs in the catalog's database, in the transaction of whoever asks for them."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from jivs.backends.catalog import rows
from jivs.backends.catalog.engine import Engine
from jivs.backends.catalog.prepared import Prepared, parameter
from jivs.backends.catalog.tables import events, extractions, runs
from jivs.domain.extraction import Extraction, WhenBusy
from jivs.domain.run import OPEN, RunState
from jivs.errors import ConflictError, NotFoundError

_TELLING = 0x6A697665
"""The advisory lock of whoever adds an event: their numbers are in the order of their commits, so no reader misses one."""

ON_SOURCE = 0x6A69 << 40
"""Added to a source's id: the advisory lock of whoever claims a run on it."""

ON_EXTRACTION = 0x6A6A << 40
"""As well: an extraction may have runs on two sources, of before and after it was changed."""

MOST_QUEUED = 1000
"""Runs of one extraction that have not ended: each look for work goes past those that wait behind another."""

UNENDED = [state.value for state in OPEN]
_THERE = sa.select(extractions.c.source_id).where(extractions.c.id == sa.bindparam("extraction"))
_HELD = _THERE.with_for_update(read=True, key_share=True)
_SUBMIT = runs.insert().returning(runs)
_TOLD = ("at", "kind", "run_id", "extraction_id", "data")
_TELL = Prepared(events.insert().values({name: parameter(name, events.c[name].type) for name in _TOLD}))


def hold(connection: sa.Connection, extraction_id: int) -> int:
    """Nobody deletes the extraction until the transaction ends; its source. Raises NotFoundError if it has gone."""
    source: int | None = connection.execute(_HELD, {"extraction": extraction_id}).scalar()
    if source is None:
        raise NotFoundError(f"There is no extraction {extraction_id}.")
    return source


def lock(engine: Engine, connection: sa.Connection, source_id: int, extraction_id: int) -> None:
    """Nobody else begins a run on the source, or of the extraction, until the transaction ends."""
    engine.lock(connection, ON_SOURCE + source_id, ON_EXTRACTION + extraction_id)


def submit(
    engine: Engine, connection: sa.Connection, now: float, extraction: Extraction, run_id: str, archive: str, actor: str
) -> Any:
    """The row of a new PENDING run of an extraction, for the caller to ``tell`` of last. Raises NotFoundError if it is gone,
    ConflictError if it has a run that has not ended and refuses another, or too many that wait, or is of another source by
    now; nothing was written then.
    """
    if hold(connection, extraction.id) != extraction.source_id:
        raise ConflictError(f"Extraction {extraction.id} was changed in this moment: start it again.")
    lock(engine, connection, extraction.source_id, extraction.id)
    if extraction.when_busy is WhenBusy.REFUSE:
        unended = sa.select(runs.c.id, runs.c.state).where(runs.c.extraction_id == extraction.id, runs.c.state.in_(UNENDED))
        other = connection.execute(unended.limit(1)).first()
        if other is not None:
            raise ConflictError(
                f"Extraction {extraction.id} has run {other.id}, which is {other.state}: wait for it or stop it, or "
                "set whenBusy to QUEUE."
            )
    else:
        unended = sa.select(runs.c.seq).where(runs.c.extraction_id == extraction.id, runs.c.state.in_(UNENDED))
        waiting = sa.select(sa.func.count()).select_from(unended.limit(MOST_QUEUED).subquery())
        if connection.execute(waiting).scalar_one() >= MOST_QUEUED:
            raise ConflictError(
                f"Extraction {extraction.id} has {MOST_QUEUED:,} runs that have not ended: more cannot be queued for it."
            )
    values = {
        "id": run_id,
        "kind": "extract",
        "source": extraction.source_name,
        "archive": archive,
        "digest": "",
        "state": RunState.PENDING.value,
        "message": "",
        "epoch": 0,
        "owner": "",
        "created_at": now,
        "updated_at": now,
        "extraction_id": extraction.id,
        "source_id": extraction.source_id,
        "job": extraction.job.to_json(),
        "actor": actor,
        "priority": extraction.priority,
    }
    return connection.execute(_SUBMIT, values).mappings().one()


def tell(engine: Engine, connection: sa.Connection, now: float, row: Any, kind: str = "state") -> None:
    """Add an event of what a row of ``runs`` is now."""
    engine.lock(connection, _TELLING)
    told = {"run_id": row["id"], "extraction_id": row["extraction_id"], "data": rows.told(row)}
    _TELL(connection, at=now, kind=kind, **told)
