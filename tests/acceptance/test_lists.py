"""Lists by page and by cursor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from jivs.testing.service import ServiceProcess

PASSWORD = "seven small whales sing"


@pytest.fixture
def admin(tmp_path: Path) -> Iterator[httpx.Client]:
    with ServiceProcess(tmp_path, workers=False) as service, service.client() as client:
        yield client


@pytest.mark.parametrize(("path", "name"), [("/api/v1/users", "username"), ("/api/v1/sources", "name")])
def test_lists_by_page_and_by_cursor(admin: httpx.Client, path: str, name: str) -> None:
    for text in ("paged-b", "PAGED-a", "paged-c"):
        body = (
            {"username": text, "password": PASSWORD, "roles": ["VIEWER"]}
            if name == "username"
            else {"name": text, "url": "postgresql://db.example/x"}
        )
        assert admin.post(path, json=body).status_code == 201

    def names(**params: object) -> list[str]:
        return [one[name] for one in admin.get(path, params={"name": "paged", **params}).json()["items"]]

    assert names() == ["paged-b", "PAGED-a", "paged-c"]
    assert names(page=0, size=2, sort=name) == ["PAGED-a", "paged-b"]
    assert names(page=1, size=2, sort=name) == ["paged-c"]
    assert names(page=0, sort="createdAt,desc") == ["paged-c", "PAGED-a", "paged-b"]
    first = admin.get(path, params={"name": "paged", "limit": 2}).json()
    assert (first["total"], names(cursor=first["nextCursor"])) == (None, ["paged-c"])
    counted = admin.get(path, params={"name": "paged", "page": 7, "size": 2}).json()
    assert (counted["items"], counted["total"], counted["totalPages"]) == ([], 3, 2)
    assert names(size=2) == ["paged-b", "PAGED-a"]
    for wrong in (
        {"page": 0, "cursor": 1},
        {"size": 2, "limit": 2},
        {"sort": name},
        {"sort": "password", "page": 0},
        {"page": -1},
        {"size": 0, "page": 0},
    ):
        assert admin.get(path, params=wrong).status_code == 422
