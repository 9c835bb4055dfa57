"""CSV: strict, every record either a row or in quarantine with its bytes and its line."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass

import pyarrow as pa

from jivs.connectors._file_place import Place
from jivs.connectors._file_text import (
    Content,
    Encoding,
    Line,
    cell_bytes,
    find_encoding,
    largest_record,
    lines,
    too_large,
)
from jivs.domain.quarantine import QuarantinedRow
from jivs.domain.schema import TEXT, ArchiveType, Column, Fidelity, Kind
from jivs.domain.source import Limits
from jivs.errors import UsageError
from jivs.ports.connector import Chunk
from jivs.wire import csv as compiled
from jivs.wire import native
from jivs.wire.native import Limits as BatchLimits

_ROWS = 16 << 10
_MOST_ROWS = 128 << 10
_INTEGER = re.compile(r"0|-?[1-9]\d{0,18}", re.ASCII)
_DECIMAL = re.compile(r"(?!-0[.]0*$)-?(0|[1-9]\d*)\.(\d+)", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d{1,6})?", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """How a file is written."""

    delimiter: str = ","
    quote: str = '"'
    header: bool = True
    null: str | None = None


class Csv:
    """One CSV file."""

    def __init__(self, place: Place, dialect: Dialect, encoding: str, limits: Limits) -> None:
        self._place = place
        self._dialect = dialect
        self._limits = limits
        self.encoding: Encoding = find_encoding(place, encoding)
        csv.field_size_limit(largest_record(limits))
        self.header, self.names = self._names()

    def columns(self, types: dict[str, ArchiveType], *, infer: bool) -> list[Column]:
        """Everything is text unless types are stated or inferred from the whole file."""
        unknown = set(types) - set(self.names)
        if unknown:
            raise UsageError(f"types: {self._place.name} has no column {', '.join(sorted(unknown))}.")
        inferred = self._infer() if infer else {}
        return [
            Column(
                name=name,
                field=name,
                type=types.get(name) or inferred.get(name, TEXT),
                source_type="text",
                fidelity=Fidelity.EXACT,
            )
            for name in self.names
        ]

    def read(self, columns: Sequence[Column]) -> Iterator[Chunk]:
        """The rows as text; an empty field is NULL only where the column's type is not text."""
        if self._compiled:
            yield from self._read_compiled(columns)
            return
        typed = [column.type.kind is not Kind.TEXT for column in columns]
        positions = [self.names.index(column.name) for column in columns]
        rows: list[list[str]] = []
        rejected: list[QuarantinedRow] = []
        size = 0
        most = min(self._limits.batch_rows or _ROWS, _ROWS)
        for item in self._records():
            if isinstance(item, QuarantinedRow):
                rejected.append(item)
                size += len(item.original)
            else:
                rows.append(item)
                size += sum(map(len, item))
            if len(rows) + len(rejected) >= most or size >= self._limits.batch_bytes:
                yield self._chunk(rows, positions, typed, rejected)
                rows, rejected, size = [], [], 0
        if rows or rejected:
            yield self._chunk(rows, positions, typed, rejected)

    def _chunk(
        self, rows: list[list[str]], positions: Sequence[int], typed: Sequence[bool], rejected: list[QuarantinedRow]
    ) -> Chunk:
        null = self._dialect.null
        arrays = []
        for position, narrow in zip(positions, typed, strict=True):
            cells = [row[position] for row in rows]
            # Where a text for NULL is stated, an empty field of a typed column is not that: it goes to quarantine.
            values = [None if cell == null or (narrow and not cell and null is None) else cell_bytes(cell) for cell in cells]
            arrays.append(pa.array(values, pa.binary()))
        names = [f"c{index}" for index in range(len(arrays))]
        return Chunk(batch=pa.RecordBatch.from_arrays(arrays, names=names), rows=tuple(rejected))

    def count(self) -> int:
        """Records, those that cannot be parsed included."""
        if self._compiled:
            with closing(Content(self._place, self.encoding)) as content, self._clear_errors():
                return compiled.count(content.receive, self._format([]))
        return sum(1 for _ in self._records())

    # -- compiled -------------------------------------------------------------------------------------------------

    @property
    def _compiled(self) -> bool:
        """Whether the file is one for the compiled reader: UTF-8, with a dialect of single bytes."""
        delimiter, quote = self._dialect.delimiter, self._dialect.quote
        plain = delimiter.isascii() and quote.isascii() and delimiter != quote and not {delimiter, quote} & {"\r", "\n"}
        return native.available() and self.encoding.name == "utf-8" and plain and bool(self.names)

    def _format(self, columns: Sequence[Column]) -> compiled.Format:
        by_name = {column.name: index for index, column in enumerate(columns)}
        return compiled.Format(
            delimiter=self._dialect.delimiter,
            quote=self._dialect.quote,
            header=self._dialect.header,
            null=self._dialect.null,
            places=[by_name.get(name, -1) for name in self.names],
            narrow=[column.type.kind is not Kind.TEXT for column in columns],
            largest=largest_record(self._limits),
        )

    def _read_compiled(self, columns: Sequence[Column]) -> Iterator[Chunk]:
        most = min(self._limits.batch_rows or _MOST_ROWS, _MOST_ROWS)
        limits = BatchLimits(most, self._limits.batch_bytes, 0)
        with closing(Content(self._place, self.encoding)) as content, self._clear_errors():
            for rows, rejected in compiled.read(content.receive, self._format(columns), limits):
                yield Chunk(batch=rows.batch, values=rows.misfits, rows=tuple(rejected))

    @contextmanager
    def _clear_errors(self) -> Iterator[None]:
        try:
            yield
        except compiled.RecordTooLargeError:
            raise too_large(self._place, self._limits) from None

    # -- records --------------------------------------------------------------------------------------------------

    def _names(self) -> tuple[list[str], list[str]]:
        first = next(self._raw_records(), None)
        if first is None:
            return [], []
        record, taken = first
        if not record and self._dialect.header:
            raise UsageError(f"{self._place.name}: its first line, which should hold the names, is blank. Say header=false.")
        if record is None:
            raise UsageError(
                f"{self._place.name}: its first line is no CSV record: {taken[-1].raw[:60]!r}. State its dialect."
            )
        width = max(1, len(record))
        cells = record if self._dialect.header else [f"column_{index + 1}" for index in range(width)]
        self._place.require_columns(len(cells))
        names: list[str] = []
        for index, cell in enumerate(cells):
            name = cell_bytes(cell).decode(errors="replace") or f"column_{index + 1}"
            number = 1
            unique = name
            while unique in names:
                number += 1
                unique = f"{name}__{number}"
            names.append(unique)
        return cells, names

    def _records(self) -> Iterator[list[str] | QuarantinedRow]:
        """Each record after the header: a row of the right width, or what is wrong with it."""
        width = len(self.names)
        number = 1
        for index, (parsed, taken) in enumerate(self._raw_records()):
            first = number
            number += len(taken)
            if index == 0 and self._dialect.header:
                continue
            record = [""] if parsed == [] and width == 1 else parsed
            if record is not None and len(record) == width and all(line.valid for line in taken):
                yield record
                continue
            reason = "not valid in the file's encoding"
            if all(line.valid for line in taken):
                reason = "not a CSV record" if record is None else f"{len(record)} fields instead of {width}"
            yield QuarantinedRow(line=first, original=b"".join(line.raw for line in taken), reason=reason)

    def _raw_records(self) -> Iterator[tuple[list[str] | None, list[Line]]]:
        """Parsed records (None if unparsable) with the lines they were made of."""
        taken: list[Line] = []

        def feed() -> Iterator[str]:
            for line in lines(self._place, self.encoding, self._limits):
                taken.append(line)
                yield line.text if line.valid else "\n"

        reader = csv.reader(
            feed(),
            delimiter=self._dialect.delimiter,
            quotechar=self._dialect.quote or None,
            quoting=csv.QUOTE_MINIMAL if self._dialect.quote else csv.QUOTE_NONE,
            strict=True,
        )
        while True:
            try:
                record: list[str] | None = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                if "field larger than" in str(error):
                    raise too_large(self._place, self._limits) from None
                record = None
            yield record, list(taken)
            taken.clear()

    # -- types ----------------------------------------------------------------------------------------------------

    def _infer(self) -> dict[str, ArchiveType]:
        """The narrowest type that every value of a column has, from the whole file; leading zeros stay text."""
        seen = [_Seen() for _ in self.names]
        for record in self._records():
            if not isinstance(record, QuarantinedRow):
                for cell, column in zip(record, seen, strict=True):
                    if cell and cell != self._dialect.null:
                        column.add(cell)
        return {name: type_ for name, column in zip(self.names, seen, strict=True) if (type_ := column.type()) is not None}


@dataclass
class _Seen:
    """What the values of one column can be."""

    candidates: frozenset[str] = frozenset({"integer", "decimal", "date", "timestamp", "bool"})
    whole: int = 1
    fraction: int = 0
    any: bool = False

    def add(self, cell: str) -> None:
        self.any = True
        if not self.candidates:
            return
        fitting = set()
        if _INTEGER.fullmatch(cell):
            fitting.add("decimal")
            self.whole = max(self.whole, len(cell.lstrip("-")))
            if -(2**63) <= int(cell) < 2**63:
                fitting.add("integer")
        elif match := _DECIMAL.fullmatch(cell):
            fitting.add("decimal")
            self.whole = max(self.whole, len(match[1]))
            self.fraction = max(self.fraction, len(match[2]))
        elif _DATE.fullmatch(cell):
            fitting.add("date")
        elif _TIMESTAMP.fullmatch(cell):
            fitting.add("timestamp")
        elif cell in {"true", "false"}:
            fitting.add("bool")
        self.candidates &= fitting

    def type(self) -> ArchiveType | None:
        if not self.any:
            return None
        if "integer" in self.candidates:
            return ArchiveType(kind=Kind.INT64)
        if "decimal" in self.candidates and self.whole + self.fraction <= 38:
            return ArchiveType(kind=Kind.DECIMAL, precision=self.whole + self.fraction, scale=self.fraction)
        for name, kind in (("date", Kind.DATE), ("timestamp", Kind.TIMESTAMP), ("bool", Kind.BOOL)):
            if name in self.candidates:
                return ArchiveType(kind=kind)
        return None
