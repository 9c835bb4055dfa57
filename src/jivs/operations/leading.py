"""A duty that one process of all has at a time: held by a beat, taken over from whoever falls silent."""

from __future__ import annotations

import logging

from jivs.ports.leases import Lease
from jivs.ports.service import Service

LEASE_SECONDS = 3.0
"""Another process takes the duty when its holder was silent for so long."""

BEAT_SECONDS = 1.0
_LOG = logging.getLogger(__name__)


class Leadership:
    """This process's part in a duty. Seconds are those of the clock that nobody sets: a change of the wall's takes no duty.

    Whoever acts on a lease tells its epoch in the same transaction: a process that stood still may not know yet that it
    has lost it.
    """

    def __init__(self, service: Service, duty: str) -> None:
        self._service = service
        self._duty = duty
        self._held: Lease | None = None
        self._seen: Lease | None = None
        self._since = 0.0

    def step(self) -> Lease | None:
        """The lease, if this process has it: renewed each second, or taken from a holder that fell silent. To be called
        several times a second.
        """
        now = self._service.clock.monotonic()
        if self._held is not None:
            if now - self._since >= BEAT_SECONDS:
                self._held, self._since = self._service.leases().renew(self._held), now
                if self._held is None:
                    _LOG.warning("Another process has the duty %s now.", self._duty)
            return self._held
        found = self._service.leases().lease(self._duty)
        if found != self._seen:
            self._seen, self._since = found, now
        if found is None or found.free or now - self._since >= LEASE_SECONDS:
            self._held, self._since = self._service.leases().take(self._duty, self._service.app.owner, found), now
            if self._held is not None:
                _LOG.info("This process has the duty %s now.", self._duty)
        return self._held

    def end(self) -> None:
        """Give the duty back: the next one takes it at once."""
        if self._held is not None:
            self._service.leases().give_back(self._held)
            self._held = None
