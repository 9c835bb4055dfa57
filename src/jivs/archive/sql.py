"""SQL over an archive: an engine that has its tables as views, and reaches nothing but their files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from jivs.domain.archive import Manifest, TableState
from jivs.domain.schema import TableName
from jivs.errors import UsageError

if TYPE_CHECKING:  # and where it is used: who only says what views there are, as the service does, needs no engine
    import duckdb

FEW = 200
"""Archives with at most so many views get all of them, whatever a query says: each costs half a millisecond."""

_LISTINGS = ("information_schema", "duckdb_", "pg_", "sqlite_", "show", "query")
"""What stands in SQL that asks for names of tables, or has some in its values."""

VALUES = frozenset(
    {"boolean", "tinyint", "smallint", "integer", "bigint", "hugeint", "utinyint", "usmallint", "uinteger", "ubigint",
     "uhugeint", "float", "double", "decimal", "varchar", "blob"}
)  # fmt: skip
"""Types of DuckDB whose values Python holds exactly. Its dates, for one, hold fewer years than an archive does."""

_LISTS = {"list", "array"}


@dataclass(frozen=True, kw_only=True)
class View:
    """A table of an archive under one of its names. ``rows``: of a table without columns, which has no files."""

    schema: str
    name: str
    files: tuple[str, ...]
    rows: int


@dataclass(frozen=True, kw_only=True)
class Select:
    """A statement that was looked at: name and type of each column, and the text that gives each value in its form."""

    columns: tuple[tuple[str, str], ...]
    sql: str


def views(manifest: Manifest) -> list[View]:
    """Every table as ``schema.table``, and as ``table`` where that is unique."""
    names = _names(manifest)
    return [_view(table, schema, name) for table in manifest.tables for schema, name in names[table.key]]


def _view(table: TableState, schema: str, name: str) -> View:
    files = tuple(segment.path for segment in table.segments) if table.columns else ()
    return View(schema=schema, name=name, files=files, rows=table.rows)


def mentioned(all_views: Sequence[View], sql: str, few: int = FEW) -> list[View]:
    """Those whose names occur in the text of a query, so that a thousand others cost nothing. All, if there are ``few``, if
    none occurs, or if the query may ask for names itself.
    """
    text = sql.casefold()
    found = [view for view in all_views if view.name.replace('"', '""').casefold() in text]
    chosen = found and len(all_views) > few and not any(word in text for word in _LISTINGS)
    return found if chosen else list(all_views)


def _names(manifest: Manifest) -> dict[tuple[str, TableName], list[tuple[str, str]]]:
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


def connect(
    wanted: Iterable[View], place: Callable[[str], str], config: dict[str, str | int] | None = None, only: Any = None
) -> duckdb.DuckDBPyConnection:
    """An engine with these views that reads their files and nothing else, and whose settings cannot be changed.

    ``place``: where the engine finds a file of the archive. ``config``: settings of DuckDB from the beginning.
    ``only``: a file system (fsspec) for these places; with it the engine knows no file of the machine, not even by name.
    """
    import duckdb

    engine = duckdb.connect(":memory:", config={"python_enable_replacements": "false", **(config or {})})
    if only is not None:
        engine.register_filesystem(only)
    engine.execute("set timezone = 'UTC'")
    made, files = {"main"}, set()
    for view in wanted:
        if view.schema.casefold() not in made:
            engine.execute(f"create schema if not exists {_quote(view.schema)}")
            made.add(view.schema.casefold())
        paths = [place(path) for path in view.files]
        files.update(paths)
        engine.execute(f"create or replace view {_quote(view.schema)}.{_quote(view.name)} as {_rows(view, paths)}")
    engine.execute(f"set allowed_paths = [{', '.join(map(_literal, sorted(files)))}]")
    for setting in (
        "enable_external_access = false",
        "autoinstall_known_extensions = false",
        "autoload_known_extensions = false",
        "secret_directory = ''",  # it would tell the home folder
        *(["disabled_filesystems = 'LocalFileSystem'"] if only is not None else []),
        "lock_configuration = true",
    ):
        engine.execute(f"set {setting}")
    return engine


def _rows(view: View, paths: list[str]) -> str:
    if not view.files:
        return f"select range as row from range({view.rows})"
    return (
        f"select * from read_parquet([{', '.join(map(_literal, paths))}], union_by_name = true, hive_partitioning = false)"
    )


def require(engine: duckdb.DuckDBPyConnection, sql: str, allowed: frozenset[str]) -> str:
    """The kind of a statement. Raises UsageError for anything but one of an allowed kind."""
    import duckdb

    try:
        kinds = [statement.type.name for statement in engine.extract_statements(sql)]
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.Error as error:
        raise UsageError(f"The query cannot be read: {first_line(error)}") from None
    except ValueError:  # a kind of statement that the engine has, but the driver does not know
        kinds = []
    if len(kinds) != 1 or kinds[0] not in allowed:
        raise UsageError("Only one SELECT at a time: an archive is never changed by a query.")
    return str(kinds[0])


def select(engine: duckdb.DuckDBPyConnection, sql: str, kept: frozenset[str], limit: int = -1) -> Select:
    """Look at a SELECT without running it. Columns of types that are not ``kept`` come as text; so do maps and unions.

    ``limit``: rows at most; -1: all.
    """
    relation = engine.sql(sql)
    inner = [f"c{index}" for index in range(len(relation.columns))]
    forms = [_form(type_, kept) for type_ in relation.types]
    outer = ", ".join(
        f"{f'cast({name} as {form})' if form else name} as {_quote(label)}"
        for name, form, label in zip(inner, forms, relation.columns, strict=True)
    )
    end = f" limit {limit}" if limit >= 0 else ""
    return Select(
        columns=tuple((name, str(type_)) for name, type_ in zip(relation.columns, relation.types, strict=True)),
        sql=f"select {outer} from ({_bare(sql)}\n) as q({', '.join(inner)}){end}",
    )


def _form(type_: Any, kept: frozenset[str]) -> str:
    """The type to which a column is cast; empty if it stays."""
    kind = type_.id
    if kind in kept:
        return ""
    if kind in _LISTS:
        children = dict(type_.children)
        child = _form(children["child"], kept)
        return child and child + (f"[{children['size']}]" if kind == "array" else "[]")
    if kind == "struct" and all(name for name, _ in type_.children):
        forms = [(name, str(child), _form(child, kept)) for name, child in type_.children]
        if not any(form for _, _, form in forms):
            return ""
        return f"struct({', '.join(f'{_quote(name)} {form or same}' for name, same, form in forms)})"
    return "varchar"


def _bare(sql: str) -> str:
    """A statement without the semicolons and comments at its end."""
    import duckdb

    raw = sql.encode()
    end = len(raw)
    for position, kind in reversed(duckdb.tokenize(sql)):
        if kind.name != "comment" and raw[position : position + 1] != b";":
            break
        end = position
    return raw[:end].decode()


def first_line(error: Exception) -> str:
    """What an engine's error says, without the piece of SQL that it shows."""
    return str(error).strip().split("\n\n")[0].replace("\n", " ")


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
