"""The dispatcher: keeps processes that execute runs, as many as there is work for, and wakes them."""

from __future__ import annotations

import logging
import os
import selectors
import signal
import threading
import time
from contextlib import suppress

from jivs.errors import JivsError
from jivs.operations.execute import LEASE_SECONDS, LETTING_GO_SECONDS
from jivs.ports.service import Service
from jivs.worker.forks import Forked, Forks, GoneError

_LOG = logging.getLogger(__name__)
_POLL_SECONDS = 0.5
_DEAF_SECONDS = 0.25
_WARM = 2
_SPARE = 1
"""Processes without a run: should one be killed, its run goes on at once, and not after another has started."""

_IDLE_SECONDS = 60.0
_RESPAWN_SECONDS = 1.0
_DRAIN_SECONDS = 25.0
_LAST_SECONDS = 5.0


class _Child:
    """A process that executes runs."""

    def __init__(self, process: Forked) -> None:
        self.process = process
        self.idle_since: float | None = None
        self.ready = False
        self._closed = False

    def wake(self) -> None:
        """There may be work."""
        self.idle_since = None
        if not self._closed:  # another file may have the number by now
            with suppress(OSError):  # it has ended, and the dispatcher is about to see that
                os.write(self.process.stdin, b"\n")

    def heard(self) -> bool:
        """Read what it said; False when it has ended."""
        said = os.read(self.process.stdout, 1 << 12)
        if said:
            self.idle_since = time.monotonic()
            self.ready = True
        return bool(said)

    def close(self) -> None:
        """Let it end once it is idle."""
        self.idle_since = None  # nobody gives it anything any more
        if not self._closed:
            self._closed = True
            os.close(self.process.stdin)

    def ended(self) -> int:
        """Its exit code, once nothing more can be heard of it."""
        self.close()
        os.close(self.process.stdout)
        code = self.process.wait(_LAST_SECONDS)
        if code is None:  # it closed its standard output, and lives
            self.process.kill()
            code = self.process.wait(_LAST_SECONDS)
        return -signal.SIGKILL if code is None else code


class Dispatcher:
    """``size`` processes at most, which ``forks`` makes."""

    def __init__(self, service: Service, size: int, forks: Forks) -> None:
        self._service = service
        self._forks = forks
        self._place = service.app.owner.partition(":")[0]
        self._size = size
        self._children: list[_Child] = []
        self._selector = selectors.DefaultSelector()
        self._ended = threading.Event()
        self._heard, self._rung = os.pipe()
        self._room = threading.Event()
        self._spawn_after = 0.0

    def end(self) -> None:
        """Let ``run`` return once the runs at hand are given back."""
        self._ended.set()
        os.write(self._rung, b"\0")

    def run(self) -> None:
        """Dispatch until told to end. Raises GoneError where no worker can be started any more; those at hand have ended."""
        self._selector.register(self._heard, selectors.EVENT_READ)
        threading.Thread(target=self._listen, name="doorbell", daemon=True).start()
        try:
            self._dispatch()
        finally:
            self._ended.set()
            self._drain()

    def _dispatch(self) -> None:
        while not self._ended.is_set():
            try:
                self._fill()
            except GoneError:
                if self._ended.is_set():
                    return
                raise
            for key, _ in self._selector.select(_POLL_SECONDS if self._service.queue.healthy() else _DEAF_SECONDS):
                if key.data is None:
                    os.read(self._heard, 1 << 12)
                else:
                    self._hear(key.data)
            self._retire()

    def _listen(self) -> None:
        """Wake ``run`` when the bell rings. Who has no room does not listen: the ring is for somebody else."""
        while not self._ended.is_set():
            if self._room.wait(_POLL_SECONDS) and self._service.queue.wait(_POLL_SECONDS) is not None:
                os.write(self._rung, b"\0")

    def _fill(self) -> None:
        """Wake as many idle children as there are runs to claim, and start new ones where there are too few."""
        idle = [child for child in self._children if child.idle_since is not None]
        try:
            work = self._service.work()
            if work.silent(LEASE_SECONDS + LETTING_GO_SECONDS):
                _LOG.warning("A worker somewhere fell silent; what it was at goes on elsewhere.")
            waiting = work.waiting(self._size)
        except JivsError as error:
            _LOG.warning("The catalog cannot be asked for work: %s", error.message)
            self._ended.wait(_DEAF_SECONDS)
            return
        for child in idle[:waiting]:
            child.wake()
        busy = sum(child.ready and child.idle_since is None for child in self._children)
        (self._room.set if busy < self._size else self._room.clear)()
        # Those that are still starting are not busy: on a slow machine each look would find them so, and start another one.
        wanted = max(busy + max(0, waiting - len(idle)), busy + _SPARE, _WARM)
        if time.monotonic() >= self._spawn_after:
            for _ in range(min(wanted, self._size) - len(self._children)):
                if not self._spawn():
                    break

    def _spawn(self) -> bool:
        """Whether there is one more."""
        try:
            child = _Child(self._forks.worker(self._ended))
        except OSError as error:
            _LOG.error("No worker can be started: %s.", error)
            self._spawn_after = time.monotonic() + _RESPAWN_SECONDS
            return False
        self._children.append(child)
        self._selector.register(child.process.stdout, selectors.EVENT_READ, child)
        return True

    def _hear(self, child: _Child) -> None:
        if child.heard():
            return
        self._selector.unregister(child.process.stdout)
        self._children.remove(child)
        code = child.ended()
        if code:
            _LOG.error("Worker %d ended with %d; what it was at goes on elsewhere.", child.process.pid, code)
            if not child.ready:  # and so may the next one
                self._spawn_after = time.monotonic() + _RESPAWN_SECONDS
        try:
            self._service.work().lost(f"{self._place}:{child.process.pid}:")
        except JivsError as error:  # its leases end by themselves
            _LOG.warning("%s", error.message)

    def _retire(self) -> None:
        """Let processes go that had nothing to do for a while, but a few."""
        idle = [child for child in self._children if child.idle_since is not None]
        for child in idle[min(_WARM, self._size) :]:
            if time.monotonic() - (child.idle_since or 0.0) > _IDLE_SECONDS:
                child.close()

    def _drain(self) -> None:
        self._service.queue.close()
        for child in self._children:
            child.close()
        end = time.monotonic() + _DRAIN_SECONDS
        for child in self._children:
            if child.process.wait(max(0.1, end - time.monotonic())) is None:
                _LOG.warning("Worker %d does not end; its run goes on elsewhere.", child.process.pid)
                child.process.kill()
                child.process.wait(_LAST_SECONDS)
