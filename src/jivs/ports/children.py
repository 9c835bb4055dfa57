"""Work in processes of its own."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from threading import Event
from typing import Any, BinaryIO, Protocol

REQUEST = struct.Struct(">HQI")
"""What a process asks for: the length of a path, which follows, a position, a number of bytes."""

ANSWER = struct.Struct(">I")
"""How many bytes follow."""

FAILED = (1 << 32) - 1
"""Instead of a number: they cannot be read."""

Read = Callable[[str, int, int], bytes]
"""Bytes of a file of the archive, from a position on, so many."""


class Children(Protocol):
    """Each job has a process of its own, a few are at work at once, and each is ended at its limits: whatever a job does, it
    harms nobody else.
    """

    def run(
        self, job: Mapping[str, Any], gone: Event, out: BinaryIO | None = None, read: Read | None = None
    ) -> dict[str, Any]:
        """What the process says of a job; ``out`` is the file to which it writes what may be large; ``read`` reads files for
        it, which it cannot itself. What ``read`` raises is raised here.

        Setting ``gone`` ends the process: nobody waits for it any more. It is set when the call returns. Raises TooManyError
        at once where as many as may be are at work, OverLimitError for a process that was ended, or that ended itself.
        """
