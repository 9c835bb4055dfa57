"""What requests are measured as: by template, never by path; streams and downloads apart."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from fastapi import APIRouter, FastAPI
from starlette.responses import Response, StreamingResponse

from jivs import logs
from jivs.api.timing import Timed
from jivs.ports.metrics import NoMetrics

Ask = Callable[..., httpx.Response]


class Heard(NoMetrics):
    def __init__(self) -> None:
        self.requests: list[tuple[str, str, int, bool]] = []
        self.seconds: list[float] = []

    def request(self, method: str, route: str, status: int, seconds: float, *, extraction: bool) -> None:
        self.requests.append((method, route, status, extraction))
        self.seconds.append(seconds)


def application(heard: Heard) -> FastAPI:
    router = APIRouter(prefix="/extractions")

    @router.get("")
    def listed() -> list[int]:
        return []

    @router.get("/{number}")
    def one(number: int) -> int:
        logging.getLogger("jivs.test").warning("working")
        return 1 // number

    @router.get("/{number}/events")
    async def events(number: int) -> StreamingResponse:
        async def stream() -> AsyncIterator[str]:
            yield "data: 1\n\n"
            await asyncio.sleep(0.3)
            yield "data: 2\n\n"

        return StreamingResponse(stream(), media_type="text/event-stream")

    @router.get("/{number}/file")
    def file(number: int) -> Response:
        time.sleep(0.05)
        return Response(b"rows", headers={"Content-Disposition": "attachment; filename=rows.csv"})

    outer = APIRouter(prefix="/api/v1")
    outer.include_router(router)
    app = FastAPI()
    app.include_router(outer)
    app.add_middleware(Timed, metrics=heard)
    return app


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def ask(heard: Heard) -> Ask:
    transport = httpx.ASGITransport(application(heard), raise_app_exceptions=False)

    async def go(method: str, path: str, **more: object) -> httpx.Response:
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.request(method, path, **more)  # type: ignore[arg-type]

    return lambda method, path, **more: asyncio.run(go(method, path, **more))


def test_a_route_is_its_template_and_unknown_ones_are_one(heard: Heard, ask: Ask) -> None:
    for method, path in (
        ("GET", "/api/v1/extractions?name=secret"), ("GET", "/api/v1/extractions/7"), ("GET", "/api/v1/extractions/8"),
        ("GET", "/api/v1/extractions/0"), ("GET", "/api/v1/extractions/x"), ("DELETE", "/api/v1/extractions/8"),
        ("GET", "/a"), ("GET", "/b/c"), ("BREW", "/b"),
    ):  # fmt: skip
        ask(method, path)
    one = "/api/v1/extractions/{number}"
    assert heard.requests == [
        ("GET", "/api/v1/extractions", 200, True), ("GET", one, 200, True), ("GET", one, 200, True), ("GET", one, 500, True),
        ("GET", one, 422, True), ("DELETE", one, 405, True), ("GET", "other", 404, False), ("GET", "other", 404, False),
        ("other", "other", 404, False),
    ]  # fmt: skip


def test_streams_and_downloads_are_no_requests_of_the_extraction_api(heard: Heard, ask: Ask) -> None:
    assert ask("GET", "/api/v1/extractions/1/events").text.count("data") == 2
    ask("GET", "/api/v1/extractions/1/file")
    assert [extraction for *_, extraction in heard.requests] == [False, False]
    assert heard.seconds[0] < 0.25  # until it began
    assert heard.seconds[1] >= 0.05


def test_the_log_tells_of_each_request_and_of_nothing_that_was_asked(
    heard: Heard, ask: Ask, caplog: pytest.LogCaptureFixture
) -> None:
    traces: list[str] = []
    caplog.handler.addFilter(lambda _: not traces.append(logs.TRACE.get()))
    trace = "0af7651916cd43dd8448eb211c80319c"
    with caplog.at_level(logging.INFO, "jivs.access"):
        ask("GET", "/api/v1/extractions/7?token=hush", headers={"traceparent": f"00-{trace}-b7ad6b7169203331-01"})
        ask("GET", "/hush")
    working, access, unknown = [one for one in caplog.records if one.name.startswith("jivs")]
    assert traces[:2] == [trace, trace]  # the route's own line, from its thread, too
    assert working.getMessage() == "working"
    assert (access.method, access.route, access.status, access.user) == ("GET", "/api/v1/extractions/{number}", 200, "")
    assert access.ms > 0
    assert unknown.status == 404
    assert "hush" not in caplog.text
