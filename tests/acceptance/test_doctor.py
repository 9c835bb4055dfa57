"""`jivs doctor`, with what is really there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from jivs import bootstrap
from jivs.backends.catalog.sqlite_upkeep import SqliteUpkeep
from jivs.cli.main import app
from jivs.domain.source import Address
from jivs.operations.doctor import Setup, examine
from jivs.settings import Settings
from jivs.testing.servers import PASSWORD, RabbitServer, RedisServer, free_port, wait_for
from jivs.testing.service import ServiceProcess

KEYS = {"JWT_SECRET": "s" * 40, "ENCRYPTION_KEY": "a2tra2tra2tra2tra2tra2tra2tra2tra2tra2tra2s="}


def doctor(*arguments: str, **settings: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *arguments], env=settings)


def found(code: int = 0, **settings: str) -> dict[str, Any]:
    done = doctor("--output", "json", **settings)
    assert done.exit_code == code, done.output
    said: dict[str, Any] = json.loads(done.stdout)
    return said


def mended(said: dict[str, Any]) -> dict[str, str]:
    return {one["object"]: one["message"] for one in said["findings"] if one["severity"] == "error"}


def sockets() -> set[str]:
    """Those that this process has open."""
    with os.scandir("/proc/self/fd") as files:
        links = [str(Path(one.path).readlink()) for one in files if os.path.lexists(one.path)]
    return {link for link in links if link.startswith("socket:")}


def test_a_new_installation_is_well_and_nothing_is_made_by_looking(state: Path) -> None:
    said = found(JIVS_EXTRACTION__MEMORY_LIMIT="192MiB")
    assert said["well"]
    assert (said["catalog"]["schema"], said["archives"]["writable"]) == ("none yet", True)
    assert said["jivs"]["readers"] == "compiled readers"
    assert said["machine"]["memory"].endswith(("(physical memory)", "(control group)"))
    assert said["settings"]["JIVS_EXTRACTION__MEMORY_LIMIT"] == "set"
    assert said["settings"]["JIVS_JWT_SECRET"] == "unset"
    assert not (state / "jivs" / "catalog.db").exists()
    assert list((state / "jivs" / "archives").iterdir()) == []
    text = doctor().stdout
    assert "All is well." in text
    assert "schema: none yet" in text


def test_no_secret_and_no_value_of_a_setting_is_shown(pg: str) -> None:
    given = {
        "DATABASE_URL": pg, "REDIS_PASSWORD": "s3cr3t-redis", "RABBITMQ_PASSWORD": "s3cr3t-rabbit", "AWS_SECRET_KEY": "s3cr3t-aws",
        "AWS_ACCESS_KEY": "s3cr3t-access", "JIVS_S3_PREFIX": "s3cr3t-prefix", **KEYS,
    }  # fmt: skip
    for arguments in ([], ["--output", "json"]):
        done = doctor(*arguments, **given)
        for secret in (PASSWORD, "s3cr3t", KEYS["JWT_SECRET"], KEYS["ENCRYPTION_KEY"]):
            assert secret not in done.output
        assert "JIVS_JWT_SECRET" in done.output


def test_postgresql_tells_its_clock_and_its_connections(pg: str) -> None:
    said = found(DATABASE_URL=pg, **KEYS)
    assert abs(float(said["catalog"]["clock ahead of ours"].split()[0])) < 1
    assert "of 97 are in use" in said["sizes"]["connections to the catalog"]
    refused = found(3, DATABASE_URL=pg, HIKARI_MAXIMUM_POOL_SIZE="98", **KEYS)
    assert list(mended(refused)) == ["HIKARI_MAXIMUM_POOL_SIZE"]
    assert "HIKARI_MAXIMUM_POOL_SIZE" in str(found(DATABASE_URL=pg, HIKARI_MAXIMUM_POOL_SIZE="90", **KEYS)["findings"])


def test_a_pool_that_cannot_be_filled_keeps_the_service_from_starting(pg: str, tmp_path: Path) -> None:
    service = ServiceProcess(tmp_path, DATABASE_URL=pg, HIKARI_MAXIMUM_POOL_SIZE="98", **KEYS)
    with pytest.raises(RuntimeError, match="lower HIKARI_MAXIMUM_POOL_SIZE"):
        service.start()
    assert service.process.wait(30) == 2


def test_what_cannot_be_reached_is_named_with_what_to_do(tmp_path: Path) -> None:
    nobody = str(free_port())
    (tmp_path / "file").write_text("no folder")
    said = found(
        3,
        DATABASE_URL=f"postgresql://jivs:pw@127.0.0.1:{nobody}/x",
        STORAGE_LOCAL_PATH=str(tmp_path / "file" / "archives"),
        **KEYS,
    )
    assert set(mended(said)) == {"catalog", "archives"}
    assert "DATABASE_URL" in mended(said)["catalog"]
    assert not said["archives"]["writable"]
    without = mended(found(3, DATABASE_URL=f"postgresql://jivs:pw@127.0.0.1:{nobody}/x"))
    assert "JWT_SECRET" in without["service"]


def test_redis_and_rabbitmq_are_asked_where_they_are_set(redis: RedisServer, rabbit: RabbitServer) -> None:
    well = {
        "REDIS_HOST": "127.0.0.1", "REDIS_PORT": str(redis.port), "REDIS_PASSWORD": PASSWORD,
        "RABBITMQ_HOST": "127.0.0.1", "RABBITMQ_PORT": str(rabbit.port), "RABBITMQ_PASSWORD": PASSWORD,
    }  # fmt: skip
    before = sockets()
    said = found(**well)
    assert set(said["around"]) == {"diskSpace", "redis", "rabbit"}
    wait_for(lambda: sockets() <= before, 10)  # else the broker complains of clients that left without a word
    away = {"REDIS_PORT": str(free_port()), "RABBITMQ_PORT": str(free_port())}
    assert set(mended(found(3, **(well | away)))) == {"redis", "rabbit"}


class Ahead(SqliteUpkeep):
    """A catalog on a machine whose clock is wrong."""

    def skew(self) -> float:
        return 2.5


def test_a_clock_that_differs_is_found(state: Path) -> None:
    upkeep = Ahead(Address(scheme="sqlite", database=str(state / "jivs" / "catalog.db")))
    upkeep.upgrade()
    settings = Settings()
    setup = Setup(settings={}, notices=["one notice"], sizes=bootstrap.sizes(settings))
    said = examine(setup, bootstrap.machine(), upkeep, lambda: bootstrap.build_service(settings))
    assert not said.well
    assert [one.object for one in said.findings if one.code == "mend"] == ["clock"]
    assert "one notice" in str(said.findings)


def test_an_older_catalog_is_not_migrated_by_looking(state: Path) -> None:
    upkeep = SqliteUpkeep(Address(scheme="sqlite", database=str(state / "jivs" / "catalog.db")))
    upkeep.upgrade()
    import sqlite3

    connection = sqlite3.connect(state / "jivs" / "catalog.db")
    connection.execute("update alembic_version set version_num = '0003'")
    connection.commit()
    connection.close()
    assert "jivs db upgrade" in mended(found(3))["catalog"]
    assert upkeep.version() == "0003"
    assert os.environ["XDG_STATE_HOME"] == str(state)
