"""The compiled part, where it was built: decoders and the row hash, without the interpreter's lock.

Without it everything works the same, slower; ``available()`` tells, and ``jivs --version`` says so. The library is plain C
behind ctypes, so one build serves every Python version.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa

from jivs.domain.arrow import arrow_type
from jivs.domain.quarantine import QuarantinedValue
from jivs.domain.schema import ArchiveType, Kind

_LIBRARY = Path(__file__).with_name("_native.so")
KINDS = {kind: number for number, kind in enumerate(Kind)}
"""The numbers of the kinds in C."""

_REASONS = ("no value of {type}", "not valid in the text's encoding", "does not convert to UTF-8 and back")
_OTHER_CLASS = 3


class State(IntEnum):
    """What reading ended with; the enum of the same name in ``c/jivs.h`` says more."""

    MORE = 0
    FULL = 1
    HEAVY = 2
    END = 3
    ASIDE = 4
    CLOSED = 5
    LATE = 6
    BROKEN = -1
    STRANGE = -2
    NO_MEMORY = -3


class Form(IntEnum):
    """How a value looks on the wire, where its kind alone does not tell."""

    PLAIN = 0
    NUMERIC_TEXT = 1
    JSONB = 2
    BITS = 3
    STORED = 4
    DASHED = 5
    ANY_CLASS = 6
    NUMERIC = 7


class Spec(ctypes.Structure):
    """A column as the decoders see it."""

    _fields_ = tuple((name, ctypes.c_int32) for name in ("kind", "form", "precision", "scale", "zoned"))


class _Misfit(ctypes.Structure):
    _fields_ = (
        ("row", ctypes.c_int64),
        ("column", ctypes.c_int32),
        ("reason", ctypes.c_int32),
        ("offset", ctypes.c_int64),
        ("length", ctypes.c_int64),
    )


class Limits(ctypes.Structure):
    """A batch ends at so many rows or bytes; a row above ``heavy`` bytes stops the reading."""

    _fields_ = (("rows", ctypes.c_int64), ("bytes", ctypes.c_int64), ("heavy", ctypes.c_int64))


class _Stream(ctypes.Structure):
    _fields_ = (
        ("fd", ctypes.c_int),
        ("buffer", ctypes.c_void_p),
        ("capacity", ctypes.c_int64),
        ("start", ctypes.c_int64),
        ("end", ctypes.c_int64),
        ("need", ctypes.c_int64),
        ("timeout", ctypes.c_int64),
    )


class MalformedError(Exception):
    """The bytes are not what the protocol says. ``column`` is the index of the column whose value is impossible, or -1."""

    def __init__(self, message: str, column: int = -1) -> None:
        super().__init__(message)
        self.column = column


@cache
def library() -> ctypes.CDLL | None:
    """The compiled library; None if it was not built."""
    try:
        found = ctypes.CDLL(str(_LIBRARY))
    except OSError:
        return None
    for name in ("builder", "stream", "mysql", "csv", "json", "tree"):
        getattr(found, f"jivs_{name}_new").restype = ctypes.c_void_p
    for name in ("jivs_builder_rows", "jivs_builder_misfits"):
        getattr(found, name).restype = ctypes.c_int64
    return found


def required() -> Any:
    """The compiled library, which has to be there."""
    found = library()
    if found is None:
        raise RuntimeError("the compiled part was not built; see available()")
    return found


def path() -> str:
    """Which readers are in use, in words."""
    return "compiled readers" if available() else "pure Python readers: install with a C compiler for speed"


def available() -> bool:
    """Whether the compiled part is there."""
    return library() is not None


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Rows as decoded. ``beyond`` holds, by the index of the column, the texts of values beyond its type."""

    batch: pa.RecordBatch
    beyond: dict[int, pa.Array]
    misfits: tuple[QuarantinedValue, ...]


def specs(types: Sequence[ArchiveType], forms: Sequence[Form]) -> ctypes.Array[Spec]:
    """Columns as the decoders see them."""
    described = (
        Spec(KINDS[type_.kind], int(form), type_.precision, type_.scale, int(type_.zoned))
        for type_, form in zip(types, forms, strict=True)
    )
    return (Spec * max(1, len(types)))(*described)


MisfitOf = Callable[[int, int, bytes], QuarantinedValue]
"""Makes the record of a value of another class than its column's, from row, column, and the class with its bytes."""


class Builder:
    """Columns that a decoder fills; belongs to one thread."""

    def __init__(self, types: Sequence[ArchiveType], forms: Sequence[Form]) -> None:
        self._library = required()
        self._types = tuple(types)
        self._fields = [pa.field(f"c{index}", arrow_type(type_)) for index, type_ in enumerate(types)]
        self.pointer: ctypes.c_void_p | None = ctypes.c_void_p(
            self._library.jivs_builder_new(ctypes.c_int32(len(types)), ctypes.byref(specs(types, forms)))
        )
        if not self.pointer.value:
            raise MemoryError

    def close(self) -> None:
        """Free the memory. The builder is of no use afterwards."""
        if self.pointer is not None:
            self._library.jivs_builder_free(self.pointer)
            self.pointer = None

    @property
    def rows(self) -> int:
        """Rows decoded so far and not taken."""
        return int(self._library.jivs_builder_rows(self.pointer))

    def take(self, other_class: MisfitOf | None = None) -> Decoded:
        """The rows so far; the builder begins anew. Raises MemoryError."""
        marks = (ctypes.c_uint8 * max(1, len(self._types)))()
        self._library.jivs_builder_beyond(self.pointer, ctypes.byref(marks))
        misfits = self._misfits(other_class)
        beyond = [index for index in range(len(self._types)) if marks[index]]
        fields = [*self._fields, *(pa.field(f"x{index}", pa.string()) for index in beyond)]
        array = (ctypes.c_uint8 * 80)()
        if not self._library.jivs_builder_export(self.pointer, ctypes.byref(array)):
            raise MemoryError
        whole = pa.RecordBatch._import_from_c(ctypes.addressof(array), pa.schema(fields))  # noqa: SLF001 - its documented name
        count = len(self._types)
        return Decoded(
            batch=whole.select(list(range(count))) if beyond else whole,
            beyond={index: whole.column(count + position) for position, index in enumerate(beyond)},
            misfits=misfits,
        )

    def _misfits(self, other_class: MisfitOf | None) -> tuple[QuarantinedValue, ...]:
        records, data = ctypes.POINTER(_Misfit)(), ctypes.c_void_p()
        count = self._library.jivs_builder_misfits(self.pointer, ctypes.byref(records), ctypes.byref(data))
        out = []
        for index in range(count):
            item = records[index]
            raw = ctypes.string_at((data.value or 0) + item.offset, item.length) if item.length else b""
            if item.reason == _OTHER_CLASS and other_class is not None:
                out.append(other_class(item.row, item.column, raw))
                continue
            reason = _REASONS[item.reason].format(type=self._types[item.column])
            out.append(QuarantinedValue(row=item.row, column=item.column, original=raw, canonical=raw, reason=reason))
        return tuple(out)

    def check(self, state: State) -> None:
        """Raise what a negative state says."""
        if state is State.NO_MEMORY:
            raise MemoryError
        if state < 0:
            if state is State.BROKEN:
                raise MalformedError("lengths that contradict each other")
            raise MalformedError("a value that its type cannot have", int(self._library.jivs_builder_at(self.pointer)))


class Stream:
    """Bytes on their way from a socket. ``fd`` -1: ``add`` puts them there."""

    def __init__(self, fd: int, *, capacity: int, timeout: float | None = None) -> None:
        """``timeout``: longest wait for the next bytes, in seconds."""
        self._library = required()
        wait = -1 if timeout is None else min(int(timeout * 1000), 2**31 - 1)
        address = self._library.jivs_stream_new(ctypes.c_int(fd), ctypes.c_int64(capacity), ctypes.c_int64(wait))
        if not address:
            raise MemoryError
        self.pointer: ctypes.c_void_p | None = ctypes.c_void_p(address)
        self._view = _Stream.from_address(address)

    def close(self) -> None:
        """Free the memory."""
        if self.pointer is not None:
            self._library.jivs_stream_free(self.pointer)
            self.pointer = None

    @property
    def need(self) -> int:
        """Bytes of the row that was too heavy, or of the message that is incomplete."""
        return int(self._view.need)

    def peek(self, most: int) -> bytes:
        """The next bytes, without consuming them."""
        size = min(most, self._view.end - self._view.start)
        return ctypes.string_at(self._view.buffer + self._view.start, size) if size else b""

    def skip(self, count: int) -> None:
        """Consume bytes that ``peek`` has shown."""
        self._view.start += min(count, self._view.end - self._view.start)

    def fill(self, need: int) -> State:
        """Receive once, keeping room for ``need`` bytes."""
        return State(self._library.jivs_stream_fill(self.pointer, ctypes.c_int64(need)))

    def add(self, receive: Any) -> int:
        """Have ``receive`` (as ``socket.recv_into``) write behind the bytes that wait; the number of new ones."""
        if not self._library.jivs_stream_room(self.pointer, ctypes.c_int64(self._view.need)):
            raise MemoryError
        room = self._view.capacity - self._view.end
        target = (ctypes.c_char * room).from_address(self._view.buffer + self._view.end)
        count: int = receive(memoryview(target).cast("B"))
        self._view.end += count
        return count
