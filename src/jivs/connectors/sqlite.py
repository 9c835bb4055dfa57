"""SQLite: types by value, for a column's storage is dynamic; one connection, one read transaction."""

from __future__ import annotations

import json
import sqlite3
import struct
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote as url_quote

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from jivs.connectors._sql import Connections, narrow, parse_options, query_listings, refuse_duplicates, single
from jivs.domain.fingerprint import Fingerprint
from jivs.domain.plan import Bounds
from jivs.domain.quarantine import QuarantinedValue
from jivs.domain.schema import ArchiveType, Column, Fidelity, Kind, Table, TableKind, TableName, assign_fields
from jivs.domain.source import Address, Capabilities, Limits, ServerInfo, Snapshot
from jivs.errors import JivsError, RowTooLargeError, SchemaChangedError, TransientError, UsageError
from jivs.ports.clock import stamp
from jivs.ports.connector import Chunk, Connector, Listing, Pace, Request, Session, TypeRow
from jivs.wire.canonical import row_hash

_ROWS = 8 << 10
_PARTITION_ROWS = 1_000_000
_MINORITY = 100
"""A class with fewer than one value in this many goes to quarantine."""

_CLASSES: dict[str, Kind] = {
    "integer": Kind.INT64,
    "real": Kind.DOUBLE,
    "text": Kind.TEXT,
    "blob": Kind.BINARY,
}
_SUFFIX = "__class"


class Options(BaseModel):
    """What may stand behind the ``?`` of an SQLite URL."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    timeout: int = Field(10, ge=0, description="Seconds to wait for a lock.")


class Text(bytes):
    """A value of class text, as its bytes in UTF-8; plain bytes are of class blob."""

    __slots__ = ()


class SQLite:
    """The connector."""

    kind = "sqlite"
    capabilities = Capabilities(can_split=True, can_snapshot=True, can_fingerprint=True, can_query=True)
    options: type[BaseModel] = Options
    type_map: Sequence[TypeRow] = (
        TypeRow(source="a column with values of class integer only", archive="int64", fidelity="exact"),
        TypeRow(source="real only", archive="double", fidelity="exact"),
        TypeRow(source="text only", archive="text", fidelity="exact", note="dates too: the source stores text"),
        TypeRow(source="blob only", archive="binary", fidelity="exact"),
        TypeRow(
            source="several classes, the others under 1 %", archive="the main class", fidelity="exact", note="quarantine"
        ),
        TypeRow(source="several classes", archive="text and <name>__class", fidelity="text", note="blobs as hex digits"),
        TypeRow(source="NULL only", archive="by the declared type", fidelity="exact"),
    )

    def label(self, address: Address) -> str:
        return Path(address.database).stem or "sqlite"

    def open(self, address: Address, limits: Limits, request: Request, pace: Pace) -> Session:
        return _Session(address, parse_options(Options, address.options, self.kind), limits, request, pace)


@dataclass(frozen=True)
class _Take:
    """How a column of the source becomes one of the archive: its value, its class (``column`` ends in __class), or its
    value as text."""

    expression: str
    kind: Kind
    what: str


class _Session:
    def __init__(self, address: Address, options: Options, limits: Limits, request: Request, pace: Pace) -> None:
        self._address = address
        self._options = options
        self._limits = limits
        self._request = request
        self._pace = pace
        self._details: dict[TableName, tuple[Table, list[_Take]]] = {}
        self._pool: Connections[sqlite3.Connection] = Connections(1, self._connect, lambda connection: connection.close())

    def _connect(self) -> sqlite3.Connection:
        path = Path(self._address.database)
        if not path.is_file():
            raise UsageError(f"There is no SQLite file {path}. Check the path; sqlite:////absolute has four slashes.")
        with self._clear_errors():
            connection = sqlite3.connect(
                f"file:{url_quote(str(path.absolute()))}?mode=ro",
                uri=True,
                timeout=self._options.timeout,
                isolation_level=None,
                check_same_thread=False,
            )
            connection.text_factory = Text
            connection.execute("pragma query_only = on")
            connection.execute("begin")
            connection.execute("select count(*) from sqlite_schema").fetchall()
        return connection

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except JivsError:
            raise
        except sqlite3.Error as error:
            where, message = self._address.shown, str(error)
            if "not a database" in message or "malformed" in message:
                raise UsageError(f"{where}: {message}. It is no SQLite database, encrypted, or damaged.") from None
            if "no such table" in message or "no such column" in message:
                raise SchemaChangedError(f"{where}: {message}. The table changed, or the name is wrong.") from None
            if "no such module" in message:
                raise UsageError(f"{where}: {message}. Leave the virtual table out with --exclude.") from None
            if "syntax error" in message or "one statement" in message or "readonly" in message:
                raise UsageError(f"{where}: {message}. Only one SELECT is possible here.") from None
            raise TransientError(f"{where}: {message}. Try again, with --resume.") from None

    @contextmanager
    def _lease(self) -> Iterator[sqlite3.Connection]:
        with self._clear_errors(), self._pool.lease() as connection:
            yield connection

    # -- describing -----------------------------------------------------------------------------------------------

    def ping(self) -> ServerInfo:
        with self._lease() as connection:
            mode = bytes(connection.execute("pragma journal_mode").fetchone()[0]).decode()
        notes = ["the source's fingerprint is computed by this process, from the source's values"]
        if mode != "wal":
            notes.append(f"journal mode {mode}: writers wait while it is read")
        return ServerInfo(product="SQLite", version=sqlite3.sqlite_version, notes=tuple(notes))

    def tables(self) -> Sequence[Listing]:
        queries = query_listings(self._request)
        with self._lease() as connection:
            rows = connection.execute(
                "select name, type from pragma_table_list where schema = 'main' and name not like 'sqlite\\_%' escape '\\'"
                " and type in ('table', 'view', 'virtual') order by 1"
            ).fetchall()
        return [
            *queries,
            *(
                Listing(
                    name=TableName(schema="", name=_string(name)),
                    kind=TableKind.VIEW if kind == b"view" else TableKind.TABLE,
                )
                for name, kind in rows
            ),
        ]

    def describe(self, name: TableName) -> Table:
        return self._detail(name)[0]

    def _detail(self, name: TableName) -> tuple[Table, list[_Take]]:
        if name not in self._details:
            with self._lease() as connection:
                if name not in self._details:
                    self._details[name] = self._describe(connection, name)
        return self._details[name]

    def _describe(self, connection: sqlite3.Connection, name: TableName) -> tuple[Table, list[_Take]]:
        query = self._request.queries.get(name.name)
        key: tuple[str, ...] = ()
        ddl, kind = query or "", TableKind.QUERY
        if query is not None:
            connection.execute(f"select * from ({single(query)}\n) limit 0")
            cursor = connection.execute(single(query))  # inside a subquery, SQLite renames columns of the same name
            declared = [(str(item[0]), "") for item in cursor.description]
            cursor.close()
        else:
            facts = connection.execute("select name, type, pk, hidden from pragma_table_xinfo(?)", (name.name,)).fetchall()
            if not facts:
                raise UsageError(f"There is no table {name}. jivs discover lists what there is.")
            declared = [(_string(column), _string(type_)) for column, type_, _, hidden in facts if hidden != 1]
            key = tuple(_string(item[0]) for item in sorted(facts, key=lambda item: item[2]) if item[2])
            row = connection.execute("select type, sql from sqlite_schema where name = ?", (name.name,)).fetchone()
            kind = TableKind.VIEW if row[0] == b"view" else TableKind.TABLE
            ddl = json.dumps({"create": _string(row[1] or b"")})
        columns = refuse_duplicates(
            [Column(name=column, field=column, type=ArchiveType(kind=Kind.TEXT), source_type=type_, fidelity=Fidelity.EXACT)
             for column, type_ in declared],
            name.name,
        )  # fmt: skip
        kept = narrow(columns, self._request.narrowing, str(name))
        source = self._from(name, kind, {})
        typed, takes = _choose(kept, _census(connection, [column.name for column in kept], source))
        rows = connection.execute(f"select count(*) {source}").fetchone()[0]
        table = Table(name=name, kind=kind, columns=assign_fields(typed), primary_key=key, estimated_rows=rows, ddl=ddl)
        return table, takes

    # -- the snapshot ---------------------------------------------------------------------------------------------

    def begin(self, tables: Sequence[TableName]) -> Snapshot:  # noqa: ARG002 - one transaction sees the whole file
        self._pool.close()
        self._details.clear()
        self._pool = Connections(1, self._connect, lambda connection: connection.close(), fixed=True)
        self._pool.adopt(self._connect())
        return Snapshot(identity=str(uuid.uuid4()), one=True, taken_at=stamp(datetime.now(UTC)))

    def changed(self, table: Table) -> str:  # noqa: ARG002 - a read transaction sees nothing of later changes
        return ""

    # -- reading --------------------------------------------------------------------------------------------------

    def split(self, table: Table, target_bytes: int) -> Sequence[Bounds]:  # noqa: ARG002 - a row's size is not known
        if table.kind is not TableKind.TABLE or table.estimated_rows <= _PARTITION_ROWS:
            return [{}]
        with self._lease() as connection:
            name = self._rowid(connection, table.name)
            if not name:
                return [{}]
            low, high = connection.execute(f"select min({name}), max({name}) from {_quote(table.name.name)}").fetchone()
        count = -(-table.estimated_rows // _PARTITION_ROWS)
        edges = sorted({low + (high - low) * index // count for index in range(1, count)})
        return [
            {"rowid": name, **({"from": a} if a is not None else {}), **({"to": b} if b is not None else {})}
            for a, b in zip([None, *edges], [*edges, None], strict=True)
        ]

    def _rowid(self, connection: sqlite3.Connection, table: TableName) -> str:
        """A name of the row id that no column hides; empty for tables without row ids."""
        taken = {
            _string(row[0]).lower() for row in connection.execute("select name from pragma_table_xinfo(?)", (table.name,))
        }
        free = next((name for name in ("rowid", "_rowid_", "oid") if name not in taken), "")
        bare = connection.execute("select wr, type from pragma_table_list where name = ?", (table.name,)).fetchone()
        return free if bare is not None and not bare[0] and bare[1] == b"table" else ""

    def _from(self, name: TableName, kind: TableKind, bounds: Bounds) -> str:
        where = [f"({self._request.narrowing.where}\n)"] if self._request.narrowing.where else []
        source = _quote(name.name)
        if kind is TableKind.QUERY:
            source = f"({single(self._request.queries[name.name])}\n)"
        if "from" in bounds:
            where.append(f"{bounds['rowid']} >= {int(bounds['from'])}")
        if "to" in bounds:
            where.append(f"{bounds['rowid']} < {int(bounds['to'])}")
        return f"from {source}" + (f" where {' and '.join(where)}" if where else "")

    def _rows(self, table: Table, bounds: Bounds) -> Iterator[list[tuple[Any, ...]]]:
        takes = self._detail(table.name)[1]
        select = f"select {', '.join(take.expression for take in takes)} {self._from(table.name, table.kind, bounds)}"
        most = min(self._limits.batch_rows or _ROWS, _ROWS, self._pace.step if self._pace.rate else _ROWS)
        with self._lease() as connection:
            cursor = connection.execute(select)
            self._pace.take(most)
            rows: list[tuple[Any, ...]] = []
            size = 0
            for row in cursor:
                weight = sum(len(value) if isinstance(value, bytes) else 8 for value in row)
                if weight > self._limits.largest_row:
                    raise RowTooLargeError(
                        f"A row of {table.name} has {weight >> 20} MB, more than an eighth of the memory limit: set "
                        f"JIVS_EXTRACTION__MEMORY_LIMIT to at least {(weight * 8 >> 20) + 1}MB."
                    )
                rows.append(row)
                size += weight
                if len(rows) >= most or size >= self._limits.batch_bytes:
                    yield rows
                    rows, size = [], 0
                    self._pace.take(most)
            if rows:
                yield rows

    def read(self, table: Table, bounds: Bounds) -> Iterator[Chunk]:
        described, takes = self._detail(table.name)
        if not described.same_structure(table):
            raise SchemaChangedError(f"{table.name}: its columns changed since the run was planned. Start a new run.")
        for rows in self._rows(table, bounds):
            arrays, poison = [], []
            for index, (take, cells) in enumerate(zip(takes, zip(*rows, strict=True), strict=True)):
                array, bad = _array(take, cells)
                arrays.append(array)
                poison += [
                    QuarantinedValue(
                        row=row,
                        column=index,
                        original=bytes(value) if isinstance(value, bytes) else _as_text(value),
                        canonical=_misfit(value),
                        reason=f"a value of class {_class_name(value)} in a column of another",
                    )
                    for row, value in bad
                ]
            names = [f"c{index}" for index in range(len(arrays))]
            yield Chunk(batch=pa.RecordBatch.from_arrays(arrays, names=names), values=tuple(poison))

    def count(self, table: Table, bounds: Bounds) -> int:
        with self._lease() as connection:
            source = self._from(table.name, table.kind, bounds)
            return int(connection.execute(f"select count(*) {source}").fetchone()[0])

    def fingerprint(self, table: Table, bounds: Bounds) -> Fingerprint:
        """Over the source's values, by a statement of its own: not over the batches that were archived."""
        takes = self._detail(table.name)[1]
        count = total = 0
        for rows in self._rows(table, bounds):
            count += len(rows)
            for row in rows:
                total += row_hash([_canonical(take, value) for take, value in zip(takes, row, strict=True)])
        return Fingerprint.of(count, total)

    def interrupt(self) -> None:
        for connection in self._pool.everyone():
            connection.interrupt()

    def close(self) -> None:
        self._pool.close()


def _census(connection: sqlite3.Connection, names: Sequence[str], source: str) -> list[dict[str, int]]:
    """How many values of each class each column has, in few passes over the table."""
    found: list[dict[str, int]] = []
    for start in range(0, len(names), 100):
        part = names[start : start + 100]
        counts = [f"coalesce(sum(typeof({_quote(name)}) = '{class_}'), 0)" for name in part for class_ in _CLASSES]
        row = connection.execute(f"select {', '.join(counts)} {source}").fetchone()
        for index in range(len(part)):
            values = row[index * len(_CLASSES) : (index + 1) * len(_CLASSES)]
            found.append({class_: count for class_, count in zip(_CLASSES, values, strict=True) if count})
    return found


def _choose(columns: Sequence[Column], census: Sequence[dict[str, int]]) -> tuple[list[Column], list[_Take]]:
    """The narrowest exact type for each column."""
    out: list[Column] = []
    takes: list[_Take] = []
    names = {column.name.casefold() for column in columns}
    for column, counts in zip(columns, census, strict=True):
        quoted = _quote(column.name)
        main = max(counts, key=lambda class_: counts[class_], default="")
        others = sum(counts.values()) - counts.get(main, 0)
        if others * _MINORITY < sum(counts.values()) or not others:
            kind = _CLASSES[main] if main else _declared(column.source_type)
            out.append(replace(column, type=ArchiveType(kind=kind)))
            takes.append(_Take(quoted, kind, "value"))
            continue
        class_name = column.name + _SUFFIX
        while class_name.casefold() in names:
            class_name += "_"
        names.add(class_name.casefold())
        out.append(replace(column, fidelity=Fidelity.TEXT))
        takes.append(_Take(quoted, Kind.TEXT, "text"))
        out.append(replace(column, name=class_name, field=class_name, source_type="typeof", fidelity=Fidelity.EXACT))
        takes.append(_Take(f"case when {quoted} is not null then typeof({quoted}) end", Kind.TEXT, "value"))
    return out, takes


def _declared(type_: str) -> Kind:
    """The kind for a column that holds NULLs only (SQLite, Datatypes, section 3.1)."""
    upper = type_.upper()
    if "INT" in upper:
        return Kind.INT64
    if any(part in upper for part in ("REAL", "FLOA", "DOUB")):
        return Kind.DOUBLE
    return Kind.BINARY if "BLOB" in upper else Kind.TEXT


def _class_of(value: Any) -> Kind:
    if isinstance(value, Text):
        return Kind.TEXT
    return {int: Kind.INT64, float: Kind.DOUBLE, bytes: Kind.BINARY}[type(value)]


def _as_text(value: Any) -> bytes:
    """A value of any class as text; the class stands beside it."""
    if isinstance(value, Text):
        return bytes(value)
    return value.hex().encode() if isinstance(value, bytes) else repr(value).encode()


def _array(take: _Take, cells: Sequence[Any]) -> tuple[pa.Array, list[tuple[int, Any]]]:
    if take.what == "text":
        return pa.array([None if value is None else _as_text(value) for value in cells], pa.binary()), []
    bad: list[tuple[int, Any]] = []
    values: list[Any] = []
    for row, value in enumerate(cells):
        fits = value is None or _class_of(value) is take.kind
        values.append(value if fits else None)
        if not fits:
            bad.append((row, value))
    type_ = {Kind.INT64: pa.int64(), Kind.DOUBLE: pa.float64(), Kind.BINARY: pa.binary(), Kind.TEXT: pa.binary()}
    return pa.array(values, type_[take.kind]), bad


def _misfit(value: Any) -> bytes:
    """What enters the row hash for a value of another class than its column's: '7' is not 7."""
    return f"{_class_name(value)}:".encode() + _as_text(value)


def _class_name(value: Any) -> str:
    return next(name for name, kind in _CLASSES.items() if kind is _class_of(value))


def _canonical(take: _Take, value: Any) -> bytes | None:
    if value is None:
        return None
    if take.what == "text":
        return _as_text(value)
    if _class_of(value) is not take.kind:
        return _misfit(value)
    if isinstance(value, float):
        return str(struct.unpack("<q", struct.pack("<d", value))[0]).encode()
    if isinstance(value, Text):
        return bytes(value)
    return value.hex().encode() if isinstance(value, bytes) else str(value).encode()


def _string(value: bytes) -> str:
    return bytes(value).decode(errors="surrogateescape")


def _quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


CONNECTOR: Connector = SQLite()
