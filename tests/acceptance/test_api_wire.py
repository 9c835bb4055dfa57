"""What comes over the wire before it is a request."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn

from jivs.api import wire
from jivs.api.wire import Bounded


async def echo(scope, receive, send):  # type: ignore[no-untyped-def]
    """Answers with the number of bytes in the body."""
    if scope["type"] == "lifespan":
        return
    if scope["path"] == "/slow":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"30")]})
        for _ in range(3):
            await asyncio.sleep(0.2)
            await send({"type": "http.response.body", "body": b"0123456789", "more_body": True})
        await send({"type": "http.response.body"})
        return
    size, more = 0, True
    while more:
        message = await receive()
        size += len(message.get("body", b""))
        more = message.get("more_body", False)
    body = str(size).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that waits less long than it does otherwise."""
    monkeypatch.setattr(wire, "HEAD_SECONDS", 0.5)
    monkeypatch.setattr(wire, "BODY_SECONDS", 1.5)


@pytest.fixture
def port() -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(echo, http=Bounded, loop="uvloop", lifespan="off", log_config=None))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join()


def talk(port: int, *pieces: bytes, wait: float = 0.0) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        try:
            for piece in pieces:
                client.sendall(piece)
                time.sleep(wait)
        except OSError:
            pass  # it was refused already
        client.settimeout(3)
        out = b""
        try:
            while data := client.recv(1 << 16):
                out += data
        except OSError:
            pass
        return out


START = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n"


def test_a_head_that_is_too_large_is_refused(port: int) -> None:
    for pieces in (
        [START + b"x: " + b"a" * (40 << 10) + b"\r\n\r\n"],
        [START, *[b"x-%d: y\r\n" % number for number in range(5000)]],
        [b"GET /" + b"a" * (40 << 10)],
        [START + b"x: ", *[b"a" * 1000] * 60],
    ):
        assert talk(port, *pieces).startswith(b"HTTP/1.1 431"), pieces[0][:50]
    assert talk(port, START + b"x: " + b"a" * (20 << 10) + b"\r\n\r\n").startswith(b"HTTP/1.1 200")


def test_a_large_body_is_no_large_head(port: int) -> None:
    body = b"b" * 200_000
    head = START + b"content-length: 200000\r\n\r\n"
    for cut in (len(head), len(head) - 1, len(head) - 3, len(head) + 5, 10):
        whole = head + body
        answer = talk(port, whole[:cut], whole[cut:], wait=0.05)
        assert answer.startswith(b"HTTP/1.1 200"), (cut, answer[:100])
        assert answer.endswith(b"200000")
    twice = START.replace(b"close", b"keep-alive") + b"content-length: 200000\r\n\r\n" + body
    assert talk(port, twice, twice, head + body).count(b"HTTP/1.1 200") == 3


@pytest.mark.usefixtures("hasty")
def test_a_head_that_takes_too_long_is_refused(port: int) -> None:
    began = time.monotonic()
    assert talk(port, b"GET / HT").startswith(b"HTTP/1.1 408")
    assert talk(port, START, *[b"x: y\r\n"] * 20, wait=0.1).startswith(b"HTTP/1.1 408")
    assert time.monotonic() - began < 8
    slow_body = talk(port, START + b"content-length: 4\r\n\r\n", b"ab", b"cd", wait=0.7)
    assert slow_body.startswith(b"HTTP/1.1 200")


@pytest.mark.usefixtures("hasty")
def test_who_sends_nothing_or_half_a_body_is_not_waited_for(port: int) -> None:
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
        assert client.recv(100).startswith(b"HTTP/1.1 408")
    assert talk(port, START + b"content-length: 4\r\n\r\n", b"ab").startswith(b"HTTP/1.1 408")
    assert time.monotonic() - began < 8


def test_what_stands_behind_a_body_is_bounded_and_ignored(port: int) -> None:
    body = START + b"transfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n"
    assert talk(port, body + b"x-trailer: y\r\n\r\n").endswith(b"2")
    many = [b"x-%d: %s\r\n" % (number, b"y" * 1000) for number in range(60)]
    assert talk(port, body, *many).startswith(b"HTTP/1.1 431")
    assert talk(port, body, b"x-one: ", *[b"y" * 1000] * 60).startswith(b"HTTP/1.1 431")
    extended = START + b"transfer-encoding: chunked\r\n\r\n2;x="
    assert talk(port, extended, *[b"y" * 1000] * 60).startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize(
    "second", [b"GET / HT", b"\0\0\0\r\n\r\n", b"GET /" + b"a" * (40 << 10)], ids=["slow", "no request", "large"]
)
def test_nothing_is_written_into_an_answer_that_is_under_way(port: int, second: bytes) -> None:
    answer = talk(port, b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n", second, wait=0.1)
    assert answer.count(b"HTTP/1.1") == 1
    assert answer.partition(b"\r\n\r\n")[2] in {b"", b"0123456789", b"0123456789" * 2, b"0123456789" * 3}
