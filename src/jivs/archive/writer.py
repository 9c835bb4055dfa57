"""Segments and quarantine files, written and hashed in one pass."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq

from jivs.archive import encoding, layout
from jivs.domain.archive import FileRef, QuarantineFile, Segment
from jivs.domain.arrow import arrow_field
from jivs.domain.fingerprint import EMPTY, Fingerprint
from jivs.domain.plan import Partition
from jivs.domain.quarantine import QuarantinedRow, QuarantinedValue
from jivs.domain.schema import Column
from jivs.domain.source import Limits

_ROWS = 1 << 20
_JOINED = 64
"""Batches that become one while they are pending: each takes memory beside its rows, and a ceiling may make them small."""

_LARGEST_GROUP = 128 << 20
_SMALLEST_GROUP = 4 << 20
_BASE_MEMORY = 150 << 20
"""What the process needs before it holds a row: interpreter, Arrow, drivers, with some to spare (measured)."""

_REJECTED_BYTES = 8 << 20
_SHARES = 9
"""A row group's Arrow bytes cost about this many times as much at the peak: rows pending, being parsed, being encoded,
and what the allocators keep (measured on lineitem)."""

QUARANTINE_SCHEMA = pa.schema(
    [
        pa.field("segment", pa.string()),
        pa.field("row", pa.int64()),
        pa.field("column", pa.string()),
        pa.field("key", pa.string()),
        pa.field("line", pa.int64()),
        pa.field("original", pa.binary()),
        pa.field("canonical", pa.binary()),
        pa.field("reason", pa.string()),
    ]
)
"""``column`` is NULL for a quarantined row, ``row`` is the ordinal in the segment, ``line`` that in a file."""


def row_group_bytes(limits: Limits) -> int:
    """Bytes of Arrow data in one row group, so that all readers together stay under the memory limit."""
    share = _for_rows(limits) // (_SHARES * max(1, limits.parallel))
    return max(1 << 20, min(_LARGEST_GROUP, share))


def readers_that_fit(limits: Limits) -> int:
    """How many readers the memory limit allows before row groups would fall below 4 MB."""
    return max(1, min(limits.parallel, _for_rows(limits) // (_SHARES * _SMALLEST_GROUP)))


def _for_rows(limits: Limits) -> int:
    return limits.memory - limits.reserved - _BASE_MEMORY


class HashingFile(io.RawIOBase):
    """A new local file that knows the SHA-256 and the number of bytes written so far."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.sha256 = hashlib.sha256()
        self.count = 0
        self._file = path.open("xb")

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self._file.write(view)
        self.sha256.update(view)
        self.count += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        return self.count

    def flush(self) -> None:
        if not self._file.closed:
            self._file.flush()

    def close(self) -> None:
        if not self._file.closed:
            self._file.close()
        super().close()


@dataclass
class _Open:
    """A segment being written."""

    schema: pa.Schema
    file: HashingFile
    writer: pq.ParquetWriter | None = None
    rows: int = 0
    fingerprint: Fingerprint = EMPTY
    values: list[tuple[int, QuarantinedValue, str | None]] = field(default_factory=list)
    rejected: list[QuarantinedRow] = field(default_factory=list)
    rejected_bytes: int = 0


class SegmentStore(Protocol):
    """Where segments go: a store, or what stands in front of it."""

    @property
    def spool(self) -> Path:
        """A local folder for files being written."""

    def put(self, local: Path, path: str) -> None:
        """Take the file."""


class SegmentWriter:
    """Writes the rows of one partition; belongs to one thread.

    A segment's schema is fixed, so the first batch that needs a companion column the open segment lacks begins a new
    segment. Use as: ``add`` for each batch, ``finish`` at the end, or ``abandon``.
    """

    def __init__(
        self,
        *,
        store: SegmentStore,
        source: str,
        partition: Partition,
        run_id: str,
        epoch: int,
        columns: Sequence[Column],
        key: Sequence[str],
        limits: Limits,
        ordinals: Iterator[int] | None = None,
    ) -> None:
        """``ordinals``: numbers for the segments, where several writers share a partition."""
        self._ordinals = itertools.count() if ordinals is None else ordinals
        self._store = store
        self._source = source
        self._partition = partition
        self._run_id = run_id
        self._epoch = epoch
        self._columns = tuple(columns)
        self._key = [column.field for column in columns if column.name in key]
        self._group_bytes = row_group_bytes(limits)
        self._level = limits.compression_level
        self._base = pa.schema([arrow_field(column) for column in columns])
        self._companions: list[pa.Field] = []
        self._open: _Open | None = None
        self._pending: list[pa.RecordBatch] = []
        self._joined = 0
        self._pending_bytes = 0
        self._pending_rows = 0
        self.segments: list[Segment] = []
        self.quarantine: list[QuarantineFile] = []

    @property
    def fingerprint(self) -> Fingerprint:
        """The sum over all finished segments."""
        total = EMPTY
        for segment in self.segments:
            if segment.fingerprint:
                total += Fingerprint.parse(segment.rows, segment.fingerprint)
        return total

    def add(
        self,
        batch: pa.RecordBatch,
        *,
        values: Sequence[QuarantinedValue],
        rows: Sequence[QuarantinedRow],
        fingerprint: Fingerprint | None,
    ) -> None:
        """Append a batch in archive form with what was quarantined from it."""
        new = [item for item in batch.schema if item.name not in self._base.names and item not in self._companions]
        if new:
            self._companions += new
            if self._open is not None and (self._open.rows or self._open.rejected):
                self._close_segment()
        current = self._segment()
        offset = current.rows
        current.values += [(offset + value.row, value, self._key_text(batch, value.row)) for value in values]
        current.rejected += rows
        current.rows += batch.num_rows
        if fingerprint is not None:
            current.fingerprint += fingerprint
        if batch.num_rows:
            self._hold(self._widen(batch, current.schema))
        if self._pending_bytes >= self._group_bytes or self._pending_rows >= _ROWS:
            self._flush()
        if sum(len(row.original) for row in rows) + current.rejected_bytes > _REJECTED_BYTES:
            self._close_segment()  # writes the quarantine too: it is not held for a whole partition
        else:
            current.rejected_bytes += sum(len(row.original) for row in rows)

    def finish(self, least: int = 1) -> None:
        """Write what is pending. Every table gets at least one segment, so that its columns can be read by anyone."""
        if self._open is not None or len(self.segments) < least:
            self._segment()
            self._close_segment()

    def absorb(self, other: SegmentWriter) -> None:
        """Add what another writer of the same partition has finished."""
        self.segments += other.segments
        self.quarantine += other.quarantine

    def abandon(self) -> None:
        """Discard the unfinished segment."""
        if self._open is not None:
            current, self._open = self._open, None
            for closing in (current.writer, current.file):
                if closing is None:
                    continue
                with suppress(OSError, pa.ArrowException):  # a full disk refuses even the end of what is thrown away
                    closing.close()
            current.file.path.unlink(missing_ok=True)
        self._pending.clear()
        self._joined = self._pending_bytes = self._pending_rows = 0

    def _segment(self) -> _Open:
        fresh = self._open is not None and not self._open.rows and not self._open.rejected
        if self._open is None or (fresh and len(self._open.schema) < self._width):
            self.abandon()
            footer = {
                "jivs.format_version": "1",
                "jivs.run": self._run_id,
                "jivs.partition": self._partition.id,
                "jivs.epoch": str(self._epoch),
                "jivs.ordinal": str(next(self._ordinals)),
                "jivs.bounds": json.dumps(self._partition.bounds, sort_keys=True),
            }
            schema = pa.schema([*self._base, *self._companions], metadata=footer)
            file = self._temporary()
            self._open = _Open(schema=schema, file=file)
        return self._open

    @property
    def _width(self) -> int:
        return len(self._base) + len(self._companions)

    def _temporary(self) -> HashingFile:
        path = self._store.spool / self._run_id / f"{self._partition.id}-{self._epoch}-{uuid.uuid4().hex}.parquet"
        try:
            return HashingFile(path)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            return HashingFile(path)

    def _hold(self, batch: pa.RecordBatch) -> None:
        if len(self._pending) - self._joined == _JOINED:  # before this one is added, which may be larger than a row group
            small = self._pending[self._joined :]
            if sum(one.nbytes for one in small) <= self._group_bytes // 8:  # for a moment they are there twice
                self._pending[self._joined :] = [pa.concat_batches(small)]
            self._joined = len(self._pending)
        self._pending.append(batch)
        self._pending_bytes += batch.nbytes
        self._pending_rows += batch.num_rows

    def _widen(self, batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
        arrays = [
            batch.column(index)
            if (index := batch.schema.get_field_index(item.name)) >= 0
            else pa.nulls(batch.num_rows, item.type)
            for item in schema
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    def _writer(self, current: _Open, first: pa.Table) -> pq.ParquetWriter:
        """The Parquet writer of the open segment; its encodings are chosen from the first row group."""
        if current.writer is None:
            chosen = encoding.choose(first, self._key)
            current.writer = pq.ParquetWriter(
                current.file,
                current.schema,
                compression="zstd",
                compression_level=self._level,
                use_dictionary=chosen.dictionary,
                column_encoding=chosen.others or None,
                write_statistics=chosen.statistics,
                store_decimal_as_integer=True,
                write_page_index=True,
                write_page_checksum=True,
            )
        return current.writer

    def _flush(self) -> None:
        if self._pending and self._open is not None:
            table = pa.Table.from_batches(self._pending, schema=self._open.schema)
            self._pending.clear()
            self._writer(self._open, table).write_table(table, row_group_size=table.num_rows)
        self._joined = self._pending_bytes = self._pending_rows = 0

    def _close_segment(self) -> None:
        current = self._open
        assert current is not None
        self._flush()
        self._writer(current, current.schema.empty_table()).close()
        current.file.close()
        self._open = None
        sha256 = current.file.sha256.hexdigest()
        path = layout.segment(self._source, self._partition.table, sha256)
        try:
            self._store.put(current.file.path, path)
        except BaseException:
            current.file.path.unlink(missing_ok=True)
            raise
        self.segments.append(
            Segment(
                path=path,
                bytes=current.file.count,
                sha256=sha256,
                rows=current.rows,
                partition=self._partition.id,
                fingerprint=str(current.fingerprint) if current.fingerprint.rows == current.rows else "",
                values_quarantined=len(current.values),
            )
        )
        if current.values or current.rejected:
            self._write_quarantine(current, sha256)

    def _key_text(self, batch: pa.RecordBatch, row: int) -> str | None:
        if not self._key:
            return None
        cells = [str(batch.column(batch.schema.get_field_index(name))[row]) for name in self._key]
        return json.dumps(cells, ensure_ascii=False)

    def _write_quarantine(self, current: _Open, segment: str) -> None:
        records: list[dict[str, Any]] = [
            {
                "segment": segment,
                "row": row,
                "column": self._columns[value.column].name,
                "key": key,
                "original": value.original,
                "canonical": value.canonical,
                "reason": value.reason,
            }
            for row, value, key in current.values
        ]
        records += [
            {"segment": segment, "line": row.line, "original": row.original, "reason": row.reason}
            for row in current.rejected
        ]
        file = self._temporary()
        schema = QUARANTINE_SCHEMA.with_metadata({"jivs.run": self._run_id, "jivs.partition": self._partition.id})
        pq.write_table(pa.Table.from_pylist(records, schema=schema), file, compression="zstd")
        file.close()
        sha256 = file.sha256.hexdigest()
        path = layout.quarantine(self._source, self._partition.table, sha256)
        self._store.put(file.path, path)
        self.quarantine.append(
            QuarantineFile(
                path=path,
                bytes=file.count,
                sha256=sha256,
                segment=segment,
                partition=self._partition.id,
                values=len(current.values),
                rows=len(current.rejected),
            )
        )


def file_ref(path: str, data: bytes) -> FileRef:
    """The reference to a small file by its content."""
    return FileRef(path=path, bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
