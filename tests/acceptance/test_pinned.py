"""A host's name is asked for once: what was checked is what is connected to."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest

from jivs import bootstrap, connectors
from jivs.domain.guard import Guard
from jivs.errors import ForbiddenError, UnreachableError
from jivs.operations import _guard
from jivs.ports.app import App
from jivs.ports.connector import Request
from jivs.settings import Settings
from jivs.transfer.throttle import Throttle


@pytest.fixture
def app() -> App:
    return bootstrap.build(Settings())


@pytest.mark.parametrize("database", ["pg", "my"])
@pytest.mark.parametrize("rate", [0, 1000])
def test_nobody_asks_again(
    app: App, database: str, rate: int, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = request.getfixturevalue(database)
    port = urlsplit(url).port
    asked: list[str] = []

    def once(host: str, *_: Any, **__: Any) -> list[Any]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr("jivs.operations._guard.socket.getaddrinfo", once)
    address = _guard.checked(Guard(), replace(app.address(url), host="rebound.invalid"))
    monkeypatch.undo()
    session = connectors.find(address).open(address, app.limits, Request(), Throttle(rate, app.clock))
    assert session.ping().version
    session.close()
    assert asked == ["rebound.invalid"]
    loose = replace(address, pinned="")
    with pytest.raises(UnreachableError):
        connectors.find(loose).open(loose, app.limits, Request(), Throttle(rate, app.clock)).ping()


def test_one_bad_address_among_good_ones_is_enough(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    def both(*_: Any, **__: Any) -> list[Any]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 5432)) for ip in ("192.0.2.1", "169.254.169.254")]

    monkeypatch.setattr("jivs.operations._guard.socket.getaddrinfo", both)
    with pytest.raises(ForbiddenError, match="JIVS_NETWORKS"):
        _guard.checked(Guard(), app.address("postgresql://u@two.example/x"))
