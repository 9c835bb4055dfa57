"""Where the service may connect to and what it may read: users choose addresses, operators choose limits."""

from __future__ import annotations

import ipaddress
import re
import socket
from dataclasses import replace
from pathlib import Path

from jivs.domain.guard import Guard
from jivs.domain.source import Address
from jivs.errors import ForbiddenError, UnreachableError, UsageError

_NEVER = tuple(
    map(
        ipaddress.ip_network,
        ("0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/4", "240.0.0.0/4", "::/128", "fe80::/10", "ff00::/8", "fd00:ec2::254/128",
         "100.100.100.200/32", "168.63.129.16/32"),
    )
)  # fmt: skip
"""This host as nobody, link-local (the metadata endpoints of clouds), multicast, reserved, and metadata elsewhere."""

_LAST_32_BITS = tuple(map(ipaddress.ip_network, ("::/96", "64:ff9b::/96", "64:ff9b:1::/48")))
"""Networks whose addresses end with one of IPv4: as it was once written, and behind NAT64 (RFC 4291, 6052, 8215)."""

_LOOPBACK = ipaddress.IPv6Address("::1")
_FILES = frozenset({"file", "sqlite"})
_PATH_OPTIONS = ("cert", "key", "ca", "crl", "file")
_PATTERN = re.compile(r"[*?\[]")


def checked(guard: Guard, address: Address) -> Address:
    """The address with what its host's name stands for now, all of which is allowed; connect to that, and ask no more.

    Raises ForbiddenError naming the setting that would allow it, UnreachableError for a name that is none.
    """
    for name, value in address.options.items():
        if (name.endswith(_PATH_OPTIONS) or ("/" in value and len(value) > 1)) and value not in {"", "system"}:
            _check_path(guard, value)
    if address.scheme in _FILES:
        _check_path(guard, address.database)
        return replace(address, roots=tuple(map(str, guard.roots)))
    return replace(address, pinned=_check_host(guard, address))


def _check_path(guard: Guard, path: str) -> None:
    if "\x00" in path or not Path(path).is_absolute():
        raise UsageError("Write the path from the root on: file:///data/file.csv, sqlite:////data/file.db.")
    fixed = Path(_PATTERN.split(path, maxsplit=1)[0] + "x").parent if _PATTERN.search(path) else Path(path)
    if ".." in Path(path).parts or not any(fixed.resolve().is_relative_to(root.resolve()) for root in guard.roots):
        raise ForbiddenError(
            "Files are read only below the folders that the operator allows: put it there, or have JIVS_FILE_ROOTS set."
        )


def _check_host(guard: Guard, address: Address) -> str:
    if not address.host or address.host.startswith("/") or "," in address.host:
        raise UsageError("Name one host: sockets of this machine and lists of hosts are not for sources of the service.")
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise UnreachableError(f"There is no host {address.host}: check its name.") from None
    for *_, place in found:
        _check_ip(guard, ipaddress.ip_address(str(place[0]).partition("%")[0]), address)
    return str(found[0][-1][0])


def _plain(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The IPv4 address to which packets for this one may go in the end."""
    if ip.version == 4 or ip == _LOOPBACK:
        return ip
    if any(ip in network for network in _LAST_32_BITS):
        return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    return ip.ipv4_mapped or ip.sixtofour or (ip.teredo or (ip, ip))[1]


def _check_ip(guard: Guard, ip: ipaddress.IPv4Address | ipaddress.IPv6Address, address: Address) -> None:
    plain = _plain(ip)
    never = any(one.version == network.version and one in network for network in _NEVER for one in (ip, plain))
    allowed = not guard.networks or any(plain.version == network.version and plain in network for network in guard.networks)
    if never or not allowed:
        raise ForbiddenError(
            f"The service does not connect to {address.host}: the operator allows networks with JIVS_NETWORKS."
        )
