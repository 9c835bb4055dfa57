"""Inputs to begin fuzzing with: whole streams of each decoder. Run as ``python -m tests.fuzz.seeds FOLDER``."""

from __future__ import annotations

import random
import sqlite3
import struct
import sys
import tempfile
from pathlib import Path

from jivs.domain.schema import Kind
from jivs.wire.native import KINDS, Form
from tests.unit.test_wire import packets

NUMERIC = [
    struct.pack(">HhHH2H", 2, 0, 0, 2, 12, 3400),
    struct.pack(">HhHH1H", 1, -1, 0x4000, 4, 25),
    struct.pack(">HhHH", 0, 0, 0xC000, 0),
]
POSTGRES: dict[Kind, list[bytes]] = {
    Kind.BOOL: [b"\1"], Kind.INT16: [b"\0\5"], Kind.INT32: [b"\0\0\0\7"], Kind.INT64: [bytes(8)], Kind.UINT32: [b"\xff" * 4],
    Kind.FLOAT: [struct.pack(">f", 1.5)], Kind.DOUBLE: [struct.pack(">d", float("nan"))], Kind.DECIMAL: NUMERIC,
    Kind.TEXT: ["añ€😀".encode(), b"\xff", b"x" * 1100], Kind.BINARY: [b"\0\1", bytes(600)], Kind.UUID: [bytes(range(16))],
    Kind.DATE: [b"\0\0\x20\0", b"\x7f\xff\xff\xff"], Kind.TIME: [struct.pack(">q", 86_400_000_000)],
    Kind.TIMESTAMP: [struct.pack(">q", 9_223_371_331_000_000_000), struct.pack(">q", -(2**63))],
    Kind.TIMETZ: [struct.pack(">qi", 5, -3600)], Kind.INTERVAL: [struct.pack(">qii", -1, 2, 3)],
}  # fmt: skip
MYSQL: dict[Kind, list[bytes]] = {
    Kind.INT8: [b"-128"], Kind.UINT64: [b"18446744073709551615"], Kind.DECIMAL: [b"-12.30", b"0.01"], Kind.DOUBLE: [b"4607182418800017408"],
    Kind.DATE: [b"2024-02-29", b"0000-00-00"], Kind.TIMESTAMP: [b"2024-02-29 23:59:59.123456", b"2024-01-01 00:00:00+00"],
    Kind.TEXT: ["añ€".encode(), b"\xc3"], Kind.BINARY: [bytes(300)], Kind.UUID: [b"00010203-0405-0607-0809-0a0b0c0d0e0f"],
}  # fmt: skip


def head(decoder: int, kinds: list[Kind], form: Form, portion: int) -> bytes:
    """The columns, all with 15 digits of which 2 are behind the point."""
    columns = b"".join(bytes([KINDS[kind], 14, 2, int(form) * 2]) for kind in kinds)
    return bytes([decoder, len(kinds) - 1]) + columns + bytes([portion])


def pages(source: random.Random, columns: int) -> bytes:
    """The pages of a database of one table, but for the first."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "seed.db"
        with sqlite3.connect(path) as connection:
            connection.execute("pragma page_size = 512")
            connection.execute(f"create table t ({', '.join(f'c{number}' for number in range(columns))})")
            for _ in range(source.choice([3, 12, 40])):
                given = [source.choice([None, 0, 1, -5, 2**40, 1.5, "añ", "x" * 30, b"\0\xff"]) for _ in range(columns)]
                if source.random() < 0.05:
                    given[0] = "y" * 900
                connection.execute(f"insert into t values ({', '.join('?' * columns)})", given)
        connection.close()
        return path.read_bytes()[512:]


def main() -> None:
    """Write them."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    source = random.Random(1)
    for number in range(24):
        kinds = source.sample(sorted(POSTGRES), source.randint(1, 5))
        out = b"PGCOPY\n\xff\r\n\0" + bytes(8)
        stream = b""
        for _ in range(3):
            out += struct.pack(">h", len(kinds))
            for kind in kinds:
                value = source.choice(POSTGRES[kind])
                out += struct.pack(">i", len(value)) + value
            stream += b"d" + struct.pack(">I", len(out) + 4) + out
            out = b""
        form = Form.NUMERIC_TEXT if number % 8 == 0 else Form.PLAIN
        (folder / f"postgres-{number:02}").write_bytes(
            head(0, kinds, form, source.choice([0, 7, 255])) + stream + b"c\0\0\0\4"
        )
        kinds = source.sample(sorted(MYSQL), source.randint(1, 5))
        rows = [
            b"".join(bytes([len(value)]) + value for kind in kinds if len(value := source.choice(MYSQL[kind])) < 251)
            for _ in range(3)
        ]
        end = b"\xfe\0\0\2\0"
        raw = packets([bytes([len(kinds)]), *[b"def"] * len(kinds), end, *rows, end])
        form = Form.BITS if number % 2 else Form.DASHED
        (folder / f"mysql-{number:02}").write_bytes(head(1, kinds, form, source.choice([0, 7, 255])) + raw)
        texts = [b"1", b'"a,\n""b"', b"", "é".encode(), b'"']
        body = b"\n".join(b",".join(source.choice(texts) for _ in range(2)) for _ in range(4))
        (folder / f"csv-{number:02}").write_bytes(head(2, [Kind.TEXT] * 2, Form.PLAIN, 255) + body)
        values = [b"1", b"-1.5e3", b'"\\u00e9\\ud83d\\ude00"', b"true", b"null", b'[1, {"k": "]"}]']
        lines = [b'{"a": %s, "b": %s}' % (source.choice(values), source.choice(values)) for _ in range(3)]
        kinds = [source.choice([Kind.INT64, Kind.DOUBLE, Kind.TEXT, Kind.BINARY]) for _ in range(source.randint(1, 4))]
        body = pages(source, len(kinds))
        (folder / f"sqlite-{number:02}").write_bytes(
            head(4, kinds, source.choice([Form.PLAIN, Form.BITS]), source.choice([0, 7, 254, 255])) + body
        )
        (folder / f"json-{number:02}").write_bytes(head(3, [Kind.TEXT] * 2, Form.PLAIN, 255) + b"\n".join(lines))


if __name__ == "__main__":
    main()
