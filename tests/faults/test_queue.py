"""The broker dies, is started again, stands still, cuts connections: ringing never waits for it, and is heard when it is back."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pika
import pytest

from jivs.backends.queue.rabbitmq import QUEUE, RabbitQueue
from jivs.domain.source import Secret
from jivs.ports.queue import Queue
from jivs.testing.servers import PASSWORD, RabbitServer, wait_for

AGAIN = 60.0


@pytest.fixture
def broker(rabbit: RabbitServer) -> Iterator[RabbitServer]:
    """The broker, empty; whatever a test does to it, the next one finds it well."""
    connection = pika.BlockingConnection(rabbit.parameters())
    connection.channel().queue_delete(QUEUE)
    connection.close()
    yield rabbit
    if rabbit.process is None:
        rabbit.start()
    rabbit.thaw()


def connect(server: RabbitServer, password: str = PASSWORD) -> RabbitQueue:
    return RabbitQueue("127.0.0.1", server.port, "jivs", Secret(password))


@pytest.fixture
def bell(broker: RabbitServer) -> Iterator[RabbitQueue]:
    made = connect(broker)
    yield made
    made.close()


@pytest.fixture
def ear(broker: RabbitServer) -> Iterator[RabbitQueue]:
    made = connect(broker)
    yield made
    made.close()


def settle(broker: RabbitServer) -> None:
    """Let RabbitMQ write to its disk that there is a new queue: killed within a second, it knows nothing of it."""
    made = connect(broker)
    made.wait(2.5)
    made.close()


def ring(bell: Queue, runs: int = 100) -> None:
    """Publish; none of it may wait for the broker."""
    for number in range(runs):
        began = time.monotonic()
        bell.publish(f"r{number}")
        assert time.monotonic() - began < 1


def hear(ear: Queue, run: str, seconds: float = AGAIN) -> None:
    """Wait until this run is heard; others may come before, and again."""
    end = time.monotonic() + seconds
    while ear.wait(1) != run:
        assert time.monotonic() < end, run


def test_a_broker_that_dies_and_comes_back(broker: RabbitServer, bell: RabbitQueue, ear: RabbitQueue) -> None:
    settle(broker)
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(lambda: [ear.wait(AGAIN), ear.wait(AGAIN)])
        broker.crash()
        ring(bell)
        wait_for(lambda: not bell.healthy(), 5)
        late = connect(broker)
        assert late.wait(0.3) is None
        late.close()
        broker.start()
        assert None not in heard.result()
    hear(ear, "r99")
    wait_for(lambda: bell.healthy() and ear.healthy(), AGAIN)


def test_a_message_that_was_confirmed_outlives_the_broker(broker: RabbitServer, bell: RabbitQueue, ear: RabbitQueue) -> None:
    settle(broker)
    bell.publish("kept")
    bell.close()
    broker.crash()
    broker.start()
    hear(ear, "kept")


def test_a_frozen_broker(broker: RabbitServer, bell: RabbitQueue, ear: RabbitQueue) -> None:
    assert ear.wait(0.1) is None
    assert bell.healthy()
    broker.freeze()
    ring(bell)
    began = time.monotonic()
    assert ear.wait(0.5) is None
    assert time.monotonic() - began < 1.5
    broker.thaw()
    hear(ear, "r99")


def test_closing_beside_a_frozen_broker_is_quick(broker: RabbitServer) -> None:
    bell = connect(broker)
    assert bell.healthy()
    broker.freeze()
    ring(bell)
    began = time.monotonic()
    bell.close()
    assert time.monotonic() - began < 3
    broker.thaw()


def test_connections_that_are_cut(broker: RabbitServer, bell: RabbitQueue, ear: RabbitQueue) -> None:
    """The broker ends all connections while somebody waits; who waits hears the next ring all the same."""
    assert bell.healthy()
    for number in range(2):
        with ThreadPoolExecutor(1) as pool:
            heard = pool.submit(ear.wait, AGAIN)
            time.sleep(0.3)
            broker.control("close_all_connections", "cut")
            bell.publish(f"r{number}")
            assert heard.result() == f"r{number}"


def test_a_queue_that_is_deleted_is_made_again(broker: RabbitServer, bell: RabbitQueue, ear: RabbitQueue) -> None:
    with ThreadPoolExecutor(1) as pool:
        heard = pool.submit(ear.wait, AGAIN)
        assert bell.healthy()
        time.sleep(0.3)
        connection = pika.BlockingConnection(broker.parameters())
        connection.channel().queue_delete(QUEUE)
        connection.close()
        bell.publish("r1")
        assert heard.result() == "r1"


def test_a_flood_is_cut_at_a_thousand(broker: RabbitServer, bell: RabbitQueue, ear: RabbitQueue) -> None:
    broker.freeze()
    ring(bell, 3000)
    assert len(bell._outgoing) == 1000
    broker.thaw()
    hear(ear, "r2999")
    for _ in range(2):
        ring(bell, 900)
        wait_for(lambda: not bell._outgoing, AGAIN)
    heard = []
    while (run := ear.wait(1)) is not None:
        heard.append(run)
    assert "r899" in heard
    assert 900 <= len(heard) < 1100


def test_a_queue_of_another_kind_is_said(broker: RabbitServer, caplog: pytest.LogCaptureFixture) -> None:
    connection = pika.BlockingConnection(broker.parameters())
    connection.channel().queue_declare(QUEUE)
    bell = connect(broker)
    assert not bell.healthy()
    ring(bell)
    assert "its queue jivs.runs: if that stays so, delete the queue" in caplog.text
    connection.channel().queue_delete(QUEUE)
    connection.close()
    wait_for(bell.healthy, AGAIN)
    hear(bell, "r99")
    bell.close()


def test_a_wrong_password_is_said_once_and_never_shown(broker: RabbitServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    bell = connect(broker, "not this one, sorry")
    ring(bell)
    assert bell.wait(2) is None
    assert not bell.healthy()
    bell.close()
    said = {record.getMessage() for record in caplog.records if record.name.startswith("jivs")}
    assert len(said) == 1
    assert "RABBITMQ_PASSWORD" in said.pop()
    assert "not this one" not in caplog.text
    assert "not this one" not in repr(bell)


def test_heartbeats(broker: RabbitServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """They are answered while nobody rings and nobody waits, and tell that a broker stands still."""
    monkeypatch.setattr("jivs.backends.queue.rabbitmq._HEARTBEAT_SECONDS", 1)
    bell = connect(broker)
    assert bell.wait(0.1) is None
    assert bell.healthy()
    time.sleep(3.5)
    assert caplog.text == ""
    broker.freeze()
    wait_for(lambda: not bell.healthy(), AGAIN)
    broker.thaw()
    wait_for(bell.healthy, AGAIN)
    bell.close()
