"""docker-compose.yml: valid, without secrets, nothing open to the network, and started as the guide starts it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from jivs.testing.servers import Server
from tests.deployment import names
from tests.deployment.deployed import ROOT, compose, objects, pods, run, services, settings_of_cluster, tool

REQUIRED = ("DATABASE_PASSWORD", "REDIS_PASSWORD", "RABBITMQ_PASSWORD", "JWT_SECRET", "ENCRYPTION_KEY")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout's files for Compose, with what `cp .env.example .env` gives."""
    shutil.copy(ROOT / "docker-compose.yml", tmp_path)
    shutil.copy(ROOT / ".env.example", tmp_path / ".env")
    return tmp_path


def fill(project: Path, *leave_out: str) -> None:
    """Set what .env.example asks for."""
    text = (project / ".env").read_text(encoding="utf-8")
    for name in REQUIRED:
        if name not in leave_out:
            text = re.sub(rf"^{name}=$", f"{name}=of-{name.lower()}", text, flags=re.MULTILINE)
    (project / ".env").write_text(text, encoding="utf-8")


def config(project: Path) -> subprocess.CompletedProcess[str]:
    clean = {"PATH": os.environ["PATH"], "HOME": str(project)}
    return run("docker-compose", "config", cwd=project, env=clean)


def test_compose_follows_the_published_schema() -> None:
    done = run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "docker-compose.yml")
    assert done.returncode == 0, done.stdout


def test_compose_itself_accepts_the_file_with_the_example_filled_in(project: Path) -> None:
    fill(project)
    done = config(project)
    assert done.returncode == 0, done.stderr
    shown = yaml.safe_load(done.stdout)["services"]
    assert shown["backend"]["environment"]["DATABASE_PASSWORD"] == "of-database_password"
    assert shown["postgres"]["environment"]["POSTGRES_PASSWORD"] == "of-database_password"
    assert "--maxmemory 2gb" in shown["redis"]["command"][2]


@pytest.mark.parametrize("name", REQUIRED)
def test_a_value_that_must_be_set_is_asked_for_by_name(project: Path, name: str) -> None:
    fill(project, name)
    done = config(project)
    assert done.returncode != 0
    assert name in done.stderr
    assert ".env.example" in done.stderr


def test_no_file_holds_a_secret() -> None:
    """Every password comes from the operator; none has a default."""
    text = (ROOT / "docker-compose.yml").read_text(encoding="utf-8")
    for name in REQUIRED:
        assert set(re.findall(rf"\$\{{{name}([^}}]*)\}}", text)) == {":?set it in .env, see .env.example"}
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    for line in example.splitlines():
        name, _, value = line.lstrip("#").partition("=")
        if re.search("PASSWORD|SECRET|KEY$", name):
            assert value == "", line


def test_every_variable_of_compose_stands_in_the_example() -> None:
    example = set(re.findall(r"^#?([A-Z_0-9]+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    used = set(re.findall(r"(?<!\$)\$\{([A-Z_0-9]+)", (ROOT / "docker-compose.yml").read_text(encoding="utf-8")))
    assert used - example == {"DATABASE_URL"}  # for a database elsewhere: docs/deployment-guide.md
    assert set(REQUIRED) | {"REDIS_MAXMEMORY"} <= used


def test_what_can_be_set_is_a_setting() -> None:
    """In .env, in the containers' environment and in the config map; what begins with JIVS_ is in docs/settings.md."""
    example = set(re.findall(r"^#?([A-Z_0-9]+)=", (ROOT / ".env.example").read_text(encoding="utf-8"), re.MULTILINE))
    given = {*example, *services()["backend"]["environment"], *settings_of_cluster()}
    assert given - names.settings() == {"WORKER_POOL_SIZE", "JIVS_ENV_FILE"}  # of Compose and of the entry point


def test_the_services_have_their_names() -> None:
    named = {"postgres", "redis", "elasticsearch", "rabbitmq", "backend", "frontend", "prometheus", "grafana"}
    assert named <= set(services())
    for name, service in services().items():
        assert service.get("container_name") == (None if name == "worker" else f"jivs-{name}")


def test_every_service_says_whether_it_is_well() -> None:
    assert [name for name, service in services().items() if "test" not in service.get("healthcheck", {})] == []


def test_services_wait_for_healthy_ones() -> None:
    waits = services()["backend"]["depends_on"]
    assert {name: wait["condition"] for name, wait in waits.items()} == dict.fromkeys(
        ("postgres", "redis", "rabbitmq"), "service_healthy"
    )
    assert services()["worker"]["depends_on"]["backend"]["condition"] == "service_healthy"
    assert services()["frontend"]["depends_on"]["backend"]["condition"] == "service_healthy"


def test_the_guides_two_commands_start_every_service() -> None:
    started = {"postgres", "redis", "elasticsearch", "rabbitmq", "backend", "frontend"}
    while True:
        more = {name for service in started for name in services()[service].get("depends_on", {})}
        if more <= started:
            break
        started |= more
    assert started == set(services())


def test_ports_are_open_on_loopback_only() -> None:
    published = {}
    for name, service in services().items():
        for port in service.get("ports", []):
            address, host, _ = port.split(":")
            assert address == "127.0.0.1", f"{name}: {port}"
            published[int(host)] = name
    assert {8080: "backend", 9010: "backend", 3000: "frontend", 3001: "grafana"}.items() <= published.items()
    assert "elasticsearch" not in published.values()  # it has no users


def test_containers_of_jivs_may_do_little() -> None:
    for name in ("backend", "worker"):
        service = services()[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert "no-new-privileges:true" in service["security_opt"]
        assert service["pull_policy"] == "build"
        assert service["image"] == "jivs-backend:latest"


def test_postgres_and_redis_have_the_guides_flags() -> None:
    command = " ".join(services()["postgres"]["command"])
    assert command == "postgres -c max_connections=200 -c shared_buffers=512MB"
    in_cluster = pods(objects("StatefulSet")["postgres"])["containers"][0]["args"]
    assert " ".join(in_cluster) == command


class DeployedRedis(Server):
    """A real Redis, started by the command of a deployment file."""

    def __init__(self, command: list[str]) -> None:
        super().__init__("redis")
        shell, option, script = command
        listening = f"redis-server - --bind 127.0.0.1 --port {self.port}"
        self._command = [shell, option, script.replace("redis-server -", listening, 1)]

    def command(self) -> list[str]:
        return ["env", "REDIS_PASSWORD=kept-quiet", "REDIS_MAXMEMORY=2gb", *self._command]

    def ready(self) -> bool:
        return "NOAUTH" in self.ask("ping", password="")

    def ask(self, *question: str, password: str = "kept-quiet") -> str:
        environment = {"PATH": os.environ["PATH"], **({"REDISCLI_AUTH": password} if password else {})}
        return run("redis-cli", "-p", str(self.port), *question, env=environment).stdout


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_redis_is_bounded_and_asks_for_its_password(where: str) -> None:
    if where == "compose":
        command = [
            part.replace("$$", "$").replace("${REDIS_MAXMEMORY:-2gb}", "2gb") for part in services()["redis"]["command"]
        ]
    else:
        command = pods(objects("StatefulSet")["redis"])["containers"][0]["command"]
    with DeployedRedis(command) as redis:
        for name, value in {"maxmemory": "2147483648", "maxmemory-policy": "allkeys-lru", "save": ""}.items():
            assert redis.ask("CONFIG", "GET", name).split("\n")[:2] == [name, value]
        assert redis.process is not None
        shown = Path(f"/proc/{redis.process.pid}/cmdline").read_text(encoding="utf-8")
        assert shown.startswith("redis-server")
        assert "kept-quiet" not in shown


def test_volumes_that_are_named_exist() -> None:
    for name, service in services().items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if not source.startswith("."):
                assert source in compose()["volumes"], name
            elif source != "./.env":
                assert (ROOT / source).exists(), volume
