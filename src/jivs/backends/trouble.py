"""Trouble with a server that JiVS can do without."""

from __future__ import annotations

import logging
import time

_AGAIN_SECONDS = 60


class Trouble:
    """Says what is wrong once, and again if it is something else or a minute has passed: attempts come by the second."""

    def __init__(self, log: logging.Logger, server: str, without: str) -> None:
        self._log = log
        self._server = server
        self._without = without
        self._reason = ""
        self._when = 0.0

    def say(self, reason: str) -> None:
        """``reason`` holds no secret, and nothing that the server said: it may repeat what it was sent, be it a password."""
        now = time.monotonic()
        if reason != self._reason or now > self._when + _AGAIN_SECONDS:
            self._reason, self._when = reason, now
            self._log.warning("%s cannot be used (%s). Without it, %s.", self._server, reason, self._without)

    def over(self) -> None:
        """It is well again."""
        self._log.info("%s is in use.", self._server)
