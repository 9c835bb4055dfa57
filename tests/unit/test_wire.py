"""The compiled decoders against their twins in plain Python, on random and on hostile bytes, however they are cut."""

from __future__ import annotations

import ctypes
import random
import socket
import sqlite3
import struct
import threading
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jivs.domain.arrow import arrow_field, companion_field
from jivs.domain.fingerprint import Fingerprint
from jivs.domain.schema import ArchiveType, Column, Fidelity, Kind
from jivs.wire import mysql, native
from jivs.wire import sqlite as wire_sqlite
from jivs.wire.canonical import column_texts, row_hash
from jivs.wire.native import Builder, Decoded, Form, Limits, MalformedError, State, Stream
from jivs.wire.rowhash import RowHasher
from tests.conftest import examples
from tests.twins import Beyond, Misfit, RefusedError, mysql_value, postgres_rows

assert native.available(), "these tests are about the compiled part"

Shape = list[tuple[ArchiveType, Form]]


def kind(name: Kind, **more: Any) -> ArchiveType:
    return ArchiveType(kind=name, **more)


PLAIN = [kind(name) for name in Kind if name not in {Kind.DECIMAL, Kind.INT8, Kind.UINT8, Kind.UINT16, Kind.UINT64}]
POSTGRES: Shape = [
    *((type_, Form.PLAIN) for type_ in PLAIN),
    (kind(Kind.TIMESTAMP, zoned=True), Form.PLAIN),
    *(
        (kind(Kind.DECIMAL, precision=p, scale=s), Form.PLAIN)
        for p, s in [(1, 0), (5, 2), (15, 2), (18, 18), (38, 0), (38, 10), (38, 38)]
    ),
    (kind(Kind.TEXT), Form.NUMERIC_TEXT),
    (kind(Kind.TEXT), Form.JSONB),
]
SIZES = {
    Kind.BOOL: 1, Kind.INT16: 2, Kind.INT32: 4, Kind.INT64: 8, Kind.UINT32: 4, Kind.FLOAT: 4, Kind.DOUBLE: 8, Kind.UUID: 16,
    Kind.DATE: 4, Kind.TIME: 8, Kind.TIMESTAMP: 8, Kind.TIMETZ: 12, Kind.INTERVAL: 16,
}  # fmt: skip
EDGES = {
    4: [0, 1, -1, 2**31 - 1, -(2**31), -2451545, -2451546, 2145031948, 2145031949, 8766],
    8: [0, 1, -1, 2**63 - 1, -(2**63), 86_400_000_000, 86_399_999_999, 9_223_371_331_199_999_999, 9_223_371_331_200_000_000,
        9_222_424_560_000_000_000 - 1, 9_222_424_560_000_000_000, -211_813_488_000_000_000, -211_813_488_000_000_001],
}  # fmt: skip


@st.composite
def numeric(draw: st.DrawFn) -> bytes:
    """numeric_send's form: mostly what a server sends, sometimes what none would."""
    digits = draw(st.lists(st.integers(0, 9999), max_size=draw(st.sampled_from([0, 1, 4, 12]))))
    if draw(st.booleans()):
        while digits and digits[0] == 0:
            digits.pop(0)
        while digits and digits[-1] == 0:
            digits.pop()
    weight = draw(st.integers(-11, 11))
    sign = draw(st.sampled_from([0, 0, 0, 0x4000, 0x4000, 0xC000, 0xD000, 0xF000, 0x1234]))
    scale = draw(st.sampled_from([0, 2, 2, 10, 38, 0x3FFF, 0x4000]))
    return struct.pack(f">HhHH{len(digits)}H", len(digits), weight, sign, scale, *digits)


@st.composite
def cell(draw: st.DrawFn, type_: ArchiveType, form: Form) -> bytes | None:
    if draw(st.integers(0, 9)) == 0:
        return None
    if draw(st.integers(0, 200)) == 0:
        return draw(st.binary(max_size=20))
    if type_.kind is Kind.DECIMAL or form is Form.NUMERIC_TEXT:
        return draw(numeric())
    if type_.kind is Kind.TEXT:
        text = draw(st.one_of(st.text(max_size=30).map(str.encode), st.binary(max_size=12)))
        return b"\1" + text if form is Form.JSONB else text
    if type_.kind is Kind.BINARY:
        return draw(st.binary(max_size=40))
    if type_.kind is Kind.BOOL:
        return (
            draw(st.sampled_from([b"\0", b"\1", b"\2"]))
            if draw(st.integers(0, 50)) == 0
            else draw(st.sampled_from([b"\0", b"\1"]))
        )
    size = SIZES[type_.kind]
    if size in EDGES and draw(st.booleans()):
        return draw(st.sampled_from(EDGES[size])).to_bytes(size, "big", signed=True)
    if type_.kind is Kind.TIMETZ:
        return struct.pack(">qi", draw(st.integers(0, 86_400_000_000)), draw(st.integers(-60000, 60000)))
    if type_.kind in {Kind.DATE, Kind.TIME}:
        return draw(st.integers(0, 80_000_000)).to_bytes(size, "big")
    return draw(st.binary(min_size=size, max_size=size))


@st.composite
def copies(draw: st.DrawFn) -> tuple[Shape, bytes]:
    """A table of some columns, and a COPY of some rows of it."""
    shape = draw(st.lists(st.sampled_from(POSTGRES), min_size=1, max_size=6))
    out = b""
    head = b"PGCOPY\n\xff\r\n\0" + bytes(8)
    for _ in range(draw(st.integers(0, 12))):
        body = head + struct.pack(">h", len(shape))
        head = b""
        for type_, form in shape:
            value = draw(cell(type_, form))
            body += struct.pack(">i", -1) if value is None else struct.pack(">i", len(value)) + value
        out += b"d" + struct.pack(">I", len(body) + 4) + body
    trailer = head + struct.pack(">h", -1)
    return shape, out + b"d" + struct.pack(">I", len(trailer) + 4) + trailer + b"c" + struct.pack(">I", 4)


def cells(decoded: Decoded, shape: Shape) -> list[list[Any]]:
    """Rows of cells as the twins give them."""
    columns = []
    for index, (type_, _) in enumerate(shape):
        array = decoded.batch.column(index)
        array.validate(full=True)
        if type_.kind is Kind.DATE:
            array = array.view(pa.int32())
        elif type_.kind in {Kind.TIME, Kind.TIMESTAMP}:
            array = array.view(pa.int64())
        elif type_.kind is Kind.UUID:
            array = array.storage
        values = array.to_pylist()
        if index in decoded.beyond:
            decoded.beyond[index].validate(full=True)
            for row, text in enumerate(decoded.beyond[index].to_pylist()):
                if text is not None:
                    assert values[row] is None
                    values[row] = Beyond(text)
        columns.append(values)
    for misfit in decoded.misfits:
        assert columns[misfit.column][misfit.row] is None
        columns[misfit.column][misfit.row] = Misfit(misfit.original)
    return [list(row) for row in zip(*columns, strict=True)]


def same(left: Any, right: Any) -> bool:
    """Equal, NaN to itself and -0 not to 0."""
    if isinstance(left, float) and isinstance(right, float):
        return struct.pack("d", left) == struct.pack("d", right) or (left != left and right != right)
    if isinstance(left, Decimal):
        return str(left) == str(right) or left == right == 0
    return bool(left == right)


def decode(stream_bytes: bytes, shape: Shape, cuts: int, rows: int, size: int) -> list[list[Any]]:
    """Through the compiled decoder, the bytes arriving in random portions. Raises RefusedError."""
    library = native.required()
    source = random.Random(cuts)
    builder = Builder([type_ for type_, _ in shape], [form for _, form in shape])
    stream = Stream(-1, capacity=64)
    limits = Limits(rows, size, 1 << 20)
    left = memoryview(stream_bytes)
    found: list[list[Any]] = []

    def receive(view: memoryview) -> int:
        nonlocal left
        count = min(len(view), len(left), source.randint(1, 40))
        view[:count], left = left[:count], left[count:]
        return count

    try:
        while True:
            state = State(library.jivs_pgcopy_read(stream.pointer, builder.pointer, ctypes.byref(limits)))
            if state < 0 or state is State.ASIDE:
                raise RefusedError
            if state in {State.FULL, State.END}:
                found += cells(builder.take(), shape)
                if state is State.END:
                    return found
            elif stream.add(receive) == 0:
                raise RefusedError
    finally:
        builder.close()
        stream.close()


def compare(stream_bytes: bytes, shape: Shape, cuts: int, rows: int, size: int) -> None:
    types, forms = [type_ for type_, _ in shape], [form for _, form in shape]
    try:
        expected = postgres_rows(stream_bytes, types, forms)
    except RefusedError:
        with pytest.raises(RefusedError):
            decode(stream_bytes, shape, cuts, rows, size)
        return
    found = decode(stream_bytes, shape, cuts, rows, size)
    assert len(found) == len(expected)
    for left, right in zip(found, expected, strict=True):
        assert all(map(same, left, right)), (left, right)


@settings(max_examples=examples(600), deadline=None)
@given(copies(), st.integers(), st.integers(1, 5), st.sampled_from([1, 200, 1 << 20]))
def test_copies_decode_as_the_twin_does(copy: tuple[Shape, bytes], cuts: int, rows: int, size: int) -> None:
    compare(copy[1], copy[0], cuts, rows, size)


@settings(max_examples=examples(400), deadline=None)
@given(copies(), st.integers(), st.data())
def test_a_flipped_byte_is_refused_or_decodes_as_the_twin_does(
    copy: tuple[Shape, bytes], cuts: int, data: st.DataObject
) -> None:
    shape, raw = copy
    damaged = bytearray(raw)
    at = data.draw(st.integers(0, len(raw) - 1))
    damaged[at] ^= data.draw(st.integers(1, 255))
    try:
        compare(bytes(damaged), shape, cuts, 3, 1 << 20)
    except (struct.error, IndexError):
        with pytest.raises(RefusedError):  # the twin ran out of bytes
            decode(bytes(damaged), shape, cuts, 3, 1 << 20)


def lenenc(value: bytes | None) -> bytes:
    if value is None:
        return b"\xfb"
    size = len(value)
    if size < 0xFB:
        return bytes([size]) + value
    if size < 1 << 16:
        return b"\xfc" + size.to_bytes(2, "little") + value
    return (b"\xfd" + size.to_bytes(3, "little") if size < 1 << 24 else b"\xfe" + size.to_bytes(8, "little")) + value


def packets(payloads: Sequence[bytes], first: int = 1) -> bytes:
    out, number = b"", first
    for payload in payloads:
        rest = payload
        while True:
            part, rest = rest[:0xFFFFFF], rest[0xFFFFFF:]
            out += len(part).to_bytes(3, "little") + bytes([number & 0xFF]) + part
            number += 1
            if len(part) < 0xFFFFFF:
                break
    return out


def result_set(fields: int, rows: Sequence[Sequence[bytes | None]]) -> bytes:
    end = b"\xfe\0\0\2\0"
    return packets([bytes([fields]), *[b"def"] * fields, end, *(b"".join(map(lenenc, row)) for row in rows), end])


def read_mysql(raw: bytes, shape: Shape, fields: int, rows: int = 7, heavy: int = 1 << 30) -> list[list[Any]]:
    ours, theirs = socket.socketpair()
    sender = threading.Thread(target=lambda: (theirs.sendall(raw), theirs.close()))
    sender.start()
    builder = Builder([type_ for type_, _ in shape], [form for _, form in shape])
    try:
        limits = Limits(rows, 1 << 20, heavy)
        found: list[list[Any]] = []
        for decoded in mysql.read(ours, fields, builder, limits, 5.0, lambda _: None):
            found += cells(decoded, shape)
        return found
    finally:
        ours.close()
        sender.join()
        builder.close()


MYSQL: Shape = [
    *((kind(Kind(f"{sign}int{bits}")), Form.PLAIN) for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *((kind(Kind.DECIMAL, precision=p, scale=s), Form.PLAIN) for p, s in [(5, 2), (20, 0), (38, 30)]),
    (kind(Kind.DOUBLE), Form.BITS), (kind(Kind.DATE), Form.PLAIN), (kind(Kind.TIMESTAMP), Form.PLAIN),
    (kind(Kind.TIMESTAMP, zoned=True), Form.PLAIN), (kind(Kind.TEXT), Form.PLAIN), (kind(Kind.BINARY), Form.PLAIN),
    (kind(Kind.UUID), Form.DASHED),
]  # fmt: skip


@st.composite
def mysql_text(draw: st.DrawFn, type_: ArchiveType, form: Form) -> bytes | None:
    """What a server sends for a type, near its limits and beyond them."""
    if draw(st.integers(0, 9)) == 0:
        return None
    name = type_.kind
    if name is Kind.DECIMAL:
        limit = 10**type_.precision - 1
        number = draw(st.one_of(st.sampled_from([0, limit, limit + 1]), st.integers(0, limit)))
        sign = draw(st.sampled_from(["", "-"]))
        text = f"{number // 10**type_.scale}.{number % 10**type_.scale:0{type_.scale}}" if type_.scale else str(number)
        return (sign + text).encode()
    if name in {Kind.DATE, Kind.TIMESTAMP}:
        text = f"{draw(st.integers(0, 9999)):04}-{draw(st.integers(0, 13)):02}-{draw(st.integers(0, 32)):02}"
        if name is Kind.TIMESTAMP:
            text += f" {draw(st.integers(0, 24)):02}:{draw(st.integers(0, 60)):02}:{draw(st.integers(0, 60)):02}"
            text += draw(st.sampled_from(["", ".5", ".000001", ".123456"])) + ("+00" if type_.zoned else "")
        return text.encode()
    if name is Kind.UUID:
        text = draw(st.uuids()).hex
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}".encode()
    if name in {Kind.TEXT, Kind.BINARY}:
        return draw(st.one_of(st.binary(max_size=300), st.text(max_size=40).map(str.encode)))
    bits = 64 if form is Form.BITS else int(name.value.removeprefix("u").removeprefix("int"))
    edge = draw(st.sampled_from([0, 1, -1, 2 ** (bits - 1) - 1, -(2 ** (bits - 1)), 2 ** (bits - 1), 2**bits - 1, 2**bits]))
    if form is Form.BITS:
        edge = max(-(2**63), min(2**63 - 1, edge))
    return str(draw(st.one_of(st.just(edge), st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)))).encode()


@settings(max_examples=examples(300), deadline=None)
@given(st.data())
def test_result_sets_decode_as_the_twin_does(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.sampled_from(MYSQL), min_size=1, max_size=5))
    rows = [[data.draw(mysql_text(type_, form)) for type_, form in shape] for _ in range(data.draw(st.integers(0, 10)))]
    found = read_mysql(result_set(len(shape), rows), shape, len(shape))
    for left, raw in zip(found, rows, strict=True):
        for got, value, (type_, form) in zip(left, raw, shape, strict=True):
            assert same(got, None if value is None else mysql_value(value, type_, form)), (got, value, type_)


def test_values_of_16_mb_and_more_come_in_several_packets() -> None:
    shape: Shape = [(kind(Kind.BINARY), Form.PLAIN), (kind(Kind.TEXT), Form.PLAIN)]
    for size in (0xFFFFFF - 9, 0xFFFFFF, 17 << 20, 2 * 0xFFFFFF):
        value = random.Random(size).randbytes(1024) * (size // 1024 + 1)
        found = read_mysql(result_set(2, [(value[:size], b"x"), (b"", None)]), shape, 2)
        assert found == [[value[:size], "x"], [b"", None]]


def test_text_without_a_utf8_form_comes_with_its_bytes() -> None:
    shape: Shape = [(kind(Kind.TEXT), Form.STORED), (kind(Kind.INT32), Form.PLAIN)]
    raw = result_set(3, [(b"ok", None, b"1"), (None, b"\x81", b"2"), (None, None, b"3")])
    assert read_mysql(raw, shape, 3) == [["ok", 1], [Misfit(b"\x81"), 2], [None, 3]]


@pytest.mark.parametrize(
    "damage", [
        lambda raw: raw[:-9], lambda raw: raw[:3], lambda raw: b"", lambda raw: raw[:4] + b"\x09" + raw[5:],
        lambda raw: raw.replace(b"def", b"\xff\x01\x02", 1), lambda raw: raw[:-14] + b"\xf0" + raw[-13:],
    ],
)  # fmt: skip
def test_servers_that_die_or_lie_are_an_error(damage: Any) -> None:
    shape: Shape = [(kind(Kind.TEXT), Form.PLAIN)]
    with pytest.raises((mysql.LostError, mysql.ServerError, MalformedError)):
        read_mysql(damage(result_set(1, [(b"abcd",)])), shape, 1)


def test_a_silent_server_is_given_up() -> None:
    ours, theirs = socket.socketpair()
    builder = Builder([kind(Kind.TEXT)], [Form.PLAIN])
    with pytest.raises(mysql.LostError) as error:
        list(mysql.read(ours, 1, builder, Limits(1, 1, 1 << 20), 0.2, lambda _: None))
    assert error.value.late
    for end in (ours, theirs):
        end.close()
    builder.close()


HASHED = [
    *((kind(name)) for name in Kind if name is not Kind.DECIMAL), kind(Kind.TIMESTAMP, unit="ns", zoned=True),
    *(kind(Kind.DECIMAL, precision=p, scale=s) for p, s in [(9, 9), (18, 2), (38, 0), (38, 20), (38, 38)]),
]  # fmt: skip


def hashed_values(type_: ArchiveType) -> st.SearchStrategy[Any]:
    name = type_.kind
    if name is Kind.DECIMAL:
        limit = 10**type_.precision - 1
        return st.one_of(st.sampled_from([0, 1, -1, limit, -limit]), st.integers(-limit, limit)).map(
            lambda number: Decimal((number < 0, tuple(map(int, str(abs(number)))), -type_.scale))
        )
    if name is Kind.TEXT:
        return st.one_of(
            st.text(max_size=40), st.sampled_from([0, 9, 10, 99, 100, 1023, 1024, 1025, 5000]).map(lambda n: "x" * n)
        )
    if name is Kind.BINARY:
        return st.one_of(st.binary(max_size=20), st.sampled_from([49, 50, 512, 513, 4000]).map(bytes))
    if name is Kind.UUID:
        return st.binary(min_size=16, max_size=16)
    if name is Kind.BOOL:
        return st.booleans()
    if name is Kind.FLOAT:
        return st.floats(width=32)
    if name is Kind.DOUBLE:
        return st.floats()
    if name is Kind.TIMETZ:
        return st.fixed_dictionaries({"time_us": st.integers(0, 2**40), "offset_s": st.integers(-90000, 90000)})
    if name is Kind.INTERVAL:
        word = st.integers(-(2**31), 2**31 - 1)
        return st.fixed_dictionaries({"months": word, "days": word, "microseconds": st.integers(-(2**63), 2**63 - 1)})
    bits = {Kind.DATE: 32, Kind.TIME: 64, Kind.TIMESTAMP: 64}.get(name) or int(
        name.value.removeprefix("u").removeprefix("int")
    )
    low, high = (0, 2**bits) if name.value.startswith("u") else (-(2 ** (bits - 1)), 2 ** (bits - 1))
    return st.one_of(st.sampled_from([low, high - 1, 0, 9, 10, 99, 100]), st.integers(low, high - 1))


@settings(max_examples=examples(300), deadline=None)
@given(st.data())
def test_rows_hash_as_the_canonical_text_says(data: st.DataObject) -> None:
    """Slices too: a batch may begin anywhere in its buffers, and bitmaps in the middle of a byte."""
    types = data.draw(st.lists(st.sampled_from(HASHED), min_size=1, max_size=5))
    columns = [
        Column(name=f"c{n}", field=f"c{n}", type=type_, source_type="", fidelity=Fidelity.EXACT,
               companion=f"x{n}" if type_.kind in {Kind.DATE, Kind.TIME, Kind.TIMESTAMP} else "")
        for n, type_ in enumerate(types)
    ]  # fmt: skip
    count = data.draw(st.integers(1, 30))
    arrays, fields = [], []
    for column in columns:
        cells_ = data.draw(st.lists(st.one_of(st.none(), hashed_values(column.type)), min_size=count, max_size=count))
        wanted = arrow_field(column)
        storage = {Kind.DATE: pa.int32(), Kind.TIME: pa.int64(), Kind.TIMESTAMP: pa.int64(), Kind.UUID: pa.binary(16)}
        array = pa.array(cells_, storage.get(column.type.kind, wanted.type))
        if column.type.kind is Kind.UUID:
            array = pa.ExtensionArray.from_storage(pa.uuid(), array)
        elif column.type.kind in storage:
            array = array.view(wanted.type)
        if column.companion and data.draw(st.booleans()):
            texts = [data.draw(st.sampled_from(["infinity", "-infinity", "0000-00-00", None])) for _ in range(count)]
            arrays.append(pa.array(texts, pa.string()))
            fields.append(companion_field(column))
        arrays.append(array)
        fields.append(wanted)
    batch = pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))
    start = data.draw(st.integers(0, count))
    batch = batch.slice(start, data.draw(st.integers(0, count - start)))
    texts_by_column = [column_texts(batch, column) for column in columns]
    expected = [row_hash(row) for row in zip(*texts_by_column, strict=True)]
    hasher = RowHasher(columns)
    assert hasher.hashes(batch).to_pylist() == expected
    assert hasher.fingerprint(batch) == Fingerprint.of(len(expected), sum(expected))


def test_rows_of_sqlite_that_are_too_heavy_leave_no_trace(tmp_path: Path) -> None:
    """The row is taken back and read again once it is allowed."""
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path)
    connection.execute("create table t (a text, b blob, c)")
    connection.executemany(
        "insert into t values (?, ?, ?)", [("é", None, 1), ("x" * 500, b"y" * 5000, "other"), (None, b"z", 3)]
    )
    connection.commit()
    connection.close()
    database = wire_sqlite.Database(f"file:{path}?mode=ro", 1)
    seen: list[int] = []
    asked: list[int] = []
    rows = [
        row
        for decoded in database.read(
            "select a, b, c from t",
            [kind(Kind.TEXT), kind(Kind.BINARY), kind(Kind.INT64)],
            [Form.PLAIN] * 3,
            Limits(100, 1 << 20, 1000),
            seen.append,
            lambda row, column, class_, raw: native.QuarantinedValue(
                row=row, column=column, original=raw, canonical=raw, reason=class_
            ),
            asked.append,
        )
        for row in cells(decoded, [(kind(Kind.TEXT), Form.PLAIN)] * 3)
    ]
    database.close()
    assert asked == [100], "once for each batch, and not for each row that was too heavy"
    assert rows == [["é", None, 1], ["x" * 500, b"y" * 5000, Misfit(b"other")], [None, b"z", 3]]
    assert seen
    assert seen[0] > 5500
