"""A relay in front of a server, which breaks connections off on request."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Self

_BLOCK = 64 << 10


class Relay:
    """Passes TCP connections on to a port of loopback. A context manager.

    Of the next requests or answers that are longer than ``after`` bytes, ``cut_requests`` and ``cut_answers`` are broken off
    there. ``delay`` seconds pass before each answer.
    """

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self.port = int(self._listener.getsockname()[1])
        self.after = 0
        self.cut_requests = 0
        self.cut_answers = 0
        self.delay = 0.0
        self.asked = 0
        """How many bytes of requests came."""
        self.answers = 0
        """How many answers began."""
        self.answered = 0
        """How many bytes they had."""

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                _Pair(self, client, socket.create_connection(("127.0.0.1", self._target))).start()

    def passes(self, count: int, *, request: bool, before: int) -> bool:
        """Count what comes after ``before`` bytes of a request or answer. Whether it may go on."""
        with self._lock:
            if request:
                self.asked += count
            else:
                self.answers += before == 0
                self.answered += count
            if before + count <= self.after:
                return True
            if request and self.cut_requests:
                self.cut_requests -= 1
                return False
            if not request and self.cut_answers:
                self.cut_answers -= 1
                return False
            return True


class _Pair:
    """One connection and the one behind it. What comes from one side until the other speaks is one request or answer."""

    def __init__(self, relay: Relay, client: socket.socket, server: socket.socket) -> None:
        self._relay = relay
        self._client = client
        self._server = server
        self._request = False
        self._passed = 0

    def start(self) -> None:
        threading.Thread(target=self._pass, args=(self._client, self._server, True), daemon=True).start()
        threading.Thread(target=self._pass, args=(self._server, self._client, False), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, request: bool) -> None:
        with suppress(OSError):
            while block := source.recv(_BLOCK):
                if self._request is not request:
                    self._request, self._passed = request, 0
                    time.sleep(0 if request else self._relay.delay)
                if not self._relay.passes(len(block), request=request, before=self._passed):
                    target.sendall(block[: max(0, self._relay.after - self._passed)])
                    break
                self._passed += len(block)
                target.sendall(block)
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
