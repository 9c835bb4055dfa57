"""Files: CSV, JSON Lines and Parquet, one by one, by folder or by pattern."""

from __future__ import annotations

import glob
import os
import threading
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from jivs.connectors._file_csv import Csv, Dialect
from jivs.connectors._file_jsonl import JsonLines
from jivs.connectors._file_parquet import Parquet
from jivs.connectors._file_place import Place
from jivs.connectors._file_text import COMPRESSIONS, compression_of
from jivs.connectors._sql import OneByOne, narrow, parse_options
from jivs.domain.fingerprint import EMPTY, Fingerprint
from jivs.domain.plan import Bounds
from jivs.domain.schema import INTEGERS, ArchiveType, Column, Kind, Table, TableKind, TableName, assign_fields
from jivs.domain.source import Address, Capabilities, Limits, ServerInfo, Snapshot
from jivs.errors import IntegrityError, SchemaChangedError, UsageError
from jivs.ports.clock import stamp
from jivs.ports.connector import Chunk, Connector, Listing, Pace, Request, Session, TypeRow
from jivs.ports.metrics import PoolUse
from jivs.transfer.conform import conform
from jivs.wire.rowhash import RowHasher

_TYPED = INTEGERS | {Kind.BOOL, Kind.FLOAT, Kind.DOUBLE, Kind.DECIMAL, Kind.TEXT, Kind.DATE, Kind.TIME, Kind.TIMESTAMP}
_FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}


class Options(BaseModel):
    """What may stand behind the ``?`` of a file URL."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: str = Field("", pattern="^(|csv|tsv|jsonl|parquet)$", description="Format; empty: by the name's ending.")
    encoding: str = Field("", description="Encoding; empty: by byte order mark or detected, and recorded.")
    delimiter: str = Field("", max_length=1, description="Delimiter of CSV; empty: a comma (a tab for .tsv).")
    quote: str = Field('"', max_length=1, description="Quote of CSV; empty: none.")
    header: bool = Field(True, description="Whether the first record of a CSV file holds the names.")
    null: str | None = Field(None, description="Text of CSV that means NULL.")
    infer: bool = Field(False, description="Choose types of CSV from a pass over the whole file.")
    types: str = Field("", description="Types of CSV columns: id:int64,price:decimal(10;2). The others are text.")


@dataclass(frozen=True)
class _State:
    """What tells that a file is still the one that the run began with."""

    size: int
    modified: int
    inode: int


class File:
    """The connector."""

    kind = "file"
    capabilities = Capabilities(can_fingerprint=True)
    options: type[BaseModel] = Options
    type_map: Sequence[TypeRow] = (
        TypeRow(source="CSV", archive="text", fidelity="exact", note="leading zeros kept; what is no record: quarantine"),
        TypeRow(source="CSV with infer or types", archive="int64, decimal(p,s), date, timestamp(us), bool",
                fidelity="exact"),
        TypeRow(source="JSON string", archive="text", fidelity="exact"),
        TypeRow(source="JSON integer within 64 bits", archive="int64", fidelity="exact"),
        TypeRow(source="other JSON numbers", archive="text", fidelity="text", note="as written"),
        TypeRow(source="JSON object, array", archive="text", fidelity="text", note="as written"),
        TypeRow(source="JSON key with several classes", archive="text and <key>__class", fidelity="exact"),
        TypeRow(source="Parquet integers, floats, decimals to 38 digits, dates, times, timestamps, strings, binary",
                archive="the same", fidelity="exact"),
        TypeRow(source="Parquet decimals above 38 digits", archive="text", fidelity="text"),
        TypeRow(source="Parquet lists, structs, maps", archive="text", fidelity="text", note="JSON"),
    )  # fmt: skip

    def label(self, address: Address) -> str:
        path = Path(address.database)
        named = next((part for part in reversed(path.parts) if not glob.has_magic(part) and part != "/"), "files")
        return named.split(".", maxsplit=1)[0] or "files"

    def open(self, address: Address, limits: Limits, request: Request, pace: Pace) -> Session:
        options = parse_options(Options, address.options, self.kind)
        if request.queries or request.narrowing.where:
            raise UsageError("Files take no --query and no --where: extract them, then use jivs query on the archive.")
        return _Session(address, options, limits, request, pace)


class _Session(OneByOne):
    def __init__(self, address: Address, options: Options, limits: Limits, request: Request, pace: Pace) -> None:
        self._address = address
        self._options = options
        # Whoever waits for the rows of a whole batch could not be stopped meanwhile.
        most = min(filter(None, (limits.batch_rows, pace.step))) if pace.rate else limits.batch_rows
        self._limits = replace(limits, batch_rows=most)
        self._request = request
        self._pace = pace
        self._files: dict[TableName, Place] = {}
        self._links: list[str] = []
        self._states: dict[TableName, _State] = {}
        self._details: dict[TableName, tuple[Table, Csv | JsonLines | Parquet]] = {}
        self._lock = threading.Lock()
        self._stopped = threading.Event()

    def ping(self) -> ServerInfo:
        self._find()
        return ServerInfo(
            product="files",
            version=f"{len(self._files)} files",
            notes=(
                "the source's fingerprint is computed by this process, from the files read again",
                *(f"the link to a folder {link} was not followed" for link in self._links),
            ),
        )

    def _find(self) -> None:
        """The files that the path means, each under a name of its own."""
        if self._files:
            return
        pattern = self._address.database
        path = Path(pattern)
        try:
            if path.is_dir():
                found = [item for item in self._walk(path) if self._options.format or _format(item)]
            elif glob.has_magic(pattern) and not path.exists():
                names = glob.glob(pattern, recursive=True)  # noqa: PTH207 - a pattern may begin with a slash
                found = sorted(Path(name) for name in names if Path(name).is_file())
            elif path.exists() and not path.is_file():
                raise UsageError(f"{pattern} is neither a file nor a folder.")
            else:
                path.open("rb").close()
                found = [path]
            places = [Place(item, self._address.roots) for item in found]
            for place in places:
                place.stat()
        except FileNotFoundError:
            raise UsageError(f"There is no file or folder {pattern}. Check the path.") from None
        except OSError as error:
            raise UsageError(
                f"{error.filename or pattern} cannot be read: {error.strerror}. Check its permissions."
            ) from None
        if not found:
            raise UsageError(f"{pattern} has no CSV, JSON Lines or Parquet file.")
        self._files = {TableName(schema="", name=name): place for name, place in zip(_names(found), places, strict=True)}

    def _walk(self, folder: Path) -> list[Path]:
        """Every file below a folder. One that cannot be read is an error; links to folders are said, not followed."""

        def refuse(error: OSError) -> None:
            raise error

        found = []
        for parent, folders, names in os.walk(folder, onerror=refuse):
            self._links += [str(Path(parent, name)) for name in folders if Path(parent, name).is_symlink()]
            found += [Path(parent, name) for name in names if Path(parent, name).is_file()]
        return sorted(found)

    def tables(self) -> Sequence[Listing]:
        self._find()
        return [
            Listing(name=name, kind=TableKind.FILE, estimated_bytes=place.stat().st_size)
            for name, place in sorted(self._files.items())
        ]

    def describe(self, name: TableName) -> Table:
        return self._detail(name)[0]

    def _detail(self, name: TableName) -> tuple[Table, Csv | JsonLines | Parquet]:
        self._find()
        with self._lock:
            if name not in self._details:
                if name not in self._files:
                    raise UsageError(f"There is no file for table {name}. jivs discover lists what there is.")
                self._details[name] = self._describe(name, self._files[name])
            return self._details[name]

    def _describe(self, name: TableName, place: Place) -> tuple[Table, Csv | JsonLines | Parquet]:
        options = self._options
        kind = options.format or _format(place.path)
        notes = [f"file {place.name}", f"format {kind}"]
        if compression_of(place):
            notes.append(f"compression {compression_of(place)}")
        reader: Csv | JsonLines | Parquet
        columns: list[Column]
        rows = -1
        ddl = ""
        if kind in {"csv", "tsv"}:
            delimiter = options.delimiter or ("\t" if kind == "tsv" else ",")
            dialect = Dialect(delimiter=delimiter, quote=options.quote, header=options.header, null=options.null)
            reader = Csv(place, dialect, options.encoding, self._limits)
            columns = reader.columns(_types(options.types), infer=options.infer)
            notes.append(f"encoding {reader.encoding.name} ({reader.encoding.how})")
            if reader.header != reader.names and options.header:
                notes.append(f"header as written: {reader.header}")
        elif kind == "jsonl":
            reader = JsonLines(place, options.encoding, self._limits)
            columns = reader.columns()
            ddl = reader.definition
            notes.append(f"encoding {reader.encoding.name} ({reader.encoding.how})")
        elif kind == "parquet":
            reader = Parquet(place, self._limits)
            columns = reader.columns()
            rows = reader.rows
        else:
            raise UsageError(f"{place.name}: its format cannot be told from its name: say ?format=csv, jsonl or parquet.")
        table = Table(
            name=name,
            kind=TableKind.FILE,
            columns=assign_fields(narrow(columns, self._request.narrowing, str(name))),
            ddl=ddl,
            estimated_rows=rows,
            estimated_bytes=place.stat().st_size,
            notes=tuple(notes),
        )
        return table, reader

    def begin(self, tables: Sequence[TableName]) -> Snapshot:
        self._find()
        self._details.clear()
        self._states = {name: _state(self._files[name]) for name in tables if name in self._files}
        return Snapshot(identity=str(uuid.uuid4()), one=True, taken_at=stamp(datetime.now(UTC)))

    def changed(self, table: Table) -> str:
        """A file has no snapshot: whether it is the same is seen from its size, time and identity."""
        try:
            same = _state(self._files[table.name]) == self._states[table.name]
        except OSError:
            return "was removed while it was read"
        return "" if same else "was changed while it was read"

    def split(self, table: Table, target_bytes: int) -> Sequence[Bounds]:  # noqa: ARG002 - a file is one part
        return [{}]

    def read(self, table: Table, bounds: Bounds) -> Iterator[Chunk]:  # noqa: ARG002
        described, reader = self._detail(table.name)
        if not described.same_structure(table):
            raise SchemaChangedError(f"{table.name}: its columns changed since the run was planned. Start a new run.")
        for chunk in reader.read(table.columns):
            self._pace.take(chunk.batch.num_rows + len(chunk.rows))
            if self._stopped.is_set():
                raise IntegrityError(f"{table.name}: reading was stopped.")
            yield chunk

    def count(self, table: Table, bounds: Bounds) -> int:  # noqa: ARG002
        return self._detail(table.name)[1].count()

    def fingerprint(self, table: Table, bounds: Bounds) -> Fingerprint:
        hasher = RowHasher(table.columns)
        total = EMPTY
        for chunk in self.read(table, bounds):
            rows = conform(table.columns, chunk)
            total += hasher.fingerprint(rows.batch, rows.overrides)
        return total

    def connections(self) -> PoolUse:
        return PoolUse()

    def interrupt(self) -> None:
        self._stopped.set()

    def close(self) -> None:
        self._details.clear()


def _types(text: str) -> dict[str, ArchiveType]:
    """``id:int64,price:decimal(10;2)``: a semicolon inside the brackets, for the comma divides the columns."""
    out = {}
    for part in filter(None, text.split(",")):
        name, separator, type_ = part.rpartition(":")
        wanted = type_.strip().replace(";", ",")
        try:
            parsed = ArchiveType.parse(wanted)
            known = separator and str(parsed) == wanted and parsed.kind in _TYPED
            if parsed.kind is Kind.DECIMAL:
                known = known and 1 <= parsed.precision <= 38 and parsed.scale <= parsed.precision
            if parsed.kind is Kind.TIMESTAMP:
                known = known and parsed.unit in {"us", "ns"}
        except (ValueError, TypeError):
            known = False
        if not known:
            raise UsageError(
                f"types: {part!r} is no column:type. Types: int64, decimal(10;2), double, date, time, timestamp(us), bool, "
                "text."
            )
        out[name] = parsed
    return out


def _format(path: Path) -> str:
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
    return _FORMATS.get(suffixes[-1], "") if suffixes else ""


def _names(found: Sequence[Path]) -> list[str]:
    """A table name for each file: its stem where that is unique, else as much of its path as tells it from the others."""
    parts = [[_shown(part) for part in path.parts] for path in found]
    names = [_shown(_stem(path)) for path in found]
    depth = 1
    while len(set(names)) < len(names) and depth <= max(len(part) for part in parts):
        twice = {name for name in names if names.count(name) > 1}
        names = ["/".join(part[-depth:]) if name in twice else name for name, part in zip(names, parts, strict=True)]
        depth += 1
    return names


def _shown(name: str) -> str:
    """A file's name as text, whatever its bytes are."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _stem(path: Path) -> str:
    name = path.name
    for _ in range(2):
        stem, dot, suffix = name.rpartition(".")
        if dot and stem and f".{suffix.lower()}" in {*_FORMATS, *COMPRESSIONS}:
            name = stem
    return name


def _state(place: Place) -> _State:
    found = place.stat()
    return _State(found.st_size, found.st_mtime_ns, found.st_ino)


CONNECTOR: Connector = File()
