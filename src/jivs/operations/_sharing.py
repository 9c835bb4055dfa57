"""Partitions that several readers read: whoever has nothing left to claim takes slices from the end of what others read."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from jivs.archive.writer import SegmentWriter
from jivs.domain.plan import Bounds

Take = Callable[[], Bounds | None]
"""The next slice; None: there is none."""


class CancelledError(Exception):
    """The partition is being given up: another of its readers failed."""


class Share:
    """What one reader is at, and what is left of it for others."""

    def __init__(self, changed: threading.Condition, expected: set[Share]) -> None:
        self._changed = changed
        self._expected = expected
        self._helpers = 0
        self._writers: list[SegmentWriter] = []
        self._error: BaseException | None = None
        self._limit = self._size = self._total = 0
        self.left: deque[Bounds] = deque()
        self.cancelled = False
        self._drain: Callable[[Take], SegmentWriter] | None = None

    def offer(self, slices: Sequence[Bounds], drain: Callable[[Take], SegmentWriter], limit: int) -> None:
        """Begin a partition. ``drain`` writes the slices that it is given; others get some when, by what was read so far,
        the partition has more than ``limit`` bytes.
        """
        with self._changed:
            self._limit, self._size, self._total = limit, 0, len(slices)
            self.left, self._drain, self.cancelled = deque(slices), drain, False
            self._writers, self._error = [], None
            self._expected.add(self)
            self._changed.notify_all()

    def grew(self, size: int) -> None:
        """So many bytes were read."""
        before = self.heavy
        self._size += size
        if self.heavy and not before:
            with self._changed:
                self._changed.notify_all()

    @property
    def heavy(self) -> bool:
        """Whether the partition is worth sharing."""
        return self._size * self._total > self._limit * (self._total - len(self.left))

    def first(self) -> Bounds | None:
        """The next slice for the partition's own reader."""
        return self._take(self.left.popleft)

    def last(self) -> Bounds | None:
        """The next slice for a helper."""
        return self._take(self.left.pop)

    def _take(self, take: Take) -> Bounds | None:
        with self._changed:
            found = take() if self.left else None
            if not self.left:
                self._expected.discard(self)
                self._changed.notify_all()
            return found

    def require(self) -> None:
        """Raises CancelledError if the partition is being given up."""
        if self.cancelled:
            raise CancelledError

    def joined(self) -> list[SegmentWriter]:
        """What helpers wrote, when the last of them is done. Raises what stopped one of them."""
        with self._changed:
            self._changed.wait_for(lambda: not self._helpers)
        if self._error is not None:
            raise self._error
        return self._writers

    def cancel(self) -> None:
        """Nothing is left; helpers end as soon as they can, and then this returns."""
        with self._changed:
            self.cancelled = True
            self.left.clear()
            self._expected.discard(self)
            self._changed.notify_all()
            self._changed.wait_for(lambda: not self._helpers)

    def help(self) -> None:
        """Write slices from the end. An error is for the partition's reader."""
        assert self._drain is not None
        writer, failure = None, None
        try:
            writer = self._drain(self.last)
        except BaseException as error:
            failure = error
        with self._changed:
            self._helpers -= 1
            if writer is not None:
                self._writers.append(writer)
            else:
                if not isinstance(failure, CancelledError):
                    self._error = self._error or failure
                self.cancelled = True
                self.left.clear()
                self._expected.discard(self)
            self._changed.notify_all()

    def joins(self) -> None:
        """Count a helper; the caller holds the lock."""
        self._helpers += 1


class Offers:
    """What the readers of a run are at."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._expected: set[Share] = set()

    @contextmanager
    def at_work(self) -> Iterator[Share]:
        """A reader claims and reads; as long as it may still offer something, others wait for it."""
        share = Share(self._changed, self._expected)
        with self._changed:
            self._expected.add(share)
        try:
            yield share
        finally:
            share.cancel()

    def wait(self) -> Share | None:
        """The share with the most left, to ``help`` with; None when none is left and none will come."""
        with self._changed:
            while True:
                if not self._expected:
                    return None
                heavy = [share for share in self._expected if share.left and share.heavy]
                if heavy:
                    share = max(heavy, key=lambda one: len(one.left))
                    share.joins()
                    return share
                self._changed.wait()
