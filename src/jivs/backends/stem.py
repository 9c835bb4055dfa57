"""``python -m jivs.backends.stem MODULE SOCKET IDLE``: a process that has loaded a module, and forks for each job.

Loading takes ten times as long as most jobs do. This process does nothing else, and knows nothing of any job: a fork has its
own pipes, and nothing of others. Over ``SOCKET`` come the descriptors of a job: a socket that tells of its life (``LIFE``),
standard input and output, and what it needs besides. Whoever shuts or closes his end of that socket ends the fork. When
nothing was asked for ``IDLE`` milliseconds, it ends itself: it takes as much memory as what it has loaded.
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import struct
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

from jivs.backends import processes
from jivs.logs import call_process

LIFE = struct.Struct(">i")
"""What is said of a fork: when it begins its id, or 0 if the system allows no more; ``STRUCK`` when it was killed; when it
has ended its exit code, negative for a signal.
"""

STRUCK = 1 << 30
"""No exit code: whoever says it is well, and what does not end now waits for a disk."""

_MOST_GIVEN = 8


def main() -> int:
    """Load the module and what it says that its jobs ``load``, and be what forks; in a fork, its ``main``."""
    name, channel = sys.argv[1], socket.socket(fileno=int(sys.argv[2]))
    warnings.filterwarnings("ignore", ".* is multi-threaded", DeprecationWarning)  # Arrow's thread, which no fork needs
    interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who asks
    call_process("jivs forks")
    module = import_module(name)
    getattr(module, "load", lambda: None)()
    gc.freeze()  # or looking at it would copy what is shared
    given = _Stem(channel, int(sys.argv[3])).serve()
    if given is None:
        return 0
    signal.signal(signal.SIGINT, interrupted)
    call_process(f"jivs {name.rpartition('.')[2].removesuffix('_child')}")
    job: Any = sys.stdin.buffer
    if not job.peek(1):
        os._exit(0)  # who asked has ended before he could say what
    sys.argv = [name, *map(str, given)]
    work: Callable[[], int] = module.main
    code = work()
    sys.stdout.flush()
    os._exit(code)  # taking apart what was loaded would take longer than most jobs


class _Stem:
    def __init__(self, channel: socket.socket, idle: int) -> None:
        self._channel = channel
        self._idle = idle
        self._forks: dict[int, socket.socket] = {}
        self._asking: dict[int, int] = {}
        self._died, woken = socket.socketpair()
        self._died.setblocking(False)
        woken.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # whoever started us may ignore it
        signal.set_wakeup_fd(woken.detach(), warn_on_full_buffer=False)
        self._ready = select.poll()
        for one in (channel, self._died):
            self._ready.register(one, select.POLLIN)

    def serve(self) -> list[int] | None:
        """Fork whenever asked. In a fork, the descriptors that it has besides; None where nobody asks any more."""
        while found := self._ready.poll(None if self._forks else self._idle):
            numbers = {number for number, _ in found}
            for number in numbers & self._asking.keys():
                self._end(number)
            if self._died.fileno() in numbers:
                self._bury()
            if self._channel.fileno() in numbers:
                asked, given, flags, _ = socket.recv_fds(self._channel, 1, _MOST_GIVEN)
                if not asked:
                    return None
                if flags & socket.MSG_CTRUNC:
                    _refuse(given)
                elif self._fork(given):
                    return given[3:]
        return None

    def _fork(self, given: list[int]) -> bool:
        """Whether this is the fork."""
        asking, stdin, stdout, *others = given
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError:
            pid = -1
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            processes.end_with(parent)
            os.dup2(stdin, 0)
            os.dup2(stdout, 1)
            for one in (self._channel, self._died, *self._forks.values()):
                one.detach()
            processes.keep_open(0, 1, 2, *others)
            return True
        for number in (stdin, stdout, *others):
            os.close(number)
        life = socket.socket(fileno=asking)
        with suppress(OSError):  # nobody waits for it any more: the next look ends it
            life.send(LIFE.pack(max(0, pid)))
        if pid > 0:
            self._forks[pid], self._asking[asking] = life, pid
            self._ready.register(life, select.POLLIN)
        else:
            life.close()
        return False

    def _end(self, asking: int) -> None:
        """Nobody waits for a fork any more."""
        self._ready.unregister(asking)
        pid = self._asking.pop(asking)
        os.kill(pid, signal.SIGKILL)  # it is ours until we ask how it ended
        with suppress(OSError):
            self._forks[pid].send(LIFE.pack(STRUCK))

    def _bury(self) -> None:
        with suppress(BlockingIOError):
            self._died.recv(1 << 12)
        for pid in list(self._forks):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            with self._forks.pop(pid) as life:
                if self._asking.pop(life.fileno(), None) is not None:
                    self._ready.unregister(life)
                with suppress(OSError):
                    life.send(LIFE.pack(os.waitstatus_to_exitcode(status)))


def _refuse(given: list[int]) -> None:
    """There was no room for all descriptors of a job."""
    if given:
        with socket.socket(fileno=given[0]) as life, suppress(OSError):
            life.send(LIFE.pack(0))
    for number in given[1:]:
        os.close(number)


if __name__ == "__main__":
    sys.exit(main())
