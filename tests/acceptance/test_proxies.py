"""Where a request comes from, behind reverse proxies: who is believed, and who is closed."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from jivs.testing.service import ServiceProcess

WRONG = {"password": "not this one, sorry"}


def guess(client: httpx.Client, number: int, forwarded: str) -> int:
    headers = {"X-Forwarded-For": forwarded, "Forwarded": f"for={forwarded}", "X-Real-IP": forwarded}
    return client.post("/api/v1/auth/login", json={"username": f"g{number}", **WRONG}, headers=headers).status_code


@pytest.mark.parametrize("trusted", ["", "10.0.0.0/8"])
def test_a_header_of_somebody_unknown_says_nothing(tmp_path: Path, trusted: str) -> None:
    with ServiceProcess(tmp_path, JIVS_TRUSTED_PROXIES=trusted, workers=False) as service, service.client() as admin:
        with httpx.Client(base_url=service.url) as client:
            codes = [guess(client, number, f"198.51.100.{number}") for number in range(51)]
        assert codes == [401] * 50 + [429]
        found = admin.get("/api/v1/audit", params={"limit": 200})
        assert '"address":"127.0.0.1"' in found.text
        assert "198.51.100" not in found.text


def test_a_trusted_proxy_tells_clients_apart_and_no_client_hides(tmp_path: Path) -> None:
    with (
        ServiceProcess(tmp_path, JIVS_TRUSTED_PROXIES="127.0.0.1, 10.0.0.0/8", workers=False) as service,
        service.client() as admin,
    ):
        with httpx.Client(base_url=service.url) as client:
            forms = ("198.51.100.{0}, 203.0.113.9", "{0}, 203.0.113.9, 10.1.2.3", "203.0.113.9:4{0}", "x{0}, 203.0.113.9")
            assert [guess(client, number, forms[number % 4].format(number)) for number in range(50)] == [401] * 50
            assert guess(client, 50, "203.0.113.9") == guess(client, 51, "1.1.1.1,203.0.113.9") == 429
            assert guess(client, 52, "203.0.113.10") == 401
            assert [guess(client, 100 + number, f"2001:db8:1:2::{number:x}") for number in range(50)] == [401] * 50
            assert guess(client, 150, "2001:db8:1:2:ffff::1") == 429
            assert guess(client, 151, "2001:db8:1:3::1") == 401
            right = client.post("/api/v1/auth/login", json={"username": "admin", "password": service.password})
            assert right.status_code == 200  # from the proxy itself
        found = admin.get("/api/v1/audit", params={"limit": 200}).text
        assert '"address":"203.0.113.9"' in found
        assert '"address":"2001:db8:1:2::1"' in found
        assert "198.51.100" not in found


@pytest.mark.parametrize("wrong", ["*", "proxy.example", "10.0.0.1/8"])
def test_a_proxy_has_an_address(tmp_path: Path, wrong: str) -> None:
    with pytest.raises(RuntimeError, match="JIVS_TRUSTED_PROXIES"):
        ServiceProcess(tmp_path, JIVS_TRUSTED_PROXIES=wrong, workers=False).start()
