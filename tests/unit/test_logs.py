"""Log lines: one record is one line, whatever it says, and it says no secret."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from jivs import logs

FORGED = "bob\r\n2026-01-01T00:00:00.000Z ERROR [] jivs: forged\x1b[2J\u2028next\u202eright\x85end"
LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR|CRITICAL) \[[^]]*\] [\w.]+: .*")


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    root = logging.getLogger()
    before, level, hook = root.handlers[:], root.level, threading.excepthook
    yield
    root.handlers[:] = before
    root.setLevel(level)
    threading.excepthook = hook
    logging.captureWarnings(False)


def failing() -> None:
    raise ValueError(FORGED)


@pytest.mark.parametrize("form", logs.FORMATS)
def test_no_text_begins_another_line(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("INFO", form)
    log = logging.getLogger("jivs.test")
    log.info("user %s logged in", FORGED)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].isascii()
    assert lines[0].isprintable()
    if form == "json":
        found = json.loads(lines[0])
        assert found["message"] == f"user {FORGED} logged in"
        assert (found["level"], found["logger"]) == ("INFO", "jivs.test")
    else:
        assert LINE.fullmatch(lines[0])
        assert r"bob\r\n2026-01-01" in lines[0]


@pytest.mark.parametrize("form", logs.FORMATS)
def test_no_error_message_begins_a_record(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("INFO", form)
    try:
        failing()
    except ValueError:
        logging.getLogger("jivs.test").exception("it failed")
    thread = threading.Thread(target=failing, name="reader")
    thread.start()
    thread.join()
    lines = capsys.readouterr().err.split("\n")[:-1]
    if form == "json":
        assert len(lines) == 2
        assert all("ValueError" in json.loads(line)["error"] for line in lines)
    else:
        heads = [line for line in lines if LINE.fullmatch(line)]
        assert len(heads) == 2
        assert all(line in heads or line.startswith("  | ") for line in lines)
        assert "in thread reader" in heads[1]


def test_a_trace_and_a_run_are_told_also_by_threads(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("INFO", "json")
    log = logging.getLogger("jivs.test")
    logs.TRACE.set("0af7")
    with logs.run("run-1"):
        log.info("inside", extra={"rows": 5})
        with ThreadPoolExecutor(2) as pool:
            pool.submit(logs.carried(log.info), "in a thread").result()
            pool.submit(log.info, "in a thread of its own").result()
    log.info("outside")
    inside, carried, alone, outside = map(json.loads, capsys.readouterr().err.splitlines())
    assert (inside["traceId"], inside["runId"], inside["rows"]) == ("0af7", "run-1", 5)
    assert (carried["traceId"], carried["runId"]) == ("0af7", "run-1")
    assert "runId" not in alone
    assert "runId" not in outside
    logs.TRACE.set("")


@pytest.mark.parametrize("form", logs.FORMATS)
def test_passwords_in_urls_and_tokens_are_starred_out(form: str, capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("INFO", form)
    logging.getLogger("jivs.test").warning(
        "cannot reach %s with %s", "postgresql://ada:hush@db/sales", "Authorization: bearer eyJh.bG.c1-_"
    )
    told = capsys.readouterr().err
    assert "postgresql://ada:***@db/sales" in told
    assert "hush" not in told
    assert "eyJh" not in told


def test_what_is_announced_is_said_whatever_the_level(capsys: pytest.CaptureFixture[str]) -> None:
    logs.setup("ERROR", "console")
    logs.announce("JiVS is at http://127.0.0.1:8080")
    assert capsys.readouterr().err == "JiVS is at http://127.0.0.1:8080\n"
    logs.setup("ERROR", "json")
    logs.announce("Error: no", logging.ERROR)
    found = json.loads(capsys.readouterr().err)
    assert (found["level"], found["message"]) == ("ERROR", "Error: no")
