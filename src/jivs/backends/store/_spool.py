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
