"""The doorbell: wakes whoever waits for work."""

from __future__ import annotations

from typing import Protocol


class Queue(Protocol):
    """Carries ids of runs, so that an idle dispatcher looks into the catalog at once and not at its next poll.

    The catalog is the truth about work. A message is a hint: it may get lost, come twice, come late, or name a run that
    somebody else has claimed or that never was. No call raises because of the broker behind it.
    """

    def publish(self, run_id: str) -> None:
        """Ring, after the commit. Returns at once; delivering goes on behind it, and again after a broker was away."""

    def wait(self, seconds: float) -> str | None:
        """Wait for one message; it is acknowledged before this returns, and then nobody else gets it.

        The run's id; "" from a bell that carries no names; None if nothing was heard for ``seconds``, or after ``close``.
        Only who waits is given a message: none is held by a process that is at work.
        """

    def healthy(self) -> bool:
        """Whether the bell can be heard, as of the last sign of life; True where there is nothing that could fail."""

    def close(self) -> None:
        """Deliver what is left, for a second at most, and give everything back. Who waits is let go."""
