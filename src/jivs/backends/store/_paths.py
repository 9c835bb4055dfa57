"""What is a path inside a store."""

from __future__ import annotations

from pathlib import PurePosixPath


def is_path(path: str) -> bool:
    """Whether a path is relative, has no empty, ``.`` or ``..`` part, and stays below the root."""
    pure = PurePosixPath(path)
    return not pure.is_absolute() and bool(pure.parts) and ".." not in pure.parts and "\0" not in path and str(pure) == path


def require_path(path: str) -> str:
    """The path as it is. Raises ValueError for what is none."""
    if not is_path(path):
        raise ValueError(f"not a path inside a store: {path!r}")
    return path
