"""Swagger UI in a real browser: it shows the whole document and can be used, with nothing from elsewhere."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from jivs.testing.service import ServiceProcess


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path_factory.mktemp("service"), workers=False) as running:
        yield running


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield browser
        browser.close()


def test_a_browser_shows_and_uses_it(service: ServiceProcess, browser: Browser) -> None:
    page = browser.new_page(base_url=service.url)
    page.set_default_timeout(60_000)
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type in {"error", "warning"} else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.add_init_script(
        "addEventListener('securitypolicyviolation', event => console.error('refused', event.violatedDirective))"
    )
    page.goto("/swagger-ui.html")
    tags = page.locator(".opblock-tag")
    expect(tags).to_have_count(10, timeout=60_000)
    document = httpx.get(f"{service.url}/v3/api-docs").json()
    assert document["openapi"].startswith("3.1")

    with service.client() as client:
        token = client.headers["Authorization"].removeprefix("Bearer ")
    page.get_by_role("button", name="Authorize").click()
    page.locator(".auth-container input").fill(token)
    page.locator(".auth-btn-wrapper .authorize").click()
    page.locator(".btn-done").click()
    page.locator("[data-tag=auth]").click()
    page.locator("#operations-auth-getCurrentUser button.opblock-summary-control").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    expect(page.locator(".live-responses-table tr.response .response-col_status").first).to_have_text(
        re.compile("200"), timeout=60_000
    )
    expect(page.locator(".live-responses-table")).to_contain_text('"username": "admin"')
    assert complaints == []
    assert {url.split("/")[2] for url in asked if not url.startswith("data:")} == {service.url.split("/")[2]}
    assert page.evaluate("localStorage.length") == 0  # the token is in the page's memory only
    page.close()


def test_no_script_or_style_needs_to_stand_in_the_page(service: ServiceProcess) -> None:
    with httpx.Client(base_url=service.url) as client:
        page = client.get("/swagger-ui.html")
        policy = page.headers["Content-Security-Policy"]
        assert "unsafe" not in policy
        assert "default-src 'none'" in policy
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bon\w+=|\bstyle=", page.text)
        links = re.findall(r'(?:href|src)="([^"]+)"', page.text)
        assert len(links) == 4
        for link in links:
            answer = client.get(f"/{link}")
            assert answer.status_code == 200, link
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert answer.content
        for wrong in ("/swagger-ui/", "/swagger-ui/__init__.py", "/swagger-ui/..%2fmain.py", "/swagger-ui/%2e%2e/main.py"):
            assert client.get(wrong).status_code in {404, 422}, wrong
