"""Is it well? What the service depends on, asked seldom and never waited for long, however many want to know."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from jivs.errors import JivsError
from jivs.operations import shelf
from jivs.ports.service import Check, Service

ESSENTIAL = "db"
"""The check without which no request can be served."""

_FRESH_SECONDS = 1.0
_FRESH_SECONDS_OF_ARCHIVES = 10.0
"""A look at an object store is paid for."""

_PATIENCE_SECONDS = 3.0
_T = TypeVar("_T")


class Fresh(Generic[_T]):
    """What ``read`` gave less than ``seconds`` ago; after a failure it is tried again within a second.

    One reads at a time, in a thread of its own, and whoever asks waits for it no longer than ``patience`` seconds: a part
    that hangs holds nobody up.
    """

    def __init__(self, read: Callable[[], _T], *, seconds: float, patience: float) -> None:
        self._read = read
        self._seconds = seconds
        self._patience = patience
        self._lock = threading.Lock()
        self._done: threading.Event | None = None
        self._value: _T | None = None
        self._until = 0.0

    def begin(self) -> threading.Event | None:
        """Have it read if it is not fresh; what is set when that is done, None if there is nothing to wait for."""
        with self._lock:
            if time.monotonic() < self._until:
                return None
            if self._done is None:
                self._done = threading.Event()
                threading.Thread(target=self._refresh, args=(self._done,), name="look", daemon=True).start()
            return self._done

    def get(self) -> _T | None:
        """The value; None if it does not come in time, or if ``read`` failed."""
        return self.wait(time.monotonic() + self._patience)

    def wait(self, until: float) -> _T | None:
        """The same, with patience until a moment of the monotonic clock."""
        done = self.begin()
        if done is not None and not done.wait(max(0.0, until - time.monotonic())):
            return None
        with self._lock:
            return self._value

    def _refresh(self, done: threading.Event) -> None:
        value: _T | None = None
        try:
            value = self._read()
        except JivsError:
            pass
        finally:
            seconds = self._seconds if value is not None else min(self._seconds, _FRESH_SECONDS)
            with self._lock:
                self._value, self._until, self._done = value, time.monotonic() + seconds, None
            done.set()


@dataclass(frozen=True, kw_only=True)
class Component:
    """Something that the service depends on. ``details`` are for those who run it."""

    up: bool
    details: Mapping[str, str | int] = field(default_factory=dict)


_SILENT = Component(up=False, details={"error": f"It did not answer within {_PATIENCE_SECONDS:g} seconds."})


class Health:
    """The service's health, from its checks."""

    def __init__(self, service: Service) -> None:
        self._checks = {
            name: Fresh(_looked(check), seconds=_FRESH_SECONDS, patience=_PATIENCE_SECONDS)
            for name, check in service.checks.items()
        }
        self._checks["archives"] = Fresh(
            _looked(lambda: _archives(service)), seconds=_FRESH_SECONDS_OF_ARCHIVES, patience=_PATIENCE_SECONDS
        )

    def ready(self) -> bool:
        """Whether requests can be served."""
        return (self._checks[ESSENTIAL].get() or _SILENT).up

    def components(self) -> dict[str, Component]:
        """All of them by name, looked at side by side."""
        until = time.monotonic() + _PATIENCE_SECONDS
        for check in self._checks.values():
            check.begin()
        return {name: check.wait(until) or _SILENT for name, check in self._checks.items()}


def _archives(service: Service) -> Mapping[str, str | int]:
    shelf.require(service)
    return {"place": service.shelf.shown}


def _looked(check: Check) -> Callable[[], Component]:
    def look() -> Component:
        try:
            return Component(up=True, details=check())
        except JivsError as error:
            return Component(up=False, details={"error": error.message})
        except Exception as error:
            return Component(up=False, details={"error": type(error).__name__})

    return look
