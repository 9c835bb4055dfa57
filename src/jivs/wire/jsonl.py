"""JSON Lines in UTF-8 to Arrow, compiled: ordinary lines are taken, every other one is handed to the plain reader."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from jivs.domain.schema import ArchiveType
from jivs.wire.csv import Receive, RecordTooLargeError
from jivs.wire.native import Builder, Decoded, Form, Limits, State, Stream, required

_BUFFER = 1 << 20
CLASSES = ("string", "integer", "number", "bool", "null", "json")


class _Key(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_char_p),
        ("length", ctypes.c_int64),
        ("column", ctypes.c_int32),
        ("tag", ctypes.c_int32),
        ("seen", ctypes.c_int64),
        ("class", ctypes.c_int32),
        ("padding", ctypes.c_int32),
        ("counts", ctypes.c_int64 * len(CLASSES)),
    )


class _Reader(ctypes.Structure):
    _fields_ = (
        ("keys", ctypes.c_void_p),
        ("count", ctypes.c_int32),
        ("ended", ctypes.c_int32),
        ("largest", ctypes.c_int64),
        ("line", ctypes.c_int64),
        ("records", ctypes.c_int64),
        ("length", ctypes.c_int64),
        ("counting", ctypes.c_int32),
    )


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where a key's values and their classes go: indexes of columns, or -1."""

    key: str
    column: int = -1
    tag: int = -1


class _Open:
    """A file being read."""

    def __init__(self, receive: Receive, largest: int, places: Sequence[Place]) -> None:
        self._library = required()
        address = self._library.jivs_json_new()
        if not address:
            raise MemoryError
        self._pointer = ctypes.c_void_p(address)
        self.reader = _Reader.from_address(address)
        self.reader.largest, self.reader.line = largest, 1
        self._receive = receive
        self._stream = Stream(-1, capacity=_BUFFER)
        self._names: list[bytes] = []
        self.keys = (_Key * 0)()
        self.know(places)

    def know(self, places: Sequence[Place]) -> None:
        """These keys as well; those that were known keep their counts."""
        known = len(self._names)
        if known + len(places) > len(self.keys):
            keys = (_Key * max(16, 2 * (known + len(places))))()
            ctypes.memmove(keys, self.keys, ctypes.sizeof(_Key) * known)
            self.keys = keys
        for at, place in enumerate(places, known):
            name = place.key.encode("utf-8", "surrogateescape")
            self._names.append(name)
            key = self.keys[at]
            key.name, key.length, key.column, key.tag = name, len(name), place.column, place.tag
        self.reader.keys, self.reader.count = ctypes.addressof(self.keys), len(self._names)

    def close(self) -> None:
        self._stream.close()
        self._library.jivs_json_free(self._pointer)

    def step(self, builder: Builder | None, limits: Limits) -> State:
        """Read on. MORE is dealt with here."""
        while True:
            state = State(
                self._library.jivs_json_read(
                    self._pointer, self._stream.pointer, builder.pointer if builder else None, ctypes.byref(limits)
                )
            )
            if state is State.HEAVY:
                raise RecordTooLargeError
            if state is State.NO_MEMORY:
                raise MemoryError
            if state is not State.MORE:
                return state
            if self._stream.add(self._receive) == 0:
                self.reader.ended = 1

    def append(self, builder: Builder, known: Mapping[str, int], cells: Cells) -> None:
        """Append the row that was put aside. Raises MemoryError."""
        done = True
        for key, (class_, text) in cells.items():
            if key in known:
                done = done and self._library.jivs_json_cell(
                    self._pointer,
                    builder.pointer,
                    ctypes.c_int32(known[key]),
                    ctypes.c_int32(CLASSES.index(class_)),
                    text,
                    ctypes.c_int64(len(text)),
                )
        if not done or not self._library.jivs_json_row(self._pointer, builder.pointer):
            raise MemoryError

    def put_aside(self) -> tuple[int, bytes]:
        """Number and bytes of the line that is for the plain reader; reading goes on behind it."""
        found = self.reader.line, self._stream.peek(self.reader.length)
        self._library.jivs_json_skip(self._pointer, self._stream.pointer)
        return found


def census(
    receive: Receive, largest: int, plain: Callable[[int, bytes], Sequence[str]]
) -> tuple[dict[str, dict[str, int]], int]:
    """How many lines have each key with a value of each class, for the lines that the plain reader was not given; and the
    number of all lines with content.

    ``plain`` gets the number and the bytes of a line, and returns its keys; they are known from then on. Keys are in order
    of their appearance. Raises RecordTooLargeError.
    """
    places: dict[str, Place] = {}
    with closing(_Open(receive, largest, [])) as file:
        while file.step(None, Limits(0, 0, 0)) is State.ASIDE:
            new = {key: Place(key=key) for key in plain(*file.put_aside()) if key not in places}
            places |= new
            file.know(list(new.values()))
        found = {
            key: {name: count for name, count in zip(CLASSES, file.keys[index].counts, strict=True) if count}
            for index, key in enumerate(places)
        }
        return found, int(file.reader.records)


def count(receive: Receive, largest: int) -> int:
    """The number of lines with content. Raises RecordTooLargeError."""
    with closing(_Open(receive, largest, [])) as file:
        file.reader.counting = 1
        file.step(None, Limits(0, 0, 0))
        return int(file.reader.records)


Cells = Mapping[str, tuple[str, bytes]]
"""Class and text of each member of a line."""


def read(
    receive: Receive,
    largest: int,
    places: Sequence[Place],
    types: Sequence[ArchiveType],
    limits: Limits,
    plain: Callable[[int, bytes], Cells | None],
) -> Iterator[Decoded]:
    """The lines in batches within the limits, in their order.

    ``plain`` gets the number and the bytes of a line that is out of the ordinary, and returns its members, or None if it is
    no row: such lines end a batch too when they hold as many bytes as one may. Raises RecordTooLargeError.
    """
    builder = Builder(types, [Form.PLAIN] * len(types))
    known = {place.key: index for index, place in enumerate(places)}
    held = 0
    try:
        with closing(_Open(receive, largest, places)) as file:
            while True:
                state = file.step(builder, limits)
                if state is State.ASIDE:
                    number, raw = file.put_aside()
                    cells = plain(number, raw)
                    if cells is not None:
                        file.append(builder, known, cells)
                        continue
                    held += len(raw)
                    if held < limits.bytes:
                        continue
                held = 0
                if builder.rows or state is State.ASIDE:
                    yield builder.take()
                if state is State.END:
                    return
    finally:
        builder.close()
