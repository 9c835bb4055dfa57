"""JSON Lines: one object a line; numbers and nested values keep the text they were written with."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from json.decoder import scanstring  # type: ignore[attr-defined]

import pyarrow as pa

from jivs.connectors._file_place import Place
from jivs.connectors._file_text import (
    Content,
    Encoding,
    Line,
    cell_bytes,
    decoded,
    find_encoding,
    largest_record,
    lines,
    too_large,
)
from jivs.domain.quarantine import QuarantinedRow
from jivs.domain.schema import ArchiveType, Column, Fidelity, Kind
from jivs.domain.source import Limits
from jivs.ports.connector import Chunk
from jivs.wire import jsonl as compiled
from jivs.wire import native
from jivs.wire.csv import RecordTooLargeError
from jivs.wire.native import Limits as BatchLimits

_ROWS = 16 << 10
_MOST_ROWS = 128 << 10
_SPACE = re.compile(r"[ \t\r\n]*")
_INTEGER = re.compile(r"-?(0|[1-9]\d*)", re.ASCII)
Cell = tuple[str, str]
"""Class and text of a value: string, integer, number, bool, null, json."""


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


def parse_object(text: str) -> dict[str, Cell]:
    """The members of an object with the text of their values. Raises ValueError: no object, a key twice, or no JSON."""
    position = _skip(text, 0)
    if text[position : position + 1] != "{":
        raise ValueError("not a JSON object")
    out: dict[str, Cell] = {}
    position = _skip(text, position + 1)
    if text[position : position + 1] == "}":
        return _ended(text, position + 1, out)
    while True:
        if text[position : position + 1] != '"':
            raise ValueError("not a JSON object")
        key, position = scanstring(text, position + 1, True)
        position = _skip(text, position)
        if text[position : position + 1] != ":":
            raise ValueError("not a JSON object")
        start = _skip(text, position + 1)
        value, position = _DECODER.raw_decode(text, start)
        if any("\ud800" <= character <= "\udfff" for character in key):
            raise ValueError("a key is no text")
        if key in out:
            raise ValueError(f"the key {key!r} occurs twice")
        out[key] = _cell(value, text[start:position])
        position = _skip(text, position)
        mark = text[position : position + 1]
        if mark == "}":
            return _ended(text, position + 1, out)
        if mark != ",":
            raise ValueError("not a JSON object")
        position = _skip(text, position + 1)


def _ended(text: str, position: int, out: dict[str, Cell]) -> dict[str, Cell]:
    if _skip(text, position) != len(text):
        raise ValueError("something follows the JSON object")
    return out


def _skip(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None
    return match.end()


def _cell(value: object, raw: str) -> Cell:
    if value is None:
        return "null", ""
    if isinstance(value, str):
        return "string", value
    if isinstance(value, bool):
        return "bool", raw
    if isinstance(value, (int, float)):
        fits = _INTEGER.fullmatch(raw) and raw != "-0" and isinstance(value, int) and -(2**63) <= value < 2**63
        return "integer" if fits else "number", raw
    return "json", raw


class JsonLines:
    """One JSON Lines file. A pass over the whole file finds the keys and what their values are."""

    def __init__(self, place: Place, encoding: str, limits: Limits) -> None:
        self._place = place
        self._limits = limits
        self.encoding: Encoding = find_encoding(place, encoding)
        self._classes: dict[str, set[str]] = {}
        self._total = 0
        self._seen: dict[str, int] = {}
        if self._compiled:
            self._census_compiled()
        else:
            for item in self._records():
                self._look_at(item)
        for key, count in self._seen.items():
            if count < self._total:
                self._classes[key].add("absent")

    def _look_at(self, item: dict[str, Cell] | QuarantinedRow | None) -> None:
        """Take note of the keys of a line and of what they hold."""
        if item is None or isinstance(item, QuarantinedRow):
            return
        self._total += 1
        for key, (class_, _) in item.items():
            self._classes.setdefault(key, set()).add(class_)
            self._seen[key] = self._seen.get(key, 0) + 1
        self._place.require_columns(len(self._classes))

    @property
    def definition(self) -> str:
        """What values each key was found to have, absent ones included."""
        return json.dumps({key: sorted(classes) for key, classes in self._classes.items()})

    def columns(self) -> list[Column]:
        """A column for each key, in order of appearance; where one type does not hold all, text and ``<key>__class``."""
        out: list[Column] = []
        for key, classes in self._classes.items():
            kind, tagged = self._choice(classes)
            logical = {frozenset({"number"}): "decimal", frozenset({"integer", "number"}): "decimal"}.get(
                frozenset(classes - {"null", "absent"}), "json" if classes & {"json"} else ""
            )
            out.append(
                _column(key, kind, "json", Fidelity.TEXT if kind is Kind.TEXT and logical else Fidelity.EXACT, logical)
            )
            if tagged:
                out.append(_column(self._class_column(key), Kind.TEXT, "class", Fidelity.EXACT, ""))
        return out

    def _class_column(self, key: str) -> str:
        name = f"{key}__class"
        while name in self._classes:
            name += "_"
        return name

    @staticmethod
    def _choice(classes: set[str]) -> tuple[Kind, bool]:
        """The kind for a key, and whether the class has to stand beside it to lose nothing."""
        values = classes - {"null", "absent"}
        missing_twice = {"null", "absent"} <= classes
        if values == {"integer"}:
            return Kind.INT64, missing_twice
        if values == {"bool"}:
            return Kind.BOOL, missing_twice
        plain = not values or values in ({"string"}, {"json"}) or values <= {"integer", "number"}
        return Kind.TEXT, missing_twice or not plain

    # -- compiled -------------------------------------------------------------------------------------------------

    @property
    def _compiled(self) -> bool:
        """Whether the compiled reader takes the ordinary lines of the file."""
        return native.available() and self.encoding.name == "utf-8"

    @contextmanager
    def _content(self) -> Iterator[Content]:
        try:
            with closing(Content(self._place, self.encoding)) as content:
                yield content
        except RecordTooLargeError:
            raise too_large(self._place, self._limits) from None

    def _census_compiled(self) -> None:
        broken = 0

        def plain(number: int, raw: bytes) -> Sequence[str]:
            nonlocal broken
            item = self._record(number, decoded(raw, self.encoding))
            broken += not isinstance(item, dict)
            self._look_at(item)
            return tuple(item) if isinstance(item, dict) else ()

        with self._content() as content:
            found, records = compiled.census(content.receive, largest_record(self._limits), plain)
        for key, counts in found.items():
            self._classes[key] |= counts.keys()
            self._seen[key] += sum(counts.values())
        self._total = records - broken

    def _read_compiled(self, columns: Sequence[Column], keys: Sequence[tuple[str, bool]]) -> Iterator[Chunk]:
        most = min(self._limits.batch_rows or _MOST_ROWS, _MOST_ROWS)
        limits = BatchLimits(most, self._limits.batch_bytes, 0)
        values = {key: index for index, (key, tag) in enumerate(keys) if not tag}
        tags = {key: index for index, (key, tag) in enumerate(keys) if tag}
        places = [compiled.Place(key=key, column=values.get(key, -1), tag=tags.get(key, -1)) for key in self._classes]
        types = [column.type for column in columns]
        rejected: list[QuarantinedRow] = []

        def plain(number: int, raw: bytes) -> compiled.Cells | None:
            item = self._record(number, decoded(raw, self.encoding))
            if isinstance(item, QuarantinedRow):
                rejected.append(item)
            if not isinstance(item, dict):
                return None
            return {key: (class_, cell_bytes(text)) for key, (class_, text) in item.items()}

        with self._content() as content:
            for rows in compiled.read(content.receive, largest_record(self._limits), places, types, limits, plain):
                yield Chunk(batch=rows.batch, values=rows.misfits, rows=tuple(rejected))
                rejected.clear()
        if rejected:
            yield _chunk([], keys, rejected)

    # -- plain ----------------------------------------------------------------------------------------------------

    def read(self, columns: Sequence[Column]) -> Iterator[Chunk]:
        """The rows; a member that is absent or null is NULL."""
        keys: list[tuple[str, bool]] = []
        tags = {self._class_column(key): key for key in self._classes}
        for column in columns:
            keys.append((column.name, False) if column.name in self._classes else (tags[column.name], True))
        if self._compiled:
            yield from self._read_compiled(columns, keys)
            return
        most = min(self._limits.batch_rows or _ROWS, _ROWS)
        rows: list[dict[str, Cell]] = []
        rejected: list[QuarantinedRow] = []
        size = 0
        for item in self._records():
            if isinstance(item, QuarantinedRow):
                rejected.append(item)
                size += len(item.original)
            else:
                rows.append(item)
                size += sum(len(text) for _, text in item.values())
            if len(rows) + len(rejected) >= most or size >= self._limits.batch_bytes:
                yield _chunk(rows, keys, rejected)
                rows, rejected, size = [], [], 0
        if rows or rejected:
            yield _chunk(rows, keys, rejected)

    def count(self) -> int:
        """Lines with content, those that cannot be parsed included."""
        if self._compiled:
            with self._content() as content:
                return compiled.count(content.receive, largest_record(self._limits))
        return sum(1 for _ in self._records())

    def _records(self) -> Iterator[dict[str, Cell] | QuarantinedRow]:
        for number, line in enumerate(lines(self._place, self.encoding, self._limits), start=1):
            item = self._record(number, line)
            if item is not None:
                yield item

    @staticmethod
    def _record(number: int, line: Line) -> dict[str, Cell] | QuarantinedRow | None:
        """The members of a line, or what is wrong with it; None if it is blank."""
        if line.valid and not line.text.strip(" \t\r\n"):
            return None
        if not line.valid:
            return QuarantinedRow(line=number, original=line.raw, reason="not valid in the file's encoding")
        try:
            return parse_object(line.text)
        except (ValueError, RecursionError) as error:
            reason = str(error) if type(error) is ValueError else "not JSON"
            return QuarantinedRow(line=number, original=line.raw, reason=reason)


def _column(name: str, kind: Kind, source: str, fidelity: Fidelity, logical: str) -> Column:
    return Column(name=name, field=name, type=ArchiveType(kind=kind), source_type=source, fidelity=fidelity, logical=logical)


def _chunk(rows: list[dict[str, Cell]], keys: Sequence[tuple[str, bool]], rejected: list[QuarantinedRow]) -> Chunk:
    arrays = []
    absent: Cell = ("absent", "")
    for key, tag in keys:
        cells = [row.get(key, absent) for row in rows]
        values: list[bytes | None]
        if tag:
            values = [class_.encode() for class_, _ in cells]
        else:
            values = [None if class_ in {"null", "absent"} else cell_bytes(text) for class_, text in cells]
        arrays.append(pa.array(values, pa.binary()))
    names = [f"c{index}" for index in range(len(arrays))]
    return Chunk(batch=pa.RecordBatch.from_arrays(arrays, names=names), rows=tuple(rejected))
