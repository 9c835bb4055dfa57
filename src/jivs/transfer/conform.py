"""From rows as read to rows as archived: every value in its archive type, beside it, or in quarantine.

There is no path by which a value is changed in silence: a text that does not denote a value of the column's type goes to
quarantine with its bytes; a moment that exists but exceeds the type goes, as text, to the companion column.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc

from jivs.domain.arrow import arrow_field, arrow_type, companion_field
from jivs.domain.quarantine import QuarantinedRow, QuarantinedValue
from jivs.domain.schema import INTEGERS, MOMENTS, Column, Kind
from jivs.errors import FatalError
from jivs.ports.connector import Chunk
from jivs.transfer.moments import ORDINARY, RANGE, parse

_INTEGER = r"^[+-]?\d+$"
_PLAIN_DECIMAL = re.compile(r"[+-]?\d+([.]\d+)?([eE][+-]?\d{1,4})?", re.ASCII)
_PLAIN_FLOAT = re.compile(r"[+-]?(\d+([.]\d*)?([eE][+-]?\d+)?|[Ii]nf(inity)?|[Nn]a[Nn])", re.ASCII)
_DECIMAL = r"^[+-]?\d+([.]\d+)?$"
_UTC = r"([+]00(:?00)?|Z)$"
_FLOAT = r"^[+-]?(\d+([.]\d*)?([eE][+-]?\d+)?|[Ii]nf(inity)?|[Nn]a[Nn])$"


@dataclass(frozen=True, kw_only=True)
class Conformed:
    """A batch in archive form: the columns' fields, then the companion fields that this batch needs."""

    batch: pa.RecordBatch
    values: tuple[QuarantinedValue, ...]
    rows: tuple[QuarantinedRow, ...]

    @property
    def overrides(self) -> dict[int, dict[int, bytes]]:
        """Canonical texts of quarantined cells, as the row hash wants them."""
        out: dict[int, dict[int, bytes]] = {}
        for value in self.values:
            out.setdefault(value.row, {})[value.column] = value.canonical
        return out


@dataclass
class _Column:
    array: pa.Array
    companion: pa.Array | None = None
    poison: tuple[tuple[int, bytes, str], ...] = ()


def conform(columns: Sequence[Column], chunk: Chunk) -> Conformed:
    """Turn a chunk into archive form. The batch must have one column for each of ``columns``, in their order."""
    batch = chunk.batch
    if batch.num_columns != len(columns):
        raise FatalError(f"The connector delivered {batch.num_columns} columns for {len(columns)} described ones.")
    arrays, fields, companions = [], [], []
    values = list(chunk.values)
    for index, column in enumerate(columns):
        done = _conform_column(batch.column(index), column)
        if index in chunk.beyond:
            done = _Column(done.array, chunk.beyond[index], done.poison)
        arrays.append(done.array)
        fields.append(arrow_field(column))
        if done.companion is not None:
            companions.append((companion_field(column), done.companion))
        values += [
            QuarantinedValue(row=row, column=index, original=raw, canonical=raw, reason=reason)
            for row, raw, reason in done.poison
        ]
    schema = pa.schema([*fields, *(field for field, _ in companions)])
    arrays += [array for _, array in companions]
    return Conformed(batch=pa.RecordBatch.from_arrays(arrays, schema=schema), values=tuple(values), rows=chunk.rows)


def _conform_column(array: pa.Array, column: Column) -> _Column:
    wanted = arrow_type(column.type)
    if array.type == wanted:
        if column.type.kind is Kind.TIMESTAMP:
            return _within_range(array, column)
        return _Column(array)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not (pa.types.is_string(array.type) or pa.types.is_binary(array.type)):
        raise FatalError(f"Column {column.name}: {array.type} was read where {column.type} was described.")
    if column.type.kind is Kind.TEXT:
        return _text(array)
    text = _text(array)
    if text.poison:
        done = _parsed(text.array, column)
        return _Column(done.array, done.companion, (*text.poison, *done.poison))
    return _parsed(text.array, column)


def _within_range(array: pa.Array, column: Column) -> _Column:
    low, beyond = RANGE[column.type.unit]
    ends = pc.min_max(array.view(pa.int64()))
    if not ends["min"].is_valid or (ends["min"].as_py() >= low and ends["max"].as_py() < beyond):
        return _Column(array)
    counts = array.view(pa.int64()).to_pylist()
    outside = [count is not None and not low <= count < beyond for count in counts]
    texts = pa.array([str(count) if out else None for count, out in zip(counts, outside, strict=True)], pa.string())
    kept = pc.if_else(pa.array(outside), pa.scalar(None, array.type), array)
    return _Column(kept, texts)


def _text(array: pa.Array) -> _Column:
    if pa.types.is_string(array.type):
        return _Column(array)
    try:
        return _Column(array.cast(pa.string()))
    except pa.ArrowInvalid:
        pass
    values: list[str | None] = []
    poison = []
    for row, raw in enumerate(array.to_pylist()):
        try:
            values.append(None if raw is None else raw.decode())
        except UnicodeDecodeError:
            values.append(None)
            poison.append((row, raw, "not valid in the text's encoding"))
    return _Column(pa.array(values, pa.string()), None, tuple(poison))


def _parsed(array: pa.Array, column: Column) -> _Column:
    kind = column.type.kind
    if kind in MOMENTS:
        return _moments(array, column)
    if kind in INTEGERS:
        return _numbers(array, column, _INTEGER, _one_integer(column))
    if kind is Kind.DECIMAL:
        return _numbers(array, column, _DECIMAL, _one_decimal(column))
    if kind in {Kind.FLOAT, Kind.DOUBLE}:
        return _floats(array, column)
    if kind is Kind.BOOL:
        return _numbers(array, column, r"^(t|f|true|false|0|1)$", _one_bool)
    raise FatalError(f"Column {column.name}: a connector has to deliver {column.type} itself.")


_One = Callable[[str], object]


def _numbers(array: pa.Array, column: Column, pattern: str, one: _One) -> _Column:
    """Cast at once if every text has the plain form and fits; otherwise value by value."""
    wanted = arrow_type(column.type)
    if pc.all(pc.match_substring_regex(array, pattern), min_count=0).as_py():
        try:
            return _Column(array.cast(wanted))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            pass
    values: list[object] = []
    poison = []
    for row, text in enumerate(array.to_pylist()):
        value = None
        if text is not None:
            try:
                value = one(text)
            except (ValueError, ArithmeticError):
                poison.append((row, text.encode(), f"no value of {column.type}"))
        values.append(value)
    return _Column(pa.array(values, wanted), None, tuple(poison))


def _floats(array: pa.Array, column: Column) -> _Column:
    """As numbers; a finite text that overflows or underflows is no value of the type."""
    done = _numbers(array, column, _FLOAT, _one_float(column))
    extreme = pc.or_(pc.is_inf(done.array), pc.equal(done.array, 0.0))
    if done.poison or not pc.any(extreme).as_py():
        return done
    plain_zero = pc.match_substring_regex(array, r"^[+-]?(0+([.]0*)?([eE][+-]?\d+)?|[Ii]nf(inity)?)$")
    if pc.all(pc.or_(pc.invert(extreme), plain_zero), min_count=0).as_py():
        return done
    return _numbers(array, column, "^$", _one_float(column))


def _one_integer(column: Column) -> _One:
    name = column.type.kind.value
    bits = int(name.removeprefix("u").removeprefix("int"))
    low, high = (0, 2**bits) if name.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1))

    def one(text: str) -> int:
        value = int(text) if text.isascii() and text.lstrip("+-").isdigit() else None
        if value is None or not low <= value < high:
            raise ValueError(text)
        return value

    return one


def _one_decimal(column: Column) -> _One:
    """Exact in integers: Python's decimal context would round at 28 digits."""
    limit = 10**column.type.precision

    def one(text: str) -> Decimal:
        if not _PLAIN_DECIMAL.fullmatch(text):
            raise ValueError(text)
        value = Decimal(text)
        _, digits, exponent = value.as_tuple()
        shift = int(exponent) + column.type.scale
        number = int("".join(map(str, digits)))
        number, rest = (number * 10**shift, 0) if shift >= 0 else divmod(number, 10**-shift)
        if rest or number >= limit:
            raise ValueError(text)
        return value

    return one


def _one_float(column: Column) -> _One:
    single = column.type.kind is Kind.FLOAT

    def one(text: str) -> float:
        """The nearest float, as long as that is not another number than the one written: no overflow, no underflow."""
        if not _PLAIN_FLOAT.fullmatch(text):
            raise ValueError(text)
        value = float(text)
        kept = struct.unpack("f", struct.pack("f", value))[0] if single and math.isfinite(value) else value
        written = text.strip("+-").lower()
        if written.startswith(("inf", "nan")):
            return value
        if math.isinf(kept) or (kept == 0 and any(digit in "123456789" for digit in written.partition("e")[0])):
            raise ValueError(text)
        return value

    return one


def _one_bool(text: str) -> bool:
    try:
        return {"t": True, "true": True, "1": True, "f": False, "false": False, "0": False}[text]
    except KeyError:
        raise ValueError(text) from None


def _moments(array: pa.Array, column: Column) -> _Column:
    """Ordinary ones through Arrow's cast, the others one by one: a count, or a text for the companion column."""
    wanted = arrow_type(column.type)
    plain = array
    ordinary = pc.match_substring_regex(array, ORDINARY[column.type.kind])
    if column.type.zoned:
        plain = pc.replace_substring_regex(array, _UTC, "")
        ordinary = pc.and_(
            pc.match_substring_regex(plain, ORDINARY[column.type.kind]), pc.match_substring_regex(array, _UTC)
        )
    if pc.all(ordinary, min_count=0).as_py():
        try:
            return _Column(_cast(plain, wanted))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            pass
    storage = pa.int32() if column.type.kind is Kind.DATE else pa.int64()
    counts: list[int | None] = []
    beyond: list[str | None] = []
    known: dict[str, int | None] = {}
    for text in array.to_pylist():
        if text is None:
            counts.append(None)
            beyond.append(None)
            continue
        if text not in known:
            known[text] = parse(text, column.type)
        count = known[text]
        counts.append(count)
        beyond.append(text if count is None else None)
    companion = pa.array(beyond, pa.string())
    return _Column(pa.array(counts, storage).view(wanted), companion if companion.null_count < len(companion) else None)


def _cast(array: pa.Array, wanted: pa.DataType) -> pa.Array:
    if pa.types.is_timestamp(wanted):
        return array.cast(pa.timestamp(wanted.unit)).cast(pa.int64()).view(wanted)
    return array.cast(wanted)
