"""What is written in one step of the loop goes out by one call, in order, and nothing is kept back."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest

from jivs.api.wire import Gathering


class Recording(asyncio.Transport):
    """Keeps each write."""

    def __init__(self) -> None:
        super().__init__({"peername": ("127.0.0.1", 1)})
        self.writes: list[bytes] = []
        self.closed = False

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def below() -> Recording:
    return Recording()


@pytest.fixture
async def transport(below: Recording) -> Gathering:
    return Gathering(below, asyncio.get_running_loop())


@pytest.mark.anyio
async def test_head_and_body_are_one_write(transport: Gathering, below: Recording) -> None:
    transport.write(b"head")
    transport.write(b"body")
    assert below.writes == []
    await asyncio.sleep(0)
    assert below.writes == [b"headbody"]


@pytest.mark.anyio
async def test_what_a_later_step_writes_goes_by_itself(transport: Gathering, below: Recording) -> None:
    for part in (b"head", b"event 1", b"event 2"):
        transport.write(part)
        await asyncio.sleep(0)
    assert below.writes == [b"head", b"event 1", b"event 2"]


@pytest.mark.anyio
async def test_much_does_not_wait(transport: Gathering, below: Recording) -> None:
    """A writer that never lets the loop have its turn must still be told that its client does not follow."""
    for _ in range(10):
        transport.write(b"x" * 40_000)
    assert list(map(len, below.writes)) == [80_000] * 5
    transport.write(b"end")
    await asyncio.sleep(0)
    assert below.writes[-1] == b"end"


@pytest.mark.anyio
async def test_a_close_sends_first(transport: Gathering, below: Recording) -> None:
    transport.write(b"last words")
    transport.close()
    assert below.writes == [b"last words"]
    assert below.closed
    transport.write(b"too late")
    await asyncio.sleep(0)
    assert below.writes == [b"last words"]


@pytest.mark.anyio
async def test_the_rest_is_the_transports_own(transport: Gathering) -> None:
    assert transport.get_extra_info("peername") == ("127.0.0.1", 1)


@pytest.mark.anyio
async def test_over_a_socket() -> None:
    """A real transport: a client reads the whole answer at once."""
    ours, theirs = socket.socketpair()
    with theirs:
        real, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
        transport = Gathering(real, asyncio.get_running_loop())
        transport.write(b"head ")
        transport.write(b"body")
        await asyncio.sleep(0)
        assert theirs.recv(100) == b"head body"
        transport.close()
