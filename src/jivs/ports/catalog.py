"""The record of runs, their partitions and their leases."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from jivs.domain.run import Run, RunState, Step


class Catalog(Protocol):
    """Each call is one short transaction, visible to every process when it returns.

    Work may be delivered twice; a lease and a fencing token (``epoch``) make that harmless: a claim raises the epoch,
    and whoever holds an older one is told so and discards its work.
    """

    def create_run(self, run: Run) -> None:
        """Record a new run. Raises AlreadyExistsError if the id is taken."""

    def run(self, run_id: str) -> Run | None:
        """The run, or None."""

    def runs(self, *, archive: str = "", digest: str = "", limit: int = 100) -> list[Run]:
        """The newest first."""

    def claim_run(self, run_id: str, owner: str, seconds: float, *, instead_of: int = -1) -> int | None:
        """Take the run's lease if it is free or expired; the new epoch, or None if somebody else holds it.

        ``instead_of``: also from the holder of this epoch, whom the caller knows to have ended.
        """

    def renew_run(self, run_id: str, epoch: int, seconds: float) -> bool:
        """Extend the lease; False if a newer epoch holds it or it was released."""

    def transition(self, run_id: str, epoch: int, to: RunState, message: str = "") -> None:
        """Change the run's state; an ended state releases the lease.

        Raises FencedError if ``epoch`` is not the newest, ConflictError if the table of transitions forbids it.
        """

    def release_run(self, run_id: str, epoch: int) -> None:
        """Give the lease back and leave the state as it is."""

    def add_steps(self, run_id: str, partitions: Iterable[str], *, done: bool = False) -> None:
        """Record partitions as READY (or as DONE); those already known stay as they are, unless ``done``."""

    def claim_step(self, run_id: str, owner: str, seconds: float, *, run_epoch: int) -> Step | None:
        """Take one READY partition, or one of another owner whose lease has expired, in the order they were added.

        None if there is none, or if the run has another owner by now (``run_epoch`` is not its newest).
        """

    def renew_step(self, run_id: str, partition: str, epoch: int, seconds: float) -> bool:
        """Extend the lease; False if fenced."""

    def complete_step(self, run_id: str, partition: str, epoch: int, rows: int) -> bool:
        """Record the partition as DONE; False if fenced, and then nothing was recorded."""

    def release_step(self, run_id: str, partition: str, epoch: int, *, failed: bool = False) -> bool:
        """Make it READY again, or FAILED for good; False if fenced."""

    def drop_steps(self, run_id: str, partitions: Iterable[str]) -> None:
        """Forget these partitions: their work was discarded, and others take their place."""

    def steps(self, run_id: str, *, after: int = 0, limit: int = 0) -> list[Step]:
        """All partitions of a run in the order they were added, or ``limit`` of those behind a ``seq``."""

    def close(self) -> None:
        """Give back all connections."""
