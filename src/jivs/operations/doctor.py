"""What this JiVS has around it, and what of that keeps it from working well. Secrets are never asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import metadata
from typing import Any

from jivs import __version__
from jivs.domain.finding import Finding, Severity
from jivs.domain.sizing import Sizes, judge
from jivs.errors import JivsError
from jivs.ports.machine import Machine
from jivs.ports.service import Service
from jivs.ports.upkeep import Upkeep
from jivs.wire import native

_PACKAGES = ("psycopg", "PyMySQL", "boto3", "redis", "pika", "fastapi", "pyarrow", "duckdb")
_MOST_SKEW = 1.0
"""Seconds: leases of runs last three, and every machine goes by its own clock."""

_LEAST_SPACE = 1 << 30


@dataclass(kw_only=True)
class Examination:
    """What was found, in sections of names and values, and what to do about it."""

    sections: dict[str, dict[str, Any]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def well(self) -> bool:
        """Whether nothing has to be mended."""
        return not any(finding.severity is Severity.ERROR for finding in self.findings)

    def mend(self, object_: str, message: str) -> None:
        """Something that has to be mended."""
        self.findings.append(Finding(code="mend", severity=Severity.ERROR, object=object_, message=message))

    def note(self, object_: str, message: str) -> None:
        """Something worth knowing."""
        self.findings.append(Finding(code="note", severity=Severity.NOTE, object=object_, message=message))

    def to_json(self) -> dict[str, Any]:
        """As one document."""
        return {"well": self.well, **self.sections, "findings": [finding.to_json() for finding in self.findings]}


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What the settings say: which are set (never to what), what is remarkable about them, and what they ask for."""

    settings: Mapping[str, bool]
    notices: Sequence[str]
    sizes: Sizes


def examine(setup: Setup, machine: Machine, upkeep: Upkeep, service: Callable[[], Service]) -> Examination:
    """Look at everything. What cannot be reached is a finding; nothing is made or changed but a probe in the archives'
    store, which is removed again.
    """
    found = Examination()
    found.sections["jivs"] = {"version": __version__, "readers": native.path(), "packages": _packages()}
    found.sections["machine"] = _machine(machine)
    found.sections["settings"] = {name: "set" if given else "unset" for name, given in setup.settings.items()}
    for sentence in setup.notices:
        found.note("settings", sentence)
    if not native.available():
        found.note("readers", f"Slower than need be: {native.path()}.")
    sizes = _catalog(found, upkeep, machine_sizes(setup.sizes, machine))
    found.sections["sizes"] = _shown(sizes)
    found.findings += judge(sizes)
    try:
        made = service()
    except JivsError as error:
        found.mend("service", error.message)
    else:
        _around(found, made)
        made.queue.close()  # else the broker writes into its log that a connection was lost
        made.cache.close()
    return found


def machine_sizes(sizes: Sizes, machine: Machine) -> Sizes:
    """The sizes with what the machine has."""
    memory, limiter = machine.memory()
    return replace(sizes, machine=memory, limiter=limiter, files=machine.files())


def catalog_sizes(sizes: Sizes, upkeep: Upkeep) -> Sizes:
    """The sizes with what the catalog's server takes."""
    connections, used = upkeep.room()
    return replace(sizes, connections=connections, used=used)


def _packages() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def _machine(machine: Machine) -> dict[str, Any]:
    memory, limiter = machine.memory()
    return {
        **machine.description(),
        "processors": machine.processors(),
        "memory": f"{memory >> 20} MiB ({limiter})" if memory else "not known",
        "open files": machine.files() or "no limit",
    }


def _shown(sizes: Sizes) -> dict[str, Any]:
    limit = f", of which {sizes.used} of {sizes.connections} are in use" if sizes.connections else ""
    return {
        "runs at once": sizes.runs,
        "memory of a run": f"{sizes.memory >> 20} MiB",
        "memory of all queries": f"{sizes.queries >> 20} MiB",
        "connections to the catalog": f"{sizes.asked_connections} at most{limit}",
    }


def _catalog(found: Examination, upkeep: Upkeep, sizes: Sizes) -> Sizes:
    section: dict[str, Any] = {"kind": upkeep.kind, "address": upkeep.shown}
    found.sections["catalog"] = section
    try:
        version = upkeep.version()
        skew = upkeep.skew()
        sizes = catalog_sizes(sizes, upkeep)
    except JivsError as error:
        section["reachable"] = False
        found.mend("catalog", error.message)
        return sizes
    section |= {"reachable": True, "schema": version or "none yet", "newest schema": upkeep.newest}
    section["clock ahead of ours"] = f"{skew:+.3f} s"
    if not version:
        found.note("catalog", "There is no catalog yet: the first start makes it, or jivs db restore FILE.")
    elif version < upkeep.newest:
        found.mend("catalog", f"Its schema is {version}: bring it to {upkeep.newest} with jivs db upgrade.")
    elif version > upkeep.newest:
        found.mend("catalog", f"Its schema is {version}, and this JiVS knows those up to {upkeep.newest}: upgrade JiVS.")
    if abs(skew) > _MOST_SKEW:
        found.mend(
            "clock", f"The catalog's clock differs from ours by {skew:+.1f} s: let NTP set the clocks of both machines."
        )
    for program in ("pg_dump", "psql") if upkeep.kind == "postgresql" else ():
        if shutil.which(program) is None:
            found.note(
                "catalog", f"{program} is not installed, so jivs db backup cannot work here: install postgresql-client."
            )
    return sizes


def _around(found: Examination, service: Service) -> None:
    """The store of the archives, and what else the service depends on."""
    address = service.shelf.address("NAME")
    section: dict[str, Any] = {"address": address, "writable": True}
    found.sections["archives"] = section
    try:
        service.shelf.probe()
    except JivsError as error:
        section["writable"] = False
        found.mend("archives", error.message)
    others: dict[str, Any] = {}
    for name, check in service.checks.items():
        if name == "db":
            continue
        try:
            details = dict(check())
        except JivsError as error:
            others[name] = "DOWN"
            found.mend(name, error.message)
            continue
        others[name] = ", ".join(f"{key} {_size(value)}" for key, value in details.items()) or "UP"
        free = details.get("free")
        if isinstance(free, int) and free < _LEAST_SPACE:
            found.note(name, f"{_size(free)} are left: free some space before a large run.")
    found.sections["around"] = others


def _size(value: str | int) -> str:
    return value if isinstance(value, str) else f"{value / 1e9:,.1f} GB"
