"""Reading an archive back."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from jivs.domain.archive import QuarantineFile, Segment, TableState
from jivs.domain.arrow import arrow_field
from jivs.domain.schema import Column
from jivs.errors import DamagedError
from jivs.ports.store import Store
from jivs.wire.rowhash import Overrides

BATCH_ROWS = 32 << 10
_BATCH_BYTES = 8 << 20


def quarantined_cells(store: Store, table: TableState) -> dict[str, dict[int, dict[int, bytes]]]:
    """Canonical texts of all quarantined cells of a table: segment's SHA-256 -> row -> index of the column -> text."""
    index = {column.name: position for position, column in enumerate(table.columns)}
    out: dict[str, dict[int, dict[int, bytes]]] = {}
    for file in table.quarantine:
        if not file.values:
            continue
        try:
            for record in quarantine_records(store, file):
                if record["column"] is not None:
                    cells = out.setdefault(str(record["segment"]), {}).setdefault(_integer(record["row"]), {})
                    cells[index[str(record["column"])]] = _bytes(record["canonical"])
        except (pa.ArrowException, OSError, KeyError, TypeError) as error:
            raise DamagedError(f"{file.path} does not fit its table: it is damaged.", detail=repr(error)) from error
    return out


def quarantine_records(store: Store, file: QuarantineFile) -> list[dict[str, object]]:
    """The entries of a quarantine file."""
    with store.open(file.path) as handle:
        records: list[dict[str, object]] = pq.read_table(handle).to_pylist()
    return records


def batches(
    store: Store, table: TableState, segment: Segment, cells: dict[int, dict[int, bytes]]
) -> Iterator[tuple[pa.RecordBatch, Overrides]]:
    """The rows of a segment in archive form, each batch with the canonical texts of its quarantined cells.

    Raises DamagedError if the file is no Parquet file or lacks a column.
    """
    offset = 0
    try:
        with store.open(segment.path) as handle, pq.ParquetFile(handle, page_checksum_verification=True) as file:
            for batch in file.iter_batches(batch_size=_batch_rows(file), use_threads=False):
                _require_columns(batch, table.columns, segment)
                last = offset + batch.num_rows
                overrides = {row - offset: cells[row] for row in cells if offset <= row < last}
                yield batch, overrides
                offset = last
    except (pa.ArrowException, OSError, EOFError) as error:
        raise DamagedError(f"{segment.path} cannot be read: it is damaged.", detail=repr(error)) from error


def _batch_rows(file: pq.ParquetFile) -> int:
    """Rows per batch so that a batch stays near 8 MB."""
    metadata = file.metadata
    width = sum(metadata.row_group(index).total_byte_size for index in range(metadata.num_row_groups))
    fitting: int = _BATCH_BYTES * max(1, metadata.num_rows) // max(1, width)
    return max(1, min(BATCH_ROWS, fitting))


def _require_columns(batch: pa.RecordBatch, columns: tuple[Column, ...], segment: Segment) -> None:
    for column in columns:
        position = batch.schema.get_field_index(column.field)
        if position < 0 or batch.schema.field(position).type != arrow_field(column).type:
            raise DamagedError(f"{segment.path}: column {column.field} is not there as {column.type}.")


def _integer(value: object) -> int:
    if not isinstance(value, int):
        raise TypeError("no integer")
    return value


def _bytes(value: object) -> bytes:
    if not isinstance(value, bytes):
        raise TypeError("no bytes")
    return value
