"""This machine, as the kernel tells of it: control groups (cgroups(7)), resource limits, physical memory."""

from __future__ import annotations

import os
import platform
import resource
import sys
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


class LocalMachine:
    """``root``: where ``/proc`` and ``/sys`` are."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def memory(self) -> tuple[int, str]:
        found = {"physical memory": _physical()}
        group = min(self._of_group(), default=0)
        if 0 < group < found["physical memory"] or not found["physical memory"]:
            found = {"control group": group}
        name = min(found, key=lambda one: found[one])
        return found[name], name

    def _of_group(self) -> Iterator[int]:
        """The limits of the group of this process, and of those that it is in."""
        try:
            lines = (self._root / "proc/self/cgroup").read_text(encoding="ascii").splitlines()
        except OSError:
            return
        for line in lines:
            _, controllers, path = line.split(":", 2)
            if not controllers:
                yield from self._limits("sys/fs/cgroup", path, "memory.max")
            elif "memory" in controllers.split(","):
                yield from self._limits("sys/fs/cgroup/memory", path, "memory.limit_in_bytes")

    def _limits(self, mount: str, path: str, name: str) -> Iterator[int]:
        """From the group up to the top. In a container the top is the container's own group, whatever the path says."""
        own = PurePosixPath(path.lstrip("/"))
        for part in (own, *own.parents):
            try:
                text = (self._root / mount / part / name).read_text(encoding="ascii").strip()
            except OSError:
                continue
            if text.isdigit():
                yield int(text)

    def processors(self) -> int:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 0

    def files(self) -> int:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return 0 if soft == resource.RLIM_INFINITY else soft

    def description(self) -> dict[str, str]:
        libc = " ".join(platform.libc_ver()).strip()
        return {
            "python": f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})",
            "platform": f"{platform.platform()}{f', {libc}' if libc else ''}",
        }


def _physical() -> int:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0
