"""Archives that a catalog tells of: whoever sees others is refused before it does any work."""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from jivs.backends.catalog import migrating
from jivs.testing.servers import wait_for
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


def test_archives_that_go_away_under_a_service_are_missed(tmp_path: Path) -> None:
    """Nobody is told that there are none, and nobody but who runs the service where they should be."""
    volume, away = tmp_path / "volume", tmp_path / "away"
    with ServiceProcess(tmp_path / "state", STORAGE_LOCAL_PATH=str(volume)) as running, running.client() as api:

        def status() -> str:
            told: str = api.get("/actuator/health").json()["components"]["archives"]["status"]
            return told

        assert (api.get("/api/v1/archives").json()["items"], status()) == ([], "UP")
        assert api.get("/api/v1/archives/x").status_code == 404
        volume.rename(away)
        for path in ("/api/v1/archives", "/api/v1/archives/x"):
            answer = api.get(path)
            assert (answer.status_code, str(tmp_path) in answer.text) == (503, False), answer.text
        wait_for(lambda: status() == "DOWN", 20)
        assert str(volume) in api.get("/actuator/health").json()["components"]["archives"]["details"]["error"]
        away.rename(volume)
        assert api.get("/api/v1/archives").status_code == 200
        wait_for(lambda: status() == "UP", 20)


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
