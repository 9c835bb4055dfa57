"""SIGKILL anywhere: the archive is in the old or the new state, and a resumed run ends with all rows, each once."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests import archives

CHILD = Path(__file__).parent / "child.py"
ROOT = Path(__file__).parent.parent.parent


def child(
    url: str, archive: Path, number: int, *more: str, level: str = "full", state: Path
) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "XDG_STATE_HOME": str(state), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, str(CHILD), url, str(archive), str(number), level, *more]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=archive.parent)


def prints(archive: Path) -> dict[str, tuple[int, str]]:
    """Rows and fingerprint of each table."""
    return {
        item["name"]: (item["totals"]["rows"], item["verification"]["archive_fingerprint"])
        for item in archives.manifest(archive)["tables"]
    }


class Source:
    """A source of two tables that can change."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.changes = 0

    def execute(self, statement: str) -> None:
        if self.url.startswith("sqlite"):
            connection = sqlite3.connect(self.url.removeprefix("sqlite:///"), isolation_level=None)
            connection.execute(statement)
            connection.close()
        else:
            with psycopg.connect(self.url, autocommit=True) as connection:
                connection.execute(statement)

    def change(self) -> None:
        """Move rows between ranges, take some away, add some."""
        self.execute("update a set t = t || ' changed' where id % 10 = 0")
        self.execute("delete from a where id between 300 and 330")
        self.changes += 1
        self.execute(f"insert into a select id + {100000 * self.changes}, t from a where id <= 50")


@pytest.fixture(params=["postgresql", "sqlite"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Source]:
    if request.param == "sqlite":
        made = Source(f"sqlite:///{tmp_path / 's.db'}")
        series = "with recursive s(g) as (select 1 union all select g + 1 from s where g < 900) "
        made.execute("create table a (id integer primary key, t text)")
        made.execute(f"insert into a {series} select g, 'text ' || g from s")
    else:
        made = Source(request.getfixturevalue("pg"))
        made.execute("create table a as select g as id, repeat('text ' || g, 9) as t from generate_series(1, 900) g")
    made.execute("create table b as select id, t from a where id < 100")
    return made


def crash_and_resume(source: Source, folder: Path, number: int, *, change: bool, forget: bool, base: Path | None) -> None:
    """One round: kill at a moment, look, resume, compare with an undisturbed run."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    archive, state = folder / "archive", folder / "state"
    if base is not None:
        shutil.copytree(base, archive)
    killed = child(source.url, archive, number, state=state)
    assert killed.returncode in {-9, 0}, killed.stderr
    before = len(list((archive / "manifests").glob("*.json"))) if archive.exists() else 0
    if before:
        found = archives.verdict(archive)
        assert found.sound, (number, found.findings)
    if change:
        source.change()
    if forget:
        shutil.rmtree(state, ignore_errors=True)
    again = child(source.url, archive, 0, "resume", state=state)
    if "nothing to resume" in again.stderr:  # killed before it had begun, or after it had ended
        again = child(source.url, archive, 0, state=state)
    assert again.returncode == 0, (number, again.stderr[-2000:])
    assert archives.verdict(archive, source=source.url if killed.returncode == -9 and not before else "").sound
    undisturbed = folder / "undisturbed"
    assert child(source.url, undisturbed, 0, state=folder / "other").returncode == 0
    published_before_the_change = change and before > (1 if base is not None else 0)
    if not change or not published_before_the_change:
        ended = prints(archive)
        expected = prints(undisturbed)
        for name in expected:
            # A table that had been read to its end stays with its own snapshot: whole, from before the change.
            if not change:
                assert ended[name] == expected[name], (number, name)
    assert child(source.url, archive, 0, state=state).returncode == 0
    assert prints(archive) == prints(undisturbed)
    assert archives.strays(archive) == set(), number
    assert archives.independent(archive) == 0


def moments(source: Source, folder: Path) -> int:
    folder.mkdir(parents=True, exist_ok=True)
    done = child(source.url, folder / "count", 0, state=folder / "state")
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[0])


def test_a_slice_of_the_kill_points(source: Source, tmp_path: Path) -> None:
    """Some moments; `make soak` takes them all."""
    total = moments(source, tmp_path / "first")
    assert total > 60
    for number in range(3, total + 1, max(1, total // 3)):
        crash_and_resume(source, tmp_path / "round", number, change=number % 2 == 0, forget=number % 3 == 0, base=None)


@pytest.mark.soak
@pytest.mark.timeout(6000)
@pytest.mark.parametrize("change", [False, True])
def test_all_kill_points(source: Source, tmp_path: Path, change: bool) -> None:
    total = moments(source, tmp_path / "first")
    base = tmp_path / "first" / "count"
    for number in range(1, total + 1):
        crash_and_resume(
            source, tmp_path / "round", number, change=change, forget=number % 3 == 0, base=base if number % 2 else None
        )


def test_a_resumed_table_never_mixes_snapshots(pg: str, tmp_path: Path) -> None:
    """An UPDATE moves rows to other pages: kept partitions are those that the source proves equal, the others are new."""
    source = Source(pg)
    source.execute("create table a as select g as id, repeat('text ' || g, 9) as t from generate_series(1, 900) g")
    killed = child(pg, tmp_path / "archive", 25, state=tmp_path / "state")
    assert killed.returncode == -9
    kept = list((tmp_path / "archive" / "runs").glob("*/p*.json"))
    assert kept
    source.execute("update a set t = t || 'x' where id > 850")
    done = child(pg, tmp_path / "archive", 0, "resume", state=tmp_path / "state")
    assert done.returncode == 0, done.stderr
    found = archives.verdict(tmp_path / "archive", source=pg)
    assert found.sound
    assert not found.source_differs
