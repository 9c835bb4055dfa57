"""PostgreSQL's type map: for each type its archive form, how it is read, and its canonical text in SQL.

``{c}`` stands for the quoted column. Read as CSV through COPY, unless ``select`` says otherwise. Source of the binary
layouts of the ``*_send`` functions: PostgreSQL, src/backend/utils/adt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from jivs.domain.arrow import INTERVAL, TIMETZ
from jivs.domain.schema import ArchiveType, Fidelity, Kind
from jivs.ports.connector import TypeRow
from jivs.wire.native import Form

_EPOCH_US = 946_684_800_000_000
"""Microseconds from 1970-01-01 to 2000-01-01, PostgreSQL's own epoch."""

Decoder = Callable[[pa.Array], pa.Array]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How one type is read and hashed.

    ``decode`` turns what was read (``read`` type) into archive form; without it conforming does. ``long``: its text may
    exceed what the row hash takes verbatim. ``binary`` is what the compiled decoder reads instead, ``form`` how that looks.
    """

    archive: ArchiveType
    fidelity: Fidelity = Fidelity.EXACT
    select: str = "{c}"
    canonical: str = "{c}::text"
    read: pa.DataType | None = None
    decode: Decoder | None = None
    long: bool = False
    logical: str = ""
    binary: str = "{c}"
    form: Form = Form.PLAIN


def _kind(kind: Kind, **more: object) -> ArchiveType:
    return ArchiveType(kind=kind, **more)  # type: ignore[arg-type]


def _int64(expression: str) -> str:
    return f"('x'||encode({expression},'hex'))::bit(64)::bigint"


def _int32(expression: str) -> str:
    return f"('x'||encode({expression},'hex'))::bit(32)::int"


def unhex(array: pa.Array) -> pa.Array:
    """Hex digits to the bytes they denote, for all values at once."""
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    array = array.cast(pa.binary())
    offsets = memoryview(array.buffers()[1]).cast("B").cast("i")[array.offset : array.offset + len(array) + 1]
    first, last = offsets[0], offsets[len(array)]
    data = bytes.fromhex(bytes(memoryview(array.buffers()[2] or b"").cast("B")[first:last]).decode("ascii"))
    halved = pa.array([(offset - first) // 2 for offset in offsets], pa.int32())
    validity = array.is_valid() if array.null_count else None
    out = pa.Array.from_buffers(pa.binary(), len(array), [None, halved.buffers()[1], pa.py_buffer(data)])
    if validity is None:
        return out
    return pc.if_else(validity, out, pa.scalar(None, pa.binary()))


def _uuid(array: pa.Array) -> pa.Array:
    return pa.ExtensionArray.from_storage(pa.uuid(), unhex(array).cast(pa.binary(16)))


def _interval(array: pa.Array) -> pa.Array:
    values = [
        None
        if raw is None
        else {
            "microseconds": int.from_bytes(raw[:8], "big", signed=True),
            "days": int.from_bytes(raw[8:12], "big", signed=True),
            "months": int.from_bytes(raw[12:], "big", signed=True),
        }
        for raw in unhex(array).to_pylist()
    ]
    return pa.array(values, INTERVAL)


def _timetz(array: pa.Array) -> pa.Array:
    values = [
        None
        if raw is None
        else {
            "time_us": int.from_bytes(raw[:8], "big", signed=True),
            "offset_s": -int.from_bytes(raw[8:], "big", signed=True),
        }
        for raw in unhex(array).to_pylist()
    ]
    return pa.array(values, TIMETZ)


def _float(wide: str) -> str:
    return f"case when {{c}} = 'NaN' then '9221120237041090560' else ({_int64(f'float8send({wide})')})::text end"


def _timestamp(send: str) -> str:
    return (
        "case when {c} = 'infinity' then 'inf' when {c} = '-infinity' then '-inf' "
        "when {c} >= '294247-01-01' then concat({c}) "
        f"else ({_int64(f'{send}({{c}})')} + {_EPOCH_US})::text end"
    )


_TEXT = ArchiveType(kind=Kind.TEXT)
PLAIN_TEXT = Rule(archive=_TEXT, canonical="{c}", long=True)
OUTPUT_TEXT = Rule(
    archive=_TEXT,
    fidelity=Fidelity.TEXT,
    canonical="concat({c})",
    long=True,
    binary="case when {c} is not distinct from null then null else concat({c}) end",
)
"""Everything without a form of its own: the text that the type's output function gives (a cast to text is not always
that: inet gains a mask, bpchar loses its padding)."""
SENT_TEXT = replace(OUTPUT_TEXT, binary="{c}")
"""Types whose binary form is that text: json, enums."""

UNBOUNDED = Rule(
    archive=_TEXT, fidelity=Fidelity.TEXT, canonical="concat({c})", long=True, logical="decimal", form=Form.NUMERIC_TEXT
)


def numeric(typmod: int) -> Rule:
    """numeric(p,s) within 38 digits as a decimal; every other numeric as the text that the server prints."""
    if typmod < 4:
        return UNBOUNDED
    precision, scale = ((typmod - 4) >> 16) & 0xFFFF, (((typmod - 4) & 0x7FF) ^ 1024) - 1024
    if precision > 38 or not 0 <= scale <= precision:
        return UNBOUNDED
    return Rule(archive=ArchiveType(kind=Kind.DECIMAL, precision=precision, scale=scale))


RULES: dict[str, Rule] = {
    "bool": Rule(archive=_kind(Kind.BOOL), canonical="{c}::int::text"),
    "int2": Rule(archive=_kind(Kind.INT16)),
    "int4": Rule(archive=_kind(Kind.INT32)),
    "int8": Rule(archive=_kind(Kind.INT64)),
    "oid": Rule(archive=_kind(Kind.UINT32)),
    "float4": Rule(archive=_kind(Kind.FLOAT), canonical=_float("{c}::float8")),
    "float8": Rule(archive=_kind(Kind.DOUBLE), canonical=_float("{c}")),
    "text": PLAIN_TEXT,
    "varchar": PLAIN_TEXT,
    "name": Rule(archive=_TEXT),
    "bpchar": Rule(archive=_TEXT, canonical="concat({c})", long=True),
    "bytea": Rule(
        archive=_kind(Kind.BINARY),
        select="encode({c},'hex')",
        canonical="encode({c},'hex')",
        read=pa.binary(),
        decode=unhex,
        long=True,
    ),
    "uuid": Rule(
        archive=_kind(Kind.UUID),
        select="encode(uuid_send({c}),'hex')",
        canonical="encode(uuid_send({c}),'hex')",
        read=pa.binary(),
        decode=_uuid,
    ),
    "date": Rule(
        archive=_kind(Kind.DATE),
        canonical=(
            "case when {c} = 'infinity' then 'inf' when {c} = '-infinity' then '-inf' "
            "else ({c} - date '1970-01-01')::text end"
        ),
    ),
    "time": Rule(
        archive=_kind(Kind.TIME),
        canonical=f"case when {{c}} = '24:00:00' then '24:00:00' else ({_int64('time_send({c})')})::text end",
    ),
    "timetz": Rule(
        archive=_kind(Kind.TIMETZ),
        select="encode(timetz_send({c}),'hex')",
        canonical=(f"concat({_int64('substr(timetz_send({c}),1,8)')},'/',-({_int32('substr(timetz_send({c}),9,4)')}))"),
        read=pa.binary(),
        decode=_timetz,
    ),
    "timestamp": Rule(archive=_kind(Kind.TIMESTAMP), canonical=_timestamp("timestamp_send")),
    "timestamptz": Rule(archive=_kind(Kind.TIMESTAMP, zoned=True), canonical=_timestamp("timestamptz_send")),
    "json": SENT_TEXT,
    "jsonb": replace(SENT_TEXT, form=Form.JSONB),
    "interval": Rule(
        archive=_kind(Kind.INTERVAL),
        select="encode(interval_send({c}),'hex')",
        canonical=(
            f"concat({_int32('substr(interval_send({c}),13,4)')},'/',{_int32('substr(interval_send({c}),9,4)')},'/',"
            f"{_int64('substr(interval_send({c}),1,8)')})"
        ),
        read=pa.binary(),
        decode=_interval,
    ),
}

TYPE_MAP: tuple[TypeRow, ...] = (
    *(TypeRow(source=name, archive=str(rule.archive), fidelity=rule.fidelity.value) for name, rule in RULES.items()),
    TypeRow(source="numeric(p,s), 0 <= s <= p <= 38", archive="decimal(p,s)", fidelity="exact", note="NaN: quarantine"),
    TypeRow(source="numeric otherwise", archive="text", fidelity="text", note="as printed, trailing zeros included"),
    TypeRow(
        source="xml, enum, money, arrays, composites, ranges, multiranges, geometric types, hstore, tsvector, "
        "inet, cidr, macaddr, bit, varbit, reg* and every other type",
        archive="text",
        fidelity="text",
        note="the type's own output text; json is never re-serialised",
    ),
    TypeRow(source="domains", archive="as their base type", fidelity="exact", note="the domain's name is kept"),
    TypeRow(source="large objects", archive="-", fidelity="refused", note="counted in the manifest's notes"),
)


def piece(rule: Rule, column: str, encoding: str) -> str:
    """SQL for a value's part of the row text. ``is not distinct from null``, since a composite of NULLs ``is null``."""
    text = rule.canonical.replace("{c}", column)
    size = f"octet_length({text})"
    digest = f"md5({text})"
    if encoding not in {"UTF8", "SQL_ASCII"} and rule.archive.kind is Kind.TEXT:
        size, digest = f"octet_length(convert_to({text},'UTF8'))", f"md5(convert_to({text},'UTF8'))"
    short = f"{size}||':'||({text})"
    if rule.long:
        short = f"case when {size} > 1024 then {size}||':md5:'||{digest} else {short} end"
    return f"case when {column} is not distinct from null then 'N' else {short} end"


def row_hash(pieces: list[str], encoding: str) -> str:
    """SQL for a row's hash: nested ``concat``, for functions take at most 100 arguments."""
    while len(pieces) > 1:
        pieces = [f"concat({','.join(pieces[start : start + 90])})" for start in range(0, len(pieces), 90)]
    text = pieces[0] if encoding in {"UTF8", "SQL_ASCII"} else f"convert_to({pieces[0]},'UTF8')"
    return f"('x'||right(md5({text}),15))::bit(60)::bigint"
