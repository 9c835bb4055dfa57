"""The pace of a source: one queue for the rows that all of its runs ask for, on whatever machine they are."""

from __future__ import annotations

import sqlalchemy as sa

from jivs.backends.catalog.engine import Engine
from jivs.backends.catalog.tables import paces
from jivs.ports.clock import Clock

_BURST_SECONDS = 0.1
"""What may be asked for at once after a rest."""

_FARTHEST = 600.0
"""Nobody queues for so long: a later time was written by a clock that has been set since."""


def reserve(engine: Engine, clock: Clock, source_id: int, rows: int, rate: int) -> float:
    """Queue for so many rows, at ``rate`` rows per second; how many seconds from now they may be asked for.

    The queue's end is a time of the database: of PostgreSQL's own clock, or of this machine's, whose processes are all that
    use an SQLite file.
    """
    took = rows / rate
    now = sa.literal(clock.now().timestamp()) if engine.embedded else sa.func.extract("epoch", sa.func.clock_timestamp())
    first = sa.cast(now, sa.Float) - _BURST_SECONDS
    begins = sa.case(
        (paces.c.due > first + _FARTHEST, first),
        (paces.c.due < first, first),
        else_=paces.c.due,
    )
    insert = engine.insert(paces).values(source_id=source_id, due=first + took)
    queued = insert.on_conflict_do_update(index_elements=[paces.c.source_id], set_={"due": begins + took})
    with engine.write() as connection:
        wait = connection.execute(queued.returning(paces.c.due - sa.cast(now, sa.Float))).scalar_one()
    return max(0.0, float(wait))
