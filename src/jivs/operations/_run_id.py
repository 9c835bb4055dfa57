"""Names of runs."""

from __future__ import annotations

import uuid

from jivs.ports.clock import Clock


def new_run_id(clock: Clock) -> str:
    """A name that no run has."""
    return f"{clock.now():%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}"
