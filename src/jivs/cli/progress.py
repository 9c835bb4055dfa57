"""Progress of a long run: live lines in a terminal, JSON lines without one."""

from __future__ import annotations

import json
import sys
import threading
import time
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from jivs.cli.frame import forget
from jivs.domain.plan import RunPlan
from jivs.domain.schema import TableName
from jivs.operations.job import Progress

_EVERY_SECONDS = 2.0


class Style(StrEnum):
    """How progress is shown."""

    AUTO = "auto"
    LOG = "log"
    JSON = "json"
    NONE = "none"


class Meter(Progress):
    """Counts rows, bytes and partitions per table; prints them on standard error every two seconds."""

    def __init__(self, style: Style) -> None:
        terminal = sys.stderr.isatty()
        self._style = {Style.AUTO: Style.LOG if terminal else Style.JSON}.get(style, style)
        self._live = terminal and style in {Style.AUTO, Style.LOG}
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._printed = self._began
        self._rows: dict[TableName, int] = {}
        self._bytes = 0
        self._done: dict[TableName, int] = {}
        self._of: dict[TableName, int] = {}
        self._expected = -1
        self._phase = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._live:
            self._write("\r\x1b[K")

    def planned(self, plan: RunPlan, resumed: int, rows: int) -> None:
        self._of = {table.table.name: len(table.partitions) for table in plan.tables}
        estimates = [table.table.estimated_rows for table in plan.tables]
        self._expected = sum(estimates) - rows if estimates and min(estimates) >= 0 else -1
        self._event("planned", run=plan.run_id, tables=len(plan.tables), partitions=len(plan.partitions), resumed=resumed)

    def advanced(self, table: TableName, rows: int, size: int) -> None:
        with self._lock:
            self._rows[table] = self._rows.get(table, 0) + rows
            self._bytes += size
            now = time.monotonic()
            if now - self._printed < _EVERY_SECONDS:
                return
            self._printed = now
            self._print(table)

    def partition(self, table: TableName, partition: str) -> None:
        with self._lock:
            self._done[table] = self._done.get(table, 0) + 1
        self._event("partition", table=str(table), partition=partition, done=self._done[table], of=self._of.get(table, 0))

    def warned(self, message: str) -> None:
        if self._style is Style.JSON:
            self._event("warning", message=message)
        elif self._style is not Style.NONE:
            lead = "\r\x1b[K" if self._live else ""
            self._write(f"{lead}{message}\n")

    def phase(self, name: str) -> None:
        self._phase = name
        self._event("phase", name=name)

    def _print(self, table: TableName) -> None:
        rows, seconds = sum(self._rows.values()), time.monotonic() - self._began
        pace = int(rows / seconds) if seconds > 0 else 0
        left = int((self._expected - rows) / pace) if pace and self._expected > rows else -1
        facts: dict[str, Any] = {
            "table": str(table),
            "partition": f"{self._done.get(table, 0) + 1}/{self._of.get(table, 0)}",
            "rows": rows,
            "rows_per_second": pace,
            "bytes": self._bytes,
            "eta_seconds": left if left >= 0 else None,
        }
        if self._style is Style.JSON:
            self._event("progress", **facts)
        elif self._style is Style.LOG:
            eta = f", {left} s left" if left >= 0 else ""
            line = (
                f"{table} (partition {facts['partition']}): {rows:,} rows in all, {pace:,} rows/s, "
                f"{self._bytes / 1e6:,.0f} MB{eta}"
            )
            self._write(f"\r\x1b[K{line[:160]}" if self._live else f"{line}\n")

    def _event(self, event: str, **facts: Any) -> None:
        if self._style is Style.JSON:
            self._write(json.dumps({"event": event, **facts}, ensure_ascii=False) + "\n")

    def _write(self, text: str) -> None:
        """Nobody may be listening any more: that is no reason to stop a run."""
        try:
            sys.stderr.write(text)
            sys.stderr.flush()
        except OSError:
            self._style = Style.NONE
            self._live = False
            forget(sys.stderr)
