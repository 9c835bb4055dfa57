"""A network of our own that can be cut without a word: servers on one side of it, each worker on another.

Made of network namespaces, so that packets are lost as on a wire. Needs to be root, or a system that lets users make
namespaces, and ``ip`` of iproute2.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Self

from jivs.testing.servers import PASSWORD, PostgresServer, wait_for

SERVERS = {"catalog": "10.77.8.1", "source": "10.77.9.1"}
"""The addresses of the servers' side, by what is asked for there: each has a wire of its own to each other side."""


class Network:
    """A context manager. ``sides``: how many there are beside that of the servers; they are counted from 1."""

    def __init__(self, sides: int) -> None:
        self._count = sides
        self._root = os.geteuid() == 0
        self._pids: list[int] = []
        self._shell: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        apart = ["--net"] if self._root else ["--user", "--map-current-user", "--keep-caps", "--net"]
        self._shell = subprocess.Popen(
            ["unshare", *apart, "sh"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self._pids = [self._shell.pid]
        self._do("ip link set lo up", *(f"ip address add {address}/32 dev lo" for address in SERVERS.values()))
        for side in range(1, self._count + 1):
            self._add(side)
        return self

    def __exit__(self, *_: object) -> None:
        for pid in reversed(self._pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self._shell is not None:
            self._shell.communicate()

    def _do(self, *commands: str) -> str:
        """Run them on the servers' side; what they printed. Raises RuntimeError with that if one fails."""
        assert self._shell is not None
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{{ {' && '.join(commands)}; }} 2>&1; echo done $?\n")
        self._shell.stdin.flush()
        said = ""
        for line in self._shell.stdout:
            if line.startswith("done "):
                if line != "done 0\n":
                    break
                return said
            said += line
        raise RuntimeError(f"{commands}: {said}")

    def _add(self, side: int) -> None:
        pid = int(self._do("{ unshare --net sleep infinity > /dev/null 2>&1 & echo $!; }"))
        self._pids.append(pid)
        mine = Path(f"/proc/{self._pids[0]}/ns/net").readlink()
        wait_for(lambda: Path(f"/proc/{pid}/ns/net").readlink() != mine, 10)
        there = f"nsenter --target {pid} --net"
        self._do(f"{there} ip link set lo up")
        for number, (name, address) in enumerate(SERVERS.items()):
            near, far, wire = f"10.77.{16 * side + number}.1", f"10.77.{16 * side + number}.2", f"{name}{side}"
            self._do(
                f"ip link add {wire} type veth peer name {wire} netns {pid}",
                f"ip address add {near}/24 dev {wire}",
                f"ip link set {wire} up",
                f"{there} ip address add {far}/24 dev {wire}",
                f"{there} ip link set {wire} up",
                f"{there} ip route add {address} via {near}",
            )

    def inside(self, side: int = 0) -> list[str]:
        """Before a command: it lives on that side, as the same user; 0 is the servers'."""
        user = [] if self._root else ["--user", "--preserve-credentials"]
        return ["nsenter", "--target", str(self._pids[side]), *user, "--net"]

    def cut(self, side: int, name: str) -> None:
        """From now on all packets between that side and the server of this name are lost."""
        self._do(f"ip link set {name}{side} down")

    def heal(self, side: int, name: str) -> None:
        """No longer."""
        self._do(f"ip link set {name}{side} up")


class FarPostgres(PostgresServer):
    """PostgreSQL on the servers' side of a network; from outside it is reached by its socket in the file system."""

    def __init__(self, network: Network) -> None:
        super().__init__(listen_addresses=",".join(SERVERS.values()))
        self._network = network
        with (self.data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all 10.77.0.0/16 scram-sha-256\n")

    def full_command(self) -> list[str]:
        return [*self._network.inside(), *super().full_command()]

    def url(self, database: str, password: str = PASSWORD) -> str:
        return f"postgresql://jivs:{password}@/{database}?host={self.folder}&port={self.port}"

    def far(self, name: str, database: str) -> str:
        """The URL of a database on the sides of the network, over the wire of this name."""
        return f"postgresql://jivs:{PASSWORD}@{SERVERS[name]}:{self.port}/{database}"
