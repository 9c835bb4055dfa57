"""Jobs in processes of their own, which are forks of one that has loaded what they need."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any

import pytest

from jivs.backends.children import ChildProcesses
from jivs.errors import FatalError, OverLimitError, TooManyError
from jivs.ports.children import Children
from jivs.testing.children import SECONDS, ChildrenSuite
from jivs.testing.servers import wait_for

ROOT = Path(__file__).parent.parent.parent


def jobs(**given: Any) -> ChildProcesses:
    return ChildProcesses(
        given.pop("module", "jivs.testing.child"),
        what="job",
        otherwise="do without.",
        seconds=given.pop("seconds", SECONDS),
        concurrent=2,
        fixed={"fixed": 1},
        **{"environment": {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}, **given},
    )


def stems(process: int | str = "self") -> list[int]:
    """What it has started, and what has ended and nobody has asked for."""
    found = []
    for task in Path(f"/proc/{process}/task").iterdir():
        with suppress(FileNotFoundError):  # a thread that has just ended
            found += [int(pid) for pid in (task / "children").read_text().split()]
    return [pid for pid in found if called(pid) == "jivs forks"]


def called(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return ""


def descriptors(process: int | str = "self") -> int:
    return len(list(Path(f"/proc/{process}/fd").iterdir()))


def alone(code: str) -> str:
    """What a process of its own says."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def forks(stem: int) -> list[int]:
    return [int(pid) for pid in Path(f"/proc/{stem}/task/{stem}/children").read_text().split()]


class TestChildProcesses(ChildrenSuite):
    @pytest.fixture
    def children(self) -> Children:
        return jobs()

    def test_what_is_fixed_cannot_be_asked_for_and_secrets_stay_here(
        self, children: Children, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MY_PASSWORD", "c4n4ry")
        said = children.run({"fixed": 2, "seconds": 9, "variable": "MY_PASSWORD"}, Event())
        assert said["job"] == {"fixed": 1, "seconds": SECONDS, "variable": "MY_PASSWORD"}
        assert said["variable"] is None

    def test_jobs_have_nothing_of_each_other_and_leave_nothing(self) -> None:
        children, gone, before = jobs(), Event(), set(stems())
        children.run({}, Event())
        [stem] = set(stems()) - before
        here = descriptors()
        with ThreadPoolExecutor(1) as pool, tempfile.TemporaryFile() as out:
            sleeping = pool.submit(children.run, {"sleep": 60}, gone)
            wait_for(lambda: len(forks(stem)) == 1, 10)
            assert len(children.run({"write": ""}, Event(), out)["files"]) == 3, "the standard streams"
            gone.set()
            with pytest.raises(OverLimitError):
                sleeping.result()
        for number in (signal.SIGKILL, 0):
            with suppress(OverLimitError):
                children.run({"signal": number}, Event())
        wait_for(lambda: descriptors() <= here and descriptors(stem) == 6, 10)  # standard streams, who asks, who died
        assert (set(stems()) - before, forks(stem)) == ({stem}, [])

    def test_who_forks_may_be_killed(self) -> None:
        children, before = jobs(), set(stems())
        for _ in range(2):
            children.run({}, Event())
            [stem] = set(stems()) - before
            os.kill(stem, signal.SIGKILL)
        children.run({}, Event())
        [stem] = set(stems()) - before
        with ThreadPoolExecutor(1) as pool:
            sleeping = pool.submit(children.run, {"sleep": 60}, Event())
            wait_for(lambda: [called(pid) for pid in forks(stem)] == ["jivs child"], 10)
            [fork] = forks(stem)
            os.kill(stem, signal.SIGKILL)
            with pytest.raises(OverLimitError, match="was ended: try again"):
                sleeping.result()
        wait_for(lambda: not called(fork), 10)
        assert children.run({}, Event())["job"]

    def test_what_is_idle_is_let_go(self) -> None:
        children, before = jobs(idle=0.3), set(stems())
        for _ in range(2):
            assert children.run({"sleep": 1}, Event())["job"], "a job is not idle"
            wait_for(lambda: set(stems()) <= before, 10)

    @pytest.mark.parametrize("stopped", ["stem", "both"])
    def test_one_that_hangs_is_ended_with_its_forks(self, stopped: str) -> None:
        children, before, gone = jobs(seconds=60), set(stems()), Event()
        children.run({}, Event())
        [stem] = set(stems()) - before
        with ThreadPoolExecutor(1) as pool:
            sleeping = pool.submit(children.run, {"sleep": 60}, gone)
            wait_for(lambda: [called(pid) for pid in forks(stem)] == ["jivs child"], 10)
            for pid in [stem, *(forks(stem) if stopped == "both" else [])]:
                os.kill(pid, signal.SIGSTOP)
            gone.set()
            with pytest.raises(OverLimitError, match="nobody waits"):
                sleeping.result(4 * SECONDS)
        assert children.run({}, Event())["job"], "it waits for the end of the one that hangs"

    def test_who_left_while_it_loads_waits_no_longer(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "hanging.py").write_text("import time\ntime.sleep(60)\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        children, gone = jobs(module="hanging"), Event()
        with ThreadPoolExecutor(1) as pool:
            loading = pool.submit(children.run, {}, gone)
            time.sleep(0.3)
            gone.set()
            with pytest.raises(OverLimitError, match="nobody waits"):
                loading.result(2)
        with pytest.raises(OverLimitError, match=f"after {SECONDS} s"):
            children.run({}, Event())

    def test_where_there_are_no_more_descriptors_who_asks_is_told_to_come_back(self) -> None:
        code = (
            "import os, resource, tests.contracts.test_children as t\n"
            "from jivs.errors import TooManyError\n"
            "children, told, left = t.jobs(), 0, len(os.listdir('/proc/self/fd'))\n"
            "assert children.run({}, t.Event())['job']\n"
            "soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
            "for more in range(12):\n"
            "    resource.setrlimit(resource.RLIMIT_NOFILE, (left + more, hard))\n"
            "    try: children.run({}, t.Event())\n"
            "    except TooManyError: told += 1\n"
            "resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))\n"
            "assert children.run({}, t.Event())['job']\n"
            "assert len(os.listdir('/proc/self/fd')) <= left + 1, 'and the socket over which it asks'\n"
            "print(told)\n"
        )
        assert int(alone(code)) > 3

    def test_whoever_started_us_may_ignore_who_has_ended(self) -> None:
        code = (
            "import signal, tests.contracts.test_children as t\n"
            "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
            "print(t.jobs().run({}, t.Event())['job']['fixed'])\n"
        )
        assert alone(code) == "1\n"

    def test_a_job_of_our_own_environment_is_where_we_are(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """Its settings may be in a file there."""
        monkeypatch.chdir(tmp_path)
        assert jobs(environment=None).run({}, Event())["folder"] == str(tmp_path)
        assert jobs().run({}, Event())["folder"] == "/"

    def test_who_is_killed_while_it_loads_is_no_defect_of_ours(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "dying.py").write_text("import os\nos.kill(os.getpid(), 9)\n")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        with pytest.raises(TooManyError, match="ended while it was made ready"):
            jobs(module="dying", environment=None).run({}, Event())

    def test_what_cannot_be_loaded_is_said(self) -> None:
        with pytest.raises(FatalError, match="cannot be started"):
            jobs(module="jivs.nothing").run({}, Event())
