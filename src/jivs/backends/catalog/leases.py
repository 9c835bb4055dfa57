"""Leases of duties in the catalog's database."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from jivs.backends.catalog.engine import Engine
from jivs.backends.catalog.tables import leases
from jivs.errors import FencedError
from jivs.ports.leases import Lease


class SqlLeases:
    """Leases in SQLite or PostgreSQL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def lease(self, name: str) -> Lease | None:
        with self._engine.read() as connection:
            row = connection.execute(sa.select(leases).where(leases.c.name == name)).mappings().first()
        return Lease(**row) if row is not None else None

    def take(self, name: str, owner: str, seen: Lease | None) -> Lease | None:
        if seen is None:
            new = self._engine.insert(leases).values(name=name, owner=owner, epoch=1, beat=0)
            return self._changed(new.on_conflict_do_nothing())
        same = sa.and_(leases.c.name == name, leases.c.epoch == seen.epoch, leases.c.beat == seen.beat)
        return self._changed(leases.update().where(same).values(owner=owner, epoch=leases.c.epoch + 1, beat=0))

    def renew(self, lease: Lease) -> Lease | None:
        return self._changed(leases.update().where(_mine(lease)).values(beat=leases.c.beat + 1))

    def give_back(self, lease: Lease) -> None:
        self._changed(leases.update().where(_mine(lease)).values(owner="", beat=leases.c.beat + 1))

    def _changed(self, change: Any) -> Lease | None:
        with self._engine.write() as connection:
            row = connection.execute(change.returning(leases)).mappings().first()
        return Lease(**row) if row is not None else None


def require(connection: sa.Connection, lease: Lease) -> None:
    """Whether the lease is the newest, and until the caller's transaction ends nobody takes it. Raises FencedError."""
    if connection.execute(sa.select(leases.c.epoch).where(_mine(lease)).with_for_update(read=True)).first() is None:
        raise FencedError(f"Another process has the duty {lease.name} now.")


def _mine(lease: Lease) -> sa.ColumnElement[bool]:
    return sa.and_(leases.c.name == lease.name, leases.c.epoch == lease.epoch)
