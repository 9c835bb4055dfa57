"""What every adapter of ``ports.children`` promises."""

from __future__ import annotations

import json
import signal
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event, Timer

import pytest

from jivs.errors import DamagedError, FatalError, OverLimitError, TooManyError
from jivs.ports.children import Children

SECONDS = 8
"""The time limit of the children in this suite; two of them may be at work at once."""


class ChildrenSuite:
    """Subclasses give a fixture ``children`` that runs ``jivs.testing.child`` with a limit of ``SECONDS``, two at once."""

    @pytest.fixture
    def children(self) -> Children:
        """The adapter."""
        raise NotImplementedError  # whoever uses the suite gives it

    def test_a_job_is_answered(self, children: Children) -> None:
        gone, said = Event(), "ä€😀" * 100_000
        with tempfile.TemporaryFile() as out:
            assert children.run({"write": said, "x": [1, None]}, gone, out)["job"]["x"] == [1, None]
            out.seek(0)
            assert out.read().decode() == said
        assert gone.is_set()

    def test_an_error_of_a_job_is_raised(self, children: Children) -> None:
        for name, kind in (("DamagedError", DamagedError), ("OverLimitError", OverLimitError), ("os", FatalError)):
            with pytest.raises(kind, match="a sentence"):
                children.run({"say": json.dumps({"error": [name, "a sentence"]})}, Event())

    def test_a_process_that_breaks_off_is_an_error_and_the_next_one_works(self, children: Children) -> None:
        for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT):
            with pytest.raises(OverLimitError, match="broke off"):
                children.run({"signal": number}, Event())
        for job in ({"exit": 1}, {"say": "no JSON"}, {"say": "[]"}, {"say": "7"}, {"say": '{"error": 7}'}):
            with pytest.raises(FatalError):
                children.run(job, Event())
        with pytest.raises(OverLimitError, match="more than 8 MiB to say"):
            children.run({"say": "x" * (8 << 20)}, Event())
        assert children.run({"x": "x" * (4 << 20)}, Event())["job"]
        assert children.run({}, Event())["job"]

    def test_a_process_is_ended_at_its_time(self, children: Children) -> None:
        began = time.monotonic()
        with pytest.raises(OverLimitError, match=f"after {SECONDS} s"):
            children.run({"sleep": 60}, Event())
        assert SECONDS <= time.monotonic() - began < SECONDS + 2

    def test_a_process_is_ended_when_nobody_waits(self, children: Children) -> None:
        gone, began = Event(), time.monotonic()
        Timer(0.5, gone.set).start()
        with pytest.raises(OverLimitError, match="nobody waits"):
            children.run({"sleep": 60}, gone)
        assert time.monotonic() - began < 2

    def test_more_than_may_be_are_told_to_come_back(self, children: Children) -> None:
        gone = [Event(), Event()]
        with ThreadPoolExecutor(2) as pool:
            running = [pool.submit(children.run, {"sleep": 60}, one) for one in gone]
            while not all(one.running() for one in running):
                time.sleep(0.01)
            time.sleep(0.2)
            with pytest.raises(TooManyError) as raised:
                children.run({}, Event())
            assert raised.value.seconds > 0
            for one in gone:
                one.set()
            for task in running:
                with pytest.raises(OverLimitError):
                    task.result()
        assert children.run({}, Event())["job"]
