"""The compiled decoders once more, in plain Python and by the book: slow, and the oracle of their tests.

A cell is None, a value as ``pyarrow`` would give it, ``Beyond`` (a text beside the column) or ``Misfit``. ``Refused`` stands for
bytes that the protocol does not allow.
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Context, Decimal
from typing import Any

from jivs.domain.schema import ArchiveType, Kind
from jivs.transfer.moments import RANGE, parse
from jivs.wire.native import Form

_EPOCH_DAYS = 10957
_EPOCH_US = _EPOCH_DAYS * 86_400_000_000
_EXACT = Context(prec=100_000)
sys.set_int_max_str_digits(0)


@dataclass(frozen=True)
class Beyond:
    text: str


@dataclass(frozen=True)
class Misfit:
    raw: bytes


class RefusedError(Exception):
    pass


Cell = Any


def postgres_rows(stream: bytes, types: Sequence[ArchiveType], forms: Sequence[Form]) -> list[list[Cell]]:
    """The rows of whole messages of a COPY in binary, up to CopyDone."""
    rows: list[list[Cell]] = []
    first = True
    while stream:
        kind, size = stream[:1], struct.unpack(">I", stream[1:5])[0]
        body, stream = stream[5 : size + 1], stream[size + 1 :]
        if kind == b"c" and size == 4:
            return rows
        if kind != b"d" or len(body) != size - 4:
            raise RefusedError
        if first:
            if body[:11] != b"PGCOPY\n\xff\r\n\0" or len(body) < 19:
                raise RefusedError
            flags, extension = struct.unpack(">II", body[11:19])
            if flags >> 16 or extension > len(body) - 19:
                raise RefusedError
            body, first = body[19 + extension :], False
        while body:
            if len(body) < 2:
                raise RefusedError
            count = struct.unpack(">h", body[:2])[0]
            body = body[2:]
            if count == -1:
                if body:
                    raise RefusedError
                break
            if count != len(types):
                raise RefusedError
            row = []
            for type_, form in zip(types, forms, strict=True):
                if len(body) < 4:
                    raise RefusedError
                length = struct.unpack(">i", body[:4])[0]
                body = body[4:]
                if length == -1:
                    row.append(None)
                    continue
                if not 0 <= length <= len(body):
                    raise RefusedError
                row.append(_postgres_value(body[:length], type_, form))
                body = body[length:]
            rows.append(row)
    raise RefusedError


_FIXED = {
    Kind.INT8: ">b", Kind.INT16: ">h", Kind.INT32: ">i", Kind.INT64: ">q", Kind.UINT8: ">B", Kind.UINT16: ">H", Kind.UINT32: ">I",
    Kind.UINT64: ">Q", Kind.FLOAT: ">f", Kind.DOUBLE: ">d", Kind.DATE: ">i", Kind.TIME: ">q", Kind.TIMESTAMP: ">q",
    Kind.BOOL: ">B", Kind.TIMETZ: ">qi", Kind.INTERVAL: ">qii",
}  # fmt: skip


def _postgres_value(raw: bytes, type_: ArchiveType, form: Form) -> Cell:
    kind = type_.kind
    if kind in _FIXED:
        if len(raw) != struct.calcsize(_FIXED[kind]):
            raise RefusedError
        values = struct.unpack(_FIXED[kind], raw)
        return _FIXED_VALUES.get(kind, lambda value, _: value)(values if len(values) > 1 else values[0], type_)
    if kind is Kind.UUID:
        if len(raw) != 16:
            raise RefusedError
        return raw
    if kind is Kind.BINARY:
        return raw
    if kind is Kind.DECIMAL or form is Form.NUMERIC_TEXT:
        return _postgres_numeric(raw, type_)
    if form is Form.JSONB:
        if raw[:1] != b"\1":
            raise RefusedError
        raw = raw[1:]
    return _text(raw)


def _text(raw: bytes) -> Cell:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return Misfit(raw)


def _bool(value: Any, _: ArchiveType) -> Cell:
    if value > 1:
        raise RefusedError
    return bool(value)


def _date(value: Any, _: ArchiveType) -> Cell:
    if value in {2**31 - 1, -(2**31)}:
        return Beyond("infinity" if value > 0 else "-infinity")
    if not -2451545 <= value < 2145031949:
        raise RefusedError
    return value + _EPOCH_DAYS


def _time(value: Any, _: ArchiveType) -> Cell:
    if value == 86_400_000_000:
        return Beyond("24:00:00")
    if not 0 <= value < 86_400_000_000:
        raise RefusedError
    return value


def _timestamp(value: Any, type_: ArchiveType) -> Cell:
    if value in {2**63 - 1, -(2**63)}:
        return Beyond("infinity" if value > 0 else "-infinity")
    if not -211_813_488_000_000_000 <= value < 9_223_371_331_200_000_000:
        raise RefusedError
    value += _EPOCH_US
    if value < RANGE["us"][1]:
        return value
    days, clock = divmod(value, 86_400_000_000)
    cycles, days = divmod(days, 146097)
    day = date.fromordinal(date(1970, 1, 1).toordinal() + days)
    text = f"{day.year + 400 * cycles}-{day.month:02}-{day.day:02} "
    text += f"{clock // 3_600_000_000:02}:{clock // 60_000_000 % 60:02}:{clock // 1_000_000 % 60:02}"
    if clock % 1_000_000:
        text += f".{clock % 1_000_000:06}".rstrip("0")
    return Beyond(text + ("+00" if type_.zoned else ""))


def _timetz(value: Any, _: ArchiveType) -> Cell:
    if not 0 <= value[0] <= 86_400_000_000 or abs(value[1]) > 7 * 86400:
        raise RefusedError
    return {"time_us": value[0], "offset_s": -value[1]}


def _interval(value: Any, _: ArchiveType) -> Cell:
    return {"months": value[2], "days": value[1], "microseconds": value[0]}


_FIXED_VALUES: dict[Kind, Callable[[Any, ArchiveType], Cell]] = {
    Kind.BOOL: _bool, Kind.DATE: _date, Kind.TIME: _time, Kind.TIMESTAMP: _timestamp, Kind.TIMETZ: _timetz, Kind.INTERVAL: _interval,
}  # fmt: skip


def _postgres_numeric(raw: bytes, type_: ArchiveType) -> Cell:
    if len(raw) < 8:
        raise RefusedError
    count, weight, sign, scale = struct.unpack(">HhHH", raw[:8])
    special = {0xC000: "NaN", 0xD000: "Infinity", 0xF000: "-Infinity"}.get(sign)
    if special:
        return special if type_.kind is Kind.TEXT else Misfit(special.encode())
    if sign not in {0, 0x4000} or scale > 0x3FFF or len(raw) != 8 + 2 * count:
        raise RefusedError
    digits = struct.unpack(f">{count}H", raw[8:])
    if any(digit > 9999 for digit in digits):
        raise RefusedError
    if digits[:1] == (0,) or (not digits and weight):
        raise RefusedError  # a server sends no leading zeros
    number = Decimal(0)
    for place, digit in enumerate(digits):
        number = _EXACT.add(number, Decimal(digit).scaleb(4 * (weight - place), _EXACT))
    if type_.kind is Kind.DECIMAL:
        shifted = number.scaleb(type_.scale, _EXACT)
        if shifted == shifted.to_integral_value(context=_EXACT) and shifted < 10**type_.precision:
            return Decimal(int(shifted) * (-1 if sign else 1)).scaleb(-type_.scale, _EXACT)
    cut = int(number.scaleb(scale, _EXACT))
    text = f"{cut // 10**scale}.{cut % 10**scale:0{scale}}" if scale else str(cut)
    text = ("-" if sign else "") + text
    return text if type_.kind is Kind.TEXT else Misfit(text.encode())


def mysql_value(raw: bytes, type_: ArchiveType, form: Form) -> Cell:
    """One value of the text protocol."""
    kind = type_.kind
    if kind is Kind.TEXT:
        return _text(raw)
    if kind is Kind.BINARY:
        return raw
    text = raw.decode("latin-1")
    try:
        if kind in {Kind.DATE, Kind.TIMESTAMP}:
            count = parse(text, type_)
            return Beyond(text) if count is None else count
        if kind is Kind.UUID:
            return bytes.fromhex(text.replace("-", ""))
        if kind is Kind.DECIMAL:
            number = Decimal(text)
            shifted = number.scaleb(type_.scale, _EXACT)
            if shifted != shifted.to_integral_value(context=_EXACT) or shifted.copy_abs() >= 10**type_.precision:
                return Misfit(raw)
            return number.quantize(Decimal(1).scaleb(-type_.scale), context=_EXACT)
        number = int(text)
        if form is Form.BITS:
            return struct.unpack("<d", struct.pack("<q", number))[0]
        bits = int(kind.value.removeprefix("u").removeprefix("int"))
        low, high = (0, 2**bits) if kind.value.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1))
        return number if low <= number < high else Misfit(raw)
    except (ValueError, ArithmeticError):
        return Misfit(raw)
