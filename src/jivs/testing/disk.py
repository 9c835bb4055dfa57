"""A small disk that fills up while a process writes to it, in a mount namespace of that process."""

from __future__ import annotations

import os
from pathlib import Path

_BLOCK = bytes(1 << 16)


class SmallDisk:
    """A file system in memory at ``folder``, seen by the process that is started with ``inside`` and by its children. It
    goes with them. Needs to be root, or a system that lets users make namespaces.
    """

    def __init__(self, folder: Path, megabytes: int) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        apart = ["--mount"] if os.geteuid() == 0 else ["--user", "--map-root-user", "--mount"]
        script = f'mount -t tmpfs -o size={megabytes}m tmpfs "$0" && exec "$@"'
        self.inside = ["unshare", *apart, "sh", "-c", script, str(folder)]

    def seen(self, pid: int) -> Path:
        """The folder as that process sees it."""
        return Path(f"/proc/{pid}/root{self.folder}")

    def fill(self, pid: int) -> None:
        """Take all the room that is left."""
        with (self.seen(pid) / "filler").open("wb", buffering=0) as file:
            try:
                while file.write(_BLOCK) == len(_BLOCK):
                    pass
            except OSError:
                return

    def free(self, pid: int) -> None:
        """Give it back."""
        (self.seen(pid) / "filler").unlink()
