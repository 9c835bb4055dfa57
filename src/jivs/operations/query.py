"""Query: SQL over an archive, read-only, reaching nothing but its data files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from jivs.archive import chain, sql
from jivs.errors import UsageError
from jivs.ports.app import App

_ALLOWED = frozenset({"SELECT", "EXPLAIN"})
_KEPT = sql.VALUES | {"null"}


@contextmanager
def query(app: App, archive: str, text: str, as_of: int | None = None) -> Iterator[pa.RecordBatchReader]:
    """The result of one SELECT, streamed. Each table is a view ``schema.table``, and ``table`` where that is unique.

    Raises UsageError for anything but one SELECT, and for SQL that the engine refuses.
    """
    store = app.store(archive)
    manifest = chain.require(store, as_of).manifest
    engine = sql.connect(sql.mentioned(sql.views(manifest), text), store.local)
    try:
        sql.require(engine, text, _ALLOWED)
        try:
            yield engine.sql(text if _explains(engine, text) else sql.select(engine, text, _KEPT).sql).to_arrow_reader(
                64 << 10
            )
        except duckdb.Error as error:
            raise UsageError(f"The query failed: {sql.first_line(error)}") from None
    finally:
        engine.close()


def _explains(engine: duckdb.DuckDBPyConnection, text: str) -> bool:
    return bool(engine.extract_statements(text)[0].type.name == "EXPLAIN")
