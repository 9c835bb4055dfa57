"""How many processes are kept for runs."""

from __future__ import annotations

import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from jivs import bootstrap
from jivs.settings import Settings
from jivs.worker import dispatcher
from jivs.worker.dispatcher import Dispatcher

START = ["sh", "-c", "sleep 3; echo idle; exec cat"]


def test_processes_that_are_slow_to_start_are_not_taken_for_busy(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing to do there are two, however long they take; not another one with each look."""
    real = subprocess.Popen

    def slow(command: list[str], **given: Any) -> subprocess.Popen[bytes]:
        return real(START, **given)

    monkeypatch.setattr(dispatcher.subprocess, "Popen", slow)
    keeper = Dispatcher(bootstrap.build_service(Settings(), process="worker"), 10)
    running = threading.Thread(target=keeper.run)
    running.start()
    seen = []
    end = time.monotonic() + 6
    while time.monotonic() < end:
        seen.append(len(keeper._children))
        time.sleep(0.05)
    keeper.end()
    running.join(40)
    assert not running.is_alive()
    assert max(seen) == 2
