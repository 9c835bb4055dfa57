"""How data is read from a source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from jivs.domain.fingerprint import Fingerprint
from jivs.domain.plan import Bounds
from jivs.domain.quarantine import QuarantinedRow, QuarantinedValue
from jivs.domain.schema import Table, TableKind, TableName
from jivs.domain.source import Address, Capabilities, Limits, ServerInfo, Snapshot
from jivs.ports.metrics import PoolUse

if TYPE_CHECKING:
    import pyarrow as pa
    from pydantic import BaseModel


@dataclass(frozen=True, kw_only=True)
class Chunk:
    """Rows as read: one Arrow column per column of the table, in its order.

    A column has either the archive type's Arrow type or string/binary, which ``transfer.conform`` turns into it.
    ``beyond`` holds, by the index of the column, the texts of values beyond its type (NULL in ``batch``). ``values`` are
    cells that the connector already knows it cannot represent (NULL in ``batch``), ``rows`` what could not be parsed into
    rows at all.
    """

    batch: pa.RecordBatch
    beyond: Mapping[int, pa.Array] = field(default_factory=dict)
    values: tuple[QuarantinedValue, ...] = ()
    rows: tuple[QuarantinedRow, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Listing:
    """A table as ``tables`` gives it: enough to choose from, without describing it."""

    name: TableName
    kind: TableKind
    estimated_rows: int = -1
    estimated_bytes: int = -1
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TypeRow:
    """A row of the type map as printed into the docs."""

    source: str
    archive: str
    fidelity: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Narrowing:
    """What to take of a table instead of all of it: some columns, rows by a condition in the source's SQL."""

    columns: tuple[str, ...] = ()
    where: str = ""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a session is opened for. ``queries`` are free queries by name, presented as tables. ``run``: what it is known by
    in the source, where that can be seen there; what an earlier worker of the same run still has open there is ended first.
    """

    queries: dict[str, str] = field(default_factory=dict)
    run: str = ""
    narrowing: Narrowing = field(default_factory=Narrowing)


class Pace(Protocol):
    """The rows per second that an operator allows for a source."""

    @property
    def rate(self) -> int:
        """Rows per second; 0: no limit."""

    @property
    def step(self) -> int:
        """Rows to ask for at once."""

    def take(self, rows: int) -> None:
        """Return when this many more rows may be asked for."""


class Session(Protocol):
    """An open source. Before ``begin`` it shows the present, afterwards the snapshot.

    ``read``, ``count`` and ``fingerprint`` may be called from several threads at once; the session never opens more
    connections than its limits allow. It only reads. Any failure of the connection is UnreachableError, a structure
    that changed is SchemaChangedError.
    """

    def ping(self) -> ServerInfo:
        """Connect and say what answered."""

    def tables(self) -> Sequence[Listing]:
        """Everything that can be read, free queries included, in order of the names."""

    def describe(self, name: TableName) -> Table:
        """Columns, key and the source's own description. Raises UsageError for an unknown table."""

    def begin(self, tables: Sequence[TableName]) -> Snapshot:
        """Fix the moment that all later calls see, and protect these tables against what a snapshot does not cover."""

    def prepare(self, names: Sequence[TableName]) -> None:
        """Fetch what ``describe`` needs for many tables at once, where that is cheaper. Unknown names are no error here."""

    def split(self, table: Table, target_bytes: int) -> Sequence[Bounds]:
        """Disjoint parts that together are the whole table, each of about ``target_bytes`` in the source."""

    def slices(self, table: Table, bounds: Bounds) -> Sequence[Bounds]:
        """Disjoint slices of a part that together are the part; only that part where slices would not be worth it.

        Readers that have nothing else to do take slices of a part that turns out heavy.
        """

    def read(self, table: Table, bounds: Bounds) -> Iterator[Chunk]:
        """The rows of a part or slice, streamed. Closing the iterator early cancels the reading."""

    def count(self, table: Table, bounds: Bounds) -> int:
        """The number of rows, counted by the source."""

    def fingerprint(self, table: Table, bounds: Bounds) -> Fingerprint:
        """The fingerprint, computed by the source (S of docs/verification.md)."""

    def changed(self, table: Table) -> str:
        """What happened to the table that its snapshot cannot hide, as a sentence; empty if nothing."""

    def read_small(self, tables: Sequence[Table]) -> Iterator[tuple[int, Chunk]]:
        """The rows of several small tables, whole, in their order, each chunk with the number of its table.

        An error says nothing of the tables before it: the caller reads all of them again, one by one.
        """

    def ends(self, tables: Sequence[Table], *, count: bool) -> list[tuple[int, str]]:
        """``count`` (-1 if not wanted) and ``changed`` of each table."""

    def resize(self, connections: int) -> int:
        """Have no more than so many connections, as soon as readers give those too many back; at most as many as the limits
        allow. How many it has, or may open, now: fewer than asked for where new ones could not join the snapshot.
        """

    def connections(self) -> PoolUse:
        """How its connections are used now; nothing where a source has none. Answers at once, also after ``close``."""

    def interrupt(self) -> None:
        """Make calls in progress, in any thread, end soon with an error."""

    def close(self) -> None:
        """Give back all connections."""


class Connector(Protocol):
    """One kind of source: a module in ``jivs.connectors`` or a package outside, as an object named ``CONNECTOR``."""

    @property
    def kind(self) -> str:
        """Name of the kind, for people and manifests."""

    @property
    def capabilities(self) -> Capabilities:
        """What it can do."""

    @property
    def options(self) -> type[BaseModel]:
        """What may stand behind the ``?`` of its URL."""

    @property
    def type_map(self) -> Sequence[TypeRow]:
        """The type contract, one row per source type."""

    def label(self, address: Address) -> str:
        """A short name for the source, from its address."""

    def open(self, address: Address, limits: Limits, request: Request, pace: Pace) -> Session:
        """A session that has not connected yet. Raises DriverMissingError, UsageError for wrong options."""
