"""Exit codes: the only table from errors to codes."""

from __future__ import annotations

from jivs import errors

DONE = 0
UNEXPECTED = 1
USAGE = 2
INCOMPLETE = 3
SCHEMA_CHANGED = 4
UNREACHABLE = 5
INTERRUPTED = 130

TABLE: tuple[tuple[type[errors.JivsError], int], ...] = (
    (errors.UserError, USAGE),
    (errors.TransientError, UNREACHABLE),
    (errors.IntegrityError, INCOMPLETE),
    (errors.SchemaChangedError, SCHEMA_CHANGED),
    (errors.ConflictError, UNREACHABLE),
    (errors.InterruptedRunError, INTERRUPTED),
    (errors.JivsError, UNEXPECTED),
)


def exit_code(error: errors.JivsError) -> int:
    """The code of the first branch that an error belongs to."""
    return next(code for kind, code in TABLE if isinstance(error, kind))
