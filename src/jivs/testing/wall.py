"""A clock on the wall that somebody sets while processes run; their monotonic clock goes on as ever."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

_OFFSET = struct.Struct("=q")


class WallClock:
    """What processes see that are started with ``settings`` in their environment, and their children. Needs Linux and
    ``cc``; ``folder`` is one that they can read.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "wall-clock"
        self._library = folder / "wall.so"
        self._file.write_bytes(_OFFSET.pack(0))
        source = Path(__file__).with_suffix(".c")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(self._library), str(source)], check=True)

    @property
    def settings(self) -> dict[str, str]:
        """For their environment."""
        return {"LD_PRELOAD": str(self._library), "WALL_CLOCK_FILE": str(self._file)}

    def set(self, seconds: int) -> None:
        """So many seconds ahead of the true time, for all of them at once."""
        with self._file.open("r+b", buffering=0) as file:
            file.write(_OFFSET.pack(seconds))
