"""Canonical text of values and rows, in plain Python (``docs/verification.md``).

The slow twin of ``rowhash``: it hashes the few rows that hold quarantined values, and it is the oracle against which
the fast path is tested. One definition for every source: a value's text depends on its archive type only.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from jivs.domain.schema import ArchiveType, Column, Kind

LONG = 1024
"""A value of more bytes than this enters the row's text as ``<length>:md5:<md5 of its bytes>``."""

COMPANION_TEXT = {"infinity": "inf", "-infinity": "-inf"}
"""Canonical texts of companion values; every other companion value stands for itself."""


def row_text(values: Sequence[bytes | None]) -> bytes:
    """Join the canonical texts of a row's values: ``N`` for NULL, otherwise ``<byte length>:<text>``."""
    return b"".join(b"N" if value is None else _piece(value) for value in values)


def _piece(value: bytes) -> bytes:
    if len(value) > LONG:
        return b"%d:md5:%s" % (len(value), hashlib.md5(value).hexdigest().encode())  # noqa: S324 - the format's row hash
    return b"%d:%s" % (len(value), value)


def row_hash(values: Sequence[bytes | None]) -> int:
    """The last 15 hex digits of the MD5 of the row's text, as an integer below 2^60."""
    return int(hashlib.md5(row_text(values)).hexdigest()[-15:], 16)  # noqa: S324 - the format's row hash


def plain(array: pa.Array, type_: ArchiveType) -> pa.Array:
    """An array whose values print as canonical text: moments and floats as integers, UUIDs as bytes; no copy but for NaN."""
    if type_.kind is Kind.DATE:
        return array.view(pa.int32())
    if type_.kind in {Kind.TIME, Kind.TIMESTAMP}:
        return array.view(pa.int64())
    if type_.kind is Kind.UUID:
        return array.storage if isinstance(array, pa.ExtensionArray) else array
    if type_.kind in {Kind.FLOAT, Kind.DOUBLE}:
        wide = array.cast(pa.float64())
        return pc.if_else(pc.is_nan(wide), pa.scalar(float("nan")), wide).view(pa.int64())
    return array


def column_texts(batch: pa.RecordBatch, column: Column) -> list[bytes | None]:
    """The canonical texts of one column of a batch in archive form, companion values included."""
    array = batch.column(batch.schema.get_field_index(column.field))
    texts = [None if value is None else _value_text(value, column.type) for value in plain(array, column.type).to_pylist()]
    index = batch.schema.get_field_index(column.companion) if column.companion else -1
    if index >= 0:
        for row, value in enumerate(batch.column(index).to_pylist()):
            if value is not None:
                texts[row] = COMPANION_TEXT.get(value, value).encode()
    return texts


def _value_text(value: Any, type_: ArchiveType) -> bytes:
    kind = type_.kind
    if kind is Kind.TEXT:
        text: str = value
        return text.encode()
    if kind in {Kind.BINARY, Kind.UUID}:
        raw: bytes = value
        return raw.hex().encode()
    if kind is Kind.BOOL:
        return b"1" if value else b"0"
    if kind is Kind.DECIMAL:
        return format(value, "f").encode()
    if kind is Kind.INTERVAL:
        return f"{value['months']}/{value['days']}/{value['microseconds']}".encode()
    if kind is Kind.TIMETZ:
        return f"{value['time_us']}/{value['offset_s']}".encode()
    return str(value).encode()
