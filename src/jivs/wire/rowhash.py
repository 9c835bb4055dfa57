"""The row hash over Arrow batches: R while reading, A over the Parquet file read back.

The compiled kernel (``c/rowhash.c``) hashes a batch in the calling thread. Where it was not built, DuckDB computes canonical
text and MD5 for a whole batch in one query. Rows with quarantined cells go through ``canonical``.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from jivs.domain.fingerprint import EMPTY, Fingerprint
from jivs.domain.schema import Column, Kind
from jivs.wire import native
from jivs.wire.canonical import LONG, column_texts, plain, row_hash

if TYPE_CHECKING:
    import duckdb

Overrides = Mapping[int, Mapping[int, bytes]]
"""Canonical texts of quarantined cells: row in the batch -> index of the column -> text."""

_WIDE = 200
"""Columns joined by one ``concat``; wider rows nest them, for engines bound their argument lists."""


_local = threading.local()


@cache
def _engine() -> duckdb.DuckDBPyConnection:
    import duckdb

    engine = duckdb.connect(":memory:", config={"threads": 1, "memory_limit": "256MB", "temp_directory": ""})
    atexit.register(engine.close)
    return engine


@cache
def _pool() -> ThreadPoolExecutor:
    """As many hashing threads as cores, for all readers: each thread that hashes keeps 40 MB."""
    _engine()
    return ThreadPoolExecutor(max_workers=os.cpu_count() or 1, thread_name_prefix="hash")


def _connection() -> duckdb.DuckDBPyConnection:
    """The calling thread's connection to the shared engine."""
    if not hasattr(_local, "connection"):
        _local.connection = _engine().cursor()
    connection: duckdb.DuckDBPyConnection = _local.connection
    return connection


class RowHasher:
    """Hashes batches of one table; may be shared by threads."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = tuple(columns)

    def fingerprint(self, batch: pa.RecordBatch, overrides: Overrides | None = None) -> Fingerprint:
        """The fingerprint of a batch in archive form, companion columns included."""
        if not self._columns:
            raise ValueError("a table without columns has a count, not a fingerprint")
        special = EMPTY
        if overrides:
            special = self._special(batch, overrides)
            batch = batch.filter(pa.array([row not in overrides for row in range(batch.num_rows)]))
        if batch.num_rows == 0:
            return special
        if native.available():
            return special + Fingerprint.of(batch.num_rows, _compiled(self._columns, batch, None))
        rows, hashed, total = _pool().submit(self._sum, batch).result()
        if rows != hashed or rows != batch.num_rows:
            raise AssertionError(f"{rows} rows, {hashed} hashes, {batch.num_rows} in the batch")
        return special + Fingerprint.of(rows, total)

    def hashes(self, batch: pa.RecordBatch, overrides: Overrides | None = None) -> pa.Array:
        """The hash of each row, in order, as int64."""
        if batch.num_rows == 0:
            return pa.array([], pa.int64())
        if native.available():
            buffer = pa.allocate_buffer(8 * batch.num_rows)
            _compiled(self._columns, batch, buffer.address)
            result = pa.Array.from_buffers(pa.int64(), batch.num_rows, [None, buffer])
        else:
            result = _pool().submit(self._each, batch).result()
        if overrides:
            values = result.to_pylist()
            for row, cells in overrides.items():
                values[row] = self._row_hash(batch.slice(row, 1), cells)
            result = pa.array(values, pa.int64())
        return result

    def _special(self, batch: pa.RecordBatch, overrides: Overrides) -> Fingerprint:
        total = sum(self._row_hash(batch.slice(row, 1), cells) for row, cells in overrides.items())
        return Fingerprint.of(len(overrides), total)

    def _row_hash(self, row: pa.RecordBatch, cells: Mapping[int, bytes]) -> int:
        texts = [column_texts(row, column)[0] for column in self._columns]
        for index, text in cells.items():
            texts[index] = text
        return row_hash(texts)

    def _sum(self, batch: pa.RecordBatch) -> tuple[int, int, int]:
        expression = self._bind(batch)
        query = f"select count(*), count(h), sum(h) from (select {expression} as h from batch)"
        rows: list[tuple[int, int, int]] = _connection().execute(query).fetchall()
        return rows[0]

    def _each(self, batch: pa.RecordBatch) -> pa.Array:
        expression = self._bind(batch)
        return _connection().sql(f"select {expression} as h from batch").to_arrow_table().column(0).combine_chunks()

    def _bind(self, batch: pa.RecordBatch) -> str:
        """Register the batch in plain form as ``batch``; the expression of a row's hash over it."""
        arrays: list[pa.Array] = []
        names: list[str] = []
        pieces: list[str] = []
        for index, column in enumerate(self._columns):
            array = plain(batch.column(batch.schema.get_field_index(column.field)), column.type)
            name = f"c{index}"
            text = f"{name}::VARCHAR"
            if column.type.kind in {Kind.INTERVAL, Kind.TIMETZ}:
                text = "concat_ws('/', " + ", ".join(f"{name}.{child.name}" for child in array.type) + ")"
                text = f"case when {name} is not null then {text} end"
            elif column.type.kind in {Kind.BINARY, Kind.UUID}:
                text = f"lower(hex({name}))"
            elif column.type.kind is Kind.BOOL:
                text = f"{name}::TINYINT::VARCHAR"
            elif column.type.kind is Kind.DECIMAL and column.type.precision == column.type.scale:
                text = f"regexp_replace({text}, '^(-?)[.]', '\\10.')"  # DuckDB leaves the zero before the point out
            arrays.append(array)
            names.append(name)
            companion = batch.schema.get_field_index(column.companion) if column.companion else -1
            if companion >= 0:
                arrays.append(batch.column(companion))
                names.append(f"x{index}")
                special = f"case x{index} when 'infinity' then 'inf' when '-infinity' then '-inf' else x{index} end"
                text = f"coalesce({special}, {text})"
            pieces.append(_piece(text, long=_may_be_long(array, column)))
        _connection().register("batch", pa.Table.from_arrays(arrays, names=names))
        return f"('0x' || substr(md5({_concat(pieces)}), 18, 15))::BIGINT"


class _HashColumn(ctypes.Structure):
    """A column of a batch, as ``c/rowhash.c`` reads it."""

    _fields_ = (
        ("kind", ctypes.c_int32),
        ("scale", ctypes.c_int32),
        ("offset", ctypes.c_int64),
        *((name, ctypes.c_void_p) for name in ("validity", "values", "offsets", "second", "third")),
        *((name, ctypes.c_int64) for name in ("first_offset", "second_offset", "third_offset")),
        *((name, ctypes.c_void_p) for name in ("beyond_validity", "beyond", "beyond_offsets")),
        ("beyond_offset", ctypes.c_int64),
    )


def _compiled(columns: Sequence[Column], batch: pa.RecordBatch, each: int | None) -> int:
    """The sum of the rows' hashes modulo 2^64; each of them is written to the address ``each``, if there is one."""
    laid_out = (_HashColumn * len(columns))()
    for place, column in zip(laid_out, columns, strict=True):
        index = batch.schema.get_field_index(column.companion) if column.companion else -1
        beyond = batch.column(index) if index >= 0 else None
        _lay_out(place, column, batch.column(batch.schema.get_field_index(column.field)), beyond)
    library: Any = native.library()
    total = ctypes.c_uint64()
    done = library.jivs_rowhash(
        ctypes.byref(laid_out),
        ctypes.c_int32(len(columns)),
        ctypes.c_int64(batch.num_rows),
        ctypes.c_void_p(each),
        ctypes.byref(total),
    )
    if not done:
        raise MemoryError
    return total.value


def _lay_out(place: _HashColumn, column: Column, array: pa.Array, beyond: pa.Array | None) -> None:
    """Where the buffers of a column are. The batch keeps them alive."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    place.kind = native.KINDS[column.type.kind]
    place.scale = column.type.scale
    place.offset = array.offset
    buffers = array.buffers()
    place.validity = _address(buffers[0]) if array.null_count else None
    if column.type.kind in {Kind.INTERVAL, Kind.TIMETZ}:
        children = [array.field(number) for number in range(array.type.num_fields)]
        for name, offset, child in zip(("values", "second", "third"), ("first", "second", "third"), children, strict=False):
            setattr(place, name, _address(child.buffers()[1]))
            setattr(place, f"{offset}_offset", child.offset)
    elif column.type.kind in {Kind.TEXT, Kind.BINARY}:
        place.offsets, place.values = _address(buffers[1]), _address(buffers[2])
    else:
        place.values = _address(buffers[1])
    if beyond is not None and beyond.null_count < len(beyond):
        validity, offsets, data = beyond.buffers()
        place.beyond_validity = _address(validity) if beyond.null_count else None
        place.beyond_offsets, place.beyond, place.beyond_offset = _address(offsets), _address(data), beyond.offset


def _address(buffer: pa.Buffer | None) -> int | None:
    return buffer.address if buffer is not None else None


def _piece(text: str, *, long: bool) -> str:
    if long:
        return (
            f"case when ({text}) is null then 'N' when strlen({text}) > {LONG}"
            f" then concat(strlen({text}), ':md5:', md5({text})) else concat(strlen({text}), ':', {text}) end"
        )
    return f"coalesce(strlen({text}) || ':' || {text}, 'N')"


def _may_be_long(array: pa.Array, column: Column) -> bool:
    if column.type.kind not in {Kind.TEXT, Kind.BINARY}:
        return False
    longest = pc.max(pc.binary_length(array)).as_py() or 0
    return longest * (2 if column.type.kind is Kind.BINARY else 1) > LONG


def _concat(pieces: list[str]) -> str:
    while len(pieces) > _WIDE:
        pieces = [f"concat({', '.join(pieces[start : start + _WIDE])})" for start in range(0, len(pieces), _WIDE)]
    return f"concat({', '.join(pieces)})"
