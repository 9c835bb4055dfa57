"""CSV in UTF-8 to Arrow, compiled: every record is a row, or comes with its bytes and its line."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

from jivs.domain.quarantine import QuarantinedRow
from jivs.domain.schema import TEXT
from jivs.wire.native import Builder, Decoded, Form, Limits, State, Stream, required

_BUFFER = 1 << 20
_NOT_A_RECORD, _OTHER_WIDTH = 1, 2


class _Reader(ctypes.Structure):
    _fields_ = (
        ("delimiter", ctypes.c_uint8),
        ("quote", ctypes.c_uint8),
        ("width", ctypes.c_int32),
        ("places", ctypes.c_void_p),
        ("narrow", ctypes.c_void_p),
        ("null", ctypes.c_char_p),
        ("null_length", ctypes.c_int64),
        ("largest", ctypes.c_int64),
        ("ended", ctypes.c_int32),
        ("skip", ctypes.c_int32),
        ("line", ctypes.c_int64),
        ("records", ctypes.c_int64),
        ("trouble", ctypes.c_int32),
        ("fields", ctypes.c_int32),
        ("length", ctypes.c_int64),
        ("lines", ctypes.c_int64),
    )


class RecordTooLargeError(Exception):
    """A record above the limit, or a quote that is left open."""


@dataclass(frozen=True, kw_only=True)
class Format:
    """How the file is written, and what is taken of it.

    ``places`` has, for each field of a record, the index of its column or -1; ``narrow`` says for each column whether an
    empty field is NULL; ``null`` is the text for NULL, if there is one; ``largest`` the bytes of the largest record.
    """

    delimiter: str
    quote: str
    header: bool
    null: str | None
    places: Sequence[int]
    narrow: Sequence[bool]
    largest: int


Receive = Callable[[memoryview], int]
"""Writes the next bytes of the file into a buffer; 0 at its end."""


class _Open:
    """A file being read."""

    def __init__(self, receive: Receive, format_: Format) -> None:
        self._library = required()
        address = self._library.jivs_csv_new()
        if not address:
            raise MemoryError
        self.pointer = ctypes.c_void_p(address)
        self.reader = _Reader.from_address(address)
        self._places = (ctypes.c_int32 * max(1, len(format_.places)))(*format_.places)
        self._narrow = (ctypes.c_uint8 * max(1, len(format_.narrow)))(*format_.narrow)
        self._null = None if format_.null is None else format_.null.encode("utf-8", "surrogateescape")
        reader = self.reader
        reader.delimiter, reader.quote = ord(format_.delimiter), ord(format_.quote or "\0")
        reader.width, reader.largest = len(format_.places), format_.largest
        reader.places, reader.narrow = ctypes.addressof(self._places), ctypes.addressof(self._narrow)
        reader.null, reader.null_length = self._null, len(self._null or b"")
        reader.skip, reader.line = int(format_.header), 1
        self._receive = receive
        self.stream = Stream(-1, capacity=_BUFFER)

    def close(self) -> None:
        self.stream.close()
        self._library.jivs_csv_free(self.pointer)

    def step(self, builder: Builder | None, limits: Limits) -> State:
        """Read on. MORE is dealt with here."""
        while True:
            state = State(
                self._library.jivs_csv_read(
                    self.pointer, self.stream.pointer, builder.pointer if builder else None, ctypes.byref(limits)
                )
            )
            if state is State.HEAVY:
                raise RecordTooLargeError
            if state is State.NO_MEMORY:
                raise MemoryError
            if state is not State.MORE:
                return state
            if self.stream.add(self._receive) == 0:
                self.reader.ended = 1

    def rejected(self) -> QuarantinedRow:
        """The record that was put aside; reading goes on behind it."""
        reader = self.reader
        reason = "not a CSV record"
        if reader.trouble != _NOT_A_RECORD:
            reason = f"{reader.fields} fields instead of {reader.width}"
        row = QuarantinedRow(line=reader.line, original=self.stream.peek(reader.length), reason=reason)
        self._library.jivs_csv_skip(self.pointer, self.stream.pointer)
        return row


def read(receive: Receive, format_: Format, limits: Limits) -> Iterator[tuple[Decoded, list[QuarantinedRow]]]:
    """The records of a file as text, in batches within the limits, with what is no record. Raises RecordTooLargeError."""
    columns = len(format_.narrow)
    builder = Builder([TEXT] * columns, [Form.PLAIN] * columns)
    rejected: list[QuarantinedRow] = []
    held = 0
    try:
        with closing(_Open(receive, format_)) as file:
            while True:
                state = file.step(builder, limits)
                if state is State.ASIDE:
                    rejected.append(file.rejected())
                    held += len(rejected[-1].original)
                    if len(rejected) >= limits.rows or held >= limits.bytes:
                        yield builder.take(), rejected
                        rejected, held = [], 0
                else:
                    if builder.rows or rejected:
                        yield builder.take(), rejected
                        rejected, held = [], 0
                    if state is State.END:
                        return
    finally:
        builder.close()


def count(receive: Receive, format_: Format) -> int:
    """The number of records, those that cannot be parsed included. Raises RecordTooLargeError."""
    with closing(_Open(receive, format_)) as file:
        file.step(None, Limits(0, 0, 0))
        return int(file.reader.records)
