"""The process of ``jivs serve`` itself, of which all others are forks: it has nothing that they could spoil, and they end with it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from jivs.testing.servers import wait_for
from jivs.testing.service import ServiceProcess

from .scenes import children, kill

REFUSED = """
import gc, os, signal, sys
from jivs.cli import supervisor

gc.set_threshold(100_000, 20, 100)
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
import gc, os, sys
assert gc.get_threshold() == (700, 10, 10)
tasks = [name for name in os.listdir("/proc/self/fd")]
os.write(int(sys.argv[1]), f"{open('/proc/self/comm').read().strip()} {len(tasks)} {os.getsid(0) == os.getpid()}".encode())
assert os.read(0, 1) == b""
"""


def below(pid: int) -> list[int]:
    return [one for child in children(pid) for one in (child, *below(child))]


def opened(pid: int) -> list[str]:
    """What its descriptors are; nothing if it has ended, as what forks a worker does at once."""
    found = []
    with suppress(FileNotFoundError):
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):  # closed meanwhile
                found.append(str(entry.readlink()))
    return found


def test_it_has_no_connection_and_its_forks_nothing_of_each_other(tmp_path: Path) -> None:
    with ServiceProcess(tmp_path) as service:
        keeper = service.process.pid
        wait_for(lambda: len(below(service.process.pid)) >= 5, 30)
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


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether a process has a handler of its own for a signal."""
    with suppress(FileNotFoundError, ProcessLookupError):
        caught = re.search(r"^SigCgt:\s*(\S+)", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
        return caught is not None and bool(int(caught[1], 16) >> (number - 1) & 1)
    return False


@contextmanager
def beginning(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A service that begins."""
    command = ["env", f"XDG_STATE_HOME={folder}", f"TMPDIR={folder}", "MANAGEMENT_PORT=0", sys.executable, "-m", "jivs"]
    keeper = subprocess.Popen([*command, "serve", "--port", "0"], stderr=subprocess.PIPE, text=True)
    try:
        yield keeper
    finally:
        with suppress(ProcessLookupError):
            keeper.kill()
        keeper.wait()


@pytest.mark.parametrize("seconds", [0.0, 0.4, 0.8])
def test_it_can_be_stopped_while_it_loads(tmp_path: Path, seconds: float) -> None:
    """Whatever module it is at: what imports it may ignore all errors."""
    with beginning(tmp_path) as keeper:
        wait_for(lambda: catches(keeper.pid, signal.SIGTERM), 60)
        time.sleep(seconds)
        keeper.terminate()
        assert (keeper.wait(20), keeper.stderr and keeper.stderr.read()) == (143, "")
    assert not list(tmp_path.glob("jivs-metrics-*"))


EARLY = """
import os, signal, socket, threading, time
from contextlib import contextmanager
from jivs import bootstrap
from jivs.api import server
from jivs.api.rates import Rates
from jivs.settings import Settings

@contextmanager
def told(*_):
    os.kill(os.getpid(), signal.SIGTERM)
    yield

server._beside = told
service = bootstrap.build_service(Settings(), process="api")
allowed = server.Allowed(origins=[], proxies=[], rates=Rates(100, 100))
server.run(service, socket.create_server(("127.0.0.1", 0)), None, print, allowed)
"""


def test_an_api_can_be_stopped_before_its_server_hears_signals(tmp_path: Path) -> None:
    command = ["env", f"XDG_STATE_HOME={tmp_path}", sys.executable, "-c", EARLY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "JiVS is at" in done.stdout


DEAF = """
import os, signal, sys, threading, time
from jivs.cli import supervisor

supervisor._ENDING_SECONDS = 1.0
part = supervisor.Part(name="part", short="jivs part", package="part", arguments=[], descriptors=[])
threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
began = time.monotonic()
print(supervisor.supervise([part]), time.monotonic() - began < 10)
"""


def test_a_part_that_does_not_end_is_killed(tmp_path: Path) -> None:
    (tmp_path / "part.py").write_text(
        "import signal; signal.signal(signal.SIGTERM, lambda *_: None)\nwhile True:\n    signal.pause()\n"
    )
    command = [sys.executable, "-c", DEAF]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == ("0 True\n", "The part does not end: it is killed.\n")


INTERRUPTED = """
import os, signal
from jivs.cli import supervisor

def stopped(*_):
    raise KeyboardInterrupt

signal.signal(signal.SIGINT, stopped)
parent, heard = os.getpid(), 0
for _ in range(200):
    try:
        supervisor.apart(lambda: os.kill(parent, signal.SIGINT))
    except KeyboardInterrupt:
        heard += 1
print(heard)
"""


def test_an_interruption_is_told_as_one_also_where_the_preparation_has_just_ended() -> None:
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "200\n")


def test_streams_that_were_closed_are_open_for_whoever_is_executed_as_well() -> None:
    script = "import os, sys; from jivs.cli.supervisor import stand; stand(); os.execv(sys.executable, ['python', '-c', sys.argv[1]])"
    look = "import os; open(os.sys.argv[1], 'w').write(' '.join(os.readlink(f'/proc/self/fd/{n}') for n in range(3)))"
    with tempfile.NamedTemporaryFile("r") as said:
        look = look.replace("os.sys.argv[1]", repr(said.name))
        subprocess.run(["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", sys.executable, "-c", script, look], check=True)
        assert said.read() == "/dev/null /dev/null /dev/null"


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


@contextmanager
def preparing(folder: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A service and the process that prepares it, which waits for a database that accepts and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        url = f"postgresql://u@127.0.0.1:{mute.getsockname()[1]}/x"
        given = {"XDG_STATE_HOME": folder, "TMPDIR": folder, "DATABASE_URL": url, "MANAGEMENT_PORT": "0"}
        secrets = ["JWT_SECRET=" + "x" * 48, "ENCRYPTION_KEY=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="]
        command = [
            "env",
            "--default-signal=INT",  # whoever started the tests may ignore it
            *(f"{name}={value}" for name, value in given.items()),
            *secrets,
            sys.executable,
            "-m",
            "jivs",
            "serve",
        ]
        keeper = subprocess.Popen([*command, "--port", "0"], stderr=subprocess.PIPE, text=True)
        try:
            wait_for(lambda: any(called(pid) == "jivs prepare" for pid in children(keeper.pid)), 90)
            yield keeper, children(keeper.pid)[0]
        finally:
            with suppress(ProcessLookupError):
                keeper.kill()
            keeper.wait()


def called(pid: int) -> str:
    with suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


@pytest.mark.parametrize(
    ("number", "code", "says"),
    [(signal.SIGTERM, 143, ""), (signal.SIGINT, 130, "Error: Stopped.\n"), (signal.SIGKILL, -9, "")],
)
def test_what_is_prepared_ends_with_it(tmp_path: Path, number: signal.Signals, code: int, says: str) -> None:
    """Else it would go on without anybody: make the first user, for example, and tell nobody the password."""
    with preparing(tmp_path) as (keeper, prepares):
        keeper.send_signal(number)
        assert (keeper.wait(20), keeper.stderr and keeper.stderr.read()) == (code, says)
        wait_for(lambda: not Path(f"/proc/{prepares}").exists(), 10)
    if number is not signal.SIGKILL:
        assert not list(tmp_path.glob("jivs-metrics-*"))


def test_a_preparation_that_is_killed_is_told(tmp_path: Path) -> None:
    with preparing(tmp_path) as (keeper, prepares):
        os.kill(prepares, signal.SIGKILL)
        assert keeper.wait(20) == 1
        assert keeper.stderr is not None
        assert keeper.stderr.read() == (
            "Error: The preparation of the service was ended by SIGKILL. It may have been too large for the memory there is. "
            "Start it again.\n"
        )


def test_it_serves_without_standard_streams(tmp_path: Path) -> None:
    """As some programs start others; and nothing else takes their places, which every fork has open."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    given = f"XDG_STATE_HOME={tmp_path} MANAGEMENT_PORT=0 HIKARI_MAXIMUM_POOL_SIZE=6"
    keeper = subprocess.Popen(["sh", "-c", f"exec env {given} {sys.executable} -m jivs serve --port {port} <&- >&- 2>&-"])
    try:

        def healthy() -> bool:
            with suppress(httpx.TransportError):
                return httpx.get(f"http://127.0.0.1:{port}/actuator/health").status_code == 200
            return False

        def at_work() -> list[int]:
            return [pid for pid in below(keeper.pid) if called(pid) == "jivs run"]

        wait_for(healthy, 40)
        wait_for(lambda: len(at_work()) >= 2, 40)
        workers = at_work()
        listening = [str((Path(f"/proc/{keeper.pid}/fd") / str(number)).readlink()) for number in range(3)]
        assert listening == ["/dev/null"] * 3
        for pid in below(keeper.pid):
            for number in range(3):
                with suppress(FileNotFoundError):  # it has ended, as what forks a worker does at once
                    assert not str(Path(f"/proc/{pid}/fd/{number}").readlink()).startswith("socket:")
        assert set(workers) <= set(at_work()), "they do not end of what they cannot say"
    finally:
        keeper.terminate()
        assert keeper.wait(40) == 0


def test_requests_of_an_api_that_was_started_again_have_other_traces(tmp_path: Path) -> None:
    seen = set()
    with ServiceProcess(tmp_path, workers=False) as service:
        for _ in range(3):
            [api] = service.parts("jivs api")
            answer = httpx.get(f"{service.url}/api/v1/extractions", timeout=30)
            seen.add(answer.json()["traceId"])
            kill(api)
            wait_for(lambda api=api: service.parts("jivs api") not in ([], [api]), 20)  # type: ignore[misc]
    assert len(seen) == 3


def test_a_package_that_is_not_installed_is_named(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['uvicorn'] = None; sys.argv = ['jivs', 'serve']; from jivs.cli.main import main; main()"
    )
    done = subprocess.run(
        ["env", f"XDG_STATE_HOME={tmp_path}", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (
        2,
        "Error: The service needs a package that is not installed (uvicorn): pip install 'jivs[service]'\n",
    )
