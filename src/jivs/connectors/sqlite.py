"""SQLite: types by value, for a column's storage is dynamic; one connection, one read transaction."""

from __future__ import annotations

import json
import os
import sqlite3
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote as url_quote

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, Field

from jivs.connectors import _sqlite_values as values
from jivs.connectors._file_place import Place
from jivs.connectors._sql import Connections, OneByOne, narrow, parse_options, query_listings, refuse_duplicates, single
from jivs.connectors._sqlite_readers import Descriptors, Readers, Stored, misfit_of
from jivs.domain.fingerprint import Fingerprint
from jivs.domain.plan import Bounds
from jivs.domain.schema import ArchiveType, Column, Fidelity, Kind, Table, TableKind, TableName, assign_fields
from jivs.domain.source import Address, Capabilities, Limits, ServerInfo, Snapshot
from jivs.errors import JivsError, RowTooLargeError, SchemaChangedError, TransientError, UsageError
from jivs.ports.clock import stamp
from jivs.ports.connector import Chunk, Connector, Listing, Pace, Request, Session, TypeRow
from jivs.ports.metrics import PoolUse
from jivs.wire import sqlite as compiled
from jivs.wire.canonical import row_hash
from jivs.wire.native import Limits as BatchLimits

_SCHEMA = "from sqlite_schema where name = ? and type in ('table', 'view')"
_ROWS = 8 << 10
_MOST_ROWS = 128 << 10
_CENSUS_ROWS = 250_000
_MOST_PARTS = 200
_TRIES = 20
_PARTITION_ROWS = 1_000_000


class Options(BaseModel):
    """What may stand behind the ``?`` of an SQLite URL."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    timeout: int = Field(10, ge=0, description="Seconds to wait for a lock.")


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
        TypeRow(
            source="integer and real in a column of numeric affinity (DECIMAL, NUMERIC, ...)",
            archive="double",
            fidelity="exact",
            note="whole numbers are stored as integers there; those beyond 2^53: quarantine",
        ),
        TypeRow(source="several classes", archive="text and <name>__class", fidelity="text", note="blobs as hex digits"),
        TypeRow(source="NULL only", archive="by the declared type", fidelity="exact"),
    )

    def label(self, address: Address) -> str:
        return Path(address.database).stem or "sqlite"

    def open(self, address: Address, limits: Limits, request: Request, pace: Pace) -> Session:
        return _Session(address, parse_options(Options, address.options, self.kind), limits, request, pace)


@dataclass(frozen=True)
class _Described:
    """A table, how its columns are made, and its pages, where it is read from them."""

    table: Table
    takes: list[values.Take]
    pages: compiled.Pages | None = None


class _Session(OneByOne):
    def __init__(self, address: Address, options: Options, limits: Limits, request: Request, pace: Pace) -> None:
        self._address = address
        self._options = options
        self._limits = limits
        self._request = request
        self._pace = pace
        self._details: dict[TableName, _Described] = {}
        self._compiled = Readers()
        self._path = Path(os.path.realpath(self._address.database))  # once: a link may lead elsewhere later
        self._descriptors = Descriptors(self._path)
        self._pool: Connections[sqlite3.Connection] = Connections(1, self._connect, lambda connection: connection.close())

    @property
    def _uri(self) -> str:
        return f"file:{url_quote(str(self._path))}?mode=ro"

    def _connect(self) -> sqlite3.Connection:
        try:
            there = self._path.is_file()
        except OSError:  # a name that is too long
            there = False
        if not there:
            raise UsageError(f"There is no SQLite file {self._path}. Check the path; sqlite:////absolute has four slashes.")
        place = Place(self._path, self._address.roots)
        with self._clear_errors():
            connection = sqlite3.connect(
                self._uri,
                uri=True,
                timeout=self._options.timeout,
                isolation_level=None,
                check_same_thread=False,
            )
            connection.text_factory = values.Text
            connection.execute("pragma query_only = on")
            connection.execute("begin")
            connection.execute("select count(*) from sqlite_schema").fetchall()
        place.require()  # of what is open: SQLite opens by name, and a descriptor of ours would end its locks
        return connection

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except JivsError:
            raise
        except (sqlite3.Error, compiled.SqliteError) as error:
            where, message = self._address.shown, str(error)
            if "attempt to write a readonly database" in message:
                raise UsageError(
                    f"{where}: whoever wrote it last did not end, and left a journal beside it. Open it once with a program "
                    "that may write, sqlite3 for example: that brings the database back to its last whole state."
                ) from None
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
                    name=TableName(schema="", name=values.string(name)),
                    kind=TableKind.VIEW if kind == b"view" else TableKind.TABLE,
                )
                for name, kind in rows
            ),
        ]

    def describe(self, name: TableName) -> Table:
        return self._detail(name).table

    def _detail(self, name: TableName) -> _Described:
        if name not in self._details:
            with self._lease() as connection:
                if name not in self._details:
                    self._details[name] = self._describe(connection, name)
        return self._details[name]

    def _describe(self, connection: sqlite3.Connection, name: TableName) -> _Described:
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
            declared = [(values.string(column), values.string(type_)) for column, type_, _, hidden in facts if hidden != 1]
            key = tuple(values.string(item[0]) for item in sorted(facts, key=lambda item: item[2]) if item[2])
            row = connection.execute(f"select type, sql {_SCHEMA}", (name.name,)).fetchone()
            kind = TableKind.VIEW if row[0] == b"view" else TableKind.TABLE
            ddl = json.dumps({"create": values.string(row[1] or b"")})
        columns = refuse_duplicates(
            [Column(name=column, field=column, type=ArchiveType(kind=Kind.TEXT), source_type=type_, fidelity=Fidelity.EXACT)
             for column, type_ in declared],
            name.name,
        )  # fmt: skip
        kept = narrow(columns, self._request.narrowing, str(name))
        wanted = [column.name for column in kept]
        pages = self._pages(connection, name, wanted) if kind is TableKind.TABLE else None
        try:
            rows, found = self._census(connection, name, kind, wanted, pages)
        except compiled.StrangeError:
            pages = None
            rows, found = self._census(connection, name, kind, wanted, None)
        typed, takes = values.choose(kept, found)
        table = Table(name=name, kind=kind, columns=assign_fields(typed), primary_key=key, estimated_rows=rows, ddl=ddl)
        return _Described(table, takes, pages if len(takes) == len(wanted) else None)

    def _pages(self, connection: sqlite3.Connection, name: TableName, wanted: Sequence[str]) -> compiled.Pages | None:
        """A plain table as its pages, if it can be read from them."""
        if self._request.narrowing.where or not wanted or not self._rowid(connection, name):
            return None
        facts = connection.execute("select name, type, pk, hidden from pragma_table_xinfo(?)", (name.name,)).fetchall()
        if any(hidden for *_, hidden in facts):
            return None
        columns = [(values.string(column), values.string(type_)) for column, type_, *_ in facts]
        key = [(column, type_) for (column, type_), (*_, place, _hidden) in zip(columns, facts, strict=True) if place]
        indexes = connection.execute("select origin from pragma_index_list(?)", (name.name,)).fetchall()
        apart = (b"pk",) in indexes  # such a key is no row id
        root = connection.execute(f"select rootpage {_SCHEMA}", (name.name,)).fetchone()[0]
        stored = Stored(
            root=root,
            columns=tuple(column for column, _ in columns),
            row_id=key[0][0] if len(key) == 1 and values.ascii_upper(key[0][1]) == "INTEGER" and not apart else None,
            reals=frozenset(column for column, type_ in columns if values.has_real_affinity(type_)),
        )
        pages = self._compiled.pages(stored, wanted)
        return replace(pages, largest=self._limits.heavy_row) if pages else None

    def _census(
        self,
        connection: sqlite3.Connection,
        name: TableName,
        kind: TableKind,
        columns: Sequence[str],
        pages: compiled.Pages | None,
    ) -> tuple[int, list[dict[str, int]]]:
        """The number of rows, and how many values of each class each column has."""
        if not self._compiled or not columns:
            source = self._from(name, kind, {})
            rows = connection.execute(f"select count(*) {source}").fetchone()[0]
            return rows, values.census(connection, columns, source)
        listed = ", ".join(map(values.quote, columns))
        parts = self._ranges(connection, name, _CENSUS_ROWS) if kind is TableKind.TABLE else [{}]
        sources: list[str | compiled.Pages] = [
            f"select {listed} {self._from(name, kind, part)}" if pages is None else _part(pages, part) for part in parts
        ]
        return self._compiled.census(sources, len(columns))

    # -- the snapshot ---------------------------------------------------------------------------------------------

    def begin(self, tables: Sequence[TableName]) -> Snapshot:  # noqa: ARG002 - one transaction sees the whole file
        self._pool.close()
        self._details.clear()
        self._pool = Connections(1, self._connect, lambda connection: connection.close(), fixed=True)
        self._compiled.close()
        self._pool.adopt(self._begin_readers())
        return Snapshot(identity=str(uuid.uuid4()), one=True, taken_at=stamp(datetime.now(UTC)))

    def _begin_readers(self) -> sqlite3.Connection:
        """The connection that describes and counts, and, where they can be compiled ones, those that read: in one state."""
        for _ in range(_TRIES):
            self._descriptors.hold()
            connection = self._aligned()
            if self._descriptors.same():
                self._compiled.open_pages(self._descriptors.database)
                return connection
            self._compiled.close()
            connection.close()
        raise TransientError(f"{self._path} is replaced again and again. Try again when nobody replaces it.")

    def _aligned(self) -> sqlite3.Connection:
        if not compiled.usable() or self._limits.connections < 3:
            return self._connect()
        many = 1 if self._pace.rate else max(1, min(self._limits.parallel, self._limits.connections - 2))
        first = self._connect()
        wal = bytes(first.execute("pragma journal_mode").fetchone()[0]) == b"wal"
        if not wal:  # nobody can write while the first connection reads
            try:
                self._compiled.open(self._uri, many)
            except compiled.SqliteError:  # somebody waits to write: the first connection reads alone
                self._compiled.close()
            return first
        with closing(first):  # it keeps the log and its index in place
            for _ in range(_TRIES):
                before = self._descriptors.log_index()
                connection = self._connect()
                with suppress(compiled.SqliteError):
                    self._compiled.open(self._uri, many)
                    if before is not None and before == self._descriptors.log_index():
                        return connection
                self._compiled.close()
                connection.close()
        return self._connect()

    def changed(self, table: Table) -> str:  # noqa: ARG002 - a read transaction sees nothing of later changes
        return ""

    # -- reading --------------------------------------------------------------------------------------------------

    def split(self, table: Table, target_bytes: int) -> Sequence[Bounds]:  # noqa: ARG002 - a row's size is not known
        if table.kind is not TableKind.TABLE or table.estimated_rows <= _PARTITION_ROWS:
            return [{}]
        with self._lease() as connection:
            return self._ranges(connection, table.name, _PARTITION_ROWS, table.estimated_rows)

    def _ranges(self, connection: sqlite3.Connection, table: TableName, rows: int, count: int = -1) -> list[Bounds]:
        """Ranges of row ids, each of at most so many of them on average; of ``count`` rows, or as many as fit."""
        name = self._rowid(connection, table)
        if not name:
            return [{}]
        source = f"from {values.quote(table.name)}"
        # Two queries: together they would read the whole table.
        low, high = connection.execute(f"select (select min({name}) {source}), (select max({name}) {source})").fetchone()
        parts = 1 if low is None else -(-(count if count >= 0 else min(high - low + 1, rows * _MOST_PARTS)) // rows)
        if parts <= 1:
            return [{}]
        edges = sorted({low + (high - low) * index // parts for index in range(1, parts)})
        return [
            {"rowid": name, **({"from": a} if a is not None else {}), **({"to": b} if b is not None else {})}
            for a, b in zip([None, *edges], [*edges, None], strict=True)
        ]

    def _rowid(self, connection: sqlite3.Connection, table: TableName) -> str:
        """A name of the row id that no column hides; empty for tables without row ids."""
        found = connection.execute("select name from pragma_table_xinfo(?)", (table.name,))
        taken = {values.string(row[0]).lower() for row in found}
        free = next((name for name in ("rowid", "_rowid_", "oid") if name not in taken), "")
        bare = connection.execute("select wr, type from pragma_table_list where name = ?", (table.name,)).fetchone()
        return free if bare is not None and not bare[0] and bare[1] == b"table" else ""

    def _from(self, name: TableName, kind: TableKind, bounds: Bounds) -> str:
        where = [f"({self._request.narrowing.where}\n)"] if self._request.narrowing.where else []
        source = values.quote(name.name)
        if kind is TableKind.QUERY:
            source = f"({single(self._request.queries[name.name])}\n)"
        if "from" in bounds:
            where.append(f"{bounds['rowid']} >= {int(bounds['from'])}")
        if "to" in bounds:
            where.append(f"{bounds['rowid']} < {int(bounds['to'])}")
        return f"from {source}" + (f" where {' and '.join(where)}" if where else "")

    def _select(self, table: Table, bounds: Bounds) -> str:
        takes = self._detail(table.name).takes
        return f"select {', '.join(take.expression for take in takes)} {self._from(table.name, table.kind, bounds)}"

    def _refuse_larger(self, table: str, size: int) -> None:
        if size > self._limits.largest_row:
            raise RowTooLargeError(
                f"A row of {table} has {size >> 20} MB, more than an eighth of the memory limit: set "
                f"JIVS_EXTRACTION__MEMORY_LIMIT to at least {(size * 8 >> 20) + 1}MB."
            )

    def _at_once(self, *most: int) -> int:
        """Rows to read before the pace is asked for more."""
        return min(*most, self._pace.step) if self._pace.rate else min(most)

    def _rows(self, table: Table, bounds: Bounds) -> Iterator[list[tuple[Any, ...]]]:
        select = self._select(table, bounds)
        most = self._at_once(self._limits.batch_rows or _ROWS, _ROWS)
        with self._lease() as connection:
            cursor = connection.execute(select)
            self._pace.take(most)
            rows: list[tuple[Any, ...]] = []
            size = 0
            for row in cursor:
                weight = sum(len(value) if isinstance(value, bytes) else 8 for value in row)
                self._refuse_larger(str(table.name), weight)
                rows.append(row)
                size += weight
                if len(rows) >= most or size >= self._limits.batch_bytes:
                    yield rows
                    rows, size = [], 0
                    self._pace.take(most)
            if rows:
                yield rows

    def read(self, table: Table, bounds: Bounds) -> Iterator[Chunk]:
        detail = self._detail(table.name)
        takes = detail.takes
        if not detail.table.same_structure(table):
            raise SchemaChangedError(f"{table.name}: its columns changed since the run was planned. Start a new run.")
        if self._compiled.can_read(takes):
            most = self._at_once(self._limits.batch_rows or _MOST_ROWS, _MOST_ROWS)
            limits = BatchLimits(most, self._limits.batch_bytes, self._limits.heavy_row)
            refuse = partial(self._refuse_larger, str(table.name))
            source = self._select(table, bounds) if detail.pages is None else _part(detail.pages, bounds)
            chunks = self._compiled.read(source, takes, limits, refuse, self._pace.take)
            with self._clear_errors(), closing(chunks):
                yield from chunks
            return
        for rows in self._rows(table, bounds):
            arrays, poison = [], []
            for index, (take, cells) in enumerate(zip(takes, zip(*rows, strict=True), strict=True)):
                array, bad = values.array(take, cells)
                arrays.append(array)
                poison += [misfit_of(row, index, value) for row, value in bad]
            names = [f"c{index}" for index in range(len(arrays))]
            yield Chunk(batch=pa.RecordBatch.from_arrays(arrays, names=names), values=tuple(poison))

    def count(self, table: Table, bounds: Bounds) -> int:
        with self._lease() as connection:
            source = self._from(table.name, table.kind, bounds)
            return int(connection.execute(f"select count(*) {source}").fetchone()[0])

    def fingerprint(self, table: Table, bounds: Bounds) -> Fingerprint:
        """Over the source's values, by a statement of its own: not over the batches that were archived."""
        takes = self._detail(table.name).takes
        if self._compiled.can_read(takes):
            with self._clear_errors():
                most = self._at_once(_MOST_ROWS)
                found = self._compiled.fingerprint(self._select(table, bounds), takes, most, self._pace.take)
            if found is not None:
                return found
        count = total = 0
        for rows in self._rows(table, bounds):
            count += len(rows)
            for row in rows:
                total += row_hash([values.canonical(take, value) for take, value in zip(takes, row, strict=True)])
        return Fingerprint.of(count, total)

    def connections(self) -> PoolUse:
        return self._pool.use()

    def interrupt(self) -> None:
        for connection in self._pool.everyone():
            connection.interrupt()
        self._compiled.interrupt()

    def close(self) -> None:
        self._pool.close()
        self._compiled.close()
        self._descriptors.close()


def _part(pages: compiled.Pages, bounds: Bounds) -> compiled.Pages:
    """The rows of a range."""
    low, high = int(bounds.get("from", pages.low)), int(bounds["to"]) - 1 if "to" in bounds else pages.high
    return replace(pages, low=low, high=high)


CONNECTOR: Connector = SQLite()
