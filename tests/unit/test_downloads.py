"""Parts of answering with files that a real client shows too slowly or too rarely."""

from __future__ import annotations

import asyncio
import io
from typing import Any

import pytest

from jivs.api import downloads
from jivs.api.downloads import Stream


def answered(data: bytes, count: int, take: Any, *, left: bool = False) -> tuple[io.BytesIO, list[dict[str, Any]]]:
    """What was sent of a stream. ``take``: awaited for each message; ``left``: the client has gone."""
    handle, sent = io.BytesIO(data), []

    async def receive() -> dict[str, Any]:
        if left:
            return {"type": "http.disconnect"}
        await asyncio.sleep(60)
        raise AssertionError

    async def send(message: dict[str, Any]) -> None:
        await take(message)
        sent.append(message)

    stream = Stream(lambda: handle, count, media_type="text/plain", headers={})
    asyncio.run(stream({"type": "http", "headers": []}, receive, send))  # type: ignore[arg-type]
    return handle, sent


async def at_once(message: dict[str, Any]) -> None:
    pass


def test_as_many_bytes_as_were_said() -> None:
    handle, sent = answered(b"x" * 1_000_000, 700_000, at_once)
    assert sum(len(message.get("body", b"")) for message in sent) == 700_000
    assert not sent[-1].get("more_body", False)
    assert handle.closed


def test_a_file_that_ends_early_is_not_ended_as_if_it_were_whole() -> None:
    handle, sent = answered(b"x" * 10, 20, at_once)
    assert all(message.get("more_body", True) for message in sent)
    assert handle.closed


def test_who_has_left_gets_nothing_more() -> None:
    handle, sent = answered(b"x" * 10_000_000, 10_000_000, at_once, left=True)
    assert len(sent) == 1
    assert handle.closed


def test_who_takes_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloads, "_PATIENCE", 0.1)

    async def never(message: dict[str, Any]) -> None:
        if message.get("body"):
            await asyncio.sleep(60)

    handle, sent = answered(b"x" * 10, 10, never)
    assert len(sent) == 1
    assert handle.closed


def test_an_error_of_the_client_closes_the_file() -> None:
    opened: list[io.BytesIO] = []

    async def broken(message: dict[str, Any]) -> None:
        raise OSError("gone")

    stream = Stream(lambda: opened.append(io.BytesIO(b"x")) or opened[0], 1, media_type="text/plain", headers={})
    with pytest.raises(OSError, match="gone"):
        asyncio.run(stream({"type": "http", "headers": []}, broken, broken))  # type: ignore[arg-type]
    assert opened[0].closed
