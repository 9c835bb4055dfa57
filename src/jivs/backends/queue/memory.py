"""A doorbell between the threads of a process."""

from __future__ import annotations

import threading
from collections import deque

_MOST = 1000


class MemoryQueue:
    """Keeps the newest thousand messages."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._messages: deque[str] = deque(maxlen=_MOST)
        self._closed = False

    def publish(self, run_id: str) -> None:
        with self._changed:
            self._messages.append(run_id)
            self._changed.notify()

    def wait(self, seconds: float) -> str | None:
        with self._changed:
            self._changed.wait_for(lambda: self._messages or self._closed, seconds)
            return self._messages.popleft() if self._messages and not self._closed else None

    def healthy(self) -> bool:
        return True

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
