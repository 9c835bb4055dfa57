"""Rows of a query as JSON, CSV or Arrow, so that no value is rounded (``docs/api.md``)."""

from __future__ import annotations

import base64
import json
import math
import time
from collections.abc import Iterable, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Any, BinaryIO

from jivs.errors import OverLimitError

LARGEST = 32 << 20
"""Bytes of a result at most."""

_SAFE = 1 << 53
"""Integers from here on are rounded by whoever reads JSON's numbers as doubles (RFC 8259, section 6)."""


class Form(StrEnum):
    """How a result is written: a media type."""

    JSON = "application/json"
    CSV = "text/csv"
    ARROW = "application/vnd.apache.arrow.stream"


def exact(value: Any) -> Any:
    """A value as JSON has it: what its numbers cannot hold exactly, as text; bytes in base64."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        return value if -_SAFE < value < _SAFE else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else _infinite(value)
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return base64.b64encode(value).decode()
    if isinstance(value, dict):
        return {str(name): exact(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [exact(one) for one in value]
    return str(value)


def _infinite(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


class Rows:
    """Rows on their way to a file, until there are enough. ``written`` of them fitted, and were not all if ``truncated``."""

    def __init__(self, out: BinaryIO, limit: int) -> None:
        self.written = 0
        self.truncated = False
        self._out = out
        self._limit = limit
        self._bytes = 0

    def json(self, columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[Any]], began: float) -> None:
        """One object. ``began``: on the monotonic clock."""
        shown = [{"name": name, "type": type_} for name, type_ in columns]
        self._out.write(f'{{"columns":{_text(shown)},"rows":['.encode())
        for row in rows:
            between = "," if self.written else ""
            if not self._add(f"{between}\n{_text([exact(value) for value in row])}".encode()):
                break
        self._out.write(f'\n],"truncated":{_text(self.truncated)},"seconds":{time.monotonic() - began:.3f}}}\n'.encode())

    def csv(self, columns: Sequence[tuple[str, str]], rows: Iterable[Sequence[Any]]) -> None:
        """A line of names, then the rows (RFC 4180). NULL is nothing, an empty text is two quotes."""
        self._out.write(_line([name for name, _ in columns]))
        for row in rows:
            if not self._add(_line([exact(value) for value in row])):
                break

    def arrow(self, batches: Any) -> None:
        """A stream of record batches."""
        import pyarrow as pa

        with pa.ipc.new_stream(self._out, batches.schema) as stream:
            for batch in batches:
                fitting = batch.slice(0, self._limit - self.written)
                self.truncated = fitting.num_rows < batch.num_rows or not self._fits(fitting.nbytes)
                if self._fits(fitting.nbytes):
                    stream.write_batch(fitting)
                    self.written += fitting.num_rows
                    self._bytes += fitting.nbytes
                if self.truncated:
                    break

    def _add(self, data: bytes) -> bool:
        if self.written == self._limit or not self._fits(len(data)):
            self.truncated = True
            return False
        self._out.write(data)
        self._bytes += len(data)
        self.written += 1
        return True

    def _fits(self, size: int) -> bool:
        if self._bytes + size <= LARGEST:
            return True
        if not self.written:
            raise OverLimitError(f"The first rows are larger than {LARGEST >> 20} MiB: ask for fewer columns, or for parts.")
        return False


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _line(values: Sequence[Any]) -> bytes:
    return (",".join(map(_cell, values)) + "\r\n").encode()


def _cell(value: Any) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else _text(value)
    if text and not any(mark in text for mark in ',"\r\n'):
        return text
    return '"' + text.replace('"', '""') + '"'
