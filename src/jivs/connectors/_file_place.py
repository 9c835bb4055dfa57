"""Where a file lies, and the folders that it has to lie in: nothing on the way to it may lead out, not even for a moment."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from jivs.errors import ForbiddenError, UsageError

_ON_THE_WAY = os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | getattr(os, "O_PATH", os.O_RDONLY)
_AT_LAST = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_TRIES = 8
_LINKS = {errno.ELOOP, errno.ENOTDIR}


MOST_COLUMNS = 10_000
"""Of a table that is made from a file: what has more is no table, or was made to take memory."""


@dataclass(frozen=True)
class Place:
    """A file. ``roots``: folders below which it has to be, links resolved; none: it may be anywhere."""

    path: Path
    roots: tuple[str, ...] = ()

    def __str__(self) -> str:
        return str(self.path)

    @property
    def name(self) -> str:
        """The file's name."""
        return self.path.name

    def require_columns(self, count: int) -> None:
        """Raises UsageError for more than a table may have."""
        if count > MOST_COLUMNS:
            raise UsageError(
                f"{self.name} has more than {MOST_COLUMNS:,} columns: divide it, or state its format and dialect."
            )

    @contextmanager
    def held(self) -> Iterator[Path]:
        """A path that means this file for the duration of the block.

        Below ``roots`` it is opened folder by folder from a root on, where no step follows a link that was put there after
        the path was resolved. Raises ForbiddenError where it leads out, OSError where it cannot be opened.
        """
        if not self.roots:
            yield self.path
            return
        descriptor = self._open()
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UsageError(f"{self.path} is not a file.")
            yield Path(f"/dev/fd/{descriptor}")
        finally:
            os.close(descriptor)

    def stat(self) -> os.stat_result:
        """What the system knows of it."""
        with self.held() as path:
            return path.stat()

    def require(self) -> tuple[str, Path]:
        """The root that it is below now, links resolved, and where. Raises ForbiddenError where it leads out."""
        real = self._resolved()
        for root in map(os.path.realpath, self.roots or ("/",)):
            if real.is_relative_to(root):
                return root, real
        raise self._leads_out()

    def _resolved(self) -> Path:
        for _ in range(_TRIES):
            try:
                return Path(os.path.realpath(self.path))
            except OSError:  # a link on the way was replaced between two looks at it
                continue
        raise self._leads_out()

    def _open(self) -> int:
        root, real = self.require()
        *folders, name = real.relative_to(root).parts or ("",)
        descriptor = os.open(root, _ON_THE_WAY & ~os.O_NOFOLLOW)
        try:
            for folder in folders:
                descriptor, before = os.open(folder, _ON_THE_WAY, dir_fd=descriptor), descriptor
                os.close(before)
            return os.open(name or ".", _AT_LAST, dir_fd=descriptor)
        except OSError as error:
            if error.errno in _LINKS:
                raise self._leads_out() from None
            raise
        finally:
            os.close(descriptor)

    def _leads_out(self) -> ForbiddenError:
        return ForbiddenError(
            f"{self.path} leads out of the folders that the operator allows: put the file itself there, or have "
            "JIVS_FILE_ROOTS set."
        )
