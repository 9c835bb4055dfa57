"""The archive's types as Arrow types."""

from __future__ import annotations

import pyarrow as pa

from jivs.domain.schema import ArchiveType, Column, Kind

INTERVAL = pa.struct([("months", pa.int32()), ("days", pa.int32()), ("microseconds", pa.int64())])
TIMETZ = pa.struct([("time_us", pa.int64()), ("offset_s", pa.int32())])

_PLAIN: dict[Kind, pa.DataType] = {
    Kind.BOOL: pa.bool_(),
    Kind.INT8: pa.int8(),
    Kind.INT16: pa.int16(),
    Kind.INT32: pa.int32(),
    Kind.INT64: pa.int64(),
    Kind.UINT8: pa.uint8(),
    Kind.UINT16: pa.uint16(),
    Kind.UINT32: pa.uint32(),
    Kind.UINT64: pa.uint64(),
    Kind.FLOAT: pa.float32(),
    Kind.DOUBLE: pa.float64(),
    Kind.TEXT: pa.string(),
    Kind.BINARY: pa.binary(),
    Kind.UUID: pa.uuid(),
    Kind.DATE: pa.date32(),
    Kind.TIME: pa.time64("us"),
    Kind.TIMETZ: TIMETZ,
    Kind.INTERVAL: INTERVAL,
}


def arrow_type(type_: ArchiveType) -> pa.DataType:
    """The Arrow type that holds values of an archive type."""
    if type_.kind is Kind.DECIMAL:
        return pa.decimal128(type_.precision, type_.scale)
    if type_.kind is Kind.TIMESTAMP:
        return pa.timestamp(type_.unit, "UTC" if type_.zoned else None)
    return _PLAIN[type_.kind]


def arrow_field(column: Column) -> pa.Field:
    """The field of a column. Always nullable: a quarantined value is NULL in it."""
    metadata = {"jivs.source_type": column.source_type, "jivs.fidelity": column.fidelity.value}
    if column.logical:
        metadata["jivs.logical"] = column.logical
    return pa.field(column.field, arrow_type(column.type), metadata=metadata)


def companion_field(column: Column) -> pa.Field:
    """The field for the texts of values beyond the column's type."""
    return pa.field(column.companion, pa.string(), metadata={"jivs.companion_of": column.field})
