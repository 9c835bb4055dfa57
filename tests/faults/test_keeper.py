"""The process of ``jivs serve`` itself, of which all others are forks: it has nothing that they could spoil, and they end with it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from jivs.testing.servers import wait_for
from jivs.testing.service import ServiceProcess

from .scenes import children, kill

REFUSED = """
import os, signal, sys, threading
from jivs.cli import supervisor

asked, real = [], os.fork

def fork():
    asked.append(None)
    if len(asked) == 1:
        raise BlockingIOError(11, "Resource temporarily unavailable")
    return real()

os.fork = fork
holds, given = os.pipe()
part = supervisor.Part(name="part", short="jivs part", package="part", arguments=[given], descriptors=[given])
signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
signal.setitimer(signal.ITIMER_REAL, 2)
code = supervisor.supervise([part])
os.close(given)
print(len(asked), code, os.read(holds, 1000).decode())
"""

PART = """
import os, sys
tasks = [name for name in os.listdir("/proc/self/fd")]
os.write(int(sys.argv[1]), f"{open('/proc/self/comm').read().strip()} {len(tasks)} {os.getsid(0) == os.getpid()}".encode())
assert os.read(0, 1) == b""
"""


def below(pid: int) -> list[int]:
    return [one for child in children(pid) for one in (child, *below(child))]


def opened(pid: int) -> list[str]:
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append(str(entry.readlink()))
        except FileNotFoundError:
            continue
    return found


def test_it_has_no_connection_and_its_forks_nothing_of_each_other(tmp_path: Path) -> None:
    with ServiceProcess(tmp_path) as service:
        keeper = service.process.pid
        [api], [dispatcher] = service.parts("jivs api"), service.parts("jivs dispatcher")
        assert any("catalog.db" in name for name in opened(api))
        assert not [name for name in opened(keeper) if "catalog.db" in name]
        listening = {name for name in opened(keeper) if name.startswith("socket:")}
        assert len(listening) == 2
        assert listening <= set(opened(api))
        for pid in (dispatcher, *below(dispatcher)):
            assert not listening & set(opened(pid)), "it would listen on when the service has ended"
        threads = [path.read_text().strip() for path in Path(f"/proc/{keeper}/task").glob("*/comm")]
        assert set(threads) - {"jemalloc_bg_thd"} == {"python"}, threads
        assert threads.count("python") == 1


def test_all_end_with_it(tmp_path: Path) -> None:
    with ServiceProcess(tmp_path) as service:
        wait_for(lambda: len(below(service.process.pid)) >= 4, 20)
        processes = below(service.process.pid)
        kill(service.process.pid)
        service.process.wait()
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in processes), 30)
        service.start()
        assert service.parts("jivs api")


def test_a_system_that_allows_no_more_processes_is_asked_again(tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text(PART)
    done = subprocess.run(
        [sys.executable, "-c", REFUSED], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == "The part cannot be started: Resource temporarily unavailable; it is started again.\n"
    # the three, the pipe that it was given, and the one that lists them
    assert done.stdout == "2 0 jivs part 5 True\n"

AT_ONCE = """
import os, signal, time
from jivs.cli import supervisor

taken = []
signal.signal(signal.SIGTERM, lambda *_: taken.append(None))
for _ in range(200):
    pid = supervisor.fork(lambda: time.sleep(60))
    os.kill(pid, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGTERM
os.kill(os.getpid(), signal.SIGTERM)
assert len(taken) == 1
"""


def test_what_has_just_begun_is_ended_as_well() -> None:
    subprocess.run([sys.executable, "-c", AT_ONCE], timeout=50, check=True)
