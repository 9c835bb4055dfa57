"""The HTTP servers: the service's own, and the management listener beside it."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn
from fastapi import FastAPI

from jivs.api import management
from jivs.api.app import count_runs, create
from jivs.api.rates import Rates
from jivs.api.wire import Bounded
from jivs.operations.health import Health
from jivs.ports.service import Service

_ENDING_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What the operator allows: web sites that may call the service, reverse proxies that are believed, and how much one
    user may ask for.
    """

    origins: list[str]
    proxies: list[str]
    rates: Rates


class _Server(uvicorn.Server):
    """Tells when it listens, with its handlers of signals in place."""

    def __init__(
        self,
        app: FastAPI,
        listening: Callable[[], None],
        ended: Sequence[int],
        *,
        graceful: int = 20,
        proxies: Sequence[str] = (),
    ) -> None:
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=True,
            proxy_headers=bool(proxies),
            forwarded_allow_ips=list(proxies),
            timeout_keep_alive=65,
            timeout_graceful_shutdown=graceful,
            loop="uvloop",
            http=Bounded,
            ws="none",
        )
        super().__init__(config)
        self._listening, self._ended = listening, ended
        self._app, self._graceful = app, graceful

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.should_exit = self.should_exit or bool(self._ended)
        self._listening()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Finish what is in progress; what processes still do for somebody shortly before the end, ends."""
        asyncio.get_running_loop().call_later(0.75 * self._graceful, self._end_waiting)
        await super().shutdown(sockets)
        self._end_waiting()

    def _end_waiting(self) -> None:
        for left in list(getattr(self._app.state, "waiting", ())):
            left.set()


def run(
    service: Service,
    public: socket.socket | None,
    private: socket.socket | None,
    ready: Callable[[str], None],
    allowed: Allowed,
) -> None:
    """Serve until SIGTERM; requests in progress are finished. ``ready`` hears the addresses once they answer.

    ``public``: where the service listens; None: there are workers only. ``private``: the management listener.
    """
    app = create(service, origins=allowed.origins, rates=allowed.rates)
    health: Health = app.state.health
    health.ready()  # opens the catalog
    count_runs(service)
    ended: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):  # until the server listens to them, and when it raises them once more
        signal.signal(number, lambda number, _: ended.append(number))
    if public is None:
        assert private is not None
        _Server(_management(service, health, private), lambda: ready(f"Management is at {_url(private)}"), ended).run(
            [private]
        )
        return
    with _beside(service, health, private, ready):
        _Server(app, lambda: ready(f"JiVS is at {_url(public)}"), ended, proxies=allowed.proxies).run(sockets=[public])


def _management(service: Service, health: Health, listener: socket.socket) -> FastAPI:
    return management.create(service, health, address=listener.getsockname()[0])


@contextmanager
def _beside(
    service: Service, health: Health, listener: socket.socket | None, ready: Callable[[str], None]
) -> Iterator[None]:
    """The management listener for the duration of the block, in a thread of its own."""
    if listener is None:
        yield
        return
    listening = threading.Event()
    server = _Server(_management(service, health, listener), listening.set, (), graceful=1)
    thread = threading.Thread(target=server.run, args=([listener],), name="management", daemon=True)
    thread.start()
    listening.wait(_ENDING_SECONDS)
    ready(f"Management is at {_url(listener)}")
    try:
        yield
    finally:
        server.should_exit = True
        thread.join(_ENDING_SECONDS)


def _url(listener: socket.socket) -> str:
    address, port = listener.getsockname()[:2]
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
