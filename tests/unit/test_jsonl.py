"""The compiled reader of JSON Lines against the plain one, line by line the same, whatever the file holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from unittest.mock import PropertyMock, patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jivs.connectors._file_jsonl import JsonLines
from jivs.connectors._file_place import Place
from jivs.domain.source import Limits
from jivs.errors import RowTooLargeError
from jivs.transfer.conform import conform
from tests.conftest import examples

KEYS = ["a", "b", "ñ", "c__class", ""]
RAW = [
    b"1", b"-0", b"-1", b"9223372036854775807", b"9223372036854775808", b"-9223372036854775808", b"01", b"1.", b"1.50", b"1e5",
    b"1E+400", b".5", b"-", b"true", b"false", b"null", b"nul", b"NaN", b"Infinity", b'""', b'"x"', b'"\\u00e9\\ud83d\\ude00"',
    b'"\\ud800"', b'"\\n\\/\\""', b'"\\x"', b'"\t"', b'"\xff"', "\"é€😀\"".encode(), b"[]", b"{}", b'[1, {"k": [null]}, "]"]',
    b'{"k": 1, "k": 2}', b"[1,]", b"[", b'{"a"}', b'{"a":1,}', b"[" * 70 + b"]" * 70, b"[" * 50 + b"]" * 50, b"9" * 500,
]  # fmt: skip


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """A line: mostly an object, of values that are mostly JSON."""
    if draw(st.integers(0, 12)) == 0:
        return draw(
            st.sampled_from(
                [b"", b"  ", b"\r", b"[]", b"1", b'{"a":1} x', b'{"a":1,"a":2}', b'{"\\u0061":1}', b"{", b'{"a" 1}', b"{}"]
            )
        )
    members = []
    for key in draw(st.lists(st.sampled_from(KEYS), max_size=4, unique=draw(st.integers(0, 9)) > 0)):
        space = draw(st.sampled_from([b"", b" ", b"\t "]))
        value = draw(st.one_of(st.sampled_from(RAW), st.sampled_from([b"1", b"2", b'"x"', b"null"])))
        members.append(space + json.dumps(key, ensure_ascii=False).encode() + space + b":" + space + value + space)
    return b"{" + b",".join(members) + b"}" + draw(st.sampled_from([b"", b" ", b"\r"]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("jsonl")


def found(path: Path, *, compiled: bool, rows: int = 0) -> Any:
    """Everything that a reader makes of a file."""
    with patch.object(JsonLines, "_compiled", new_callable=PropertyMock, return_value=compiled):
        file = JsonLines(Place(path), "utf-8", Limits(batch_rows=rows))
        columns = file.columns()
        values: list[list[Any]] = []
        misfits, rejected = [], []
        for chunk in file.read(columns):
            done = conform(columns, chunk)
            misfits += [(len(values) + value.row, value.column, value.original, value.reason) for value in done.values]
            rejected += [(row.line, row.original, row.reason) for row in done.rows]
            values += [list(row) for row in zip(*(column.to_pylist() for column in done.batch.columns), strict=True)]
        shape = [(column.name, str(column.type), column.logical, column.fidelity) for column in columns]
        return shape, values, sorted(misfits), rejected, file.count(), json.loads(file.definition)


@settings(max_examples=examples(1500), deadline=None)
@given(st.lists(lines(), max_size=12), st.sampled_from([0, 1, 3]), st.booleans())
def test_strange_files_read_as_the_plain_reader_reads_them(
    folder: Path, content: list[bytes], rows: int, ended: bool
) -> None:
    path = folder / "x.jsonl"
    path.write_bytes(b"\n".join(content) + (b"\n" if ended else b""))
    assert found(path, compiled=True, rows=rows) == found(path, compiled=False, rows=rows)


def test_large_files_are_read_in_portions(folder: Path) -> None:
    path = folder / "large.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for number in range(50_000):
            row = {"id": number, "text": "é" * (number % 60), "nested": {"n": [number]}}
            file.write(json.dumps(row | ({"late": True} if number > 40_000 else {}), ensure_ascii=number % 3 == 0) + "\n")
            if number % 9_999 == 5:
                file.write("no json\n")
    assert found(path, compiled=True) == found(path, compiled=False)


def test_a_line_above_the_limit_is_an_error(folder: Path) -> None:
    path = folder / "long.jsonl"
    path.write_bytes(b'{"a":"' + b"x" * (17 << 20) + b'"}\n')
    with pytest.raises(RowTooLargeError):
        found(path, compiled=True)
