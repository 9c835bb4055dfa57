"""The row hash over Arrow batches: R while reading, A over the Parquet file read back.

DuckDB computes canonical text and MD5 for a whole batch in one query on one thread; rows with quarantined cells go
through ``canonical``.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from jivs.domain.fingerprint import EMPTY, Fingerprint
from jivs.domain.schema import Column, Kind
from jivs.wire.canonical import LONG, column_texts, plain, row_hash

Overrides = Mapping[int, Mapping[int, bytes]]
"""Canonical texts of quarantined cells: row in the batch -> index of the column -> text."""

_WIDE = 200
"""Columns joined by one ``concat``; wider rows nest them, for engines bound their argument lists."""


_local = threading.local()


@cache
def _engine() -> duckdb.DuckDBPyConnection:
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
        rows, hashed, total = _pool().submit(self._sum, batch).result()
        if rows != hashed or rows != batch.num_rows:
            raise AssertionError(f"{rows} rows, {hashed} hashes, {batch.num_rows} in the batch")
        return special + Fingerprint.of(rows, total)

    def hashes(self, batch: pa.RecordBatch, overrides: Overrides | None = None) -> pa.Array:
        """The hash of each row, in order, as int64."""
        if batch.num_rows == 0:
            return pa.array([], pa.int64())
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
