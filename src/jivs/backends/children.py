"""Processes of this machine, one for each job, without the memory, the environment and the fate of the one that asks."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from threading import BoundedSemaphore, Event
from time import monotonic
from typing import Any, BinaryIO, Self

from jivs import errors
from jivs.backends.forks import ENDING_SECONDS, Fork, Forks, beside
from jivs.errors import DamagedError, FatalError, JivsError, OverLimitError, TooManyError
from jivs.ports.children import ANSWER, FAILED, REQUEST, Read

_LONGEST = 8 << 20
"""Bytes that a process may say, where nothing else is said."""

_LARGEST_PART = 256 << 20
"""Bytes that a process gets at once."""

_IDLE = 60.0

_BACK = 5
"""Seconds after which another job may find a place."""


class ChildProcesses:
    """``main()`` of a module in a fork of a process that has loaded it, with the job as JSON on its standard input and what
    it says on its standard output.

    ``what`` names a job in messages, ``otherwise`` says what else can be done. ``fixed`` is part of every job.
    ``environment``: none given for that of this process. ``longest``: bytes that a process may say. ``idle``: seconds
    without a job after which what was loaded is let go.
    """

    def __init__(
        self,
        module: str,
        *,
        what: str,
        otherwise: str,
        seconds: int,
        concurrent: int,
        fixed: Mapping[str, Any] | None = None,
        environment: Mapping[str, str] | None = None,
        longest: int = _LONGEST,
        idle: float = _IDLE,
    ) -> None:
        self._forks = Forks(module, what, environment, idle)
        self._what = what
        self._otherwise = otherwise
        self._seconds = seconds
        self._free = BoundedSemaphore(concurrent)
        self._fixed = {**(fixed or {}), "seconds": seconds}
        self._longest = longest

    def run(
        self, job: Mapping[str, Any], gone: Event, out: BinaryIO | None = None, read: Read | None = None
    ) -> dict[str, Any]:
        if not self._free.acquire(blocking=False):
            raise TooManyError(f"As many as may be are at work on a {self._what}: try again in a moment.", seconds=_BACK)
        try:
            if read is None:
                return self._run({**job, **self._fixed}, gone, [] if out is None else [out.fileno()])
            assert out is not None
            with _Reading(read) as reading:
                try:
                    return self._run({**job, **self._fixed}, gone, [out.fileno(), reading.theirs.fileno()])
                except JivsError as error:
                    raise (reading.failure or error) from None
        finally:
            gone.set()
            self._free.release()

    def _run(self, job: dict[str, Any], gone: Event, passed: Sequence[int]) -> dict[str, Any]:
        until = monotonic() + self._seconds
        said: bytes | None = b""
        code = None
        fork = self._forks.fork(passed, gone, until)
        if fork:
            with fork:
                beside(f"end of {self._what}", self._end, fork, gone, until)
                said, code = fork.exchange(json.dumps(job).encode(), self._longest)
        if said is None:
            raise OverLimitError(f"The {self._what} had more than {self._longest >> 20} MiB to say: {self._otherwise}")
        if code == 0:
            return _understood(said, self._what)
        if code == -signal.SIGXCPU or (fork.late if fork else not gone.is_set()):
            raise OverLimitError(f"The {self._what} was ended after {self._seconds} s: {self._otherwise}")
        if gone.is_set():
            raise OverLimitError(f"The {self._what} was ended, for nobody waits for it any more.")
        if code is None:
            raise OverLimitError(f"The process of the {self._what} was ended: try again.")
        if code > 0:
            raise FatalError(f"The process of a {self._what} failed.", detail=f"exit code {code}")
        raise OverLimitError(f"The process of the {self._what} broke off, for want of memory most likely: {self._otherwise}")

    def _end(self, fork: Fork, gone: Event, until: float) -> None:
        fork.late = not gone.wait(max(0.0, until - monotonic()))
        fork.end()
        if not fork.over.wait(ENDING_SECONDS):
            fork.lose()
            if not fork.struck:
                self._forks.kill(fork.stem)  # it hangs, or the fork would be dead or waiting for a disk


class _Reading:
    """Reads files for a process that asks over ``theirs``, in a thread. ``failure``: what kept it from one."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._ours, self.theirs = socket.socketpair()
        self.failure: JivsError | None = None

    def __enter__(self) -> Self:
        beside("files of a query", self._serve)
        return self

    def __exit__(self, *_: object) -> None:
        self.theirs.close()
        with suppress(OSError):  # nobody asks any more
            self._ours.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        with self._ours, suppress(OSError):
            asked = self._ours.makefile("rb")
            while len(head := asked.read(REQUEST.size)) == REQUEST.size:
                length, start, count = REQUEST.unpack(head)
                path = asked.read(length).decode(errors="replace")
                data = self._bytes(path, start, count)
                self._ours.sendall(ANSWER.pack(FAILED if data is None else len(data)))
                self._ours.sendall(data or b"")

    def _bytes(self, path: str, start: int, count: int) -> bytes | None:
        try:
            return self._read(path, start, min(count, _LARGEST_PART))
        except JivsError as error:
            self.failure = self.failure or error
        except (OSError, ValueError) as error:
            self.failure = self.failure or DamagedError(
                "A file of the archive cannot be read: verify the archive.", detail=repr(error)
            )
        except Exception as error:
            self.failure = self.failure or FatalError("A file of the archive could not be read.", detail=repr(error))
        return None


def _understood(said: bytes, what: str) -> dict[str, Any]:
    """What a process said; an error that it met is raised here."""
    try:
        answer: dict[str, Any] = json.loads(said)
        name, message = answer.get("error") or ("", "")
    except (ValueError, AttributeError, TypeError) as error:
        raise FatalError(f"The process of a {what} said nothing that can be understood.", detail=repr(error)) from None
    if not name:
        return answer
    kind = getattr(errors, str(name), None)
    if not (isinstance(kind, type) and issubclass(kind, JivsError)):
        kind = FatalError
    raise kind(str(message))
