"""Archives that a catalog tells of: whoever sees others is refused before it does any work."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from jivs.backends.catalog import migrating
from jivs.testing.service import ServiceProcess


def keys(pg: str) -> dict[str, str]:
    sealing = base64.b64encode(bytes(range(32))).decode()
    return {"DATABASE_URL": pg, "JWT_SECRET": "s" * 40, "ENCRYPTION_KEY": sealing, "HIKARI_MAXIMUM_POOL_SIZE": "4"}


def worker(state: Path, **settings: str) -> subprocess.Popen[str]:
    given = {"XDG_STATE_HOME": str(state), "MANAGEMENT_PORT": "0", "EXTRACTION_MAX_PARALLEL_JOBS": "1", **settings}
    command = ["env", *(f"{name}={value}" for name, value in given.items()), sys.executable, "-m", "jivs", "worker"]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_a_worker_beside_other_archives_is_refused(tmp_path: Path, pg: str) -> None:
    shared = tmp_path / "shared"
    with ServiceProcess(tmp_path / "one", STORAGE_LOCAL_PATH=str(shared), **keys(pg), workers=False):
        mark = (shared / ".jivs-shelf").read_text().strip()
        with worker(tmp_path / "two", **keys(pg)) as lost:
            said = lost.stderr.read() if lost.stderr else ""
        assert lost.returncode == 2, said
        for word in ("STORAGE_PROVIDER=s3", "AWS_S3_BUCKET", "STORAGE_LOCAL_PATH", mark, str(tmp_path / "two"), "no mark"):
            assert word in said, word
        assert not (tmp_path / "two" / "jivs" / "archives").exists()
        with worker(tmp_path / "three", STORAGE_LOCAL_PATH=str(shared), LOG_LEVEL="INFO", **keys(pg)) as beside:
            assert beside.stderr is not None
            line = next(line for line in beside.stderr if "Management is at" in line or "Error" in line)
            assert "Error" not in line
            beside.terminate()
        assert beside.returncode == 0


@pytest.mark.parametrize("catalog", ["postgresql", "sqlite"])
def test_a_service_whose_volume_is_not_mounted_is_refused_until_it_is(
    tmp_path: Path, request: pytest.FixtureRequest, catalog: str
) -> None:
    volume, elsewhere = tmp_path / "volume", tmp_path / "elsewhere"
    given = keys(request.getfixturevalue("pg")) if catalog == "postgresql" else {}

    def service(archives: Path) -> ServiceProcess:
        return ServiceProcess(tmp_path / "state", STORAGE_LOCAL_PATH=str(archives), **given, workers=False)

    with service(volume):
        pass
    with pytest.raises(RuntimeError, match="no mark"):
        service(elsewhere).start()
    elsewhere.mkdir()
    (elsewhere / ".jivs-shelf").write_text("of another catalog")
    with pytest.raises(RuntimeError, match="those of another"):
        service(elsewhere).start()
    (elsewhere / ".jivs-shelf").write_bytes((volume / ".jivs-shelf").read_bytes())
    with service(elsewhere):
        pass


def test_a_worker_that_waits_for_the_schema_can_be_stopped(tmp_path: Path, pg: str) -> None:
    """Another process brings it up, for as long as that takes."""
    with psycopg.connect(pg, autocommit=True) as other:
        other.execute("select pg_advisory_lock(%s)", (migrating._MIGRATING,))
        with worker(tmp_path, **keys(pg)) as waits:
            assert waits.stderr is not None
            said = [next(line for line in waits.stderr if "this one waits for it" in line) for _ in range(2)]
            assert len(said) == 2, "the dispatcher, and the management listener"
            waits.terminate()
            try:
                assert waits.wait(20) == 0
            finally:
                waits.kill()
