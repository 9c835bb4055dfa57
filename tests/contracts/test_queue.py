"""Every queue passes the port's suite, and the settings choose among them."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jivs import bootstrap
from jivs.backends.queue.pipe import PipeQueue
from jivs.backends.queue.rabbitmq import QUEUE, RabbitQueue
from jivs.domain.source import Secret
from jivs.errors import DriverMissingError
from jivs.ports.queue import Queue
from jivs.settings import Settings
from jivs.testing.queue import SOON, QueueSuite
from jivs.testing.servers import PASSWORD, RabbitServer

ROOT = Path(__file__).parent.parent.parent


class TestPipeQueue(QueueSuite):
    @pytest.fixture
    def bell(self) -> Iterator[PipeQueue]:
        made = PipeQueue.make()
        yield made
        made.close()

    @pytest.fixture
    def ear(self, bell: PipeQueue) -> Iterator[Queue]:
        reads, writes = (os.dup(end) for end in bell.ends)
        made = PipeQueue(reads=reads, writes=writes)
        yield made
        made.close()


@pytest.fixture
def empty(rabbit: RabbitServer) -> RabbitServer:
    """Without what earlier tests left."""
    import pika

    connection = pika.BlockingConnection(rabbit.parameters())
    connection.channel().queue_delete(QUEUE)
    connection.close()
    return rabbit


def connect(server: RabbitServer) -> RabbitQueue:
    return RabbitQueue("127.0.0.1", server.port, "jivs", Secret(PASSWORD))


class TestRabbitQueue(QueueSuite):
    @pytest.fixture
    def bell(self, empty: RabbitServer) -> Iterator[Queue]:
        made = connect(empty)
        yield made
        made.close()

    @pytest.fixture
    def ear(self, empty: RabbitServer) -> Iterator[Queue]:
        made = connect(empty)
        yield made
        made.close()


del QueueSuite  # or pytest would run the suite without an adapter


CHILD = """
import sys
from jivs.backends.queue.pipe import PipeQueue
queue = PipeQueue(reads=int(sys.argv[1]))
print("waiting", flush=True)
print(repr(queue.wait(30)), flush=True)
print(repr(queue.wait(30)), flush=True)
print(repr(queue.wait(1)), queue.healthy(), flush=True)
"""


def test_a_pipe_wakes_another_process_and_its_end_is_no_ring() -> None:
    bell = PipeQueue.make()
    reads, _ = bell.ends
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(reads)], pass_fds=[reads], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "waiting\n"
        bell.publish("r1")
        assert child.stdout.readline() == "''\n"
        bell.publish("r2")
        assert child.stdout.readline() == "''\n"
        bell.close()
        began = time.monotonic()
        assert child.stdout.readline() == "None False\n"
        assert time.monotonic() - began > 0.8  # a pipe without writers is always readable: no busy waiting


def test_a_pipe_that_nobody_reads_from_is_said() -> None:
    bell = PipeQueue.make()
    reads, _ = bell.ends
    os.close(reads)
    assert bell.healthy()
    bell.publish("r1")
    assert not bell.healthy()


def test_messages_are_acknowledged_before_the_work(empty: RabbitServer) -> None:
    """The broker never waits for a run: what was heard is gone from the queue, though nobody has ended."""
    import pika

    bell, ear = connect(empty), connect(empty)
    for number in range(3):
        bell.publish(f"r{number}")
    assert ear.wait(SOON) == "r0"
    connection = pika.BlockingConnection(empty.parameters())
    time.sleep(0.2)
    declared = connection.channel().queue_declare(QUEUE, passive=True)
    connection.close()
    assert declared.method.message_count == 2
    assert declared.method.consumer_count == 0
    bell.close()
    ear.close()


def test_a_message_that_comes_when_the_wait_is_over_goes_back(empty: RabbitServer) -> None:
    bell, ear = connect(empty), connect(empty)
    late = 0
    for number in range(200):
        bell.publish(f"r{number}")
        if ear.wait(random.uniform(0, 0.002)) is None:
            late += 1
            time.sleep(0.01)
            assert not ear._heard
            assert ear.wait(SOON) == f"r{number}"
    assert late > 10
    bell.close()
    ear.close()


def test_the_broker_keeps_messages_of_processes_that_ended(empty: RabbitServer) -> None:
    bell = connect(empty)
    bell.publish("r1")
    bell.close()
    ear = connect(empty)
    assert ear.wait(SOON) == "r1"
    ear.close()


def test_the_rights_that_the_documentation_names_are_enough(empty: RabbitServer, caplog: pytest.LogCaptureFixture) -> None:
    page = " ".join((ROOT / "docs" / "operation-cache-and-queue.md").read_text(encoding="utf-8").split())
    named = re.search(r"`rabbitmqctl set_permissions jivs '(.+?)' '(.+?)' '(.+?)'`", page)
    assert named is not None
    empty.control("add_user", "plain", PASSWORD)
    empty.control("set_permissions", "plain", *named.groups())
    first = connect(empty)
    assert first.healthy()  # there is a queue: two who make it at once may be refused at first, and try again
    first.close()
    plain = RabbitQueue("127.0.0.1", empty.port, "plain", Secret(PASSWORD))
    plain.publish("r1")
    assert plain.wait(SOON) == "r1"
    plain.close()
    assert caplog.text == ""


def test_the_broker_of_the_tests_listens_on_loopback_only(rabbit: RabbitServer) -> None:
    """All of its ports: RabbitMQ's own, those of Erlang's nodes, and epmd's, which would be open to everybody."""
    assert rabbit.process is not None
    assert rabbit._epmd is not None
    found = [address for pid in (rabbit.process.pid, rabbit._epmd.pid) for address in listening(pid)]
    assert len(found) >= 3
    assert set(found) <= {"0100007F", f"{0:024}01000000"}
    assert "Uid:\t0\t" not in Path(f"/proc/{rabbit.process.pid}/status").read_text()


def listening(pid: int) -> list[str]:
    """The addresses that a process listens on, as in proc(5)."""
    sockets = {str(entry.readlink()) for entry in Path(f"/proc/{pid}/fd").iterdir()}
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return [line[1].partition(":")[0] for line in lines if line[3] == "0A" and f"socket:[{line[9]}]" in sockets]


def test_settings_choose_the_queue(monkeypatch: pytest.MonkeyPatch, empty: RabbitServer) -> None:
    assert isinstance(bootstrap.build_service(Settings()).queue, PipeQueue)
    monkeypatch.setenv("RABBITMQ_HOST", "127.0.0.1")
    monkeypatch.setenv("RABBITMQ_PORT", str(empty.port))
    monkeypatch.setenv("RABBITMQ_USERNAME", "jivs")
    monkeypatch.setenv("RABBITMQ_PASSWORD", PASSWORD)
    service = bootstrap.build_service(Settings())
    assert PASSWORD not in repr(service)
    assert isinstance(service.queue, RabbitQueue)
    assert service.queue.healthy()
    service.queue.close()
    monkeypatch.setitem(sys.modules, "pika", None)
    monkeypatch.delitem(sys.modules, "jivs.backends.queue.rabbitmq")
    with pytest.raises(DriverMissingError, match=r"jivs\[rabbitmq\]"):
        bootstrap.build_service(Settings())
