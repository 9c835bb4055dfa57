"""Preferences of users in the catalog's database."""

from __future__ import annotations

import sqlalchemy as sa

from jivs.backends.catalog.engine import Engine
from jivs.backends.catalog.tables import preferences
from jivs.errors import ConflictError, NotFoundError
from jivs.ports.preferences import Preferences


class SqlPreferences:
    """Preferences in SQLite or PostgreSQL."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def get(self, user_id: int) -> Preferences:
        query = sa.select(preferences.c.document, preferences.c.version).where(preferences.c.user_id == user_id)
        with self._engine.read() as connection:
            row = connection.execute(query).first()
        return Preferences(document=row.document, version=row.version) if row is not None else Preferences()

    def put(self, user_id: int, version: int, document: str) -> Preferences:
        new = Preferences(document=document, version=version + 1)
        mine = sa.and_(preferences.c.user_id == user_id, preferences.c.version == version)
        change = (
            preferences.update().where(mine).values(new.__dict__)
            if version
            else self._engine.insert(preferences).values(user_id=user_id, **new.__dict__).on_conflict_do_nothing()
        )
        try:
            with self._engine.write() as connection:
                if connection.execute(change.returning(preferences.c.user_id)).first() is None:
                    raise ConflictError("The preferences were changed meanwhile: read them again, and then change them.")
        except sa.exc.IntegrityError as error:
            raise NotFoundError(f"There is no user {user_id} any more.") from error
        return new
