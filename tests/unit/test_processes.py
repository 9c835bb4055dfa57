"""Which processes may be said to have ended: those that are looked for where their ids mean what they mean."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from jivs import bootstrap
from jivs.backends import processes
from jivs.backends.store import _spool
from jivs.backends.store._spool import clean
from jivs.settings import Settings

NOBODY = "4194305"
"""No process has it: Linux gives ids below 2^22."""


def test_only_ids_of_this_place_tell_that_a_process_has_ended() -> None:
    assert processes.ended(processes.here(), NOBODY)
    for place, process in (("other", NOBODY), (processes.here(), str(os.getpid())), (processes.here(), "x"), ("", "")):
        assert not processes.ended(place, process), (place, process)


def test_a_container_of_the_same_host_name_is_another_place() -> None:
    mine = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    said = subprocess.run(
        ["unshare", *mine, "--pid", "--fork", sys.executable, "-c", "from jivs.backends import processes; print(processes.here())"],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    assert said.stdout.strip() != processes.here()
    assert said.stdout.partition("-")[0] == processes.here().partition("-")[0]


def test_files_of_living_writers_and_of_other_places_stay_for_a_day(tmp_path: Path) -> None:
    names = {
        "ended": f"{processes.here()}.{NOBODY}.a.part",
        "alive": f"{processes.here()}.{os.getpid()}.a.part",
        "elsewhere": f"web.example-1.{NOBODY}.a.part",
        "old": f"web.example-1.{NOBODY}.b.part",
    }
    for name in names.values():
        (tmp_path / name).touch()
    os.utime(tmp_path / names["old"], (time.time() - 90_000,) * 2)
    assert clean(tmp_path, lambda _: False) == 2
    assert {path.name for path in tmp_path.iterdir()} == {names["alive"], names["elsewhere"]}


def test_spools_of_other_places_go_when_nobody_used_them_for_a_day(tmp_path: Path) -> None:
    """A container that is started again is another place, and its volume is the same."""
    folders = {
        "ended": f"{processes.here()}.{NOBODY}",
        "alive": f"{processes.here()}.{os.getpid()}",
        "elsewhere": f"web.example-1.{NOBODY}",
        "old": f"web.example-1.{os.getpid()}",
        "older": "20250101T000000-abcdef01",
    }
    for name in folders.values():
        run = tmp_path / "bucket-1" / name / "run"
        run.mkdir(parents=True)
        (run / "segment").write_bytes(b"x" * 10)
    long_ago = (time.time() - 90_000,) * 2
    for name in ("old", "older", "alive"):
        for path in sorted((tmp_path / "bucket-1" / folders[name]).rglob("*")):
            os.utime(path, long_ago)
        os.utime(tmp_path / "bucket-1" / folders[name], long_ago)
    (tmp_path / "not a folder").touch()
    assert _spool.size(tmp_path) == 50
    assert _spool.drop_dead(tmp_path) == 3
    assert {path.name for path in (tmp_path / "bucket-1").iterdir()} == {folders["alive"], folders["elsewhere"]}
    assert _spool.size(tmp_path) == 20
    assert _spool.drop_dead(tmp_path) == 0


def test_what_cannot_be_seen_in_a_spool_keeps_nobody_from_working(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lost+found").mkdir()
    mine = _spool.own(tmp_path / "bucket-1")
    (mine / "segment").write_bytes(b"x")
    scandir = os.scandir

    def guarded(path: str) -> Any:
        if str(path).endswith("lost+found"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", guarded)
    assert _spool.size(tmp_path) == 1
    assert _spool.drop_dead(tmp_path) == 0


def test_a_folder_for_spools_is_the_same_wherever_a_process_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for given in ({"temp_dir": "here"}, {"catalog": Path("state/catalog.db")}):
        assert bootstrap._spools(Settings.model_construct(**given)).is_absolute(), given
