"""Make the golden archives: python tests/golden/make.py. One sound, and one for each kind of damage."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jivs import bootstrap
from jivs.domain.plan import Level, Selection
from jivs.operations.extract import extract
from jivs.operations.job import ExtractJob, Progress
from jivs.settings import Settings

HERE = Path(__file__).parent


def newest(archive: Path) -> Path:
    """The newest manifest's file."""
    return max((archive / "manifests").glob("*.json"))


def segments(archive: Path, number: int | None = None) -> list[Path]:
    """Segments that the newest manifest (or that of a number) lists, in its order."""
    path = archive / f"manifests/{number:08d}.json" if number else newest(archive)
    manifest = json.loads(path.read_bytes())
    return [archive / segment["path"] for table in manifest["tables"] for segment in table["segments"]]


def flip(path: Path, position: int) -> None:
    """Flip one bit."""
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def forge(archive: Path, edit: Callable[[dict[str, Any]], None], number: int | None = None) -> None:
    """Edit a manifest as somebody would who knows the format: canonical, checksums of the newest state made to fit."""
    import hashlib

    path = archive / f"manifests/{number:08d}.json" if number else newest(archive)
    manifest = json.loads(path.read_bytes())
    old = hashlib.sha256(path.read_bytes()).hexdigest()
    edit(manifest)
    path.write_bytes(json.dumps(manifest, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode() + b"\n")
    new = hashlib.sha256(path.read_bytes()).hexdigest()
    for sums in (*(archive / "manifests").glob("*.sha256"), archive / "SHA256SUMS"):
        sums.write_text(sums.read_text().replace(old, new))


def forge_run(manifest: dict[str, Any]) -> None:
    """A change that no other file contradicts: only who noted the SHA-256 finds it."""
    manifest["created"] = "2020-01-01T00:00:00.000000Z"


def forge_rows(manifest: dict[str, Any]) -> None:
    """A segment left out, with the table's numbers made to fit."""
    table = manifest["tables"][0]
    gone = table["segments"].pop()
    table["totals"]["rows"] -= gone["rows"]
    table["totals"]["bytes"] -= gone["bytes"]
    table["verification"]["source_rows"] -= gone["rows"]


DAMAGES: dict[str, Callable[[Path], None]] = {
    "sound": lambda archive: None,
    "bit-in-page": lambda archive: flip(segments(archive)[0], 200),
    "bit-in-footer": lambda archive: flip(segments(archive)[0], -60),
    "bit-in-quarantine": lambda archive: flip(next((archive / "quarantine").rglob("*.parquet")), 100),
    "truncated": lambda archive: os.truncate(segments(archive)[0], segments(archive)[0].stat().st_size - 50),
    "missing": lambda archive: segments(archive)[1].unlink(),
    "missing-history": lambda archive: segments(archive, 1)[0].unlink(),
    "extra": lambda archive: shutil.copy(TEXT, segments(archive)[0].with_name("0" * 64 + ".parquet")) and None,
    "swapped": lambda archive: swap(*segments(archive)[:2]),
    "forged-manifest": lambda archive: forge(archive, forge_run),
    "forged-rows": lambda archive: forge(archive, forge_rows),
    "edited-manifest": lambda archive: (
        newest(archive).write_bytes(newest(archive).read_bytes().replace(b'":', b'": ', 1)) and None
    ),
    "broken-chain": lambda archive: forge(archive, forge_run, 1),
    "missing-manifest": lambda archive: (archive / "manifests/00000001.json").unlink(),
    "sums-differ": lambda archive: newest(archive).with_suffix(".sha256").write_text("") and None,
}
TEXT = Path(__file__)


def swap(one: Path, other: Path) -> None:
    """Exchange the content of two files."""
    a, b = one.read_bytes(), other.read_bytes()
    one.write_bytes(b)
    other.write_bytes(a)


def make_sound(archive: Path) -> None:
    """An archive of two manifests, three tables, several segments, a quarantine."""
    folder = Path(tempfile.mkdtemp())
    os.environ["XDG_STATE_HOME"] = str(folder)
    database = folder / "golden.db"
    connection = sqlite3.connect(database)
    connection.execute("create table a (id integer primary key, n numeric, t text, r real, b blob, mixed)")
    connection.executemany(
        "insert into a values (?, ?, ?, ?, ?, ?)",
        (
            (n, "odd one" if n == 250 else n * 7, f"text {n} äöü", n / 3, bytes((n % 256, 0)), n if n % 2 else f"m{n}")
            for n in range(400)
        ),
    )
    connection.execute("create table b (k text primary key, v int) without rowid")
    connection.execute("insert into b values ('x', 1), ('y', null)")
    connection.execute("create table empty (a int)")
    connection.commit()
    import jivs.connectors.sqlite as sqlite

    sqlite._PARTITION_ROWS = 100
    app = bootstrap.build(Settings())
    for change in ("", "update b set v = 2 where k = 'y'"):
        connection.execute(change or "select 1")
        connection.commit()
        job = ExtractJob(
            address=app.address(f"sqlite:///{database}"),
            archive=str(archive),
            selection=Selection(),
            limits=app.limits,
            level=Level.FULL,
        )
        outcome = extract(app, job, Progress())
        assert outcome.complete
    shutil.rmtree(archive / "tmp", ignore_errors=True)


def main() -> None:
    """Write all of them."""
    for name in DAMAGES:
        shutil.rmtree(HERE / name, ignore_errors=True)
    make_sound(HERE / "sound")
    for name, damage in DAMAGES.items():
        if name != "sound":
            shutil.copytree(HERE / "sound", HERE / name)
            damage(HERE / name)


if __name__ == "__main__":
    main()
