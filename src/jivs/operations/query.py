"""Query: SQL over an archive, read-only, reaching nothing but its data files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import duckdb
import pyarrow as pa

from jivs.archive import chain
from jivs.domain.archive import Manifest, Segment, TableState
from jivs.domain.schema import TableName
from jivs.errors import DamagedError, DriverMissingError, JivsError, UsageError
from jivs.ports.app import App
from jivs.ports.store import Store

if TYPE_CHECKING:
    from jivs.operations._remote import StoreFiles

_ALLOWED = {"SELECT", "EXPLAIN"}
_REQUESTS_AT_ONCE = 16
"""Threads of the engine where reading means waiting for a store."""


@contextmanager
def query(app: App, archive: str, sql: str, as_of: int | None = None) -> Iterator[pa.RecordBatchReader]:
    """The result of one SELECT, streamed. Each table is a view ``schema.table``, and ``table`` where that is unique.

    Raises UsageError for anything but one SELECT, and for SQL that the engine refuses; DamagedError and StoreError for data
    files that it cannot read.
    """
    store = app.store(archive)
    manifest = chain.require(store, as_of).manifest
    engine = duckdb.connect(":memory:")
    try:
        engine.execute("set timezone = 'UTC'")
        _refuse_writes(engine, sql)
        names = view_names(manifest)
        tables = [table for table in manifest.tables if table.key in _mentioned(names, sql)]
        files = _Files(engine, store, [segment for table in tables for segment in table.segments])
        with files.clear_errors(f"Data files of {store.address} cannot be read (jivs verify tells more)", DamagedError):
            _load(engine, files, tables, names)
        _lock(engine, files)
        with files.clear_errors("The query failed", UsageError):
            reader = _printable(engine, sql).to_arrow_reader(64 << 10)
        with files.clear_errors("The query failed", UsageError):
            yield reader
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


_LISTINGS = ("information_schema", "duckdb_", "pg_", "sqlite_", "show", "query")
"""What stands in SQL that asks for names of tables, or has some in its values."""


def _mentioned(names: dict[tuple[str, TableName], list[tuple[str, str]]], sql: str) -> set[tuple[str, TableName]]:
    """The tables whose names stand anywhere in the SQL: to open the files of others costs time. All, where none does."""
    text = sql.casefold()
    found = {key for key, views in names.items() if any(name.replace('"', '""').casefold() in text for _, name in views)}
    return found if found and not any(word in text for word in _LISTINGS) else set(names)


class _Files:
    """Data files as the engine reads them: from the disk, or through their store."""

    def __init__(self, engine: duckdb.DuckDBPyConnection, store: Store, segments: Sequence[Segment]) -> None:
        places = {segment.path: store.local(segment.path) for segment in segments}
        self._remote: StoreFiles | None = None
        if None in places.values():
            self._remote = _register(engine, store, segments)
        self.addresses = {path: f"jivs://{path}" if place is None else str(place) for path, place in places.items()}

    @contextmanager
    def clear_errors(self, what: str, kind: type[JivsError]) -> Iterator[None]:
        """The engine's errors as ``kind``; those of the store as they are."""
        try:
            yield
        except duckdb.Error as error:
            failure = self._remote.failure if self._remote else None
            if isinstance(failure, JivsError):
                raise failure from None
            raise kind(f"{what}: {_first(failure or error)}") from None


def _register(engine: duckdb.DuckDBPyConnection, store: Store, segments: Sequence[Segment]) -> StoreFiles:
    try:
        from jivs.operations._remote import StoreFiles
    except ImportError as error:
        raise DriverMissingError(
            f"Queries at {store.address} need a package that is not installed ({error.name}): pip install 'jivs[s3]'"
        ) from None
    files = StoreFiles(store, segments)
    files.read_tails()
    engine.register_filesystem(files)
    engine.execute(f"set threads = {_REQUESTS_AT_ONCE}")
    return files


def _load(
    engine: duckdb.DuckDBPyConnection,
    files: _Files,
    tables: Sequence[TableState],
    names: dict[tuple[str, TableName], list[tuple[str, str]]],
) -> None:
    made = {"main"}
    for table in tables:
        for schema, name in names[table.key]:
            if schema.casefold() not in made:
                engine.execute(f"create schema if not exists {_quote(schema)}")
                made.add(schema.casefold())
            engine.execute(f"create or replace view {_quote(schema)}.{_quote(name)} as {_select(files, table)}")


def _select(files: _Files, table: TableState) -> str:
    if not table.columns:
        return f"select unnest(range({table.rows})) as row"
    listed = ", ".join(_literal(files.addresses[segment.path]) for segment in table.segments)
    return f"select * from read_parquet([{listed}], union_by_name = true, hive_partitioning = false)"


def _lock(engine: duckdb.DuckDBPyConnection, files: _Files) -> None:
    """From here on the engine reads these data files and nothing else, and no setting can be changed."""
    engine.execute(f"set allowed_paths = [{', '.join(map(_literal, files.addresses.values()))}]")
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
