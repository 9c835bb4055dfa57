"""Log lines: one record is one line, with the trace and the run that it belongs to, as text or as JSON.

Standard library only, and seen from every ring: whoever begins a request or a run says so here, and whoever logs below it
need not know.
"""

from __future__ import annotations

import gc
import json
import logging
import queue
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar

TRACE: ContextVar[str] = ContextVar("trace", default="")
"""The trace id of the request in progress."""

RUN: ContextVar[str] = ContextVar("run", default="")
"""The id of the run in progress."""

FORMATS = ("console", "json")
_ESCAPED = {
    number: f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"
    for number in (*range(0x20), *range(0x7F, 0xA0), 0x2028, 0x2029, *range(0x202A, 0x202F), *range(0x2066, 0x206A))
} | {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}
"""Characters that begin another line, steer a terminal or turn the direction of writing."""

_SECRETS = re.compile(r"(?<=://)([^/\s:@]*):[^/\s]+@|(?<=\bBearer )[A-Za-z0-9._~+/=-]+", re.IGNORECASE)
_ROWS = "sqlalchemy.engine"
"""At DEBUG it logs the rows that it reads, password hashes among them; at INFO statements without values."""

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PARAMS = ParamSpec("_PARAMS")
_Result = TypeVar("_Result")


@contextmanager
def run(run_id: str, trace: str = "") -> Iterator[None]:
    """Log lines of the block belong to a run, and to its trace if it has one."""
    token, before = RUN.set(run_id), TRACE.set(trace or TRACE.get())
    try:
        yield
    finally:
        RUN.reset(token)
        TRACE.reset(before)


def carried(function: Callable[_PARAMS, _Result]) -> Callable[_PARAMS, _Result]:
    """The function with the caller's trace and run, for a thread, which begins without them."""
    context = copy_context()

    def inside(*args: _PARAMS.args, **kwargs: _PARAMS.kwargs) -> _Result:
        return context.copy().run(function, *args, **kwargs)

    return inside


def setup(level: str, form: str) -> None:
    """Send every record of this process, uncaught errors too, to standard error in one of ``FORMATS``."""
    handler = _Stderr()
    handler.setFormatter(_Json() if form == "json" else _Console())
    handler.addFilter(lambda record: record.levelno > logging.DEBUG or not record.name.startswith(_ROWS))
    root = logging.getLogger()
    root.handlers[:] = [*(one for one in root.handlers if not isinstance(one, _Stderr)), handler]
    root.setLevel(level)
    logging.captureWarnings(True)
    threading.excepthook = _uncaught_in_thread
    sys.excepthook = _uncaught


def announce(message: str, level: int = logging.INFO) -> None:
    """Say it whatever the level is: where the service listens, why it cannot start. A bare line on the console."""
    record = logging.makeLogRecord({"name": "jivs", "levelno": level, "levelname": logging.getLevelName(level)})
    record.msg, record.bare = message, True
    for handler in logging.getLogger().handlers:
        if isinstance(handler, _Stderr):
            handler.handle(record)


def call_process(name: str) -> None:
    """What this process is called in lists of processes, where forks have the command line of their parent: at most 15
    characters of ASCII.
    """
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name, encoding="ascii")


def watch_collector(seconds: float) -> None:
    """Log a line ``GC pause`` whenever the garbage collector holds the process up for this long or longer.

    A collection begins anywhere, also inside logging: its callback only notes, and a thread of its own writes.
    """
    noted: queue.SimpleQueue[tuple[float, dict[str, int]]] = queue.SimpleQueue()
    began = 0.0

    def note(phase: str, info: dict[str, int]) -> None:
        nonlocal began
        if phase == "start":
            began = time.perf_counter()
        elif (pause := time.perf_counter() - began) >= seconds:
            noted.put((pause, dict(info)))

    def write() -> None:
        log = logging.getLogger(__name__)
        while True:
            pause, info = noted.get()
            given = pause * 1e3, info["generation"], info["collected"]
            log.warning("GC pause of %.0f ms (generation %d, %d objects)", *given)

    threading.Thread(target=write, name="gc-pauses", daemon=True).start()
    gc.callbacks.append(note)


class _Stderr(logging.Handler):
    """Writes to what is standard error at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        """One write for each record, so that processes that share it do not mix their lines."""
        try:
            sys.stderr.write(self.format(record) + "\n")
            sys.stderr.flush()
        except RecursionError:
            raise
        except Exception:
            self.handleError(record)


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"


def _clean(text: str) -> str:
    """Without passwords in URLs and tokens, should a library ever log them."""
    return _SECRETS.sub(lambda match: f"{match[1]}:***@" if match[1] is not None else "***", text)


class _Console(logging.Formatter):
    """``time LEVEL [trace run] logger: message``; the lines of a traceback stand apart behind a bar."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback's lines below it."""
        text = _clean(record.getMessage()).translate(_ESCAPED)
        if not getattr(record, "bare", False):
            place = " ".join(value for value in (TRACE.get(), RUN.get()) if value)
            text = f"{_time(record)} {record.levelname} [{place}] {record.name}: {text}"
        if record.exc_info:
            lines = _clean(self.formatException(record.exc_info)).split("\n")
            text = "\n".join([text, *(f"  | {line.translate(_ESCAPED)}" for line in lines)])
        return text


class _Json(logging.Formatter):
    """One JSON object per line, in ASCII."""

    def format(self, record: logging.LogRecord) -> str:
        """The record with its extra fields."""
        line: dict[str, Any] = {
            "time": _time(record),
            "level": record.levelname,
            "logger": record.name,
            "message": _clean(record.getMessage()),
        }
        line |= {name: value for name, value in (("traceId", TRACE.get()), ("runId", RUN.get())) if value}
        line |= {name: value for name, value in vars(record).items() if name not in _OWN and name != "bare"}
        if record.exc_info:
            line["error"] = _clean(self.formatException(record.exc_info))
        return json.dumps(line, default=str)


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    logging.getLogger("jivs").critical("uncaught %s", kind.__name__, exc_info=(kind, error, trace))


def _uncaught_in_thread(what: threading.ExceptHookArgs) -> None:
    if what.exc_type is not SystemExit and what.exc_value is not None:
        name = what.thread.name if what.thread is not None else ""
        given = (what.exc_type, what.exc_value, what.exc_traceback)
        logging.getLogger("jivs").error("uncaught %s in thread %s", what.exc_type.__name__, name, exc_info=given)
