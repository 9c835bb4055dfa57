"""Query: SQL over an archive, read-only, reaching nothing but its data files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb
import pyarrow as pa

from jivs.archive import chain
from jivs.domain.archive import Manifest, TableState
from jivs.domain.schema import TableName
from jivs.errors import UsageError
from jivs.ports.app import App
from jivs.ports.store import Store

_ALLOWED = {"SELECT", "EXPLAIN"}


@contextmanager
def query(app: App, archive: str, sql: str, as_of: int | None = None) -> Iterator[pa.RecordBatchReader]:
    """The result of one SELECT, streamed. Each table is a view ``schema.table``, and ``table`` where that is unique.

    Raises UsageError for anything but one SELECT, and for SQL that the engine refuses.
    """
    store = app.store(archive)
    manifest = chain.require(store, as_of).manifest
    engine = duckdb.connect(":memory:")
    try:
        engine.execute("set timezone = 'UTC'")
        _load(engine, store, manifest)
        _lock(engine, store, manifest)
        _refuse_writes(engine, sql)
        try:
            reader = _printable(engine, sql).to_arrow_reader(64 << 10)
        except duckdb.Error as error:
            raise UsageError(f"The query failed: {_first(error)}") from None
        try:
            yield reader
        except duckdb.Error as error:
            raise UsageError(f"The query failed: {_first(error)}") from None
    finally:
        engine.close()


def _printable(engine: duckdb.DuckDBPyConnection, sql: str) -> duckdb.DuckDBPyRelation:
    """The query's relation, its dates and times as text: the archive holds years that Python's dates do not."""
    relation = engine.sql(sql)
    moments = {"DATE", "TIME", "TIMESTAMP", "TIMESTAMP WITH TIME ZONE", "TIMESTAMP_NS", "INTERVAL"}
    if not any(str(type_) in moments for type_ in relation.types):
        return relation
    inner = [f"c{index}" for index in range(len(relation.columns))]
    outer = [
        f"{name}{'::varchar' if str(type_) in moments else ''} as {_quote(label)}"
        for name, type_, label in zip(inner, relation.types, relation.columns, strict=True)
    ]
    return engine.sql(f"select {', '.join(outer)} from ({sql.strip().rstrip(';')}\n) as q({', '.join(inner)})")


def view_names(manifest: Manifest) -> dict[tuple[str, TableName], list[tuple[str, str]]]:
    """The (schema, name) pairs under which each table can be queried."""
    bare: dict[str, int] = {}
    full: dict[tuple[str, str], int] = {}
    for table in manifest.tables:
        bare[table.name.name.casefold()] = bare.get(table.name.name.casefold(), 0) + 1
        key = (table.name.schema.casefold(), table.name.name.casefold())
        full[key] = full.get(key, 0) + 1
    names: dict[tuple[str, TableName], list[tuple[str, str]]] = {}
    for table in manifest.tables:
        schema, name = table.name.schema, table.name.name
        mine = []
        if bare[name.casefold()] == 1:
            mine.append(("main", name))
        if schema and schema.casefold() != "main" and full[schema.casefold(), name.casefold()] == 1:
            mine.append((schema, name))
        if not mine:
            mine.append((f"{table.source}.{schema}".strip("."), name))
        names[table.key] = mine
    return names


def _load(engine: duckdb.DuckDBPyConnection, store: Store, manifest: Manifest) -> None:
    names = view_names(manifest)
    made = {"main"}
    for table in manifest.tables:
        for schema, name in names[table.key]:
            if schema.casefold() not in made:
                engine.execute(f"create schema if not exists {_quote(schema)}")
                made.add(schema.casefold())
            engine.execute(f"create or replace view {_quote(schema)}.{_quote(name)} as {_select(store, table)}")


def _select(store: Store, table: TableState) -> str:
    if not table.columns:
        return f"select unnest(range({table.rows})) as row"
    files = ", ".join(_literal(store.local(segment.path)) for segment in table.segments)
    return f"select * from read_parquet([{files}], union_by_name = true, hive_partitioning = false)"


def _lock(engine: duckdb.DuckDBPyConnection, store: Store, manifest: Manifest) -> None:
    """From here on the engine reads the manifest's data files and nothing else, and no setting can be changed."""
    files = [store.local(segment.path) for table in manifest.tables for segment in table.segments]
    engine.execute(f"set allowed_paths = [{', '.join(map(_literal, files))}]")
    engine.execute("set enable_external_access = false")
    engine.execute("set autoinstall_known_extensions = false")
    engine.execute("set autoload_known_extensions = false")
    engine.execute("set lock_configuration = true")


def _refuse_writes(engine: duckdb.DuckDBPyConnection, sql: str) -> None:
    try:
        statements = engine.extract_statements(sql)
    except duckdb.Error as error:
        raise UsageError(f"The query cannot be read: {_first(error)}") from None
    if len(statements) != 1 or statements[0].type.name not in _ALLOWED:
        raise UsageError("Only one SELECT at a time: an archive is never changed by a query.")


def _first(error: Exception) -> str:
    return str(error).strip().split("\n\n")[0].replace("\n", " ")


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
