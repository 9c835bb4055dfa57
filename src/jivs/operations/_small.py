"""Small tables: read, written, counted and recorded many at a time, so that 10,000 of them are no 10,000 round trips."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jivs.domain.plan import Partition, RunPlan, TablePlan

if TYPE_CHECKING:
    from jivs.ports.store import Store

_TABLE_BYTES = 256 << 10
_TABLE_ROWS = 2000
_TABLES = 200
_BYTES = 8 << 20


def groups(plan: RunPlan, done: set[str]) -> dict[str, list[Partition]]:
    """The partitions of a run that are not done, in portions for one claim each, by the name of the portion.

    A large partition is a portion of its own, under its own name; small tables that follow each other share one.
    """
    out: dict[str, list[Partition]] = {}
    open_: list[Partition] = []
    size = 0
    for table in plan.tables:
        left = [partition for partition in table.partitions if partition.id not in done]
        weight = _weight(table)
        if weight < 0 or len(open_) >= _TABLES or size + weight > _BYTES:
            _close(out, open_)
            open_, size = [], 0
        if weight < 0:
            out.update({partition.id: [partition] for partition in left})
        elif left:
            open_.append(left[0])
            size += weight
    _close(out, open_)
    return out


def _close(out: dict[str, list[Partition]], group: list[Partition]) -> None:
    if group:
        out[group[0].id if len(group) == 1 else f"{group[0].id}+{len(group) - 1}"] = group


def _weight(plan: TablePlan) -> int:
    """About the bytes of a small table; -1 for any other."""
    table = plan.table
    if len(plan.partitions) != 1 or not table.columns:
        return -1
    if 0 <= table.estimated_bytes <= _TABLE_BYTES:
        return max(table.estimated_bytes, 1024)
    if table.estimated_bytes < 0 and 0 <= table.estimated_rows <= _TABLE_ROWS:
        return 100 * table.estimated_rows + 1024
    return -1


class Later:
    """A store that keeps what is put into it in the spool, until ``flush`` puts all of it at once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._files: list[tuple[Path, str]] = []

    @property
    def spool(self) -> Path:
        return self._store.spool

    def put(self, local: Path, path: str) -> None:
        self._files.append((local, path))

    def flush(self) -> None:
        """Put all of them, durably."""
        if self._files:
            self._store.put_all(self._files)
            self._files.clear()

    def discard(self) -> None:
        """Remove what was not put."""
        for local, _ in self._files:
            local.unlink(missing_ok=True)
        self._files.clear()


def names(group: Sequence[Partition]) -> str:
    """The tables of a group, for messages."""
    return f"{group[0].table} and {len(group) - 1} more small tables"
