"""How many processes are kept for runs, and how they begin."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from jivs import bootstrap
from jivs.settings import Settings
from jivs.testing.service import ServiceProcess
from jivs.worker import dispatcher
from jivs.worker.dispatcher import Dispatcher
from jivs.worker.forks import Forked, Forks, GoneError

SLOW = ["sh", "-c", "sleep 3; echo idle; exec cat"]


class Slow(Forks):
    """Its workers take three seconds to begin."""

    def __init__(self) -> None:
        pass

    def worker(self, _ended: threading.Event) -> Forked:
        made = subprocess.Popen(SLOW, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        assert made.stdin is not None
        assert made.stdout is not None
        made.returncode = 0  # whoever has the id waits for it
        return Forked(made.pid, os.dup(made.stdin.fileno()), os.dup(made.stdout.fileno()))


class Failing(Slow):
    """Starts one worker, and no other one for a while, or for ever."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error = error
        self.times = times
        self.asked = 0

    def worker(self, ended: threading.Event) -> Forked:
        self.asked += 1
        if 2 <= self.asked < 2 + self.times:
            raise self.error
        return super().worker(ended)


def test_processes_that_are_slow_to_start_are_not_taken_for_busy(state: Path) -> None:
    """With nothing to do there are two, however long they take; not another one with each look."""
    keeper = Dispatcher(bootstrap.build_service(Settings(), process="worker"), 10, Slow())
    running = threading.Thread(target=keeper.run)
    running.start()
    seen = []
    end = time.monotonic() + 6
    while time.monotonic() < end:
        seen.append(len(keeper._children))
        time.sleep(0.05)
    keeper.end()
    running.join(40)
    assert not running.is_alive()
    assert max(seen) == 2


def test_a_system_that_allows_no_more_processes_is_asked_again(state: Path) -> None:
    keeper = Dispatcher(bootstrap.build_service(Settings(), process="worker"), 2, Failing(BlockingIOError("full"), 2))
    running = threading.Thread(target=keeper.run)
    running.start()
    end = time.monotonic() + 30
    while len(keeper._children) < 2:
        assert time.monotonic() < end
        time.sleep(0.05)
    keeper.end()
    running.join(40)
    assert not running.is_alive()


def test_who_can_start_no_workers_any_more_lets_those_at_hand_end_and_ends(state: Path) -> None:
    forks = Failing(GoneError("it has ended"), 1)
    keeper = Dispatcher(bootstrap.build_service(Settings(), process="worker"), 2, forks)
    with pytest.raises(GoneError):
        keeper.run()
    assert [child.process.wait(0) for child in keeper._children] == [0]


def test_a_worker_that_was_let_go_is_not_woken(tmp_path: Path) -> None:
    """Its descriptor may be another file's by then."""
    child = dispatcher._Child(Slow().worker(threading.Event()))
    number = child.process.stdin
    child.close()
    other = os.open(tmp_path / "other", os.O_WRONLY | os.O_CREAT)
    os.dup2(other, number)
    child.wake()
    for descriptor in {other, number}:
        os.close(descriptor)
    assert (tmp_path / "other").read_bytes() == b""
    child.process.kill()
    assert child.ended() == -9


FORKING = """
import os, signal, sys, threading
from jivs import bootstrap
from jivs.worker import child, dispatcher, forks, scheduler

signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # as some programs leave it to what they start

def load():
    bootstrap.preload()
    tasks = [open(f"/proc/self/task/{one}/comm").read() for one in os.listdir("/proc/self/task")]
    assert tasks == [open("/proc/self/comm").read()], tasks
    assert len(os.listdir("/proc/self/fd")) == 5, os.listdir("/proc/self/fd")  # the three, the channel, the one that lists
    sys.path.append("loaded")

server = forks.start(load)
if server is None:  # a worker
    said = os.read(0, 100)
    assert os.getsid(0) == os.getpid() and sys.path[-1] == "loaded" and len(os.listdir("/proc/self/task")) == 1
    assert "jivs.connectors.postgresql" in sys.modules and "jivs.backends.catalog.work" in sys.modules
    open_ = sorted(int(name) for name in os.listdir("/proc/self/fd"))
    os.write(1, said + b" %d %d %s" % (os.getppid(), len(open_), open("/proc/self/comm", "rb").read().strip()))
    sys.exit(len(said))
threading.Thread(target=threading.Event().wait, daemon=True).start()
workers = [server.worker(threading.Event()) for _ in range(3)]
for number, one in enumerate(workers):
    os.write(one.stdin, b"x" * (number + 1))
for number, one in enumerate(workers):
    told = os.read(one.stdout, 100).split(b" ", 3)
    assert told[0] == b"x" * (number + 1), told
    assert int(told[1]) == os.getpid(), (told, os.getpid())
    assert int(told[2]) == 4 and told[3] == b"jivs run", told  # the three, and the one that lists them
    assert one.wait(10) == number + 1 == one.wait(0)
last = server.worker(threading.Event())
assert last.wait(0.1) is None
last.kill()
assert last.wait(10) == -9
[forker] = [int(pid) for pid in open(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read().split()]
assert open(f"/proc/{forker}/comm").read() == "jivs forks\\n"
os.kill(forker, signal.SIGSTOP)
ended = threading.Event()
ended.set()
for hangs in (True, False):
    try:
        server.worker(ended)
    except forks.GoneError as error:
        print("does not answer" in str(error))
    if hangs:
        server.close()
"""


def test_workers_are_forked_and_are_children_of_who_asked() -> None:
    done = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout) == (0, "True\nFalse\n"), done.stderr


def test_the_fork_server_ends_with_the_dispatcher_and_is_replaced_with_it(tmp_path: Path) -> None:
    """Killed, it takes nothing with it: the next worker that is needed brings a new dispatcher, and a new one of it."""
    with ServiceProcess(tmp_path, EXTRACTION_MAX_PARALLEL_JOBS="2") as service:
        first = settled(service, set())
        os.kill(first["jivs forks"][0], signal.SIGKILL)
        os.kill(first["jivs run"][0], signal.SIGKILL)
        now = settled(service, {*first["jivs forks"], *first["jivs run"]})
    for pid in (*now["jivs forks"], *now["jivs run"]):
        assert not Path(f"/proc/{pid}").exists()


def settled(service: ServiceProcess, gone: set[int]) -> dict[str, list[int]]:
    """The processes of a service, once there are two workers and none of those that are to be gone."""
    end = time.monotonic() + 60
    while True:
        now = family(service.process.pid)
        counted = [len(now.get(name, ())) for name in ("jivs forks", "jivs run")]
        if counted == [1, 2] and not {*now["jivs forks"], *now["jivs run"]} & gone:
            return now
        assert time.monotonic() < end, (gone, now, service.printed)
        time.sleep(0.1)


def family(pid: int) -> dict[str, list[int]]:
    """The processes of a service, by what they are called; those that have ended are left out."""
    found: dict[str, list[int]] = {}
    waiting = [pid]
    while waiting:
        parent = waiting.pop()
        try:
            children = [int(one) for one in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
            if Path(f"/proc/{parent}/cmdline").read_bytes():
                found.setdefault(Path(f"/proc/{parent}/comm").read_text().strip(), []).append(parent)
        except (FileNotFoundError, ProcessLookupError):
            continue
        waiting += children
    return found


REFUSED = """
import os, runpy, sys

def fork():
    raise BlockingIOError(11, "Resource temporarily unavailable")

os.fork, sys.argv = fork, ["jivs.worker", "-1"]
runpy.run_module("jivs.worker", run_name="__main__")
"""


def test_a_fork_server_that_cannot_be_made_is_made_again_by_the_next_start() -> None:
    """Code 2 would say that the settings are wrong, and end the service."""
    done = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "Workers cannot be made: Resource temporarily unavailable." in done.stderr


GROWING = """
import sys
from jivs.worker import child

kept = []
child._work = lambda *_: kept.append(bytearray(b"x") * int(sys.argv[1]))
sys.exit(child.main())
"""


def test_a_worker_that_has_grown_ends_when_it_is_idle(tmp_path: Path) -> None:
    """What it frees late would stay with it for days; the next one is a new fork."""
    for grown, turns in ((40 << 20, 2), (1 << 20, 4)):
        command = ["env", f"XDG_STATE_HOME={tmp_path}", sys.executable, "-c", GROWING, str(grown)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as worker:
            assert worker.stdin is not None
            assert worker.stdout is not None
            for _ in range(turns):
                assert worker.stdout.readline() == b"idle\n"
                assert worker.poll() is None
                worker.stdin.write(b"\n")
                worker.stdin.flush()
            said = worker.stdout.readline()
            assert said == (b"" if grown * turns > 64 << 20 else b"idle\n")
            worker.stdin.close()
            assert worker.wait(30) == 0
