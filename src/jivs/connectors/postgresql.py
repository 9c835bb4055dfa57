"""PostgreSQL: one exported snapshot for all readers, ctid ranges, COPY."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel

from jivs.connectors import _postgresql_catalog as catalog
from jivs.connectors import _postgresql_errors as clear
from jivs.connectors import _postgresql_parts as parts
from jivs.connectors import _postgresql_raw as untranslatable
from jivs.connectors import _postgresql_small as small
from jivs.connectors import _postgresql_types as types
from jivs.connectors._postgresql_catalog import qualified, quote
from jivs.connectors._postgresql_options import Options
from jivs.connectors._postgresql_read import Gate, Shape, copy, copy_binary, fetch
from jivs.connectors._sql import Connections, OneByOne, narrow, parse_options, query_listings, single
from jivs.domain.fingerprint import EMPTY, Fingerprint
from jivs.domain.plan import Bounds
from jivs.domain.schema import Table, TableKind, TableName
from jivs.domain.source import Address, Capabilities, Limits, ServerInfo, Snapshot
from jivs.errors import (
    DriverMissingError,
    FatalError,
    JivsError,
    SchemaChangedError,
    SnapshotLostError,
    UsageError,
)
from jivs.ports.clock import stamp
from jivs.ports.connector import Chunk, Connector, Listing, Pace, Request, Session, TypeRow
from jivs.transfer.conform import conform
from jivs.wire import pgcopy
from jivs.wire.rowhash import RowHasher

_MOST_LOCKS = 3000
_LOCKED = frozenset({TableKind.TABLE, TableKind.PARTITIONED, TableKind.VIEW})
_WITH_CTID = frozenset({TableKind.TABLE, TableKind.MATERIALIZED_VIEW})


class PostgreSQL:
    """The connector."""

    kind = "postgresql"
    capabilities = Capabilities(can_split=True, can_snapshot=True, can_fingerprint=True, can_query=True)
    options: type[BaseModel] = Options
    type_map: Sequence[TypeRow] = types.TYPE_MAP

    def label(self, address: Address) -> str:
        return address.database or address.username or "postgresql"

    def open(self, address: Address, limits: Limits, request: Request, pace: Pace) -> Session:
        try:
            import psycopg  # noqa: F401 - is it there?
        except ImportError:
            raise DriverMissingError("PostgreSQL needs the package psycopg: pip install 'jivs[postgresql]'.") from None
        return _Session(address, parse_options(Options, address.options, self.kind), limits, request, pace)


class _Session(OneByOne):
    def __init__(self, address: Address, options: Options, limits: Limits, request: Request, pace: Pace) -> None:
        self._address = address
        self._options = options
        self._limits = limits
        self._request = request
        self._pace = pace
        self._alone, self._describing = threading.Lock(), threading.Lock()
        self._besieged = small.Besieged()
        self._details: dict[TableName, catalog.Described] = {}
        self._types: dict[int, catalog.Type] = {}
        self._encoding = "UTF8"
        self._search_path = ""
        self._version = 0
        self._snapshot = ""
        self._holder: Any = None
        self._holder_free = threading.Lock()
        self._locked: frozenset[TableName] = frozenset()
        self._raw: set[TableName] = set()
        self._kinds: dict[TableName, TableKind] = {}
        self._pages: dict[tuple[str | None, str | None, TableName], int] = {}  # of heaps
        self._most = max(1, limits.connections)
        self._readers = self._pool(self._most)

    def _pool(self, most: int) -> Connections[Any]:
        return Connections(most, self._reader, clear.leave, alive=clear.is_silent, seconds=self._limits.pool_seconds)

    # -- connections ----------------------------------------------------------------------------------------------

    def _connect(self) -> Any:
        import psycopg

        address, options = self._address, self._options
        given = options.given(self._request.run, theirs=bool(address.pinned))
        try:
            connection = psycopg.connect(
                host=address.host or None,
                hostaddr=address.pinned or None,
                port=address.port,
                dbname=address.database or None,
                user=address.username or None,
                password=address.password.reveal() or ("" if address.pinned else None),
                connect_timeout=options.connect_timeout,
                client_encoding="UTF8",
                autocommit=True,
                **catalog.WATCH_WIRE,
                **given,
            )
        except psycopg.Error as error:
            raise clear.unreachable(error, self._address) from None
        with self._clear_errors():
            self._version = connection.info.server_version
            query = "select current_setting('search_path'), getdatabaseencoding()"
            self._search_path, self._encoding = connection.execute(query).fetchall()[0]
            connection.execute(catalog.settings(self._options.statement_timeout, self._options.lock_timeout))
        return connection

    def _reader(self) -> Any:
        connection = self._connect()
        with self._clear_errors():
            connection.execute("begin isolation level repeatable read read only")
            if self._snapshot:
                connection.execute(f"set transaction snapshot '{self._snapshot}'")
        return connection

    @contextmanager
    def _lease(self) -> Iterator[Any]:
        """A reader's connection inside the snapshot."""
        with self._clear_errors(), self._readers.lease() as connection:
            yield connection

    @contextmanager
    def _on(self, table: Table) -> Iterator[Any]:
        """A connection that can read the table now; a free query gets the account's own search path.

        Somebody who waits to change the table makes every newcomer wait behind him. The holder is no newcomer: its lock
        lets it read, so a reader that cannot get in leaves the table to the holder.
        """
        with self._clear_errors(), ExitStack() as stack:
            connection = stack.enter_context(self._readers.lease())
            if table.name in self._locked and connection is not self._holder and self._besieged(connection, table.name):
                stack.close()
                stack.enter_context(self._holder_free)
                connection = stack.enter_context(self._lent_holder())
            if table.kind is TableKind.QUERY:
                connection.execute("select set_config('search_path', %s, true)", (self._search_path,))
            yield connection
            if table.kind is TableKind.QUERY:
                connection.execute("select set_config('search_path', '', true)")

    @contextmanager
    def _lent_holder(self) -> Iterator[Any]:
        """The holder's connection. After an error nobody knows what it would answer next: it is closed, as a reader's is."""
        if self._holder is None or self._holder.closed:
            raise SnapshotLostError("The connection that holds the run's locks is gone. Go on with --resume.")
        try:
            yield self._holder
        except BaseException:
            self._holder.close()
            raise

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        import psycopg

        try:
            yield
        except JivsError:
            raise
        except psycopg.Error as error:
            raise clear.translated(error, self._address) from None

    # -- describing -----------------------------------------------------------------------------------------------

    def ping(self) -> ServerInfo:
        with self._lease() as connection:
            if self._request.run:
                catalog.end_others_of_run(connection)
            version = connection.execute("show server_version").fetchone()[0]
        notes = () if self._encoding == "UTF8" else (f"database encoding {self._encoding}",)
        return ServerInfo(product="PostgreSQL", version=version, notes=notes)

    def tables(self) -> Sequence[Listing]:
        with self._lease() as connection:
            found = [*query_listings(self._request), *catalog.listings(connection)]
        self._kinds = {listing.name: listing.kind for listing in found}
        return found

    def describe(self, name: TableName) -> Table:
        table = self._detail(name)[0]
        note = (untranslatable.NOTE.format(self._encoding),) if name in self._raw else ()
        return replace(table, notes=(*table.notes, *note))

    def prepare(self, names: Sequence[TableName]) -> None:
        with self._describing, self._lease() as connection:
            self._types = self._types or catalog.load_types(connection)
            wanted = [name for name in names if name.schema and name not in self._details]
            for name, found in catalog.describe(connection, self._types, wanted).items():
                self._details[name] = self._narrowed(*found)

    def _detail(self, name: TableName) -> catalog.Described:
        with self._describing:
            if name not in self._details:
                with self._clear_errors():
                    self._details[name] = self._describe(name)
            return self._details[name]

    def _describe(self, name: TableName) -> catalog.Described:
        query = self._request.queries.get(name.name) if not name.schema else None
        with self._lease() as connection:
            if not self._types:
                self._types = catalog.load_types(connection)
            if query is not None:
                connection.execute("select set_config('search_path', %s, true)", (self._search_path,))
                table, rules = catalog.describe_query(connection, self._types, name, single(query))
                connection.execute("select set_config('search_path', '', true)")
                return table, rules, 0
            found = catalog.describe(connection, self._types, [name])
        if name not in found:
            raise UsageError(f"There is no table {name}. jivs discover lists what there is.")
        return self._narrowed(*found[name])

    def _narrowed(self, table: Table, rules: list[types.Rule], oid: int) -> catalog.Described:
        """The columns that the request wants."""
        name = table.name
        by_name = {column.name: rule for column, rule in zip(table.columns, rules, strict=True)}
        kept = narrow(table.columns, self._request.narrowing, str(name))
        if len(kept) != len(rules):
            table = replace(table, columns=tuple(kept))
        return table, [by_name[column.name] for column in kept], oid

    # -- the snapshot ---------------------------------------------------------------------------------------------

    def begin(self, tables: Sequence[TableName]) -> Snapshot:
        kinds = self._kinds or {listing.name: listing.kind for listing in self.tables()}
        self._readers.close()
        self._details.clear()
        lockable = [name for name in tables if kinds.get(name) in _LOCKED]
        holder = self._connect()
        notes = []
        try:
            with self._clear_errors():
                holder.execute("begin isolation level repeatable read read only")
                # Locks first: the snapshot is taken with the first query, and TRUNCATE is not hidden by snapshots.
                if len(lockable) <= _MOST_LOCKS:
                    for start in range(0, len(lockable), 200):
                        names = ", ".join(qualified(name) for name in lockable[start : start + 200])
                        holder.execute(f"lock table {names} in access share mode")
                    self._locked = frozenset(lockable)
                row = holder.execute("select pg_current_snapshot()::text, pg_is_in_recovery()").fetchone()
                objects = holder.execute("select count(*) from pg_largeobject_metadata").fetchone()[0]
                if objects:
                    notes.append(f"{objects} large objects are not archived")
                sequences = holder.execute("select count(*) from pg_class where relkind = 'S'").fetchone()[0]
                if sequences:
                    notes.append(f"{sequences} sequences are not archived")
                self._lock_queries(holder)
                several = self._most > 1
                if several:
                    self._snapshot = holder.execute("select pg_export_snapshot()").fetchone()[0]
        except BaseException:
            holder.close()
            raise
        self._holder = holder
        if several:
            self._readers = self._pool(self._limits.connections - 1)
            self._readers.resize(self._most - 1)
        else:
            # Alone, the holder reads too; its snapshot goes with it.
            self._readers = Connections(1, self._reader, clear.leave, fixed=True)
            self._readers.adopt(holder)
        return Snapshot(identity=f"{row[0]}/{uuid.uuid4()}", one=True, taken_at=stamp(datetime.now(UTC)), notes=tuple(notes))

    def resize(self, connections: int) -> int:
        self._most = max(1, connections)
        holder = 1 if self._snapshot else 0
        return holder + self._readers.resize(self._most - holder)

    def _lock_queries(self, holder: Any) -> None:
        """Planning a query locks what it reads until the transaction ends, so that TRUNCATE has to wait."""
        if self._request.queries:
            holder.execute("select set_config('search_path', %s, true)", (self._search_path,))
            for query in self._request.queries.values():
                # In binary, by the extended protocol: the server takes one statement, whatever is written there.
                holder.execute(f"explain select * from ({single(query)}\n) as q", binary=True)
            holder.execute("select set_config('search_path', '', true)")

    def changed(self, table: Table) -> str:
        """TRUNCATE and rewriting ALTER are not hidden by a snapshot: compare the files of the table, then and now."""
        oid = self._detail(table.name)[2]
        if not oid or table.kind not in {*_WITH_CTID, TableKind.PARTITIONED}:
            return ""
        with self._on(table) as connection:
            oids = catalog.leaf_oids(connection, oid) if table.kind is TableKind.PARTITIONED else [oid]
            return small.REWRITTEN if small.rewritten(connection, oids) else ""

    # -- reading --------------------------------------------------------------------------------------------------

    def split(self, table: Table, target_bytes: int) -> Sequence[Bounds]:
        whole: list[Bounds] = [{}]
        if self._request.narrowing.where:
            with self._on(table) as connection:  # in binary, as in _lock_queries
                connection.execute(f"explain select 1 {self._from(table, {})}", binary=True)
            if table.kind is TableKind.QUERY:
                return whole
        with self._lease() as connection:
            if table.kind in _WITH_CTID:
                if 0 <= table.estimated_bytes <= min(target_bytes, parts.WORTH_SLICING):
                    return whole
                return self._ranges(connection, table, qualified(table.name), target_bytes, {})
            if table.kind is not TableKind.PARTITIONED:
                return whole
            oid = self._detail(table.name)[2]
            leaves = catalog.leaves(connection, oid)
            if not all(allowed for *_, allowed in leaves):  # granted at the root only: read through the root
                return whole
            found: list[Bounds] = []
            for schema, name, kind, _ in leaves:
                leaf = {"schema": schema, "leaf": name}
                if kind == "r":
                    found += self._ranges(connection, table, f"{quote(schema)}.{quote(name)}", target_bytes, leaf)
                elif kind == "f":
                    found.append(leaf)
        return found

    def _ranges(self, connection: Any, table: Table, name: str, target_bytes: int, leaf: Bounds) -> list[Bounds]:
        if self._version < parts.RANGES_SINCE:
            return [leaf]
        pages, found = parts.ranges(connection, name, target_bytes, leaf)
        self._pages[leaf.get("schema"), leaf.get("leaf"), table.name] = pages
        return found

    def slices(self, table: Table, bounds: Bounds) -> Sequence[Bounds]:
        pages = bounds.get("to") or self._pages.get((bounds.get("schema"), bounds.get("leaf"), table.name))
        return parts.slices(bounds, int(pages)) if pages else [bounds]

    def _from(self, table: Table, bounds: Bounds) -> str:
        """The FROM clause of a part of a table, with its WHERE."""
        where = [f"({self._request.narrowing.where}\n)"] if self._request.narrowing.where else []
        if table.kind is TableKind.QUERY:
            source = f"({single(self._request.queries[table.name.name])}\n) as q"
        elif "leaf" in bounds:
            source = f"only {quote(bounds['schema'])}.{quote(bounds['leaf'])}"
        elif table.kind is TableKind.TABLE:
            source = f"only {qualified(table.name)}"
        else:
            source = qualified(table.name)
        if "from" in bounds:
            where.append(f"ctid >= '({int(bounds['from'])},0)'::tid")
        if "to" in bounds:
            where.append(f"ctid < '({int(bounds['to'])},0)'::tid")
        return f"from {source}" + (f" where {' and '.join(where)}" if where else "")

    def _select(self, table: Table, bounds: Bounds, *, binary: bool) -> tuple[str, Shape]:
        """The statement that reads a part, and what comes back."""
        described, rules, _ = self._detail(table.name)
        if not described.same_structure(table):
            raise SchemaChangedError(f"{table.name}: its columns changed since the run was planned. Start a new run.")
        if table.name in self._raw:
            rules = untranslatable.rules(rules, self._encoding)
        chosen = ", ".join(
            (rule.binary if binary else rule.select).replace("{c}", quote(column.name))
            for column, rule in zip(table.columns, rules, strict=True)
        )
        shape = Shape(table=str(table.name), columns=table.columns, rules=rules)
        return f"select {chosen} {self._from(table, bounds)}", shape

    @contextmanager
    def _gate(self, table: str) -> Iterator[Gate]:
        """The gate for heavy rows: one reader at a time has some."""
        held = threading.Event()

        def alone() -> None:
            if not held.is_set():
                self._alone.acquire()
                held.set()

        try:
            yield Gate(limits=self._limits, alone=alone, table=table)
        finally:
            if held.is_set():
                self._alone.release()

    @contextmanager
    def _any_bytes(self, connection: Any) -> Iterator[None]:
        """In SQL_ASCII anything may be stored, and the server refuses bytes that are no text if asked for UTF-8."""
        if self._encoding == "SQL_ASCII":
            connection.execute("set client_encoding = 'SQL_ASCII'")
        yield
        if self._encoding == "SQL_ASCII":
            connection.execute("set client_encoding = 'UTF8'")

    def read(self, table: Table, bounds: Bounds) -> Iterator[Chunk]:
        raw = table.name in self._raw
        binary = not raw and not self._pace.rate and pgcopy.usable()
        select, shape = self._select(table, bounds, binary=binary)
        with ExitStack() as stack:
            gate = stack.enter_context(self._gate(str(table.name)))
            stack.enter_context(self._remembering(table))
            connection = stack.enter_context(self._on(table))
            stack.enter_context(self._any_bytes(connection))
            if binary:
                rows = stack.enter_context(closing(copy_binary(connection, [select], [shape], gate)))
                yield from (chunk for _, chunk in rows)
                return
            chunks = (
                fetch(connection, select, shape, gate, self._pace)
                if self._pace.rate
                else copy(connection, select, shape, gate)
            )
            for chunk in stack.enter_context(closing(chunks)):
                yield untranslatable.decoded(chunk, shape.rules, self._encoding) if raw else chunk

    def read_small(self, tables: Sequence[Table]) -> Iterator[tuple[int, Chunk]]:
        if self._pace.rate or not pgcopy.usable() or any(table.name in self._raw for table in tables):
            yield from super().read_small(tables)
            return
        selects, shapes = zip(*(self._select(table, {}, binary=True) for table in tables), strict=True)
        with self._gate("these tables") as gate, self._lease() as connection:
            if connection is not self._holder:
                small.require_in(connection, [table.name for table in tables if table.name in self._locked])
            with self._any_bytes(connection), closing(copy_binary(connection, selects, shapes, gate)) as chunks:
                yield from chunks
            if connection is not self._holder:
                small.renew(connection, self._snapshot)

    def ends(self, tables: Sequence[Table], *, count: bool) -> list[tuple[int, str]]:
        if not all(table.kind in _WITH_CTID for table in tables):
            return super().ends(tables, count=count)
        oids = [self._detail(table.name)[2] for table in tables]
        with self._lease() as connection:
            counted = [-1] * len(tables)
            if connection is not self._holder:
                small.require_in(connection, [table.name for table in tables if table.name in self._locked])
            if count:
                counted = small.counts(connection, [self._from(table, {}) for table in tables])
            rewritten = small.rewritten(connection, oids)
            if connection is not self._holder:
                small.renew(connection, self._snapshot)
        return [(rows, small.REWRITTEN if oid in rewritten else "") for rows, oid in zip(counted, oids, strict=True)]

    def count(self, table: Table, bounds: Bounds) -> int:
        with self._on(table) as connection:
            return int(connection.execute(f"select count(*) {self._from(table, bounds)}").fetchone()[0])

    @contextmanager
    def _remembering(self, table: Table) -> Iterator[None]:
        """Remember a table whose text the server cannot convert: the next attempt reads its bytes."""
        try:
            yield
        except clear.UntranslatableError as error:
            if table.name in self._raw or self._encoding not in untranslatable.CODECS:
                raise FatalError(f"{table.name}: its text cannot be read from {self._encoding}.") from error
            self._raw.add(table.name)
            raise

    def fingerprint(self, table: Table, bounds: Bounds) -> Fingerprint:
        if table.name not in self._raw:
            with suppress(clear.UntranslatableError), self._remembering(table):
                return self._server_fingerprint(table, bounds)
        hasher, total = RowHasher(table.columns), EMPTY
        for chunk in self.read(table, bounds):
            rows = conform(table.columns, chunk)
            total += hasher.fingerprint(rows.batch, rows.overrides)
        return total

    def _server_fingerprint(self, table: Table, bounds: Bounds) -> Fingerprint:
        rules = self._detail(table.name)[1]
        pieces = [
            types.piece(rule, quote(column.name), self._encoding) for column, rule in zip(table.columns, rules, strict=True)
        ]
        # OFFSET 0 fences the subquery: without it the hash is computed once for every use of it.
        hashes = f"select {types.row_hash(pieces, self._encoding)} as h {self._from(table, bounds)} offset 0"
        query = f"select count(*), count(h), coalesce(sum(h), 0) from ({hashes}) as hashed"
        with self._on(table) as connection:
            rows, hashed, total = connection.execute(query).fetchone()
        if rows != hashed:
            raise FatalError(f"{table.name}: {rows - hashed} rows have no hash.")
        return Fingerprint.of(rows, int(total))

    def interrupt(self) -> None:
        for connection in [*self._readers.everyone(), *([self._holder] if self._holder else [])]:
            with suppress(Exception):  # one that is gone needs no cancelling
                connection.cancel_safe(timeout=2)

    def close(self) -> None:
        self._readers.close()
        if self._holder is not None:
            clear.leave(self._holder)
            self._holder = None


CONNECTOR: Connector = PostgreSQL()
