"""Health is asked seldom and waited for briefly, however many want to know and whatever hangs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from jivs import bootstrap
from jivs.errors import UnreachableError
from jivs.operations.health import Fresh, Health
from jivs.settings import Settings

Checks = Mapping[str, Callable[[], Mapping[str, str | int]]]


@pytest.fixture
def hang() -> Iterator[threading.Event]:
    let_go = threading.Event()
    yield let_go
    let_go.set()


def health(**checks: Callable[[], Mapping[str, str | int]]) -> Health:
    return Health(replace(bootstrap.build_service(Settings()), checks=checks))


def test_many_who_ask_ask_once() -> None:
    asked: list[float] = []

    def read() -> int:
        asked.append(time.monotonic())
        time.sleep(0.1)
        return 7

    fresh = Fresh(read, seconds=0.5, patience=5)
    with ThreadPoolExecutor(20) as pool:
        assert set(pool.map(lambda _: fresh.get(), range(60))) == {7}
    assert len(asked) == 1
    time.sleep(0.5)
    assert fresh.get() == 7
    assert len(asked) == 2


def test_what_failed_is_not_shown_as_it_was_and_asked_again_soon() -> None:
    answers: list[int | None] = [1, None, 2]

    def read() -> int:
        answer = answers.pop(0)
        if answer is None:
            raise UnreachableError("away")
        return answer

    fresh = Fresh(read, seconds=0.2, patience=5)
    assert fresh.get() == 1
    time.sleep(0.25)
    assert fresh.get() is None
    time.sleep(0.25)
    assert fresh.get() == 2


def test_what_hangs_holds_nobody_up(hang: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jivs.operations.health._PATIENCE_SECONDS", 0.3)

    def hanging() -> Mapping[str, str | int]:
        hang.wait()
        return {}

    found = health(db=lambda: {"n": 1}, cache=hanging, queue=hanging, search=hanging)
    began = time.monotonic()
    shown = found.components()
    assert time.monotonic() - began < 0.8
    assert shown.keys() == {"db", "cache", "queue", "search", "archives"}
    assert [shown[name].up for name in ("db", "cache", "queue", "search")] == [True, False, False, False]
    assert found.ready()


def test_a_check_that_fails_says_why_and_nothing_of_a_defect() -> None:
    def away() -> Mapping[str, str | int]:
        raise UnreachableError("The cache at redis:6379 does not answer.")

    def defect() -> Mapping[str, str | int]:
        raise KeyError("hush")

    shown = health(db=defect, cache=away).components()
    assert shown["cache"].details == {"error": "The cache at redis:6379 does not answer."}
    assert shown["db"].details == {"error": "KeyError"}
    assert not health(db=defect).ready()
