"""MySQL and MariaDB: one consistent snapshot over parallel connections, key ranges, the text protocol read as bytes."""

from __future__ import annotations

import socket
import struct
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, Field

from jivs.connectors import _mysql_tls as tls
from jivs.connectors import _mysql_types as types
from jivs.connectors._mysql_catalog import Catalog, Described, qualified, quote
from jivs.connectors._mysql_read import chunk, leave, literals, pages, refuse_larger, stream, stream_compiled, weight
from jivs.connectors._sql import Connections, OneByOne, even_edges, parse_options, query_listings, redact, single, watch_wire
from jivs.domain.fingerprint import Fingerprint
from jivs.domain.plan import Bounds
from jivs.domain.schema import INTEGERS, Table, TableKind, TableName
from jivs.domain.source import Address, Capabilities, Limits, ServerInfo, Snapshot
from jivs.errors import (
    DriverMissingError,
    FatalError,
    IntegrityError,
    JivsError,
    SchemaChangedError,
    SnapshotLostError,
    TransientError,
    UnreachableError,
    UsageError,
)
from jivs.ports.clock import stamp
from jivs.ports.connector import Chunk, Connector, Listing, Pace, Request, Session, TypeRow
from jivs.wire import native

_MOST_TOUCHED = 3000
_SMALL_BUFFER = 32 << 10
_TRANSACTIONAL = frozenset({"InnoDB", "ROCKSDB", "TokuDB", "MyRocks"})
_AHEAD = "no key to page by: the server may send ahead of the pace what its network buffers hold"
_NO_SNAPSHOT = "ignores snapshots"
_DENIED = frozenset({1044, 1045, 1142, 1143, 1227, 1698})
_NO_SUCH = frozenset({1046, 1049})
_GONE = frozenset({1051, 1054, 1109, 1146, 1412, 1347})
_BROKEN = frozenset({1356})
_SYNTAX = frozenset({1064, 1792, 1222, 1060, 1248})
_TIMEOUT = frozenset({1205, 1969, 3024, 1317})


class Options(tls.Options):
    """What may stand behind the ``?`` of a MySQL or MariaDB URL."""

    connect_timeout: int = Field(10, ge=1, description="Seconds to wait for a connection.")
    read_timeout: int = Field(600, ge=1, description="Seconds to wait for the next bytes of an answer.")
    statement_timeout: int = Field(0, ge=0, description="Longest statement in ms; 0: no limit.")
    lock_timeout: int = Field(10, ge=1, description="Longest wait in seconds for the brief lock that aligns snapshots.")
    parallel_without_lock: bool = Field(
        False, description="Read in parallel even if the account may not lock: the readers' snapshots then differ."
    )


class MySQL:
    """The connector."""

    kind = "mysql"
    capabilities = Capabilities(can_split=True, can_snapshot=True, can_fingerprint=True, can_query=True)
    options: type[BaseModel] = Options
    type_map: Sequence[TypeRow] = types.TYPE_MAP

    def label(self, address: Address) -> str:
        return address.database or "mysql"

    def open(self, address: Address, limits: Limits, request: Request, pace: Pace) -> Session:
        try:
            import pymysql  # noqa: F401 - is it there?
        except ImportError:
            raise DriverMissingError("MySQL and MariaDB need the package PyMySQL: pip install 'jivs[mysql]'.") from None
        return _Session(address, parse_options(Options, address.options, self.kind), limits, request, pace)


class _Session(OneByOne):
    def __init__(self, address: Address, options: Options, limits: Limits, request: Request, pace: Pace) -> None:
        self._address = address
        self._options = options
        self._limits = limits
        self._request = request
        self._pace = pace
        self._alone = threading.Lock()
        self._describing = threading.Lock()
        self._details: dict[TableName, Described] = {}
        self._maria = False
        self._most = limits.connections
        self._readers: Connections[Any] = Connections(1, self._connect, leave, seconds=limits.pool_seconds)

    # -- connections ----------------------------------------------------------------------------------------------

    def _connect(self) -> Any:
        import pymysql

        options = self._options
        try:
            connection = self._login(encrypted=options.encryption != "disabled")
        except pymysql.Error as error:
            if options.encryption != "preferred" or "SSL" not in str(error):
                raise self._unreachable(error) from None
            try:
                connection = self._login(encrypted=False)
            except pymysql.Error as again:
                raise self._unreachable(again) from None
        connection.decoders = {}
        with self._clear_errors():
            self._maria = "mariadb" in str(connection.get_server_info()).lower()
            limit = options.statement_timeout
            timeout = f"max_statement_time = {limit / 1000}" if self._maria else f"max_execution_time = {limit}"
            with connection.cursor() as cursor:
                cursor.execute(
                    "set time_zone = '+00:00', sql_mode = '', character_set_results = null, net_write_timeout = 3600, "
                    f"lock_wait_timeout = {options.lock_timeout}, {timeout}"
                )
                cursor.execute("set session transaction isolation level repeatable read, read only")
        return connection

    def _login(self, *, encrypted: bool) -> Any:
        import pymysql

        address, options = self._address, self._options
        given: dict[str, Any] = {"ssl_disabled": True}
        if encrypted:
            given = {"ssl": tls.context(options)}
        connection = pymysql.connect(
            host=address.host or "localhost",
            port=address.port or 3306,
            user=address.username or None,
            password=address.password.reveal(),
            database=address.database or None,
            charset="utf8mb4",
            use_unicode=False,
            autocommit=True,
            connect_timeout=options.connect_timeout,
            read_timeout=options.read_timeout,
            defer_connect=True,
            **given,
        )
        connection.connect(self._socket() if self._pace.rate or address.pinned else None)
        watch_wire(connection._sock)  # noqa: SLF001 - the driver offers no other way
        return connection

    def _socket(self) -> socket.socket:
        """To the pinned address. With a pace set, a small receive buffer: the server must not send far ahead of it."""
        host = self._address.pinned or self._address.host or "localhost"
        opened = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        if self._pace.rate:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER)
        opened.settimeout(self._options.connect_timeout)
        try:
            opened.connect((host, self._address.port or 3306))
        except OSError as error:
            opened.close()
            raise self._unreachable(error) from None
        return opened

    def _unreachable(self, error: Exception) -> JivsError:
        code = error.args[0] if error.args else 0
        message = redact(str(error.args[-1] if error.args else error), [self._address.password.reveal()])
        where = self._address.shown
        if code in {1044, 1045, 1698}:
            return UsageError(f"{where} refused the login of user {self._address.username}: check user and password.")
        if code == 1049:
            return UsageError(f"{where}: the server has no such database. Check the name after the last slash.")
        return UnreachableError(
            f"{where} cannot be reached: {message}. Check host, port, TLS options and whether the server runs."
        )

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        import pymysql

        try:
            yield
        except JivsError:
            raise
        except (pymysql.Error, OSError, struct.error) as error:
            code = error.args[0] if error.args and isinstance(error.args[0], int) else 0
            where = self._address.shown
            message = redact(str(error.args[-1] if error.args else error), [self._address.password.reveal()])
            if code in _DENIED:
                raise UsageError(f"{where}: {message}. Grant the account SELECT, or --exclude the table.") from None
            if code in _NO_SUCH:
                raise UsageError(f"{where}: {message}. Name the database in the URL.") from None
            if code in _GONE:
                raise SchemaChangedError(f"{where}: {message}. The table changed, or the name is wrong.") from None
            if code in _BROKEN:
                raise UsageError(f"{where}: {message}. Mend the view, or leave it out with --exclude.") from None
            if code in _SYNTAX:
                raise UsageError(f"{where}: {message}. Only one SELECT is possible here.") from None
            if code in _TIMEOUT:
                raise TransientError(f"{where}: {message}. See statement_timeout and lock_timeout in the URL.") from None
            if code in {0, 1053, 1152, 1153, 1158, 1159, 1160, 1161, 1927} or code >= 2000:
                raise UnreachableError(f"{where} broke off: {message}. Try again, with --resume.") from None
            raise FatalError(f"{where}: {message} (error {code}).") from None

    @contextmanager
    def _lease(self) -> Iterator[Any]:
        with self._clear_errors(), self._readers.lease() as connection:
            yield connection

    def _rows(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """A small result, as text."""
        with self._lease() as connection, connection.cursor() as cursor:
            cursor.execute(query, values or None)
            return [
                tuple(cell.decode(errors="backslashreplace") if isinstance(cell, bytes) else cell for cell in row)
                for row in cursor.fetchall()
            ]

    # -- describing -----------------------------------------------------------------------------------------------

    def ping(self) -> ServerInfo:
        version = self._rows("select version()")[0][0]
        return ServerInfo(product="MariaDB" if self._maria else "MySQL", version=version)

    def tables(self) -> Sequence[Listing]:
        queries = query_listings(self._request)
        rows = self._rows(
            "select table_schema, table_name, table_type, table_rows, data_length, engine from information_schema.tables"
            " where table_schema not in ('information_schema', 'performance_schema', 'mysql', 'sys')"
            + (" and table_schema = %s" if self._address.database else "")
            + " order by 1, 2",
            [self._address.database] if self._address.database else [],
        )
        found = []
        for schema, name, kind, count, size, engine in rows:
            view = "VIEW" in kind
            notes = []
            if not view and engine not in _TRANSACTIONAL:
                notes.append(f"engine {engine} {_NO_SNAPSHOT}")
            if view and any(row[5] not in _TRANSACTIONAL for row in rows if "VIEW" not in row[2]):
                notes.append(f"a table behind this view may be of an engine that {_NO_SNAPSHOT}")
            if kind == "SYSTEM VERSIONED":
                notes.append("system-versioned: the current rows are archived, their history is not")
            found.append(
                Listing(
                    name=TableName(schema=schema, name=name),
                    kind=TableKind.VIEW if view else TableKind.TABLE,
                    estimated_rows=int(count) if count is not None and not view else -1,
                    estimated_bytes=int(size) if size is not None and not view else -1,
                    notes=tuple(notes),
                )
            )
        return [*queries, *found]

    def describe(self, name: TableName) -> Table:
        return self._detail(name)[0]

    def _detail(self, name: TableName) -> Described:
        with self._describing:
            if name not in self._details:
                query = self._request.queries.get(name.name) if not name.schema else None
                catalog = Catalog(rows=self._rows, narrowing=self._request.narrowing)
                if query is not None:
                    collations = self._collations()
                    with self._lease() as connection:
                        self._details[name] = catalog.describe_query(connection, name, single(query), collations)
                else:
                    self._details[name] = catalog.describe(name, self._listing(name))
                if self._pace.rate and not _page_ends(self._details[name][0]):
                    table, rules, widest = self._details[name]
                    self._details[name] = (replace(table, notes=(*table.notes, _AHEAD)), rules, widest)
            return self._details[name]

    def _listing(self, name: TableName) -> Listing:
        found = next((listing for listing in self.tables() if listing.name == name), None)
        if found is None:
            raise UsageError(f"There is no table {name}. jivs discover lists what there is.")
        return found

    def _collations(self) -> dict[int, str]:
        rows = self._rows("select id, character_set_name from information_schema.collations where id is not null")
        return {int(row[0]): row[1] for row in rows}

    # -- the snapshot ---------------------------------------------------------------------------------------------

    def begin(self, tables: Sequence[TableName]) -> Snapshot:
        queries = {TableName(schema="", name=name) for name in self._request.queries}
        touched = [name for name in tables if name not in queries][:_MOST_TOUCHED]
        self._readers.close()
        self._details.clear()
        many = max(1, min(self._most, self._limits.parallel))
        connections = [self._connect()]
        notes: list[str] = []
        one = True
        try:
            with self._clear_errors():
                locked = many > 1 and self._lock(connections[0])
                if many > 1 and not locked:
                    one = not self._options.parallel_without_lock
                    many = 1 if one else many
                    notes.append(
                        "the account may not lock (RELOAD): "
                        + ("read over one connection" if one else "the parallel readers' snapshots differ")
                    )
                connections += [self._connect() for _ in range(many - 1)]
                for connection in connections:
                    _run(connection, "start transaction with consistent snapshot, read only")
                # A touched table keeps its definition until the transaction ends: ALTER and TRUNCATE have to wait.
                for connection in connections:
                    for name in touched:
                        _run(connection, f"select 1 from {qualified(name)} limit 0")
                if locked:
                    _run(connections[0], "unlock tables")
        except BaseException:
            for connection in connections:
                leave(connection)
            raise
        self._readers = Connections(many, self._no_more, leave, fixed=True)
        for connection in connections:
            self._readers.adopt(connection)
        return Snapshot(identity=str(uuid.uuid4()), one=one, taken_at=stamp(datetime.now(UTC)), notes=tuple(notes))

    def resize(self, connections: int) -> int:
        self._most = connections
        return self._readers.resize(connections)

    def _lock(self, connection: Any) -> bool:
        import pymysql

        try:
            _run(connection, "flush tables with read lock")
        except pymysql.Error as error:
            if error.args[0] in {1227, 1044, 1045, 1290}:
                return False
            raise
        return True

    def _no_more(self) -> Any:
        raise SnapshotLostError("A connection that sees the run's snapshot is gone. Go on with --resume.")

    def changed(self, table: Table) -> str:  # noqa: ARG002 - the server raises error 1412 by itself
        return ""

    # -- reading --------------------------------------------------------------------------------------------------

    def split(self, table: Table, target_bytes: int) -> Sequence[Bounds]:
        """Ranges of the first key column, if it is an integer: they tile the table, for a key has no NULLs."""
        key = _integer_key(table)
        count = -(-table.estimated_bytes // target_bytes)
        if not key or count <= 1 or table.kind is not TableKind.TABLE:
            return [{}]
        name, column = qualified(table.name), quote(key)
        low, high = self._rows(f"select min({column}), max({column}) from {name}")[0]
        if low is None:
            return [{}]

        def rows_in(first: int, beyond: int) -> int:
            """The server's estimate, from its index."""
            with self._lease() as connection, connection.cursor() as cursor:
                cursor.execute(f"explain select {column} from {name} where {column} >= {first} and {column} < {beyond}")
                place = [item[0] for item in cursor.description].index("rows")
                found = [row[place] for row in cursor.fetchall()]
            return max((int(one) for one in found if one is not None), default=0)

        first, beyond = int(low), int(high) + 1
        edges = even_edges(first, beyond, max(1, table.estimated_rows // count), rows_in)
        if not edges:  # the server has no estimates
            edges = sorted({first + (beyond - first) * index // count for index in range(1, min(count, beyond - first))})
        return [
            {"key": key, **({"from": a} if a is not None else {}), **({"to": b} if b is not None else {})}
            for a, b in zip([None, *edges], [*edges, None], strict=True)
        ]

    def _from(self, table: Table, bounds: Bounds) -> str:
        where = [f"({self._request.narrowing.where}\n)"] if self._request.narrowing.where else []
        if table.kind is TableKind.QUERY:
            source = f"({single(self._request.queries[table.name.name])}\n) as q"
        else:
            source = qualified(table.name)
        if "from" in bounds:
            where.append(f"{quote(bounds['key'])} >= {int(bounds['from'])}")
        if "to" in bounds:
            where.append(f"{quote(bounds['key'])} < {int(bounds['to'])}")
        return f"from {source}" + (f" where {' and '.join(where)}" if where else "")

    def read(self, table: Table, bounds: Bounds) -> Iterator[Chunk]:
        described, rules, widest = self._detail(table.name)
        if not described.same_structure(table):
            raise SchemaChangedError(f"{table.name}: its columns changed since the run was planned. Start a new run.")
        expressions = []
        for column, chosen in zip(table.columns, rules, strict=True):
            expressions += [part.replace("{c}", quote(column.name)) for part in (chosen.select, chosen.raw) if part]
        select, source = f"select {', '.join(expressions)}", self._from(table, bounds)
        key = [quote(name) for name in table.primary_key]
        ends = _page_ends(table) if self._pace.rate else []
        held = threading.Event()

        def check(size: int) -> None:
            refuse_larger(size, self._limits, str(table.name))
            if not held.is_set():
                self._alone.acquire()
                held.set()

        try:
            with self._lease() as connection:
                if native.available() and not self._pace.rate:
                    yield from stream_compiled(
                        connection,
                        f"{select} {source}",
                        table.columns,
                        rules,
                        self._limits,
                        check,
                        self._options.read_timeout,
                    )
                    return
                if ends:
                    most = min(self._pace.step, self._limits.batch_rows or self._pace.step)
                    joint = "and" if self._request.narrowing.where or "from" in bounds or "to" in bounds else "where"
                    paged = f"{select}, {', '.join(ends)} {source} {joint}"
                    groups = pages(connection, paged, key, most, self._pace)
                else:
                    groups = stream(connection, f"{select} {source}", widest, self._limits, self._pace)
                for rows in groups:
                    largest = max(map(weight, rows), default=0) if widest < 0 else 0
                    if largest > self._limits.heavy_row:
                        check(largest)
                    yield chunk(rows, rules)
        finally:
            if held.is_set():
                self._alone.release()

    def count(self, table: Table, bounds: Bounds) -> int:
        return int(self._rows(f"select count(*) {self._from(table, bounds)}")[0][0])

    def fingerprint(self, table: Table, bounds: Bounds) -> Fingerprint:
        rules = self._detail(table.name)[1]
        pieces = [types.piece(rule, quote(column.name)) for column, rule in zip(table.columns, rules, strict=True)]
        query = f"select count(*), count(h), coalesce(sum(h), 0) from (select {types.row_hash(pieces)} as h"
        rows, hashed, total = self._rows(f"{query} {self._from(table, bounds)}) as hashed")[0]
        if rows != hashed:
            raise IntegrityError(
                f"{table.name}: the server could not hash {int(rows) - int(hashed)} rows; a value is larger than its "
                "max_allowed_packet allows. Raise that setting of the server, or verify at level count."
            )
        return Fingerprint.of(int(rows), int(total))

    def interrupt(self) -> None:
        for connection in self._readers.everyone():
            with suppress(OSError, AttributeError):
                connection._sock.shutdown(socket.SHUT_RDWR)  # noqa: SLF001 - the driver offers no other way

    def close(self) -> None:
        self._readers.close()


def _page_ends(table: Table) -> list[str]:
    """SQL for the literals of a key by which the table can be read in pages; empty if there is none."""
    by_name = {column.name: column for column in table.columns}
    if not table.primary_key or not by_name.keys() >= set(table.primary_key):
        return []
    return literals([by_name[name] for name in table.primary_key])


def _integer_key(table: Table) -> str:
    """The first column of the primary key if that is an integer; empty otherwise."""
    names = table.primary_key[:1]
    found = [
        column.name
        for column in table.columns
        if column.name in names and column.type.kind in INTEGERS and column.source_type.partition("(")[0] != "time"
    ]
    return found[0] if len(found) == len(names) == 1 else ""


def _run(connection: Any, statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


CONNECTOR: Connector = MySQL()
