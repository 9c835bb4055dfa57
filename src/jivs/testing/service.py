"""A real ``jivs serve`` or ``jivs worker`` on free ports of loopback, with a state folder of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

import httpx


class ServiceProcess:
    """Use as a context manager. ``password`` is that of the first user, if this start made one. Unless ``settings`` say
    otherwise, its ports are free ones and it opens few connections. ``arguments`` of ``jivs``: ``serve`` if none are given,
    which executes runs, too, unless there are no ``workers``: that starts in two thirds of the time.
    ``inside``: a command that starts another where that is to live.
    """

    def __init__(
        self, state: Path, *arguments: str, inside: Sequence[str] = (), workers: bool = True, **settings: str
    ) -> None:
        self.state = state
        self._inside = list(inside)
        self._arguments = list(arguments or ("serve", "--port", "0", "--workers" if workers else "--no-workers"))
        self.url = ""
        self.management = ""
        self.password = ""
        self.printed: list[str] = []
        self._settings = {"MANAGEMENT_PORT": "0", "HIKARI_MAXIMUM_POOL_SIZE": "6", **settings}
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def process(self) -> subprocess.Popen[str]:
        """The running process."""
        assert self._process is not None
        return self._process

    def start(self) -> None:
        """Start it and wait until it listens. Raises RuntimeError with what it printed if it ends instead."""
        given = [f"{name}={value}" for name, value in self._settings.items()]
        command = ["env", f"XDG_STATE_HOME={self.state}", *given, sys.executable, "-m", "jivs", *self._arguments]
        self._process = subprocess.Popen([*self._inside, *command], stderr=subprocess.PIPE, text=True)
        worker = self._arguments == ["worker"]
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.printed.append(line)
            if match := re.match(r"First user: admin, password: (\S+)", line):
                self.password = match[1]
            if match := re.search(r'Management is at (http[^\s"]+)', line):
                self.management = match[1]
            if match := re.search(r'JiVS is at (http[^\s"]+)', line):
                self.url = match[1]
            if match or (worker and self.management):
                threading.Thread(target=self._listen, daemon=True).start()
                return
        raise RuntimeError("".join(self.printed))

    def _listen(self) -> None:
        assert self._process is not None
        assert self._process.stderr is not None
        self.printed.extend(self._process.stderr)

    def parts(self, called: str) -> list[int]:
        """Its processes that lists of processes call so: ``jivs api``, ``jivs management``, ``jivs dispatcher``."""
        pid = self.process.pid
        found = []
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended, and so has each of them
            for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
                with suppress(FileNotFoundError, ProcessLookupError):
                    if Path(f"/proc/{child}/comm").read_text().strip() == called:
                        found.append(child)
        return found

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """A client that is logged in as the first user."""
        with httpx.Client(base_url=self.url, timeout=60) as client:
            answer = client.post("/api/v1/auth/login", json={"username": "admin", "password": self.password})
            client.headers["Authorization"] = f"Bearer {answer.json()['accessToken']}"
            yield client

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM, and its exit code."""
        self.process.terminate()
        return self.process.wait(timeout=60)
