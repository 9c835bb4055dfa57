"""Reading from MySQL and MariaDB: rows of bytes off the text protocol, in groups of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any

import pyarrow as pa

from jivs.connectors._mysql_catalog import quote
from jivs.connectors._mysql_types import Rule
from jivs.connectors._sql import see_off
from jivs.domain.quarantine import QuarantinedValue
from jivs.domain.schema import INTEGERS, Column, Kind
from jivs.domain.source import Limits
from jivs.errors import RowTooLargeError
from jivs.ports.connector import Chunk, Pace
from jivs.wire import mysql
from jivs.wire.native import Builder, MalformedError
from jivs.wire.native import Limits as BatchLimits

_ROWS = 16 << 10
_MOST_ROWS = 128 << 10
Row = tuple[bytes | None, ...]
Check = Callable[[int], None]
"""Called with the bytes of a heavy row; may wait or raise."""


def stream(connection: Any, statement: str, widest: int, limits: Limits, pace: Pace) -> Iterator[list[Row]]:
    """Rows of a statement. ``widest`` bounds a row's bytes; -1: unbounded, so each row is weighed.

    Left early, the caller has to drop the connection: draining would read all the rest.
    """
    from pymysql.cursors import SSCursor

    most = min(limits.batch_rows or _ROWS, _ROWS)
    if pace.rate:
        most = min(most, pace.step)
    cursor = SSCursor(connection)
    cursor.execute(statement)
    if widest >= 0:
        most = max(1, min(most, limits.batch_bytes // max(1, widest)))
        while True:
            pace.take(most)
            rows = list(cursor.fetchmany(most))
            if not rows:
                break
            yield rows
    else:
        yield from _weighed(cursor, most, limits, pace)
    cursor.close()


def stream_compiled(
    connection: Any,
    statement: str,
    columns: Sequence[Column],
    rules: Sequence[Rule],
    limits: Limits,
    check: Check,
    timeout: float,
) -> Iterator[Chunk]:
    """The same through the compiled decoder. Left early, the caller has to drop the connection."""
    from pymysql import err
    from pymysql.constants import COMMAND

    builder = Builder([column.type for column in columns], [rule.form for rule in rules])
    allowed = BatchLimits(min(limits.batch_rows or _MOST_ROWS, _MOST_ROWS), limits.batch_bytes, limits.heavy_row)
    fields = len(columns) + sum(bool(rule.raw) for rule in rules)
    try:
        connection._execute_command(COMMAND.COM_QUERY, statement)  # noqa: SLF001 - its cursors decode row by row in Python
        for rows in mysql.read(connection._sock, fields, builder, allowed, timeout, check):  # noqa: SLF001
            yield Chunk(batch=rows.batch, beyond=rows.beyond, values=rows.misfits)
    except mysql.ServerError as error:
        err.raise_mysql_exception(error.packet)
    except mysql.LostError as error:
        what = f"sent nothing for {timeout:.0f} s" if error.late else "closed the connection"
        raise err.OperationalError(2013, f"the server {what} during the query") from None
    except MalformedError as error:
        raise err.OperationalError(2013, f"the server sent {error}") from None
    finally:
        builder.close()


def _weighed(cursor: Any, most: int, limits: Limits, pace: Pace) -> Iterator[list[Row]]:
    rows: list[Row] = []
    size = 0
    while True:
        pace.take(1)
        row = cursor.fetchone()
        if row is None:
            break
        rows.append(row)
        size += weight(row)
        if size >= limits.batch_bytes or len(rows) >= most:
            yield rows
            rows, size = [], 0
    if rows:
        yield rows


def literals(columns: Sequence[Column]) -> list[str]:
    """SQL that writes a key's values as literals which compare as the columns do; empty for keys that have none."""
    out = []
    for column in columns:
        name, kind, plain = quote(column.name), column.type.kind, column.source_type.partition("(")[0]
        if plain in {"char", "varchar"}:
            out.append(f"concat('_', charset({name}), ' x''', hex(convert({name} using binary)), '''')")
        elif plain in {"binary", "varbinary"}:
            out.append(f"concat('x''', hex({name}), '''')")
        elif plain != "time" and (kind in INTEGERS or kind is Kind.DECIMAL):
            out.append(f"{name}+0")
        elif kind in {Kind.DATE, Kind.TIMESTAMP}:
            out.append(f"quote({name})")
        else:
            return []
    return out


def pages(connection: Any, statement: str, key: Sequence[str], most: int, pace: Pace) -> Iterator[list[Row]]:
    """Rows of a table in pages by its key: the server sends no more of them than was asked for.

    A stream would run ahead by what the buffers of server and network hold, megabytes of small rows. ``statement``
    selects the key's literals as its last columns and ends where a condition can follow.
    """
    after, order = "true", ", ".join(key)
    while True:
        pace.take(most)
        with connection.cursor() as cursor:
            cursor.execute(f"{statement} ({after}) order by {order} limit {most}")
            rows = list(cursor.fetchall())
        if rows:
            yield [row[: -len(key)] for row in rows]
        if len(rows) < most:
            return
        last = [cell.decode("ascii") for cell in rows[-1][-len(key) :]]
        equal = [f"{name} = {value}" for name, value in zip(key, last, strict=True)]
        more = [f"{name} > {value}" for name, value in zip(key, last, strict=True)]
        after = " or ".join("(" + " and ".join([*equal[:index], more[index]]) + ")" for index in range(len(key)))


def weight(row: Row) -> int:
    """Bytes of a row's values."""
    return sum(map(len, filter(None, row)))


def refuse_larger(size: int, limits: Limits, table: str) -> None:
    """Raise RowTooLargeError for a row that the memory limit does not allow."""
    if size > limits.largest_row:
        memory = limits.memory >> 20
        raise RowTooLargeError(
            f"A row of {table} has {size >> 20} MB, more than an eighth of the memory limit ({memory} MB): set "
            f"JIVS_EXTRACTION__MEMORY_LIMIT to at least {(size * 8 >> 20) + 1}MB."
        )


def chunk(rows: list[Row], rules: Sequence[Rule]) -> Chunk:
    """Columns from rows of bytes; what the server could not convert goes to quarantine with its stored bytes."""
    cells = list(zip(*rows, strict=True))
    arrays: list[pa.Array] = []
    poison: list[QuarantinedValue] = []
    position = 0
    for index, chosen in enumerate(rules):
        array = pa.array(cells[position], pa.binary())
        position += 1
        if chosen.raw:
            poison += [
                QuarantinedValue(
                    row=row, column=index, original=raw, canonical=raw, reason="does not convert to UTF-8 and back"
                )
                for row, raw in enumerate(cells[position])
                if raw is not None
            ]
            position += 1
        arrays.append(chosen.decode(array) if chosen.decode else array)
    names = [f"c{index}" for index in range(len(arrays))]
    return Chunk(batch=pa.RecordBatch.from_arrays(arrays, names=names), values=tuple(poison))


def leave(connection: Any) -> None:
    """Close a connection; one that has nothing on its way is gone from the server when this returns."""
    with suppress(Exception):
        if connection._result is None or not connection._result.unbuffered_active:  # noqa: SLF001
            see_off(connection._sock.fileno(), connection.close)  # noqa: SLF001
    with suppress(Exception):
        connection._force_close()  # noqa: SLF001
