"""How the columns of a segment are encoded, decided from its first rows.

A dictionary pays where values repeat; where they do not, building it is the most expensive part of writing a segment and is
thrown away in the end. Source: Apache Parquet, "Encodings".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

_SAMPLE = 16 << 10
_FEW = 256
"""Fewer rows than this are written plain: nothing to win."""

_REPEATED = 4
"""A dictionary needs values that occur this often on average ..."""
_REPEATED_NUMBER = 8
"""... numbers more often, for they are small themselves, and deltas make them smaller."""


@dataclass(frozen=True, kw_only=True)
class Encodings:
    """Arguments of the Parquet writer: columns with a dictionary, other encodings of columns without, columns whose least
    and greatest values are written.
    """

    dictionary: list[str]
    others: dict[str, str]
    statistics: list[str]


def choose(table: pa.Table, key: Sequence[str]) -> Encodings:
    """The encodings for rows like these. ``key`` names the columns of the table's key.

    Comparing every text with every other costs a tenth of the writing and lets a reader skip nothing unless the rows are in
    that order: of texts, only those of the key get statistics. Floats get none: Parquet leaves NaN out of them, and readers
    that forget it (DuckDB 2.0) then find no row with NaN.
    """
    sample = table.slice(0, _SAMPLE)
    dictionary, others, statistics = [], {}, []
    few = table.num_rows < _FEW
    for field in table.schema:
        text = pa.types.is_string(field.type) or pa.types.is_binary(field.type)
        if not pa.types.is_floating(field.type) and (field.name in key or not text):
            statistics.append(field.name)
        if pa.types.is_struct(field.type) or pa.types.is_boolean(field.type) or isinstance(field.type, pa.BaseExtensionType):
            continue
        if few:
            continue
        column = sample.column(field.name)
        number = _is_number(field.type)
        present = len(column) - column.null_count
        if pc.count_distinct(column).as_py() * (_REPEATED_NUMBER if number else _REPEATED) <= present:
            dictionary.append(field.name)
        elif number:
            others[field.name] = "DELTA_BINARY_PACKED"
    return Encodings(dictionary=dictionary, others=others, statistics=statistics)


def _is_number(type_: pa.DataType) -> bool:
    """Whether Parquet stores the type as INT32 or INT64."""
    return bool(
        pa.types.is_integer(type_) or pa.types.is_temporal(type_) or (pa.types.is_decimal(type_) and type_.precision <= 18)
    )
