"""What an order of a user changes in a row of ``runs``."""

from __future__ import annotations

from typing import Any

from jivs.backends.catalog import submission
from jivs.domain.run import Command, Order, RunState
from jivs.errors import ConflictError

ENDED = 0.0
"""In place of a lease's end, for all clocks: whoever had it has ended, or fell silent."""

LOST: dict[str, Any] = {"lease_until": ENDED, "connections": 0}
FREE: dict[str, Any] = {"owner": "", "lease_until": None, "connections": 0, "phase": ""}


def as_ordered(to: RunState, order: str) -> RunState:
    """What a run that is let go of becomes, if it was told something in that moment."""
    if not to.ended and order == Order.CANCEL.value:
        return RunState.CANCELLED
    return RunState.PAUSED if to is RunState.PENDING and order == Order.PAUSE.value else to


def _at_work(row: Any) -> bool:
    return (row["lease_until"] or ENDED) > ENDED


def _refused(row: Any, verb: str) -> ConflictError:
    ordered = f", and told to {row['order']}" if row["order"] else ""
    return ConflictError(f"Run {row['id']} is {row['state']}{ordered}: it cannot be {verb}.")


def _away(row: Any, state: RunState) -> dict[str, Any]:
    """A change that no worker has to carry out; whoever should still be at it is fenced."""
    return {"state": state.value, "order": "", "epoch": row["epoch"] + 1, **FREE}


def _stop(row: Any, doubtful: bool | None) -> dict[str, Any]:
    """A run whose worker fell silent may be published: whoever takes it over looks into the archive, and ends it. So is one
    that is in doubt, or that was let go of since somebody looked at it last. Who stops it again while the archive cannot be
    asked, ends it.
    """
    if row["state"] not in submission.UNENDED:
        raise _refused(row, "stopped")
    if row["connections"]:  # it reads, and hears it
        return {"order": Order.CANCEL.value}
    if row["lease_until"] is not None:
        if doubtful and row["order"] == Order.CANCEL.value:
            return _away(row, RunState.CANCELLED)
        return {"order": Order.CANCEL.value, "not_before": 0.0}
    if doubtful or (doubtful is None and row["started_at"] is not None):
        return {"state": RunState.RUNNING.value, "order": Order.CANCEL.value, **LOST}
    return _away(row, RunState.CANCELLED)


def _pause(row: Any, _doubtful: bool | None) -> dict[str, Any]:
    if row["state"] not in {"PENDING", "RUNNING"} or row["order"] == Order.CANCEL.value:
        raise _refused(row, "paused")
    return {"order": Order.PAUSE.value} if row["lease_until"] is not None else _away(row, RunState.PAUSED)


def _resume(row: Any, _doubtful: bool | None) -> dict[str, Any]:
    if row["order"] == Order.CANCEL.value or (row["state"] != "PAUSED" and row["order"] != Order.PAUSE.value):
        raise _refused(row, "resumed")
    if _at_work(row):
        return {"state": RunState.RUNNING.value, "order": "", "not_before": 0.0}
    return {**_away(row, RunState.PENDING), "failures": 0, "failed": 0, "not_before": 0.0}


CHANGES = {Command.STOP: _stop, Command.PAUSE: _pause, Command.RESUME: _resume}
"""Of a row, and whether nobody can say that it is published, None where nobody asked: the columns that change. Raises
ConflictError.
"""
