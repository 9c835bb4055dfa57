"""The compiled CSV reader against Python's own csv module, which is the plain reader of JiVS, on the strangest files."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest.mock import PropertyMock, patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jivs.connectors._file_csv import Csv, Dialect
from jivs.connectors._file_place import Place
from jivs.domain.schema import ArchiveType, Kind
from jivs.domain.source import Limits
from jivs.errors import RowTooLargeError
from jivs.transfer.conform import conform
from tests.conftest import examples

PIECES = [
    b"a",
    b",",
    b",",
    b'"',
    b'"',
    b'""',
    b"\n",
    b"\n",
    b"\r\n",
    b"\r",
    b"1",
    b"",
    b" ",
    b"\0",
    b"NULL",
    "é€😀".encode(),
    b"\xff",
    b";",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("csv")


def found(path: Path, dialect: Dialect, types: dict[str, ArchiveType], *, compiled: bool, rows: int = 0) -> Any:
    """Everything that a reader makes of a file."""
    with patch.object(Csv, "_compiled", new_callable=PropertyMock, return_value=compiled):
        file = Csv(Place(path), dialect, "utf-8", Limits(batch_rows=rows))
        columns = file.columns(types, infer=False)
        values: list[list[Any]] = []
        misfits, rejected = [], []
        for chunk in file.read(columns):
            done = conform(columns, chunk)
            misfits += [(len(values) + value.row, value.column, value.original, value.reason) for value in done.values]
            rejected += [(row.line, row.original, row.reason) for row in done.rows]
            values += [list(row) for row in zip(*(column.to_pylist() for column in done.batch.columns), strict=True)]
        return values, sorted(misfits), rejected, file.count()


@settings(max_examples=examples(1500), deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), max_size=40).map(b"".join),
    st.sampled_from([",", ";"]),
    st.sampled_from(['"', ""]),
    st.sampled_from([None, "NULL", ""]),
    st.booleans(),
    st.sampled_from([0, 1, 3]),
)
def test_strange_files_read_as_pythons_module_reads_them(
    folder: Path, body: bytes, delimiter: str, quote: str, null: str | None, header: bool, rows: int
) -> None:
    path = folder / "x.csv"
    path.write_bytes((b"x%sy\n" % delimiter.encode() if header else b"") + body)
    dialect = Dialect(delimiter=delimiter, quote=quote, header=header, null=null)
    types = {"y": ArchiveType(kind=Kind.INT64)} if header else {}
    try:
        expected = found(path, dialect, types, compiled=False, rows=rows)
    except Exception as error:  # a first line that gives no names is refused by both
        with pytest.raises(type(error)):
            found(path, dialect, types, compiled=True, rows=rows)
        return
    if not Csv(Place(path), dialect, "utf-8", Limits()).names:
        return
    assert found(path, dialect, types, compiled=True, rows=rows) == expected


def test_large_files_are_read_in_portions(folder: Path) -> None:
    path = folder / "large.csv"
    with path.open("w", encoding="utf-8") as file:
        file.write("a,b\n")
        for number in range(60_000):
            file.write(f'{number},"line {number}\nwith ""quotes"" and {"x" * (number % 90)}"\n')
            if number % 10_000 == 7:
                file.write("only one\n")
    plain = found(path, Dialect(), {}, compiled=False)
    assert found(path, Dialect(), {}, compiled=True) == plain
    assert len(plain[0]) == 60_000
    assert [line for line, _, _ in plain[2]] == [2 + 2 * number + position for position, number in
                                                 enumerate(range(8, 60_000, 10_000))]  # fmt: skip


def test_a_quote_left_open_is_an_error_and_no_end_of_memory(folder: Path) -> None:
    path = folder / "open.csv"
    path.write_bytes(b'a,b\n1,"' + b"x" * (17 << 20))
    with pytest.raises(RowTooLargeError):
        found(path, Dialect(), {}, compiled=True)
