"""Reading from PostgreSQL: COPY in binary where the decoder was compiled, else as CSV; FETCH where a pace is set."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import pyarrow as pa
from pyarrow import csv

from jivs.connectors._postgresql_types import Rule
from jivs.domain.arrow import arrow_type
from jivs.domain.schema import Column, Kind
from jivs.domain.source import Limits
from jivs.errors import IntegrityError, RowTooLargeError
from jivs.ports.connector import Chunk, Pace
from jivs.wire import pgcopy
from jivs.wire.native import Builder, MalformedError
from jivs.wire.native import Limits as BatchLimits

if TYPE_CHECKING:
    import psycopg

_ROWS = 128 << 10
_LEAD = b"\n"
"""A line in front of the rows, skipped when they are parsed: a text that begins with U+FEFF would be taken for a byte order
mark and lose it."""
_PARSE = csv.ParseOptions(newlines_in_values=True, ignore_empty_lines=False, double_quote=True, escape_char=False)


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The columns of one statement."""

    table: str
    columns: Sequence[Column]
    rules: Sequence[Rule]

    def read_type(self, index: int) -> pa.DataType:
        """The type a column is parsed as: the archive's own where the text is plain, else binary."""
        return self.rules[index].read or arrow_type(self.columns[index].type)


@dataclass(frozen=True, kw_only=True)
class Gate:
    """How large rows are let through: heavy ones in one reader at a time, larger ones not at all."""

    limits: Limits
    alone: Callable[[], None]
    table: str

    def check(self, size: int) -> None:
        if size <= self.limits.heavy_row:
            return
        if size > self.limits.largest_row:
            raise RowTooLargeError(
                f"A row of {self.table} has {size >> 20} MB, more than an eighth of the memory limit "
                f"({self.limits.memory >> 20} MB): set JIVS_EXTRACTION__MEMORY_LIMIT to at least {(size * 8 >> 20) + 1}MB."
            )
        self.alone()


def copy(connection: psycopg.Connection[Any], select: str, shape: Shape, gate: Gate) -> Generator[Chunk, None, None]:
    """Stream a SELECT through COPY as CSV. One message is one row, so batches end between rows whatever the values hold."""
    limits = gate.limits
    most_rows = min(limits.batch_rows or _ROWS, _ROWS)
    rows: list[Any] = []
    size = 0
    with connection.cursor() as cursor, cursor.copy(f"copy ({select}) to stdout (format csv)") as stream:
        for row in stream:
            length = len(row)
            if length > limits.heavy_row:
                gate.check(length)
            rows.append(row)
            size += length
            if size >= limits.batch_bytes or len(rows) >= most_rows:
                yield decode(b"".join((_LEAD, *rows)), shape)
                rows.clear()
                size = 0
        if rows:
            yield decode(b"".join((_LEAD, *rows)), shape)


def copy_binary(
    connection: psycopg.Connection[Any], selects: Sequence[str], shapes: Sequence[Shape], gate: Gate
) -> Generator[tuple[int, Chunk], None, None]:
    """The same in binary, through the compiled decoder, for several statements at once: chunks with their numbers.

    Left early, the COPY is cancelled; the caller has to drop the connection.
    """
    from psycopg import errors

    def failed(result: Any) -> NoReturn:
        raise errors.error_from_result(result)

    limits = gate.limits
    builders = [Builder([column.type for column in shape.columns], [rule.form for rule in shape.rules]) for shape in shapes]
    allowed = BatchLimits(min(limits.batch_rows or _ROWS, _ROWS), limits.batch_bytes, limits.heavy_row)
    ended, number = False, 0
    try:
        queries = [f"copy ({select}) to stdout (format binary)" for select in selects]
        for number, rows in pgcopy.read(connection.pgconn, queries, builders, allowed, gate.check, failed):
            yield number, Chunk(batch=rows.batch, beyond=rows.beyond, values=rows.misfits)
        ended = True
    except pgcopy.LostError:
        raise errors.OperationalError("the server closed the connection in the middle of a row") from None
    except MalformedError as error:
        if error.column < 0:
            raise errors.OperationalError(f"the server sent {error}") from None
        name = shapes[number].columns[error.column].name
        raise IntegrityError(
            f"{shapes[number].table}: the server sent {error}, in column {name}. Look at its values in the source, or leave "
            "the table out with --exclude."
        ) from None
    finally:
        for builder in builders:
            builder.close()
        if not ended:
            with suppress(Exception):  # what went wrong before is what counts
                connection.cancel_safe(timeout=5)


def decode(data: bytes | pa.Buffer, shape: Shape) -> Chunk:
    """Parse CSV as PostgreSQL writes it (an unquoted empty field is NULL), behind a line to skip.

    What a column refuses to parse is delivered as bytes for conforming, value by value.
    """
    exact = [shape.read_type(index) for index in range(len(shape.columns))]
    try:
        table = _parse(data, exact)
    except pa.ArrowInvalid:
        careful = [type_ if pa.types.is_binary(type_) else pa.binary() for type_ in exact]
        table = _parse(data, careful)
    arrays = []
    for index, rule in enumerate(shape.rules):
        column = table.column(index)
        array = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
        arrays.append(rule.decode(array) if rule.decode else array)
    return Chunk(batch=pa.RecordBatch.from_arrays(arrays, names=[f"c{index}" for index in range(len(arrays))]))


def _parse(data: bytes | pa.Buffer, column_types: Sequence[pa.DataType]) -> pa.Table:
    names = [f"c{index}" for index in range(len(column_types))]
    return csv.read_csv(
        pa.BufferReader(data),
        read_options=csv.ReadOptions(
            column_names=names, skip_rows=1, block_size=memoryview(data).nbytes + 1024, use_threads=False
        ),
        parse_options=_PARSE,
        convert_options=csv.ConvertOptions(
            column_types=dict(zip(names, column_types, strict=True)),
            null_values=[""],
            strings_can_be_null=True,
            quoted_strings_can_be_null=False,
            true_values=["t"],
            false_values=["f"],
        ),
    )


def fetch(
    connection: psycopg.Connection[Any], select: str, shape: Shape, gate: Gate, pace: Pace
) -> Generator[Chunk, None, None]:
    """Read through a cursor, asking for no more rows than the pace allows: the server sends none ahead."""
    from psycopg import errors, pq

    most = pace.step if not gate.limits.batch_rows else min(pace.step, gate.limits.batch_rows)
    connection.execute(f"declare jivs_rows no scroll cursor for {select}")
    try:
        while True:
            pace.take(most)
            result = connection.pgconn.exec_(b"fetch %d from jivs_rows" % most)
            if result.status != pq.ExecStatus.TUPLES_OK:
                raise errors.error_from_result(result)
            count = result.ntuples
            if count == 0:
                return
            arrays = []
            size = 0
            for index, (column, rule) in enumerate(zip(shape.columns, shape.rules, strict=True)):
                values = [result.get_value(row, index) for row in range(count)]
                size = max(size, max((len(value) for value in values if value is not None), default=0))
                array = pa.array(values, pa.binary())
                if rule.decode:
                    array = rule.decode(array)
                elif column.type.kind is Kind.BOOL:
                    array = pa.array([None if value is None else value == b"t" for value in values], pa.bool_())
                arrays.append(array)
            if size > gate.limits.heavy_row:
                gate.check(size)
            yield Chunk(batch=pa.RecordBatch.from_arrays(arrays, names=[f"c{index}" for index in range(len(arrays))]))
    finally:
        if connection.pgconn.transaction_status == 2:  # in a transaction that has not failed
            connection.execute("close jivs_rows")
