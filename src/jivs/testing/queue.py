"""What every adapter of ``ports.queue`` promises."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from jivs.ports.queue import Queue

SOON = 5.0


class QueueSuite:
    """For every Queue. A bell without names gives "" for every run."""

    @pytest.fixture
    def bell(self) -> Queue:
        """Where runs are published."""
        raise NotImplementedError  # whoever uses the suite gives it

    @pytest.fixture
    def ear(self) -> Queue:
        """Where somebody waits: another process's end of the same bell, if there can be one."""
        raise NotImplementedError  # whoever uses the suite gives it

    def test_a_ring_is_heard(self, bell: Queue, ear: Queue) -> None:
        for run in ("r1", "größe"):
            bell.publish(run)
            assert ear.wait(SOON) in {run, ""}
        assert ear.wait(0) is None

    def test_it_wakes_who_waits(self, bell: Queue, ear: Queue) -> None:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(ear.wait, 30)
            time.sleep(0.3)
            assert not waiting.done()
            bell.publish("r1")
            assert waiting.result(SOON) in {"r1", ""}

    def test_it_is_quiet_when_nobody_rings(self, ear: Queue) -> None:
        began = time.monotonic()
        assert ear.wait(0.3) is None
        assert 0.25 < time.monotonic() - began < 1.3
        assert ear.wait(0) is None

    def test_each_ring_is_heard_by_one(self, bell: Queue, ear: Queue) -> None:
        runs = [f"r{number}" for number in range(50)]
        heard: list[str] = []

        def listen() -> None:
            while (run := ear.wait(1)) is not None:
                heard.append(run)

        threads = [threading.Thread(target=listen) for _ in range(4)]
        for thread in threads:
            thread.start()
        for run in runs:
            bell.publish(run)
        for thread in threads:
            thread.join()
        assert sorted(heard) == sorted(runs) or set(heard) == {""}

    def test_what_was_heard_is_heard_once(self, bell: Queue, ear: Queue) -> None:
        bell.publish("r1")
        assert ear.wait(SOON) is not None
        ear.close()
        assert bell.wait(0.3) is None

    def test_nobody_at_work_holds_a_message(self, bell: Queue, ear: Queue) -> None:
        """One who stops waiting, in whatever moment, leaves what it has not heard to others who wait."""
        runs = [f"r{number}" for number in range(200)]
        heard: list[str | None] = []

        def ring() -> None:
            for run in runs:
                bell.publish(run)
                time.sleep(0.005)

        ringing = threading.Thread(target=ring)
        ringing.start()
        while ringing.is_alive():
            heard.append(ear.wait(0.003))
        while (run := bell.wait(0.5)) is not None:
            heard.append(run)
        ringing.join()
        found = [run for run in heard if run is not None]
        assert sorted(found) == sorted(runs) or set(found) == {""}

    def test_ringing_is_quick_however_much_is_unheard(self, bell: Queue) -> None:
        began = time.monotonic()
        for number in range(100_000):
            bell.publish(f"r{number}")
        assert time.monotonic() - began < 5

    def test_an_end_lets_go_who_waits(self, ear: Queue) -> None:
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(ear.wait, 30)
            time.sleep(0.2)
            assert ear.healthy()
            ear.close()
            assert waiting.result(2) is None
        assert ear.wait(0) is None
        ear.publish("r1")
        ear.close()
