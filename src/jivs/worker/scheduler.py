"""The scheduler: one process of all asks for the runs of schedules and sweeps what is old; the others stand by."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from jivs.errors import FencedError, JivsError
from jivs.operations import firing
from jivs.operations.leading import Leadership
from jivs.ports.service import Service

DUTY = "scheduler"
"""The name of its lease."""

_LOG = logging.getLogger(__name__)
_POLL_SECONDS = 0.25
_SWEEP_SECONDS = 600.0
_PAUSE_SECONDS = 1.0


class Scheduler:
    """A thread beside the dispatcher. ``keep_runs`` and ``keep_days``: how much history stays."""

    def __init__(self, service: Service, *, keep_runs: int, keep_days: int) -> None:
        self._service = service
        self._keep_runs = keep_runs
        self._keep_days = keep_days
        self._leadership = Leadership(service, DUTY)
        self._sweep_at = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Let it end, and give the duty back."""
        self._ended.set()

    def join(self, seconds: float) -> None:
        """Wait until it has."""
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._ended.is_set():
            self._ended.wait(_POLL_SECONDS if self._round(self._look) else _PAUSE_SECONDS)
        self._round(self._leadership.end)

    @staticmethod
    def _round(act: Callable[[], None]) -> bool:
        """Whether it went well. Whatever happens, the next round is made: nobody else would see to it here."""
        try:
            act()
        except FencedError as error:
            _LOG.info("%s", error.message)
        except JivsError as error:
            _LOG.warning("Schedules cannot be seen to: %s", error.message)
            return False
        except Exception:
            _LOG.exception("A defect in the scheduler")
            return False
        return True

    def _look(self) -> None:
        if self._leadership.step() is None:
            self._sweep_at = 0.0
            return
        firing.fire(self._service, self._leadership.step)
        now = self._service.clock.monotonic()
        if now >= self._sweep_at:
            self._sweep_at = now + _SWEEP_SECONDS
            self._service.work().sweep(keep_runs=self._keep_runs, keep_seconds=self._keep_days * 86_400.0)
            self._service.accounts().sweep()
