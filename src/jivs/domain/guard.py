"""What operators allow the service to read."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Guard:
    """``roots``: folders below which file sources may be; none: no file sources. ``networks``: where databases may be; none:
    everywhere but where no database is.
    """

    roots: tuple[Path, ...] = ()
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()
