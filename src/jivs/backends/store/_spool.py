"""The folder in which files are written before a store takes them."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from jivs.backends import processes

_STALE_SECONDS = 24 * 3600


def size(folder: Path) -> int:
    """Bytes of the files below a folder, those included that somebody is still writing. 0 if there is none."""
    total, folders = 0, [str(folder)]
    while folders:
        try:
            with os.scandir(folders.pop()) as items:
                for item in items:
                    if item.is_dir(follow_symlinks=False):
                        folders.append(item.path)
                    else:
                        with suppress(FileNotFoundError):  # a store has taken it
                            total += item.stat(follow_symlinks=False).st_size
        except (FileNotFoundError, NotADirectoryError):
            continue
    return total


def own(folder: Path) -> Path:
    """The place of this process in a folder for many. Whoever finds one of a process that has ended removes it."""
    return folder / f"{processes.here()}.{os.getpid()}"


def drop_dead(spools: Path) -> int:
    """Remove what processes of this machine that have ended left below a folder of spools. The number of files removed."""
    removed = 0
    for spool in spools.iterdir() if spools.is_dir() else ():
        for item in spool.iterdir() if spool.is_dir() else ():
            place, _, process = item.name.rpartition(".")
            if item.is_dir() and processes.ended(place, process):
                removed += sum(len(files) for _, _, files in os.walk(item))
                shutil.rmtree(item, ignore_errors=True)
    return removed


def clean(folder: Path, gone: Callable[[str], bool]) -> int:
    """Remove the folders whose names are ``gone``, and files whose writers are. The number of files removed."""
    if not folder.is_dir():
        return 0
    removed = 0
    for item in list(folder.iterdir()):
        if item.is_dir() and gone(item.name):
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
