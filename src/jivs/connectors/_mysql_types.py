"""The type map of MySQL and MariaDB: for each type its archive form, how it is selected, its canonical text in SQL.

``{c}`` stands for the quoted column, ``{cs}`` for its character set. What the server sends is read as bytes. Every
expression was tested against millions of values, extremes included (``docs/verification.md`` names the traps).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pyarrow as pa

from jivs.domain.schema import ArchiveType, Fidelity, Kind
from jivs.ports.connector import TypeRow
from jivs.wire.native import Form

Decoder = Callable[[pa.Array], pa.Array]


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What the server says of a column."""

    data_type: str
    unsigned: bool = False
    zerofill: bool = False
    precision: int = 0
    scale: int = 0
    charset: str = ""
    octets: int = 0


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How one column is read and hashed.

    ``raw``: a second expression, not NULL where the value cannot be converted to UTF-8 without loss: its stored bytes.
    ``decode`` turns the bytes read into archive form; without it conforming does. ``form`` is for the
    compiled decoder.
    """

    archive: ArchiveType
    fidelity: Fidelity = Fidelity.EXACT
    select: str = "{c}"
    canonical: str = "{c}"
    raw: str = ""
    decode: Decoder | None = None
    long: bool = False
    logical: str = ""
    form: Form = Form.PLAIN


_UTF8 = "convert(convert({c} using utf8mb4) using binary)"
_BYTES = "convert({c} using binary)"
_LOSSLESS = "convert(convert(convert({c} using utf8mb4) using {cs}) using binary) = convert({c} using binary)"
_ALREADY_UTF8 = frozenset({"utf8mb4", "utf8mb3", "utf8"})

# IEEE 754 bits of a double as a signed integer. The server prints -0 as 0 and rounds (M,D) types, so floats travel as
# their bits. K is the exponent or one too low (the slack covers LOG2's error), Q the scaled mantissa, whose 53rd bit
# tells which; the lower bound makes denormals and zero come out by themselves; ATAN2 knows the sign of -0.
_K = "floor(log2(greatest(abs({c}),2.3e-308))-1e-9)"
_Q = f"cast(abs({{c}})/pow(2,{_K})*4503599627370496 as signed)"
_BITS = f"cast((atan2({{c}},-1)<0)<<63|(cast({_K}+1022+({_Q}>>53) as signed)<<52)+({_Q}>>({_Q}>>53)) as signed)"

_VALID = "dayofmonth({c})>0 and year({c})>0 and dayofmonth({c})<=dayofmonth(last_day({c}))"

_INTEGERS = {"tinyint": 8, "smallint": 16, "mediumint": 32, "int": 32, "bigint": 64}
_TEXTS = frozenset({"char", "varchar", "tinytext", "text", "mediumtext", "longtext", "enum", "set", "json"})
_BINARIES = frozenset({"binary", "varbinary", "tinyblob", "blob", "mediumblob", "longblob"})
_GEOMETRIES = frozenset({
    "geometry", "point", "linestring", "polygon", "multipoint", "multilinestring", "multipolygon", "geometrycollection",
    "geomcollection",
})  # fmt: skip
UNBOUNDED = frozenset({"tinytext", "text", "mediumtext", "longtext", "json", "vector"}) | _GEOMETRIES | {
    "tinyblob", "blob", "mediumblob", "longblob",
}  # fmt: skip
"""Types whose values are not bounded by the 64 kB of a row."""


def _kind(kind: Kind) -> ArchiveType:
    return ArchiveType(kind=kind)


def _double(array: pa.Array) -> pa.Array:
    return array.cast(pa.string()).cast(pa.int64()).view(pa.float64())


def _float(array: pa.Array) -> pa.Array:
    return _double(array).cast(pa.float32(), safe=False)


def _uuid(array: pa.Array) -> pa.Array:
    values = [None if raw is None else bytes.fromhex(raw.decode().replace("-", "")) for raw in array.to_pylist()]
    return pa.ExtensionArray.from_storage(pa.uuid(), pa.array(values, pa.binary(16)))


_FIXED: dict[str, Rule] = {
    "float": Rule(archive=_kind(Kind.FLOAT), select=_BITS, canonical=_BITS, decode=_float, form=Form.BITS),
    "double": Rule(archive=_kind(Kind.DOUBLE), select=_BITS, canonical=_BITS, decode=_double, form=Form.BITS),
    "date": Rule(archive=_kind(Kind.DATE), canonical=f"if({_VALID},to_days({{c}})-719528,concat({{c}}))"),
    "datetime": Rule(
        archive=_kind(Kind.TIMESTAMP),
        canonical=f"if({_VALID},timestampdiff(microsecond,'1970-01-01',{{c}}),concat({{c}}))",
    ),
    "timestamp": Rule(
        archive=ArchiveType(kind=Kind.TIMESTAMP, zoned=True),
        select="concat({c},'+00')",
        canonical="if(dayofmonth({c})>0,cast(unix_timestamp({c})*1000000 as signed),concat({c},'+00'))",
    ),
    "time": Rule(
        archive=_kind(Kind.INT64),
        select="cast(time_to_sec({c})*1000000 as signed)",
        canonical="cast(time_to_sec({c})*1000000 as signed)",
        logical="time_us",
    ),
    "year": Rule(archive=_kind(Kind.INT16), select="{c}+0", canonical="{c}+0"),
    "bit": Rule(archive=_kind(Kind.UINT64), select="cast({c} as unsigned)", canonical="cast({c} as unsigned)"),
    "uuid": Rule(
        archive=_kind(Kind.UUID),
        select="concat({c})",
        canonical="replace(concat({c}),'-','')",
        decode=_uuid,
        form=Form.DASHED,
    ),
    "inet4": Rule(archive=_kind(Kind.TEXT), fidelity=Fidelity.TEXT, select=_UTF8, canonical=_UTF8),
    "inet6": Rule(archive=_kind(Kind.TEXT), fidelity=Fidelity.TEXT, select=_UTF8, canonical=_UTF8),
}


def rule(facts: Facts) -> Rule:
    """How a column is archived."""
    kind = facts.data_type
    plain = "{c}+0" if facts.zerofill else "{c}"
    if kind in _INTEGERS:
        name = f"{'u' if facts.unsigned else ''}int{_INTEGERS[kind]}"
        return Rule(archive=_kind(Kind(name)), select=plain, canonical=plain)
    if kind == "decimal":
        if facts.precision <= 38:
            type_ = ArchiveType(kind=Kind.DECIMAL, precision=facts.precision, scale=facts.scale)
            return Rule(archive=type_, select=plain, canonical=plain)
        return Rule(archive=_kind(Kind.TEXT), fidelity=Fidelity.TEXT, select=plain, canonical=plain, logical="decimal")
    if kind in _FIXED:
        return _FIXED[kind]
    if kind in _BINARIES or kind in _GEOMETRIES or (kind not in _TEXTS and not facts.charset):
        return Rule(
            archive=_kind(Kind.BINARY),
            select=_BYTES,
            canonical=f"lower(hex({_BYTES}))",
            long=True,
            decode=lambda array: array,
            logical="srid+wkb" if kind in _GEOMETRIES else "",
        )
    logical = "json" if kind == "json" else ""
    if facts.charset in _ALREADY_UTF8 or not facts.charset:
        return Rule(archive=_kind(Kind.TEXT), select=_UTF8, canonical=_UTF8, long=True, logical=logical)
    lossless = _LOSSLESS.replace("{cs}", facts.charset)
    return Rule(
        archive=_kind(Kind.TEXT),
        select=f"if({lossless},{_UTF8},null)",
        raw=f"if({lossless},null,{_BYTES})",
        canonical=f"if({lossless},{_UTF8},{_BYTES})",
        long=True,
        form=Form.STORED,
    )


TYPE_MAP: tuple[TypeRow, ...] = (
    TypeRow(
        source="tinyint, smallint, mediumint, int, bigint", archive="int8, int16, int32, int32, int64", fidelity="exact"
    ),
    TypeRow(source="the same, unsigned", archive="uint8, uint16, uint32, uint32, uint64", fidelity="exact"),
    TypeRow(source="decimal(p,s), p <= 38", archive="decimal(p,s)", fidelity="exact", note="ZEROFILL: the value"),
    TypeRow(source="decimal(p,s), p > 38", archive="text", fidelity="text", note="as printed, all s digits"),
    TypeRow(source="float, double", archive="float, double", fidelity="exact", note="-0 kept; (M,D) as stored, not rounded"),
    TypeRow(source="date", archive="date", fidelity="exact", note="zero and partial dates: companion column"),
    TypeRow(source="datetime(n)", archive="timestamp(us)", fidelity="exact", note="zero and partial: companion column"),
    TypeRow(source="timestamp(n)", archive="timestamp(us,utc)", fidelity="exact", note="zero: companion column"),
    TypeRow(source="time(n)", archive="int64", fidelity="exact", note="microseconds, negative and beyond 24 h too"),
    TypeRow(source="year", archive="int16", fidelity="exact"),
    TypeRow(source="bit(n)", archive="uint64", fidelity="exact"),
    TypeRow(
        source="char, varchar, text types, enum, set, json",
        archive="text",
        fidelity="exact",
        note="converted to UTF-8 by the server; what does not convert back to the same bytes: quarantine",
    ),
    TypeRow(source="binary, varbinary, blob types", archive="binary", fidelity="exact"),
    TypeRow(source="geometry types", archive="binary", fidelity="exact", note="SRID (4 bytes, little-endian) and WKB"),
    TypeRow(source="uuid", archive="uuid", fidelity="exact"),
    TypeRow(source="inet4, inet6", archive="text", fidelity="text"),
)


def piece(chosen: Rule, column: str) -> str:
    """SQL for a value's part of the row text. Values over 1024 bytes are hashed, so no CONCAT meets the packet limit."""
    text = chosen.canonical.replace("{c}", column)
    short = f"concat(length({text}),':',{text})"
    if chosen.long:
        short = f"if(length({text})>1024,concat(length({text}),':md5:',md5({text})),{short})"
    return f"if({column} is null,'N',{short})"


def row_hash(pieces: list[str]) -> str:
    """SQL for a row's hash as DECIMAL: a BIGINT sum would overflow."""
    return f"cast(conv(right(md5(concat({','.join(pieces)})),15),16,10) as decimal(20,0))"
