"""Parquet files as a source."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from jivs.connectors._file_place import Place
from jivs.domain.arrow import arrow_type
from jivs.domain.schema import ArchiveType, Column, Fidelity, Kind
from jivs.domain.source import Limits
from jivs.errors import IntegrityError, UsageError
from jivs.ports.connector import Chunk

Convert = Callable[[pa.Array], pa.Array]
_SAME = {
    pa.bool_(): Kind.BOOL,
    pa.int8(): Kind.INT8,
    pa.int16(): Kind.INT16,
    pa.int32(): Kind.INT32,
    pa.int64(): Kind.INT64,
    pa.uint8(): Kind.UINT8,
    pa.uint16(): Kind.UINT16,
    pa.uint32(): Kind.UINT32,
    pa.uint64(): Kind.UINT64,
    pa.float16(): Kind.FLOAT,
    pa.float32(): Kind.FLOAT,
    pa.float64(): Kind.DOUBLE,
    pa.date32(): Kind.DATE,
    pa.uuid(): Kind.UUID,
}


class Parquet:
    """One Parquet file."""

    def __init__(self, place: Place, limits: Limits) -> None:
        self._place = place
        self._limits = limits
        try:
            with place.held() as path, pq.ParquetFile(path, coerce_int96_timestamp_unit="us") as file:
                self.rows: int = file.metadata.num_rows
                self._groups: int = file.metadata.num_row_groups
                self._bytes = sum(file.metadata.row_group(index).total_byte_size for index in range(self._groups))
                self._schema: pa.Schema = file.schema_arrow
                place.require_columns(len(self._schema.names))
                self._names = _unique(self._schema.names)
        except FileNotFoundError:
            raise UsageError(f"There is no file {place}.") from None
        except (pa.ArrowException, OSError) as error:
            raise UsageError(f"{place} is not a readable Parquet file: {error}.") from error

    def columns(self) -> list[Column]:
        """The archive's columns; nested values and what has no archive type become text."""
        out = []
        for name, field in zip(self._names, self._schema, strict=True):
            type_, _, fidelity, logical = _rule(field.type)
            out.append(
                Column(
                    name=name,
                    field=name,
                    type=type_,
                    source_type=str(field.type),
                    fidelity=fidelity,
                    nullable=field.nullable,
                    logical=logical,
                )
            )
        return out

    def read(self, columns: Sequence[Column]) -> Iterator[Chunk]:
        """The rows, in bounded batches."""
        width = max(1, self._bytes // max(1, self.rows))
        size = max(1, min(self._limits.batch_rows or 64 << 10, self._limits.batch_bytes // width))
        positions = [self._names.index(column.name) for column in columns]
        try:
            with self._place.held() as path, pq.ParquetFile(path, coerce_int96_timestamp_unit="us") as file:
                for batch in file.iter_batches(batch_size=size, use_threads=False):
                    arrays = [_rule(batch.schema.field(index).type)[1](batch.column(index)) for index in positions]
                    names = [f"c{index}" for index in range(len(arrays))]
                    yield Chunk(batch=pa.RecordBatch.from_arrays(arrays, names=names))
        except (pa.ArrowException, OSError) as error:
            raise IntegrityError(f"{self._place} is damaged: {error}.") from error

    def count(self) -> int:
        """Rows, as its footer says."""
        return self.rows


def _unique(names: Sequence[str]) -> list[str]:
    """Names by which columns can be told apart: a second ``a`` becomes ``a__2``."""
    out: list[str] = []
    for name in names:
        unique, number = name, 1
        while unique in out:
            number += 1
            unique = f"{name}__{number}"
        out.append(unique)
    return out


def _rule(type_: pa.DataType) -> tuple[ArchiveType, Convert, Fidelity, str]:
    """Archive type, conversion, fidelity and logical type of an Arrow type."""
    exact = Fidelity.EXACT
    if type_ in _SAME:
        archive = ArchiveType(kind=_SAME[type_])
        return (
            archive,
            lambda array: array.cast(arrow_type(archive)) if array.type != arrow_type(archive) else array,
            exact,
            "",
        )
    if isinstance(type_, pa.BaseExtensionType):
        archive, convert, fidelity, logical = _rule(type_.storage_type)
        return archive, lambda array: convert(array.storage), fidelity, logical or str(type_)
    if pa.types.is_dictionary(type_):
        archive, convert, fidelity, logical = _rule(type_.value_type)
        return archive, lambda array: convert(array.dictionary_decode()), fidelity, logical
    if pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_):
        return ArchiveType(kind=Kind.TEXT), lambda array: array.cast(pa.binary()), exact, ""
    if pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or _is_bytes(type_):
        return ArchiveType(kind=Kind.BINARY), lambda array: array.cast(pa.binary()), exact, ""
    if pa.types.is_decimal(type_):
        if type_.precision <= 38 and 0 <= type_.scale <= type_.precision:
            archive = ArchiveType(kind=Kind.DECIMAL, precision=type_.precision, scale=type_.scale)
            return archive, lambda array: array.cast(arrow_type(archive)), exact, ""
        return ArchiveType(kind=Kind.TEXT), _texts, Fidelity.TEXT, "decimal"
    if pa.types.is_timestamp(type_):
        unit = "ns" if type_.unit == "ns" else "us"
        archive = ArchiveType(kind=Kind.TIMESTAMP, unit=unit, zoned=type_.tz is not None)
        return archive, lambda array: _timestamp(array, archive), exact, ""
    if pa.types.is_time(type_) and type_.unit != "ns":
        return ArchiveType(kind=Kind.TIME), lambda array: array.cast(pa.time64("us")), exact, ""
    if pa.types.is_date64(type_):
        return ArchiveType(kind=Kind.DATE), lambda array: array.cast(pa.date32()), exact, ""
    if pa.types.is_time(type_) or pa.types.is_duration(type_):
        return ArchiveType(kind=Kind.INT64), lambda array: array.view(pa.int64()), exact, f"{type_}"
    return ArchiveType(kind=Kind.TEXT), _texts, Fidelity.TEXT, "json"


def _is_bytes(type_: pa.DataType) -> bool:
    return bool(pa.types.is_fixed_size_binary(type_) or pa.types.is_binary_view(type_))


def _timestamp(array: pa.Array, archive: ArchiveType) -> pa.Array:
    wanted = arrow_type(archive)
    factor = {"s": 1_000_000, "ms": 1000}.get(array.type.unit, 1)
    counts = array.view(pa.int64())
    if factor > 1:
        ends = pc.min_max(counts)
        if ends["min"].is_valid and max(-ends["min"].as_py(), ends["max"].as_py()) > (2**63 - 1) // factor:
            raise IntegrityError(f"a {array.type} has a value beyond the range of microseconds; cast it in the source")
        counts = pc.multiply(counts, pa.scalar(factor, pa.int64()))
    return counts.view(wanted)


def _texts(array: pa.Array) -> pa.Array:
    """Nested values as JSON: numbers exact, moments in ISO form, bytes as hex digits, maps as lists of pairs."""
    values = [None if value is None else _json(value) for value in array.to_pylist()]
    return pa.array(values, pa.string())


def _json(value: Any) -> str:
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(key, ensure_ascii=False)}:{_json(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(_json(item) for item in value) + "]"
    if isinstance(value, bytes):
        return json.dumps(value.hex())
    if isinstance(value, (datetime, date, time)):
        return json.dumps(value.isoformat())
    if isinstance(value, timedelta):
        return json.dumps(str(value))
    return json.dumps(value, ensure_ascii=False)
