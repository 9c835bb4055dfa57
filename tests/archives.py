"""Looking at archives, for tests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from jivs import bootstrap
from jivs.domain.finding import Verdict
from jivs.domain.source import Limits
from jivs.operations.verify import VerifyJob, verify
from jivs.ports.store import Store
from jivs.settings import Settings

TOOL = Path(__file__).parent.parent / "tools" / "verify_archive.py"


def manifest(archive: Path) -> dict[str, Any]:
    """The newest manifest."""
    return json.loads(max((archive / "manifests").glob("*.json")).read_bytes())


def table(archive: Path, name: str) -> dict[str, Any]:
    """A table of the newest manifest."""
    return next(item for item in manifest(archive)["tables"] if item["name"] == name)


def rows(archive: Path, name: str) -> pa.Table:
    """All rows of a table, straight from its files."""
    files = [pq.read_table(archive / segment["path"]) for segment in table(archive, name)["segments"]]
    return pa.concat_tables(files, promote_options="default")


def quarantine(archive: Path, name: str) -> list[dict[str, Any]]:
    """All quarantined entries of a table."""
    found = []
    for file in table(archive, name)["quarantine"]:
        found += pq.read_table(archive / file["path"]).to_pylist()
    return found


def verdict(archive: Path | str, level: str = "full", *, source: str = "", expect: str = "") -> Verdict:
    """What ``jivs verify`` says."""
    job = VerifyJob(archive=str(archive), level=level, limits=Limits(), source=source, expect=expect)
    return verify(bootstrap.build(Settings()), job)


def independent(archive: Path, level: str = "full", *, expect: str = "") -> int:
    """The exit code of the verifier that shares no code with JiVS."""
    command = [sys.executable, str(TOOL), str(archive), "--level", level, *(["--expect", expect] if expect else [])]
    return subprocess.run(command, capture_output=True, check=False).returncode


def copy(store: Store, folder: Path) -> Path:
    """All files of a store as files of a folder."""
    for entry in store.list():
        target = folder / entry.path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(store.read(entry.path))
    return folder


def strays(archive: Path) -> set[str]:
    """Files that neither the newest manifests nor the format account for."""
    listed = {"README.txt", "SHA256SUMS"}
    for path in (archive / "manifests").glob("*.json"):
        data = json.loads(path.read_bytes())
        listed |= {f"manifests/{path.name}", f"manifests/{path.stem}.sha256", data["readme"]["path"]}
        for item in data["tables"]:
            listed |= {file["path"] for file in (*item["segments"], *item["quarantine"], item["schema_file"]) if file}
    return {path.relative_to(archive).as_posix() for path in archive.rglob("*") if path.is_file()} - listed
