"""A seekable reader over ranges of an object."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

TAIL = 64 << 10
"""The end that is read with the first request: the footer of a Parquet file, or the whole of a small one."""

_NEAR = 64 << 10
_FIRST_AHEAD = 128 << 10
_MOST_AHEAD = 2 << 20


class RangeReader(io.RawIOBase):
    """Reads an object by ranges; belongs to one thread.

    Reads that follow each other fetch more and more ahead, up to 2 MB; a read elsewhere fetches what was asked for and
    nothing else.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int, tail: bytes) -> None:
        """``fetch(start, count)`` gives bytes; ``tail`` is the object's end."""
        super().__init__()
        self._fetch = fetch
        self._size = size
        self._tail_start = size - len(tail)
        self._tail = tail
        self._window_start = 0
        self._window = b""
        self._ahead = 0
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if origin + offset < 0:
            raise ValueError(f"negative seek position {origin + offset}")
        self._position = origin + offset
        return self._position

    def read(self, count: int | None = -1) -> bytes:
        self._checkClosed()
        left = max(0, self._size - self._position)
        count = left if count is None or count < 0 else min(count, left)
        data = self._bytes(self._position, count) if count else b""
        self._position += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def _bytes(self, start: int, count: int) -> bytes:
        end = start + count
        if start >= self._tail_start:
            return self._tail[start - self._tail_start : end - self._tail_start]
        if end > self._tail_start:
            return self._bytes(start, self._tail_start - start) + self._tail[: end - self._tail_start]
        window_end = self._window_start + len(self._window)
        if self._window_start <= start and end <= window_end:
            return self._window[start - self._window_start : end - self._window_start]
        if count >= _MOST_AHEAD:  # what is read at once needs no copy kept
            self._window_start, self._window = end, b""
            return self._fetch(start, count)
        follows = 0 <= start - window_end <= _NEAR or self._window_start <= start < window_end
        held = self._window[start - self._window_start :] if self._window_start <= start < window_end else b""
        self._ahead = min(_MOST_AHEAD, max(_FIRST_AHEAD, 2 * self._ahead, 2 * count)) if follows and window_end else 0
        reach = min(self._tail_start, max(end, start + self._ahead))
        self._window = held + self._fetch(start + len(held), reach - start - len(held))
        self._window_start = start
        return self._window[:count]
