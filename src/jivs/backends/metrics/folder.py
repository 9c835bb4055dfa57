"""The folder in which processes that are scraped as one keep their numbers, each in files of its own.

Files of a process that ended count on: they are added up in one file, so that a scrape takes no longer however many
processes there were. Its gauges go.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from jivs.errors import SettingsError

_PREFIX = "jivs-metrics-"
_OF_PROCESS = re.compile(r"\w+_(\d+)\.db")
_YOUNG_SECONDS = 60
"""Younger folders are left alone: their owner may be about to lock them."""

_ENDED = 0
"""The process id under which those of the dead are added up; no process has it."""


class MetricsFolder:
    """A new private folder; a context manager that removes it. Whatever was killed before it could, is removed by the next.

    ``variables``: what the processes need in their environment.
    """

    def __init__(self) -> None:
        try:
            _sweep()
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX))
            self._owned = _lock(self.path / "owner", fcntl.LOCK_EX)
        except OSError as error:
            raise SettingsError(f"No folder for temporary files can be used: {error.strerror}. Set TMPDIR.") from None

    @property
    def variables(self) -> dict[str, str]:
        """For the environment of each process, from its start."""
        return {"PROMETHEUS_MULTIPROC_DIR": str(self.path)}

    def tidy(self) -> None:
        """Whoever has ended since the last time: its counts stay, its gauges go."""
        found = {int(match[1]) for path in self.path.glob("*.db") if (match := _OF_PROCESS.fullmatch(path.name))}
        for process in found - {_ENDED}:
            try:
                os.kill(process, 0)
            except ProcessLookupError:
                self._ended(process)
            except PermissionError:  # another user's has its number now
                self._ended(process)

    def _ended(self, process: int) -> None:
        with changing(self.path):
            for kind in ("counter", "histogram"):
                with suppress(FileNotFoundError):
                    _add(self.path / f"{kind}_{process}.db", self.path / f"{kind}_{_ENDED}.db")
            for path in self.path.glob(f"*_{process}.db"):
                path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._owned)
        shutil.rmtree(self.path, ignore_errors=True)


@contextmanager
def changing(folder: Path) -> Iterator[None]:
    """Nobody reads the files meanwhile."""
    held = _lock(folder / "lock", fcntl.LOCK_EX)
    try:
        yield
    finally:
        os.close(held)


@contextmanager
def reading(folder: Path) -> Iterator[list[str]]:
    """The files that hold something; none is moved into another meanwhile."""
    held = _lock(folder / "lock", fcntl.LOCK_SH)
    try:
        yield [str(path) for path in sorted(folder.glob("*.db")) if path.stat().st_size]
    finally:
        os.close(held)


def _add(source: Path, target: Path) -> None:
    if not source.stat().st_size:
        return
    from prometheus_client.mmap_dict import MmapedDict  # which looks for ``variables`` when it is loaded

    total = MmapedDict(str(target))
    try:
        for key, value, _, _ in MmapedDict.read_all_values_from_file(str(source)):
            total.write_value(key, total.read_value(key)[0] + value, 0.0)
    finally:
        total.close()


def _sweep() -> None:
    """Remove folders of services that were killed: nobody holds their lock any more."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            found = folder.lstat()
            if (
                not stat.S_ISDIR(found.st_mode)
                or found.st_uid != os.geteuid()
                or time.time() - found.st_mtime < _YOUNG_SECONDS
            ):
                continue
            held = _lock(folder / "owner", fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(held)


def _lock(path: Path, how: int) -> int:
    """An open file with the lock; closing it gives the lock back."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, how)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor
