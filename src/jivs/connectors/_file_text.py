"""Text files: compression, encoding, lines with their numbers and original bytes."""

from __future__ import annotations

import codecs
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import BinaryIO

import pyarrow as pa

from jivs.connectors._file_place import Place
from jivs.domain.source import Limits
from jivs.errors import IntegrityError, RowTooLargeError, UsageError

COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}
_BLOCK = 1 << 20
_BOMS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_NAMES = (
    "utf-8 utf-16-le utf-16-be utf-32-le utf-32-be ascii cp1252 cp1250 cp1251 cp437 cp850 iso8859-1 iso8859-2 iso8859-15 "
    "koi8-r mac-roman shift_jis cp932 euc_jp gbk gb18030 big5 euc_kr"
)
_TEXT_ENCODINGS = {name: name for name in _NAMES.split()} | {"utf-16": "utf-16-le", "utf-32": "utf-32-le"}
"""Encodings that are read; in the many-byte ones a line feed is never part of another character."""

_UNDEFINED_IN_CP1252 = bytes((0x81, 0x8D, 0x8F, 0x90, 0x9D))


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """An encoding, and how it is known: ``stated``, ``byte order mark`` or ``detected``."""

    name: str
    how: str
    mark: int = 0

    @property
    def wide(self) -> bool:
        """Whether a line feed is more than one byte."""
        return self.name.startswith(("utf-16", "utf-32"))


@dataclass(frozen=True)
class Line:
    """A line without its bytes lost: ``text`` decoded (undecodable bytes as surrogates), ``raw`` as in the file."""

    text: str
    raw: bytes
    valid: bool


def compression_of(place: Place) -> str:
    """The compression that a name's ending stands for; empty for none."""
    return COMPRESSIONS.get(place.path.suffix.lower(), "")


def open_file(place: Place) -> BinaryIO:
    """The file's content, decompressed."""
    try:
        with place.held() as path:
            if path.exists() and not path.is_file():
                raise UsageError(f"{place} is not a file.")
            compression = compression_of(place)
            return pa.input_stream(str(path), compression=compression or None, buffer_size=_BLOCK)  # type: ignore[no-any-return]
    except FileNotFoundError:
        raise UsageError(f"There is no file {place}.") from None
    except OSError as error:
        raise UsageError(f"{place} cannot be read: {error.strerror or error}. Check its permissions.") from None


def blocks(place: Place) -> Generator[bytes, None, None]:
    """The content in pieces. Raises IntegrityError where the compressed data is damaged or ends early."""
    with open_file(place) as file:
        while True:
            try:
                block = file.read(_BLOCK)
            except OSError as error:
                raise IntegrityError(f"{place} is damaged or truncated: its compressed data cannot be read.") from error
            if not block:
                return
            yield block


class Content:
    """The bytes of a file behind its byte order mark, for whoever brings a buffer."""

    def __init__(self, place: Place, encoding: Encoding) -> None:
        self._blocks = blocks(place)
        self._rest = memoryview(b"")
        skip = encoding.mark
        while skip and (block := next(self._blocks, b"")):
            self._rest = memoryview(block)[skip:]
            skip = max(0, skip - len(block))

    def receive(self, buffer: memoryview) -> int:
        """Write the next bytes into the buffer; 0 at the end of the file."""
        if not self._rest:
            self._rest = memoryview(next(self._blocks, b""))
        count = min(len(buffer), len(self._rest))
        buffer[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def close(self) -> None:
        """Close the file."""
        self._blocks.close()


def find_encoding(place: Place, stated: str) -> Encoding:
    """The stated encoding, that of the byte order mark, or a detected one (a pass over the whole file).

    Detected is UTF-8 wherever most of what is not ASCII is valid UTF-8 (the rest goes to quarantine), otherwise cp1252, or
    latin1 if bytes occur that cp1252 does not define.
    """
    name = ""
    if stated:
        with suppress(LookupError):
            name = codecs.lookup(stated).name
        if name not in _TEXT_ENCODINGS:
            raise UsageError(f"Encoding {stated!r} is not read. Use one of: {', '.join(sorted(_TEXT_ENCODINGS))}.")
    head = next(blocks(place), b"")[:4]
    for mark, marked in _BOMS:
        if head.startswith(mark):
            return Encoding(name=marked, how="byte order mark", mark=len(mark))
    if name:
        return Encoding(name=_TEXT_ENCODINGS[name], how="stated")
    if head.count(0) >= 2:
        raise UsageError(f"{place.name} begins with NUL bytes: state its ?encoding= (utf-16-le, utf-16-be, utf-32-le, ...).")
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    valid = invalid = 0
    undefined = False
    for block in blocks(place):
        if block.isascii():
            continue
        text = decoder.decode(block)
        bad = text.count("\ufffd")
        invalid += bad
        valid += sum(1 for character in text if character > "\x7f") - bad
        undefined = undefined or any(byte in block for byte in _UNDEFINED_IN_CP1252)
    if valid >= invalid:
        return Encoding(name="utf-8", how="detected")
    return Encoding(name="iso8859-1" if undefined else "cp1252", how="detected")


def lines(place: Place, encoding: Encoding, limits: Limits) -> Iterator[Line]:
    """The lines with their ends, in constant memory. Raises RowTooLargeError for one above the limit."""
    newline = "\n".encode(encoding.name)
    width = len(newline)
    rest = b""
    skip = encoding.mark
    for block in blocks(place):
        data = rest + block
        if skip:
            data, skip = data[skip:], 0
        start = 0
        while (end := _find(data, newline, start, width)) >= 0:
            raw = data[start : end + width]
            start = end + width
            yield decoded(raw, encoding)
        rest = data[start:]
        if len(rest) > largest_record(limits):
            raise too_large(place, limits)
    if rest:
        yield decoded(rest, encoding)


def largest_record(limits: Limits) -> int:
    """Bytes of the largest record of a text file: while it is parsed, it exists in several forms at once."""
    return limits.heavy_row


def too_large(place: Place, limits: Limits) -> RowTooLargeError:
    """The error for a larger one."""
    return RowTooLargeError(
        f"A record of {place.name} has more than {largest_record(limits) >> 20} MB, 1/32 of the memory limit: raise "
        "JIVS_EXTRACTION__MEMORY_LIMIT (or a quote is left open somewhere before)."
    )


def _find(data: bytes, newline: bytes, start: int, width: int) -> int:
    position = data.find(newline, start)
    while width > 1 and position >= 0 and (position - start) % width:
        position = data.find(newline, position + 1)
    return position


def decoded(raw: bytes, encoding: Encoding) -> Line:
    """A line from its bytes."""
    try:
        return Line(raw.decode(encoding.name), raw, True)
    except UnicodeDecodeError:
        if encoding.name == "utf-8":
            return Line(raw.decode("utf-8", "surrogateescape"), raw, True)
        return Line("", raw, False)


def cell_bytes(text: str) -> bytes:
    """A cell in UTF-8; bytes that were not decodable as they were."""
    for errors in ("strict", "surrogateescape"):
        try:
            return text.encode("utf-8", errors)
        except UnicodeEncodeError:
            continue
    return text.encode("utf-8", "surrogatepass")
