"""Settings that the deployment guide tunes: profiles, ranges, memory from control groups, sizes that fit."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from jivs import bootstrap
from jivs.backends.machine import LocalMachine
from jivs.domain.finding import Severity
from jivs.domain.sizing import RESERVE, Sizes, judge, memory_of_run
from jivs.settings import GUIDE_NAMES, PROFILES, RECOMMENDED, Settings, given, load, notices, unknown
from tests.deployment.test_guide import OURS, tables

MIB = 1 << 20


@pytest.mark.parametrize("profile", PROFILES)
def test_a_profile_sets_the_guides_values_and_what_is_set_itself_wins(
    profile: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JIVS_PROFILE", profile)
    found = load()
    expected = PROFILES[profile]["extraction"]
    assert {name: getattr(found.extraction, name) for name in expected} == expected
    assert found.hikari_maximum_pool_size == PROFILES[profile]["hikari_maximum_pool_size"]
    assert notices(found) == []
    monkeypatch.setenv("EXTRACTION_BATCH_SIZE", "700")
    (tmp_path / "jivs.toml").write_text("[extraction]\nparallel_threads = 3\n")
    found = load()
    assert (found.extraction.batch_size, found.extraction.parallel_threads) == (700, 3)
    assert found.extraction.source_pool_max_size == expected["source_pool_max_size"]


def test_the_profiles_are_those_of_the_guides_table() -> None:
    (table,) = [table for table in tables(OURS) if table[0][0] == "Workload"]
    columns = [GUIDE_NAMES[cell.strip("`")] for cell in table[0][2:]]
    for row in table[1:]:
        name, values = row[1].strip("`").removeprefix("JIVS_PROFILE="), row[2:]
        ours = PROFILES[name]["extraction"] | PROFILES[name]
        assert [ours[path[-1]] for path in columns] == [int(value) for value in values]


def test_a_profile_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JIVS_PROFILE", "huge-records")
    with pytest.raises(Exception, match="JIVS_PROFILE"):
        load()


def test_outside_a_recommended_range_is_one_warning_that_names_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "EXTRACTION_BATCH_SIZE": "20000",
        "EXTRACTION_PARALLEL_THREADS": "16",
        "EXTRACTION_SOURCE_POOL_MAX_SIZE": "16",
        "HIKARI_MAXIMUM_POOL_SIZE": "39",
        "REDIS_MAXMEMORY": "1gb",
    }.items():
        monkeypatch.setenv(name, value)
        (said,) = notices(load())
        assert said.startswith(f"{name} is outside the recommended range")
        monkeypatch.delenv(name)
    monkeypatch.setenv("EXTRACTION_BATCH_SIZE", "0")
    assert notices(load()) == []


def test_the_ranges_are_those_of_the_guides_table() -> None:
    (table,) = [table for table in tables(OURS) if table[0][0] == "Parameter"]
    for row in table[1:]:
        found = RECOMMENDED[GUIDE_NAMES[row[0].strip("`")]]
        assert (found.impact, found.shown) == (row[2], row[3])
    assert len(table) == len(RECOMMENDED) + 1


def test_options_for_a_jvm_are_said_to_be_ignored_once(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jivs", "demo", "--to", str(tmp_path / "demo")],
        env={**os.environ, "JAVA_OPTS": "-Xmx5g"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0
    said = [line for line in done.stderr.splitlines() if "JAVA_OPTS" in line]
    assert len(said) == 1
    assert "JIVS_EXTRACTION__MEMORY_LIMIT" in said[0]
    assert "-Xmx5g" not in done.stderr


def test_which_settings_are_set_but_not_to_what(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXTRACTION_PARALLEL_THREADS", "4")
    monkeypatch.setenv("ENCRYPTION_KEY", "secret")
    found = given(Settings())
    assert {name for name, state in found.items() if state} == {"JIVS_EXTRACTION__PARALLEL_THREADS", "JIVS_ENCRYPTION_KEY"}
    monkeypatch.setenv("JIVS_EXTRACTION__PARALEL_THREADS", "4")
    monkeypatch.setenv("JIVS_TEMP_DIR", "/tmp")
    (said,) = unknown()
    assert said.startswith("JIVS_EXTRACTION__PARALEL_THREADS is no setting")


def files(root: Path, content: dict[str, str]) -> LocalMachine:
    for name, text in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return LocalMachine(root)


@pytest.mark.parametrize(
    ("content", "memory"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": f"{900 * MIB}\n"}, 900),
        (
            {
                "proc/self/cgroup": "0::/a.slice/b.scope\n",
                "sys/fs/cgroup/a.slice/memory.max": f"{700 * MIB}\n",
                "sys/fs/cgroup/a.slice/b.scope/memory.max": "max\n",
            },
            700,
        ),
        (
            {
                "proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/docker/1234\n0::/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{800 * MIB}\n",
            },
            800,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/docker/1234\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
                "sys/fs/cgroup/memory/docker/1234/memory.limit_in_bytes": f"{600 * MIB}\n",
            },
            600,
        ),
    ],
)
def test_memory_is_what_the_control_group_gives(content: dict[str, str], memory: int, tmp_path: Path) -> None:
    """The files as the kernel shows them: version 2 in a container and on a host, version 1 in a container and on a host."""
    assert files(tmp_path, content).memory() == (memory * MIB, "control group")


@pytest.mark.parametrize(
    "content",
    [{}, {"proc/self/cgroup": "4:memory:/\n", "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n"}],
)
def test_without_a_limit_it_is_the_physical_memory(content: dict[str, str], tmp_path: Path) -> None:
    found, limiter = files(tmp_path, content).memory()
    assert limiter == "physical memory"
    assert found == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.parametrize(
    ("memory", "runs", "queries", "each"),
    [
        (5 << 30, 10, 0, 460), (5 << 30, 10, 1 << 30, 358), (8 << 30, 10, 0, 512), (8 << 30, 10, 1 << 30, 512), (1 << 30, 10, 0, 192),
        (1 << 30, 1, 0, 512), (0, 10, 1 << 30, 512),
    ],
)  # fmt: skip
def test_a_run_has_its_share(memory: int, runs: int, queries: int, each: int) -> None:
    assert memory_of_run(memory, runs, queries) // MIB == each


def test_a_worker_shares_and_a_command_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalMachine, "memory", lambda _: (5 << 30, "control group"))
    assert bootstrap.build(Settings(), process="worker").limits.memory // MIB == 358  # queries may take a GiB
    assert bootstrap.build(Settings()).limits.memory // MIB == 512
    monkeypatch.setenv("JIVS_EXTRACTION__MEMORY_LIMIT", "300MiB")
    assert bootstrap.build(Settings(), process="worker").limits.memory // MIB == 300


def test_what_does_not_fit_is_refused_or_said() -> None:
    fits = Sizes(
        runs=10, memory=192 * MIB, pool=50, machine=5 << 30, limiter="control group", connections=197, used=20, files=65536
    )
    assert judge(fits) == []
    for change, severity, named in (
        ({"pool": 198}, Severity.ERROR, "HIKARI_MAXIMUM_POOL_SIZE"),
        ({"used": 124}, Severity.NOTE, "HIKARI_MAXIMUM_POOL_SIZE"),
        ({"memory": 512 * MIB}, Severity.NOTE, "EXTRACTION_MAX_PARALLEL_JOBS"),
        ({"queries": 3 << 30}, Severity.NOTE, "JIVS_QUERY__CONCURRENT"),
        ({"files": 256}, Severity.NOTE, "ulimit"),
    ):
        (found,) = judge(Sizes(**(fits.__dict__ | change)))
        assert found.severity is severity
        assert named in found.message
    assert judge(Sizes(**(fits.__dict__ | {"memory": 456 * MIB, "machine": 10 * 456 * MIB + RESERVE}))) == []


def test_the_schema_shows_ranges_and_impact() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "jivs", "config", "schema", "--output", "json"], capture_output=True, text=True, check=True
    ).stdout
    rows = {row["also"]: row for row in json.loads(shown)}
    assert rows["EXTRACTION_SOURCE_POOL_MAX_SIZE"]["recommended"] == "5-15 (Source DB load)"
    assert rows["JAVA_OPTS"]["recommended"] == ""
