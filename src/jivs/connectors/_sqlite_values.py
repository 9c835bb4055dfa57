"""Values of SQLite: what class they are, which type a column of them gets, and their canonical texts."""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa

from jivs.domain.schema import ArchiveType, Column, Fidelity, Kind

_MINORITY = 100
"""A class with fewer than one value in this many goes to quarantine."""

_CLASSES: dict[str, Kind] = {
    "integer": Kind.INT64,
    "real": Kind.DOUBLE,
    "text": Kind.TEXT,
    "blob": Kind.BINARY,
}
_SUFFIX = "__class"
_UPPER = {ord(letter): ord(letter) - 32 for letter in "abcdefghijklmnopqrstuvwxyz"}
_WHOLE = 2**53
"""Whole numbers up to this are doubles too."""


@dataclass(frozen=True)
class Take:
    """How a column of the source becomes one of the archive: its value, its class (``column`` ends in __class), or its
    value as text. ``reals``: as text, and some of the values are of class real. ``numeric``: a number of a column in which
    the source stores whole numbers as integers to save space.
    """

    expression: str
    kind: Kind
    what: str
    reals: bool = False
    numeric: bool = False


class Text(bytes):
    """A value of class text, as its bytes in UTF-8; plain bytes are of class blob."""

    __slots__ = ()


def census(connection: sqlite3.Connection, names: Sequence[str], source: str) -> list[dict[str, int]]:
    """How many values of each class each column has, in few passes over the table."""
    found: list[dict[str, int]] = []
    for start in range(0, len(names), 100):
        part = names[start : start + 100]
        counts = [f"coalesce(sum(typeof({quote(name)}) = '{class_}'), 0)" for name in part for class_ in _CLASSES]
        row = connection.execute(f"select {', '.join(counts)} {source}").fetchone()
        for index in range(len(part)):
            values = row[index * len(_CLASSES) : (index + 1) * len(_CLASSES)]
            found.append({class_: count for class_, count in zip(_CLASSES, values, strict=True) if count})
    return found


def choose(columns: Sequence[Column], census: Sequence[dict[str, int]]) -> tuple[list[Column], list[Take]]:
    """The narrowest exact type for each column."""
    out: list[Column] = []
    takes: list[Take] = []
    names = {column.name.casefold() for column in columns}
    for column, counts in zip(columns, census, strict=True):
        quoted = quote(column.name)
        if counts.keys() == {"integer", "real"} and _has_numeric_affinity(column.source_type):
            out.append(replace(column, type=ArchiveType(kind=Kind.DOUBLE)))
            takes.append(Take(quoted, Kind.DOUBLE, "value", numeric=True))
            continue
        main = max(counts, key=lambda class_: counts[class_], default="")
        others = sum(counts.values()) - counts.get(main, 0)
        if others * _MINORITY < sum(counts.values()) or not others:
            kind = _CLASSES[main] if main else _declared(column.source_type)
            out.append(replace(column, type=ArchiveType(kind=kind)))
            takes.append(Take(quoted, kind, "value"))
            continue
        class_name = column.name + _SUFFIX
        while class_name.casefold() in names:
            class_name += "_"
        names.add(class_name.casefold())
        out.append(replace(column, fidelity=Fidelity.TEXT))
        takes.append(Take(quoted, Kind.TEXT, "text", "real" in counts))
        out.append(replace(column, name=class_name, field=class_name, source_type="typeof", fidelity=Fidelity.EXACT))
        takes.append(Take(f"case when {quoted} is not null then typeof({quoted}) end", Kind.TEXT, "value"))
    return out, takes


def ascii_upper(text: str) -> str:
    """Letters of ASCII in upper case, and no others: so SQLite compares names of types."""
    return text.translate(_UPPER)


def _has_numeric_affinity(type_: str) -> bool:
    """Whether the source stores whole numbers of the column as integers (SQLite, Datatypes, sections 3 and 3.1): there the
    class says nothing of what was written. INTEGER columns do the same, but a real in one of those is an exception.
    """
    upper = ascii_upper(type_)
    return bool(upper) and not any(part in upper for part in ("INT", "CHAR", "CLOB", "TEXT", "BLOB", "REAL", "FLOA", "DOUB"))


def has_real_affinity(type_: str) -> bool:
    """Whether the source stores whole numbers of the column short, as integers, and reads them as reals (section 3.1)."""
    upper = ascii_upper(type_)
    other = any(part in upper for part in ("INT", "CHAR", "CLOB", "TEXT", "BLOB"))
    return not other and any(part in upper for part in ("REAL", "FLOA", "DOUB"))


def _declared(type_: str) -> Kind:
    """The kind for a column that holds NULLs only (SQLite, Datatypes, section 3.1)."""
    upper = ascii_upper(type_)
    if "INT" in upper:
        return Kind.INT64
    if any(part in upper for part in ("REAL", "FLOA", "DOUB")):
        return Kind.DOUBLE
    return Kind.BINARY if "BLOB" in upper else Kind.TEXT


def _class_of(value: Any) -> Kind:
    if isinstance(value, Text):
        return Kind.TEXT
    return {int: Kind.INT64, float: Kind.DOUBLE, bytes: Kind.BINARY}[type(value)]


def as_text(value: Any) -> bytes:
    """A value of any class as text; the class stands beside it."""
    if isinstance(value, Text):
        return bytes(value)
    return value.hex().encode() if isinstance(value, bytes) else repr(value).encode()


def array(take: Take, cells: Sequence[Any]) -> tuple[pa.Array, list[tuple[int, Any]]]:
    if take.what == "text":
        return pa.array([None if value is None else as_text(value) for value in cells], pa.binary()), []
    bad: list[tuple[int, Any]] = []
    values: list[Any] = []
    for row, cell in enumerate(cells):
        value = _widened(take, cell)
        fits = value is None or _class_of(value) is take.kind
        values.append(value if fits else None)
        if not fits:
            bad.append((row, value))
    type_ = {Kind.INT64: pa.int64(), Kind.DOUBLE: pa.float64(), Kind.BINARY: pa.binary(), Kind.TEXT: pa.binary()}
    return pa.array(values, type_[take.kind]), bad


def _widened(take: Take, value: Any) -> Any:
    """A whole number of a numeric column as the double that it equals, if there is one."""
    return float(value) if take.numeric and type(value) is int and abs(value) <= _WHOLE else value


def misfit(value: Any) -> bytes:
    """What enters the row hash for a value of another class than its column's: '7' is not 7."""
    return f"{class_name(value)}:".encode() + as_text(value)


def class_name(value: Any) -> str:
    return next(name for name, kind in _CLASSES.items() if kind is _class_of(value))


def canonical(take: Take, value: Any) -> bytes | None:
    if value is None:
        return None
    if take.what == "text":
        return as_text(value)
    value = _widened(take, value)
    if _class_of(value) is not take.kind:
        return misfit(value)
    if isinstance(value, float):
        return str(struct.unpack("<q", struct.pack("<d", value))[0]).encode()
    if isinstance(value, Text):
        return bytes(value)
    return value.hex().encode() if isinstance(value, bytes) else str(value).encode()


def string(value: bytes) -> str:
    return bytes(value).decode(errors="surrogateescape")


def quote(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
