"""What the tests of the service's faults read."""

from __future__ import annotations

from pathlib import Path

import pytest

from .endings import Scene, make_scene
from .scenes import make_database


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a few tables, in SQLite."""
    return make_database(tmp_path_factory.mktemp("data") / "s.db")


@pytest.fixture
def scene(state: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A service whose worker is the process of the test."""
    return make_scene(state, monkeypatch)
