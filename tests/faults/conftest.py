"""The source that the tests of the service's faults read."""

from __future__ import annotations

from pathlib import Path

import pytest

from .scenes import make_database


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a few tables, in SQLite."""
    return make_database(tmp_path_factory.mktemp("data") / "s.db")
