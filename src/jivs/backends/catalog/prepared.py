"""Statements that are turned into SQL once: for short ones, that takes several times as long as their execution."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from sqlalchemy.sql import visitors


def parameter(name: str, kind: Any) -> sa.BindParameter[Any]:
    """A value of a prepared statement."""
    return sa.bindparam(name, None, type_=kind)


def _write_out(parameter: sa.BindParameter[Any]) -> None:
    if parameter.value is not None:
        parameter.literal_execute = True


class Prepared:
    """A statement whose values are ``parameter``s, given when it is called. Values come back as the driver gives them."""

    def __init__(self, statement: sa.Select[Any] | sa.UpdateBase) -> None:
        # Constants stand in the text: by a value that it does not see, no planner finds an index on a part of a table.
        self._statement = visitors.cloned_traverse(statement, {}, {"bindparam": _write_out})
        self._texts: dict[str, tuple[str, list[str] | None, dict[str, Any]]] = {}

    def __call__(self, connection: sa.Connection, **values: Any) -> sa.CursorResult[Any]:
        """Execute it."""
        found = self._texts.get(connection.dialect.name)
        if found is None:
            found = self._texts[connection.dialect.name] = self._compiled(connection.dialect)
        text, names, fixed = found
        given = {**fixed, **values}
        return connection.exec_driver_sql(text, given if names is None else tuple(given[name] for name in names))

    def _compiled(self, dialect: sa.Dialect) -> tuple[str, list[str] | None, dict[str, Any]]:
        """Its text, the order of its parameters where they have no names, and the values of those that are fixed."""
        compiled = self._statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
        assert isinstance(compiled, sa.sql.compiler.SQLCompiler)
        return str(compiled), compiled.positiontup if compiled.positional else None, dict(compiled.params)
