"""The process of a worker: executes claimed runs, one at a time.

A line on standard input: there may be work. ``idle`` on standard output: there is none (left). When standard input ends, or
on SIGTERM, the run at hand is given back at the next batch and the process ends.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from jivs import bootstrap, logs, settings
from jivs.errors import JivsError
from jivs.operations.execute import LEASE_SECONDS, Execution
from jivs.ports.service import Service

_LOG = logging.getLogger(__name__)
_UNREACHABLE_SECONDS = 1.0
_NICENESS = 10
_KEPT = 64 << 20
"""Bytes that an idle process may have more than at its beginning. With more it ends: a new one is a fork, and costs less."""

_CUT_OFF = 75
"""The exit code of a process that could neither renew its lease nor stop."""


def main() -> int:
    """Work until told to end."""
    _stand_back()
    gc.set_threshold(100_000, 20, 100)  # loading the modules makes no garbage, nor does reading make cycles
    loaded = settings.load()
    logs.setup(loaded.log_level, loaded.log_format)
    logs.watch_collector(loaded.gc_pause / 1000)
    service = bootstrap.build_service(loaded, process="worker")
    drain, woken = threading.Event(), threading.Event()

    def end(*_: object) -> None:
        drain.set()
        woken.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which then asks its children to end
    threading.Thread(target=_listen, args=(woken, end), name="parent", daemon=True).start()
    begun = _memory()
    while not drain.is_set() and _memory() - begun < _KEPT:
        _say("idle")
        woken.wait()
        woken.clear()
        _work(service, drain, loaded.extraction.pause_hold)
    service.app.tracing.close()
    return 0


def _memory() -> int:
    """Bytes of memory that are in no file; 0 where the system does not say it."""
    with suppress(OSError), Path("/proc/self/statm").open(encoding="ascii") as file:
        _, resident, shared, *_ = map(int, file.read().split())
        return (resident - shared) * os.sysconf("SC_PAGE_SIZE")
    return 0


def _stand_back() -> None:
    """Leave the processor to those who answer users: what they need is short, and a run takes all that is left."""
    os.nice(_NICENESS)
    with suppress(OSError):  # where Linux groups by sessions, and the niceness counts only within one
        Path("/proc/self/autogroup").write_text(str(_NICENESS))


def _listen(woken: threading.Event, end: Callable[[], None]) -> None:
    while os.read(0, 1 << 12):
        woken.set()
    end()


def _work(service: Service, drain: threading.Event, hold_seconds: float) -> None:
    """Execute runs until none can be claimed."""
    while not drain.is_set():
        try:
            run = service.work().claim(service.app.owner, LEASE_SECONDS)
        except JivsError as error:
            _LOG.warning("No work can be claimed: %s", error.message)
            drain.wait(_UNREACHABLE_SECONDS)
            return
        except Exception:  # or every process would end of it, one after the other
            _LOG.exception("A defect kept work from being claimed")
            drain.wait(_UNREACHABLE_SECONDS)
            return
        if run is None:
            return
        _LOG.info("Run %s of extraction %s begins", run.id, run.extraction_id)
        state = Execution(service, run, drain, hold_seconds, lambda: os._exit(_CUT_OFF)).run()
        _LOG.info("Run %s: %s", run.id, state.value if state else "another worker has it")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
