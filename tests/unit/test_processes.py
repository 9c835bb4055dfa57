"""Which processes may be said to have ended: those that are looked for where their ids mean what they mean."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from jivs.backends import processes
from jivs.backends.store._spool import clean

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
