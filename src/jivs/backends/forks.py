"""Forks of a process that has loaded a module (``stem``), as the one sees them who asks for them."""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from threading import Event, Lock, Thread
from time import monotonic
from types import TracebackType
from typing import BinaryIO, Self

from jivs.backends.stem import LIFE, STRUCK
from jivs.errors import FatalError, TooManyError

ENDING_SECONDS = 5.0
"""In which a fork ends that was killed, and a stem that was closed or killed; what takes longer hangs."""

_LOADING_SECONDS = 30.0
"""In which a stem has loaded what it has to, and answers; after that it hangs, and another one is started."""

_LOOK_MS = 100
_BACK = 5
"""Seconds after which there may be room for another process."""

_SCARCE = {errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.ETOOMANYREFS}
_ENDED = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.ECONNREFUSED, errno.EBADF}
_PART = 1 << 16
_KILLED = -9


class Forks:
    """``module``: what is loaded, and whose ``main`` a fork executes; ``what`` names that in messages. ``environment``: none
    given for that of this process, and its folder. The process of which they are forks begins when one is asked for, and
    ends when none was for ``idle`` seconds.
    """

    def __init__(self, module: str, what: str, environment: Mapping[str, str] | None, idle: float) -> None:
        self._module = module
        self._idle = idle
        self._what = what
        self._environment = environment
        self._lock = Lock()
        self._stem: subprocess.Popen[bytes] | None = None
        self._channel: socket.socket | None = None

    def fork(self, passed: Sequence[int], gone: Event, until: float) -> Fork | None:
        """A new process, which has these descriptors besides; None if that is not wanted any more, or takes too long. Raises
        TooManyError where the system allows no more, or ends it again and again, FatalError where what it needs cannot be
        loaded.
        """
        for last in (False, True):
            with ExitStack() as undone:
                try:
                    made = undone.enter_context(Fork())
                    stem = self._ask([*made.theirs, *passed])
                    made.give()
                    pid = made.begun(gone, min(until, monotonic() + _LOADING_SECONDS))
                except OSError as error:
                    if error.errno in _SCARCE:
                        raise _no_more(str(error.strerror)) from None
                    raise FatalError(f"The process of a {self._what} cannot be started.", detail=repr(error)) from error
                if pid:
                    made.stem = stem
                    undone.pop_all()
                    return made
            if pid == 0:
                raise _no_more("a fork was refused")
            if monotonic() >= until:
                self.kill(stem)
                return None
            if gone.is_set():
                return None
            code = self._ended(stem)
            if code > 0:
                raise FatalError(f"The process of a {self._what} cannot be started.", detail=f"exit code {code}")
            if last:
                raise TooManyError(
                    f"The process of a {self._what} was ended while it was made ready: try again in a moment.", seconds=_BACK
                )
        raise AssertionError

    def kill(self, stem: subprocess.Popen[bytes]) -> None:
        """End one that hangs, and its forks with it; the next one is another."""
        stem.kill()
        self._ended(stem)

    def _ask(self, given: Sequence[int]) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._channel is not None and self._stem is not None:
                try:
                    socket.send_fds(self._channel, [b"1"], given)
                except OSError as error:
                    if error.errno not in _ENDED:
                        raise
                    self._channel.close()  # nothing was asked of it for a while
                else:
                    return self._stem
            self._stem, self._channel = self._start()
            try:
                socket.send_fds(self._channel, [b"1"], given)
            except OSError as error:
                if error.errno not in _ENDED:  # it has ended already, and is asked how later
                    raise
            return self._stem

    def _start(self) -> tuple[subprocess.Popen[bytes], socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            given = [self._module, str(theirs.fileno()), str(round(self._idle * 1000))]
            stem = subprocess.Popen(  # noqa: S603 - our own interpreter and module
                [sys.executable, "-P", "-m", "jivs.backends.stem", *given],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env=self._environment,
                pass_fds=[theirs.fileno()],
                cwd=None if self._environment is None else "/",
            )
        try:
            beside(f"end of {self._what} forks", stem.wait)
        except TooManyError:
            ours.close()
            stem.kill()
            stem.wait()
            raise
        return stem, ours

    def _ended(self, stem: subprocess.Popen[bytes]) -> int:
        """The exit code of one that nobody asks any more: whatever it hangs in, it ends now."""
        with self._lock:
            if self._stem is stem and self._channel is not None:
                self._channel.close()
                self._channel = self._stem = None
        for _ in range(2):
            with suppress(subprocess.TimeoutExpired):
                return stem.wait(ENDING_SECONDS)
            stem.kill()
        return _KILLED  # it will be, when the disk for which it waits has answered


class Fork:
    """A process with a job, or one that is about to begin. ``late``: it was ended at its time. ``struck``: its stem is well,
    and has killed it. Raises OSError where there are no descriptors left for one.
    """

    stem: subprocess.Popen[bytes]
    late = False
    struck = False
    _lost = False

    def __init__(self) -> None:
        self.over = Event()
        self._lock = Lock()
        with ExitStack() as opened:
            hears, self._stdin = _pipe(opened)
            self._stdout, says = _pipe(opened)
            self._life, life = map(opened.enter_context, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
            self._theirs = (life, hears, says)
            self._open = opened.pop_all()

    @property
    def theirs(self) -> list[int]:
        """Descriptors: what tells of its life, its standard input and output."""
        return [one.fileno() for one in self._theirs]

    def give(self) -> None:
        """It has its own ends now."""
        for one in self._theirs:
            one.close()

    def begun(self, gone: Event, until: float) -> int | None:
        """Wait for its id: 0 if the system allows no more, None if whoever was asked has ended, or nobody waits any more."""
        ready = select.poll()
        ready.register(self._life, select.POLLIN)
        while not ready.poll(_LOOK_MS):
            if gone.is_set() or monotonic() >= until:
                return None
        return self._hear()

    def exchange(self, job: bytes, longest: int) -> tuple[bytes | None, int | None]:
        """Give it its job, and hear what it says until it has ended: that, None for ``longest`` bytes or more; and its exit
        code, negative for a signal, None if nobody can tell.
        """
        stdin, stdout, left, heard = self._stdin.fileno(), self._stdout.fileno(), memoryview(job), bytearray()
        ready, code = select.poll(), None
        for number, event in ((stdin, select.POLLOUT), (stdout, select.POLLIN), (self._life.fileno(), select.POLLIN)):
            os.set_blocking(number, False)
            ready.register(number, event)
        while not self._lost:
            numbers = {number for number, _ in ready.poll(_LOOK_MS * 10)}
            if stdin in numbers:
                with suppress(BrokenPipeError):  # it has ended, or hears no more
                    left = left[os.write(stdin, left[:_PART]) :]
                    numbers.discard(stdin)
                if stdin in numbers or not left:
                    ready.unregister(stdin)
                    self._stdin.close()
            if stdout in numbers and not _read(stdout, heard, longest):
                ready.unregister(stdout)
                if len(heard) >= longest:
                    self.end()
            if self._life.fileno() in numbers:
                code = self._hear()
                if code != STRUCK:
                    break
                self.struck = True
        while _read(stdout, heard, longest):
            pass
        return bytes(heard) if len(heard) < longest else None, None if self._lost else code

    def end(self) -> None:
        """As SIGKILL does, if it has not ended."""
        with self._lock, suppress(OSError):
            if not self.over.is_set():
                self._life.shutdown(socket.SHUT_WR)

    def lose(self) -> None:
        """Wait for it no longer: who knew of it was killed, and it may have been stopped before it could end with that."""
        self._lost = True

    def close(self) -> None:
        """End it, if it has not ended."""
        with self._lock:
            self.over.set()
            self._open.close()

    def _hear(self) -> int | None:
        said = b""
        with suppress(OSError):
            said = self._life.recv(LIFE.size)
        return int(LIFE.unpack(said)[0]) if said else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def beside(name: str, work: Callable[..., object], *given: object) -> None:
    """Let a thread do it. Raises TooManyError where the system allows no more."""
    try:
        Thread(target=work, args=given, name=name, daemon=True).start()
    except RuntimeError as error:
        raise _no_more(str(error)) from None


def _no_more(why: str) -> TooManyError:
    return TooManyError(f"The system allows no more processes or files ({why}): try again in a moment.", seconds=_BACK)


def _pipe(opened: ExitStack) -> tuple[BinaryIO, BinaryIO]:
    hears, says = os.pipe()
    return opened.enter_context(os.fdopen(hears, "rb", buffering=0)), opened.enter_context(
        os.fdopen(says, "wb", buffering=0)
    )


def _read(number: int, heard: bytearray, longest: int) -> bool:
    """Whether there may be more to hear."""
    try:
        part = os.read(number, _PART)
    except BlockingIOError:
        return False
    heard += part
    return bool(part) and len(heard) < longest
