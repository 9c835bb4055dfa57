"""Bytes that are no proper requests, and texts that would begin lines of their own in logs and headers."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from jivs.testing.service import ServiceProcess

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR) \[.*\] [a-z_.A-Z0-9]+: ")
POST = b"POST /api/v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
BODY = b'{"username": "x", "password": "x"}'
GET = b"GET /api/v1/auth/me HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"


@pytest.fixture(scope="module", params=["console", "json"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path_factory.mktemp("wire"), LOG_LEVEL="DEBUG", LOG_FORMAT=request.param) as running:
        yield running


def talk(service: ServiceProcess, raw: bytes) -> bytes:
    """All that comes back until the service closes the connection, or says nothing more."""
    place = urlsplit(service.url)
    with socket.create_connection((place.hostname or "", place.port or 0), timeout=5) as connection:
        out = b""
        try:
            connection.sendall(raw)
            connection.settimeout(1.0)
            while data := connection.recv(1 << 16):
                out += data
        except OSError:
            pass
        return out


def statuses(answers: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", answers)]


@pytest.mark.parametrize(
    ("name", "raw", "expected"),
    [
        ("two lengths", POST + b"Content-Length: 34\r\nContent-Length: 5\r\n\r\n" + BODY, [400]),
        ("two equal lengths", POST + b"Content-Length: 34\r\nContent-Length: 34\r\n\r\n" + BODY, [400]),
        ("length and chunks", POST + b"Content-Length: 4\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + GET, [400]),
        ("chunks and length", POST + CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n" + GET, [400]),
        ("negative length", POST + b"Content-Length: -1\r\n\r\n", [400]),
        ("length with a plus", POST + b"Content-Length: +34\r\n\r\n" + BODY, [400]),
        ("length in hex", POST + b"Content-Length: 0x22\r\n\r\n" + BODY, [400]),
        ("huge length", POST + b"Content-Length: 99999999999999999999999\r\n\r\n", [400]),
        ("length above the limit", POST + b"Content-Length: 1048577\r\n\r\n", [413]),
        ("chunk of hex junk", POST + CHUNKED + b"\r\nzz\r\n", [400]),
        ("chunk that is huge", POST + CHUNKED + b"\r\nfffffffffffffffff\r\n", [400]),
        ("unknown coding", POST + b"Transfer-Encoding: xchunked\r\nContent-Length: 34\r\n\r\n" + BODY, [400]),
        ("space before the colon", GET + b"Content-Length : 5\r\n\r\nhello", [400]),
        ("folded header", GET + b"X: a\r\n b\r\n\r\n", [400]),
        ("NUL in a header", GET + b"X: a\0b\r\n\r\n", [400]),
        ("NUL in the path", b"GET /a\0b HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
        ("no version", b"GET /\r\n\r\n", [404]),
        ("another version", b"GET / HTTP/3.0\r\nHost: x\r\n\r\n", [400]),
        ("a preface of HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [400]),
        ("a method that is none", b"HACK /api/v1/users HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
        ("TLS to a port without", b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + b"\0" * 100 + b"\r\n\r\n", [400]),
        ("too many headers", GET + b"".join(b"x-%d: y\r\n" % number for number in range(5000)) + b"\r\n", [431]),
        ("a header that is long", GET + b"X: " + b"y" * 40_000 + b"\r\n\r\n", [431]),
        ("a path that is long", b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\n\r\n", [431]),
        ("a bare line feed that hides one", GET + b"X: a\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", [400]),
    ],
)
def test_what_is_no_request_is_refused(service: ServiceProcess, name: str, raw: bytes, expected: list[int]) -> None:
    assert statuses(talk(service, raw)) == expected, name


def test_nothing_that_is_sent_begins_a_line_in_a_header(service: ServiceProcess) -> None:
    evil = b"x%0d%0aX-Evil:%201%0d%0a%0d%0abody"
    for raw in (
        b"GET /" + evil + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /api/v1/sources/" + evil + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /api/v1/archives/" + evil + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        GET + b"traceparent: 00-x\xe2\x80\xa8X-Evil: 1-01\r\nConnection: close\r\n\r\n",
        GET + b"Origin: https://x%0d%0aX-Evil: 1\r\nConnection: close\r\n\r\n",
        b"GET /api/v1/users/?x=" + evil + b" HTTP/1.1\r\nHost: evil%0d%0aX-Evil: 1\r\nConnection: close\r\n\r\n",
    ):
        head = talk(service, raw).partition(b"\r\n\r\n")[0]
        assert head.startswith(b"HTTP/1.1 "), raw
        assert b"\r\nx-evil" not in head.lower(), raw


def test_every_record_is_one_line_of_the_log(service: ServiceProcess, tmp_path: Path) -> None:
    forged = "x\u009b31m\u2028\u202e2026-01-01T00:00:00.000Z ERROR [] jivs: forged\u0085"
    before = len(service.printed)
    with service.client() as client, socket.create_server(("127.0.0.1", 0)) as server:
        url = f"postgresql://u@127.0.0.1:{server.getsockname()[1]}/x?sslmode=disable&connect_timeout=3"
        for name in ("a\r\nb", "a\x1b[2Jb", "a\x00b", "a\x7fb"):
            assert client.post("/api/v1/sources", json={"name": name, "url": url}).status_code == 422
        made = client.post("/api/v1/extractions", json={
            "name": forged, "archive": "x", "sourceType": "POSTGRESQL", "attempts": 1, "connectionConfig": {"url": url},
        })  # fmt: skip
        assert made.status_code == 201, made.text
        place = client.post(f"{made.headers['Location']}/start").headers["Location"]
        said = b"SFATAL\0C28000\0Mno\r\n2026-01-01T00:00:00.000Z ERROR [] jivs: \x1b[2J" + forged.encode() + b"\0\0"
        answer = b"E" + (len(said) + 4).to_bytes(4, "big") + said
        end = time.monotonic() + 30
        server.settimeout(0.2)
        while (run := client.get(place).json())["state"] not in {"FAILED", "COMPLETED"}:
            assert time.monotonic() < end, run
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            with connection:
                connection.recv(1000)
                connection.sendall(answer)
        for text in ("\r\nforged", "\x1b[2J", "\u2028forged", "\u202e", "x" * 150):
            client.post("/api/v1/auth/login", json={"username": text, "password": "x"})
            httpx.get(f"{service.url}/nowhere/{text!r}?{text!r}", headers={"User-Agent": "x\x1b", "traceparent": repr(text)})
        client.get("/api/v1/audit")
    time.sleep(0.5)
    lines = "".join(service.printed[before:]).split("\n")[:-1]
    assert len(lines) > 20
    assert any("forged" in line for line in lines)
    for line in lines:
        if service.printed[-1].startswith("{"):
            assert json.loads(line)["level"] in {"DEBUG", "INFO", "WARNING"}, line
        else:
            assert LINE.match(line), line
        assert line.isprintable(), line


def test_a_password_may_be_as_long_as_it_likes_and_takes_no_longer(service: ServiceProcess) -> None:
    began = time.monotonic()
    for size in (1025, 100_000, 1_000_000):
        answer = httpx.post(f"{service.url}/api/v1/auth/login", json={"username": "admin", "password": "x" * size})
        assert answer.status_code == 422
    assert time.monotonic() - began < 5
    assert httpx.get(f"{service.url}/actuator/health").status_code == 200
