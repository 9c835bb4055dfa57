"""One query in a process of its own, whose result goes to a file.

The job comes on standard input: the archive's folder, the views, the SQL, and the limits. The process has no secrets:
none in its environment, and what it opens are the files of the archive. Those of an archive in an object store it asks of
whoever wants the answer, over a socket. The descriptors of both are its arguments.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from importlib import import_module
from typing import Any, BinaryIO, TextIO

import duckdb

from jivs.api import cage
from jivs.api.files import FarFiles, NearFiles, place
from jivs.api.rows import LARGEST, Form, Rows
from jivs.archive import sql
from jivs.errors import DamagedError, JivsError, OverLimitError, StoreError, UsageError

_THREADS = 2
_OWN = 130 << 20
"""Bytes of memory that the process takes before the engine has any."""

_SELECT = frozenset({"SELECT"})
_ARROW = (sql.VALUES - {"hugeint", "uhugeint"}) | {
    "date", "time", "timestamp", "timestamp_s", "timestamp_ms", "timestamp_ns", "timestamp with time zone",
}  # fmt: skip
"""Types that Arrow has. Its decimals are shorter than DuckDB's largest integers."""

_LONGEST = 2_000
_TRACED = "Traceback"
"""An error of Python's that came through the engine tells where the code lies."""

_TOO_LARGE = ("Out of Memory Error", "maximum total string size")
"""What the engine says of memory through Arrow, whose errors are OSError without a number."""

_BATCH = 256


def load() -> None:
    """What the answer to a query may need besides."""
    import_module("pyarrow")  # or each answer in its form would load it


def main() -> int:
    """Run the job; what is to be said of it, errors included, goes to standard output."""
    began = time.monotonic()
    job = json.load(sys.stdin.buffer)
    answer = _own_output()
    try:
        with os.fdopen(int(sys.argv[1]), "wb") as out:
            said = _run(job, out, began)
    except JivsError as error:
        said = {"error": [type(error).__name__, error.message]}
    except (MemoryError, duckdb.OutOfMemoryException):
        said = {"error": [OverLimitError.__name__, _too_large(job)]}
    except OSError as error:
        said = {"error": [StoreError.__name__, f"The query cannot be run on this machine: {error.strerror}. Try again."]}
    with answer:
        json.dump(said, answer)
    return 0


def _own_output() -> TextIO:
    """Standard output, for the answer alone: whatever else is printed goes nowhere."""
    own = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return own


def _too_large(job: dict[str, Any]) -> str:
    return (
        f"The query needs more than the {job['memory'] >> 20} MiB that JIVS_QUERY__MEMORY gives it: ask for fewer rows or "
        "columns, or for sums over fewer groups."
    )


def _run(job: dict[str, Any], out: BinaryIO, began: float) -> dict[str, Any]:
    form = Form(job["form"])
    if form is Form.ARROW:
        import pyarrow as pa  # before the cage, in which no file can be opened

        pa.set_cpu_count(1)
    cage.limit(seconds=job["seconds"], threads=_THREADS, memory=job["memory"], written=LARGEST + (8 << 20))
    views = [sql.View(**view) for view in job["views"]]
    wanted = {path for view in views for path in view.files}
    files: NearFiles | FarFiles
    if "root" in job:
        files = NearFiles(job["root"], wanted)
        cage.confine(f"{job['root']}/data")
    else:
        files = FarFiles(socket.socket(fileno=int(sys.argv[2])), {path: job["sizes"][path] for path in wanted})
        cage.confine()
    config: dict[str, str | int] = {
        "memory_limit": f"{job['memory'] - _OWN}B",
        "threads": _THREADS,
        "temp_directory": "",
    }
    try:
        engine = sql.connect(views, place, config, files)
        try:
            return _give(engine, job, form, out, began)
        finally:
            engine.close()
    except duckdb.OutOfMemoryException:
        raise
    except duckdb.PermissionException:
        raise UsageError(
            "The query reads the tables of this archive and nothing else: no other file, folder or place."
        ) from None
    except (duckdb.Error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        if files.missing:
            raise DamagedError(f"{files.missing} is missing: verify the archive.") from None
        said = sql.first_line(error).replace(place(""), "")
        if any(sign in said for sign in _TOO_LARGE):
            raise OverLimitError(_too_large(job)) from None
        raise UsageError(f"The query failed: {'it broke off' if _TRACED in said else said[:_LONGEST]}") from None


def _give(engine: duckdb.DuckDBPyConnection, job: dict[str, Any], form: Form, out: BinaryIO, began: float) -> dict[str, Any]:
    text, limit = job["sql"], min(job["limit"] or job["rows"], job["rows"])
    sql.require(engine, text, _SELECT)
    wanted = sql.select(engine, text, _ARROW if form is Form.ARROW else sql.VALUES, limit + 1)
    rows = Rows(out, limit)
    if form is Form.ARROW:
        rows.arrow(engine.sql(wanted.sql).to_arrow_reader(_BATCH))
    else:
        engine.execute(wanted.sql)
        if form is Form.CSV:
            rows.csv(wanted.columns, _fetched(engine))
        else:
            rows.json(wanted.columns, _fetched(engine), began)
    out.flush()
    return {"rows": rows.written, "truncated": rows.truncated}


def _fetched(engine: duckdb.DuckDBPyConnection) -> Iterator[tuple[Any, ...]]:
    while some := engine.fetchmany(_BATCH):
        yield from some
