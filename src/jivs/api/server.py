"""The HTTP server."""

from __future__ import annotations

import signal
import socket
from collections.abc import Callable

import uvicorn

from jivs.api.app import create
from jivs.api.wire import Bounded
from jivs.ports.service import Service


class _Server(uvicorn.Server):
    """Tells when it listens, with its handlers of signals in place."""

    def __init__(self, config: uvicorn.Config, listening: Callable[[], None]) -> None:
        super().__init__(config)
        self._listening = listening

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._listening()


def run(service: Service, listener: socket.socket, origins: list[str], ready: Callable[[str], None]) -> None:
    """Serve until SIGTERM; requests in progress are finished. ``ready`` hears the address once it answers."""
    config = uvicorn.Config(
        create(service, origins=origins),
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=True,
        proxy_headers=False,
        timeout_keep_alive=65,
        timeout_graceful_shutdown=20,
        loop="uvloop",
        http=Bounded,
        ws="none",
    )
    address, port = listener.getsockname()[:2]
    host = f"[{address}]" if ":" in address else address
    for number in (signal.SIGTERM, signal.SIGINT):  # the server raises them once more when it has ended
        signal.signal(number, lambda *_: None)
    _Server(config, lambda: ready(f"http://{host}:{port}")).run(sockets=[listener])
