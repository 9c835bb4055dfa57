"""Family helpers of the SQL connectors: bounded connections, options, names."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from jivs.domain.plan import Bounds
from jivs.domain.schema import Column, Table, TableKind, TableName
from jivs.errors import SnapshotLostError, UnreachableError, UsageError
from jivs.ports.connector import Chunk, Listing, Narrowing, Request
from jivs.ports.metrics import PoolUse

_POLL_SECONDS = 0.2
_MOST_ESTIMATES = 20_000
CUT_SECONDS = 25
"""A server of which nothing is heard for so long, although it was asked for a sign of life, is gone."""

Connection = TypeVar("Connection")
Model = TypeVar("Model", bound=BaseModel)


def watch_wire(sock: socket.socket) -> None:
    """Let the system ask a server that is silent for a sign of life, and end the connection where none comes within
    ``CUT_SECONDS``: when a wire is cut, nobody else tells.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    options = {
        "TCP_KEEPIDLE": CUT_SECONDS - 15,
        "TCP_KEEPINTVL": 5,
        "TCP_KEEPCNT": 3,
        "TCP_USER_TIMEOUT": CUT_SECONDS * 1000,
    }
    for name, value in options.items():
        if hasattr(socket, name):  # Linux has all of them
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


class Connections(Generic[Connection]):
    """At most ``most`` connections at once; ``lease`` waits for a free one, opens one, or gives an idle one again.

    A connection whose user raised an error is closed, not given again; nor is an idle one that is not ``alive``. ``fixed``:
    only adopted connections are used, for none can join their snapshot; when the last of them is lost, SnapshotLostError is
    raised. Otherwise who waits longer than ``seconds`` for a free one gets UnreachableError: there are more readers than
    connections, which nobody planned, unless some of them were given up for others (``resize``).
    """

    def __init__(
        self,
        most: int,
        opener: Callable[[], Connection],
        closer: Callable[[Connection], None],
        *,
        fixed: bool = False,
        alive: Callable[[Connection], bool] = lambda _: True,
        seconds: float = 30.0,
    ) -> None:
        self._alive = alive
        self._seconds = seconds
        self._planned = self._most = max(1, most)
        self._used = 0
        self._waiting = 0
        self._opener = opener
        self._closer = closer
        self._fixed = fixed
        self._idle: list[Connection] = []
        self._all: list[Connection] = []
        self._changed = threading.Condition()
        self._closed = False

    @contextmanager
    def lease(self) -> Iterator[Connection]:
        """A connection for the duration of the block."""
        connection = self._take()
        try:
            yield connection
        except BaseException:
            self._drop(connection)
            raise
        self._give_back(connection)

    def use(self) -> PoolUse:
        """How they are used now."""
        with self._changed:
            idle = len(self._idle)
            return PoolUse(active=len(self._all) - idle, idle=idle, pending=self._waiting, limit=self._most)

    def resize(self, most: int) -> int:
        """Let at most so many be open, from when those too many are given back; how many are, or may be opened, now.

        More than before are possible only where new ones can join the snapshot. Where none can, at most half of those
        that there were at first are given up: they would be missed until the end.
        """
        with self._changed:
            self._most = min(self._most, max(most, (self._planned + 1) // 2)) if self._fixed else max(1, most)
            surplus = [self._idle.pop() for _ in range(min(len(self._idle), len(self._idle) + self._used - self._most))]
            self._changed.notify_all()
        for connection in surplus:
            self._forget(connection)
        with self._changed:
            return max(self._most, self._used)

    def _take(self) -> Connection:
        idle = self._admitted()
        while idle is not None:
            if self._alive(idle):
                return idle
            self._forget(idle)
            with self._changed:
                idle = self._idle.pop() if self._idle else None
        try:
            self._require_survivors()
            connection = self._opener()
        except BaseException:
            self._leave()
            raise
        with self._changed:
            self._all.append(connection)
        return connection

    def _admitted(self) -> Connection | None:
        """Wait until one more may be used; an idle one, if there is one."""
        end = time.monotonic() + self._seconds
        with self._changed:
            self._waiting += 1
            try:
                while self._used >= self._most:
                    self._changed.wait(_POLL_SECONDS if self._fixed else min(_POLL_SECONDS, self._seconds))
                    self._require_survivors()
                    late = not self._fixed and self._most >= self._planned and time.monotonic() >= end
                    if late and self._used >= self._most:
                        raise UnreachableError(
                            f"Connection pool exhausted: all {self._most} connections of the run to its source were in use "
                            f"for {self._seconds:g} s. Raise EXTRACTION_SOURCE_POOL_MAX_SIZE, or "
                            "EXTRACTION_SOURCE_POOL_TIMEOUT."
                        )
            finally:
                self._waiting -= 1
            self._used += 1
            return self._idle.pop() if self._idle else None

    def _leave(self) -> None:
        with self._changed:
            self._used -= 1
            self._changed.notify()

    def _require_survivors(self) -> None:
        if self._fixed and not self._all:
            raise SnapshotLostError("All connections that see the run's snapshot are gone. Go on with --resume.")

    def adopt(self, connection: Connection) -> None:
        """Add an open connection to the idle ones."""
        with self._changed:
            self._all.append(connection)
            self._idle.append(connection)

    def everyone(self) -> list[Connection]:
        """All open connections, whoever uses them now."""
        with self._changed:
            return list(self._all)

    def close(self) -> None:
        """Close all of them, in use or not."""
        with self._changed:
            self._closed = True
            connections, self._all, self._idle = self._all, [], []
        for connection in connections:
            self._closer(connection)

    def _give_back(self, connection: Connection) -> None:
        with self._changed:
            kept = not self._closed and len(self._idle) + self._used <= self._most
            if kept:
                self._idle.append(connection)
        if not kept:
            self._forget(connection)
        self._leave()

    def _forget(self, connection: Connection) -> None:
        with self._changed:
            if connection in self._all:
                self._all.remove(connection)
        self._closer(connection)

    def _drop(self, connection: Connection) -> None:
        self._forget(connection)
        if self._fixed:  # nothing can take its place
            with self._changed:
                self._most = max(1, self._most - 1)
        self._leave()


def see_off(descriptor: int, close: Callable[[], object]) -> None:
    """Close a connection that is idle, and wait until its server has let go of it: at most a second.

    The server counts it until then, and a source's cap is what the source counts.
    """
    with socket.socket(fileno=os.dup(descriptor)) as wire:  # stays open behind the driver's back
        close()
        wire.settimeout(1.0)
        with suppress(OSError):
            for _ in range(16):
                if not wire.recv(64 << 10):
                    return


def parse_options(model: type[Model], given: dict[str, str], kind: str) -> Model:
    """The typed options of a URL. Raises UsageError naming wrong and possible ones, never a value."""
    try:
        return model.model_validate(given)
    except ValidationError as error:
        wrong = "; ".join(
            ": ".join([*map(str, item["loc"]), item["msg"].removeprefix("Value error, ")])
            for item in error.errors(include_input=False)
        )
        known = ", ".join(sorted(field.alias or name for name, field in model.model_fields.items()))
        raise UsageError(f"Options of the {kind} URL: {wrong}. Possible are: {known}.") from None


def redact(message: str, secrets: Sequence[str]) -> str:
    """A driver's message without the secrets that were given to it, on one line."""
    for secret in secrets:
        if secret:
            message = message.replace(secret, "***")
    return " ".join(message.split())


def narrow(columns: Sequence[Column], narrowing: Narrowing, table: str) -> list[Column]:
    """Only the columns asked for, in the table's order. Raises UsageError for one that is not there."""
    if not narrowing.columns:
        return list(columns)
    missing = set(narrowing.columns) - {column.name for column in columns}
    if missing:
        raise UsageError(
            f"{table} has no column {', '.join(sorted(missing))}. It has: {', '.join(column.name for column in columns)}."
        )
    return [column for column in columns if column.name in narrowing.columns]


def refuse_duplicates(columns: Sequence[Column], table: str) -> list[Column]:
    """The columns of a free query. Raises UsageError if two have the same name."""
    seen: set[str] = set()
    for column in columns:
        if column.name in seen:
            raise UsageError(f"Query {table} gives two columns named {column.name}: give them different names with AS.")
        seen.add(column.name)
    return [replace(column) for column in columns]


def single(query: str) -> str:
    """A free query without its closing semicolon."""
    return query.strip().rstrip(";").rstrip()


def query_listings(request: Request) -> list[Listing]:
    """The free queries of a request, presented as tables in order of their names."""
    return [Listing(name=TableName(schema="", name=name), kind=TableKind.QUERY) for name in sorted(request.queries)]


def even_edges(low: int, beyond: int, target: int, rows_in: Callable[[int, int], int]) -> list[int]:
    """Keys that cut ``low`` .. ``beyond`` into ranges of about ``target`` rows, however the keys are spread.

    A range that holds many more rows than the target is halved and asked for again; neighbours that together stay below it
    become one. ``rows_in`` estimates the rows of a range.
    """
    pieces: list[tuple[int, int]] = []
    left = [(low, beyond, rows_in(low, beyond))]
    asked = 1
    while left:
        first, last, rows = left.pop()
        if rows <= target + target // 4 or last - first < 2 or asked >= _MOST_ESTIMATES:
            pieces.append((first, rows))
            continue
        middle = first + (last - first) // 2
        asked += 2
        left += [(middle, last, rows_in(middle, last)), (first, middle, rows_in(first, middle))]
    edges: list[int] = []
    held = 0
    for first, rows in pieces:
        if held and held + rows > target + target // 4:
            edges.append(first)
            held = 0
        held += rows
    return edges


SLICES = 8
"""Into how many slices a part is cut, at most."""


class OneByOne:
    """What a session does where nothing better is known: small tables one by one, even slices of ranges of integers."""

    def slices(self, table: Table, bounds: Bounds) -> Sequence[Bounds]:  # noqa: ARG002 - the bounds say it all
        """Ranges of equal width; a part that is open at an end stays whole."""
        if "from" not in bounds or "to" not in bounds:
            return [bounds]
        low, high = int(bounds["from"]), int(bounds["to"])
        edges = sorted({low, high, *(low + (high - low) * index // SLICES for index in range(1, SLICES))})
        return [{**bounds, "from": first, "to": beyond} for first, beyond in pairwise(edges)] or [bounds]

    def connections(self: Any) -> PoolUse:
        """Those of its readers."""
        use: PoolUse = self._readers.use()
        return use

    def resize(self, connections: int) -> int:
        """There is no server that counts them."""
        return connections

    def prepare(self, names: Sequence[TableName]) -> None:
        """Nothing to fetch ahead."""

    def read_small(self: Any, tables: Sequence[Table]) -> Iterator[tuple[int, Chunk]]:
        """One after the other."""
        for number, table in enumerate(tables):
            for chunk in self.read(table, {}):
                yield number, chunk

    def ends(self: Any, tables: Sequence[Table], *, count: bool) -> list[tuple[int, str]]:
        """One after the other."""
        return [(self.count(table, {}) if count else -1, self.changed(table)) for table in tables]
