"""A doorbell over RabbitMQ, between processes of any machine."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from random import SystemRandom
from typing import Any

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker, NackError, ProbableAuthenticationError, UnroutableError

from jivs.backends.trouble import Trouble
from jivs.domain.source import Secret

QUEUE = "jivs.runs"
_MOST = 1000
"""Messages kept, here and at the broker; the oldest go first, and the catalog knows what they would have said."""
_HEARTBEAT_SECONDS = 10
_CONNECT_SECONDS = 5
_TURN_SECONDS = 1.0
_FIRST_SECONDS = 1.0
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_LOG = logging.getLogger(__name__)


class _Line:
    """One connection and the thread that it belongs to. It connects when first needed, does its ``turn`` whenever it is
    woken, answers heartbeats, and begins again, after growing pauses, when the connection is lost.
    """

    def __init__(
        self, name: str, parameters: pika.ConnectionParameters, trouble: Trouble, turn: Callable[[Any], None]
    ) -> None:
        self.up = False
        self.tried = threading.Event()
        self._parameters = parameters
        self._trouble = trouble
        self._turn = turn
        self._closing = threading.Event()
        self._begun = threading.Lock()
        self._connection: Any = None
        self._woken = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def wake(self) -> None:
        """Let the thread do its turn soon."""
        if self._begun.acquire(blocking=False):  # never given back: once
            self._thread.start()
        connection = self._connection
        if connection is not None and not self._woken:
            self._woken = True
            with suppress(AMQPError):  # it has just been lost; after the next one comes a turn anyway
                connection.add_callback_threadsafe(lambda: None)

    def close(self) -> None:
        """End, after a last turn; wait for it a second at most."""
        self._closing.set()
        if self._begun.locked():
            self.wake()
            self._thread.join(_TURN_SECONDS)

    def _run(self) -> None:
        pause = _SHORTEST_PAUSE
        while not self._closing.is_set():
            began = time.monotonic()
            try:
                self._serve()
            except Exception as error:  # a thread that ended would be silent for good
                self._lose(error)
            lasted = time.monotonic() - began > 2 * _LONGEST_PAUSE
            pause = _SHORTEST_PAUSE if lasted else min(2 * pause, _LONGEST_PAUSE)
            self.tried.set()
            self._closing.wait(pause * SystemRandom().uniform(0.5, 1))  # spreads the attempts of many processes

    def _serve(self) -> None:
        connection = pika.BlockingConnection(self._parameters)
        try:
            channel = connection.channel()
            channel.queue_declare(
                QUEUE, durable=True, arguments={"x-queue-type": "quorum", "x-max-length": _MOST, "x-overflow": "drop-head"}
            )
            channel.confirm_delivery()
            channel.basic_qos(prefetch_count=1)
            self._connection = connection
            self.up = True
            self.tried.set()
            self._trouble.over()
            while True:
                self._woken = False  # first: what comes during the turn needs another one
                self._turn(channel)
                if self._closing.is_set():
                    return
                connection.process_data_events(_TURN_SECONDS)
        finally:
            self._connection = None
            with suppress(AMQPError):
                connection.close()

    def _lose(self, error: Exception) -> None:
        self.up = False
        if self._closing.is_set():
            return
        code = getattr(error, "reply_code", "")
        reason = f"{type(error).__name__} {code}".strip()
        if isinstance(error, ProbableAuthenticationError):
            reason = "it refuses the user: see RABBITMQ_USERNAME and RABBITMQ_PASSWORD"
        elif isinstance(error, (ChannelClosedByBroker, NackError, UnroutableError)):
            reason = f"{reason} by its queue {QUEUE}: if that stays so, delete the queue, it will be made again"
        self._trouble.say(reason)


class RabbitQueue:
    """The quorum queue ``jivs.runs``. Messages are published with confirms, and again until confirmed; consumed one at a
    time, by who waits only.
    """

    def __init__(self, host: str, port: int, username: str, password: Secret) -> None:
        log = logging.getLogger("pika")
        if log.level == logging.NOTSET:
            log.setLevel(logging.CRITICAL)  # it prints a traceback at every attempt; what matters is said here, once
        parameters = pika.ConnectionParameters(
            host,
            port,
            credentials=pika.PlainCredentials(username, password.reveal()),
            heartbeat=_HEARTBEAT_SECONDS,
            blocked_connection_timeout=_HEARTBEAT_SECONDS,
            socket_timeout=_CONNECT_SECONDS,
            stack_timeout=_CONNECT_SECONDS,
        )
        trouble = Trouble(_LOG, f"RabbitMQ at {host}:{port}", "runs begin with the next poll")
        self._changed = threading.Condition()
        self._outgoing: deque[str] = deque(maxlen=_MOST)
        self._heard: deque[str] = deque()
        self._waiting = 0
        self._refused = False
        self._closed = False
        # two: the broker holds back a connection that publishes when it is short of memory, and nobody should be deaf then
        self._speaking = _Line("rabbitmq-publish", parameters, trouble, self._deliver)
        self._hearing = _Line("rabbitmq-consume", parameters, trouble, self._attend)

    def publish(self, run_id: str) -> None:
        self._outgoing.append(run_id)
        self._speaking.wake()

    def wait(self, seconds: float) -> str | None:
        with self._changed:
            self._waiting += 1
        self._hearing.wake()
        with self._changed:
            try:
                self._changed.wait_for(lambda: self._heard or self._closed, seconds)
                return self._heard.popleft() if self._heard else None
            finally:
                self._waiting -= 1

    def healthy(self) -> bool:
        if not self._speaking.tried.is_set():
            self._speaking.wake()
            self._speaking.tried.wait(_FIRST_SECONDS)
        return self._speaking.up and (self._hearing.up or not self._hearing.tried.is_set())

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._hearing.close()
        self._speaking.close()

    def _deliver(self, channel: Any) -> None:
        while self._outgoing:
            run_id = self._outgoing.popleft()
            try:
                channel.basic_publish("", QUEUE, run_id.encode(errors="replace"), mandatory=True)
            except BaseException:
                self._outgoing.appendleft(run_id)
                raise

    def _attend(self, channel: Any) -> None:
        if self._waiting and not channel.consumer_tags:
            channel.basic_consume(QUEUE, self._hear)
        elif self._refused and not self._waiting:
            for tag in channel.consumer_tags:
                channel.basic_cancel(tag)
        self._refused = False

    def _hear(self, channel: Any, method: Any, _: Any, body: bytes) -> None:
        with self._changed:
            if self._waiting > len(self._heard):
                channel.basic_ack(method.delivery_tag)
                self._heard.append(body.decode(errors="replace"))
                self._changed.notify()
            else:
                channel.basic_nack(method.delivery_tag, requeue=True)
                self._refused = True  # not before: who waits again and again need not register each time
