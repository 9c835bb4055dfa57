"""Work in processes of its own."""

from __future__ import annotations

from collections.abc import Mapping
from threading import Event
from typing import Any, BinaryIO, Protocol


class Children(Protocol):
    """Each job has a process of its own, a few are at work at once, and each is ended at its limits: whatever a job does, it
    harms nobody else.
    """

    def run(self, job: Mapping[str, Any], gone: Event, out: BinaryIO | None = None) -> dict[str, Any]:
        """What the process says of a job; ``out`` is the file to which it writes what may be large.

        Setting ``gone`` ends the process: nobody waits for it any more. It is set when the call returns. Raises TooManyError
        at once where as many as may be are at work, OverLimitError for a process that was ended, or that ended itself.
        """
