"""The folder in which files are written before a store takes them."""

from __future__ import annotations

import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from jivs.backends import processes

_STALE_SECONDS = 24 * 3600


def size(folder: Path) -> int:
    """Bytes of the files below a folder, those included that somebody is still writing. 0 if there is none."""
    return sum(item.st_size for item in _below(folder) if not stat.S_ISDIR(item.st_mode))


def _below(folder: Path) -> Iterator[os.stat_result]:
    """What is below a folder, as far as it may be seen and is still there."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            with suppress(OSError):
                yield os.lstat(os.path.join(parent, name))  # noqa: PTH118 - a path for each would take as long again


def own(folder: Path) -> Path:
    """The place of this process in a folder for many, which is made where it is missing. Whoever finds one of a process that
    has ended removes it, and one of another place that nobody has used for a day.
    """
    mine = folder / f"{processes.here()}.{os.getpid()}"
    mine.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.utime(mine)
    return mine


def drop_dead(spools: Path) -> int:
    """Remove what processes that have ended left below a folder of spools: at once if they ran here, or else after a day,
    for a container that is started again is another place. The number of files removed.
    """
    removed = 0
    for folder in _inside(spools):
        for item in _inside(folder):
            place, _, process = item.name.rpartition(".")
            if processes.ended(place, process) or (place != processes.here() and _unused(item)):
                before = _files(item)
                shutil.rmtree(item, ignore_errors=True)
                removed += before - _files(item)
    return removed


def _inside(folder: Path) -> list[Path]:
    """The folders in a folder, as far as they may be seen."""
    with suppress(OSError), os.scandir(folder) as items:
        return [Path(item.path) for item in items if item.is_dir(follow_symlinks=False)]
    return []


def _files(folder: Path) -> int:
    return sum(not stat.S_ISDIR(item.st_mode) for item in _below(folder))


def _unused(folder: Path) -> bool:
    """Whether nothing in a folder was changed for a day."""
    with suppress(OSError):
        return max(item.st_mtime for item in (folder.stat(), *_below(folder))) < time.time() - _STALE_SECONDS
    return False


def clean(folder: Path, gone: Callable[[str], bool]) -> int:
    """Remove the folders whose names are ``gone``, and files whose writers are. The number of files removed."""
    if not folder.is_dir():
        return 0
    removed = 0
    for item in list(folder.iterdir()):
        if item.is_dir() and gone(item.name):
            with suppress(FileNotFoundError):  # another sweep was here
                removed += sum(1 for _ in item.iterdir())
            shutil.rmtree(item, ignore_errors=True)
        elif item.is_file() and _writer_gone(item):
            item.unlink(missing_ok=True)
            removed += 1
    return removed


def _writer_gone(file: Path) -> bool:
    """Whether the process that wrote a temporary file has ended, or a day has passed."""
    place, _, process = file.name.removesuffix(".part").rpartition(".")[0].rpartition(".")
    try:
        return time.time() - file.stat().st_mtime > _STALE_SECONDS or processes.ended(place, process)
    except FileNotFoundError:
        return True
