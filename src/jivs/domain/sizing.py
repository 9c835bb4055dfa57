"""Do the settings fit the machine and the catalog's server? Arithmetic only."""

from __future__ import annotations

from dataclasses import dataclass

from jivs.domain.finding import Finding, Severity

RESERVE = 512 << 20
"""Memory for the API, the dispatcher, looks at sources and the system's cache, out of which no run is given any."""

SMALLEST_RUN = 192 << 20
"""With less a run cannot work."""

LARGEST_RUN = 512 << 20
"""With more a run is hardly faster (docs/benchmarks.md)."""

_BESIDE = 4
"""Connections to the catalog of a dispatcher and of the management listener."""

_OF_RUN = 2
"""Connections to the catalog of a process that executes runs."""

_FEWEST_FILES = 1024


def memory_of_run(memory: int, runs: int, queries: int = 0) -> int:
    """What one of ``runs`` at once may use of the memory that all processes have together; 0: nobody knows how much.

    ``queries`` over the API may take that much beside them.
    """
    if not memory:
        return LARGEST_RUN
    return max(SMALLEST_RUN, min(LARGEST_RUN, (memory - RESERVE - queries) // max(1, runs)))


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What a `jivs serve` asks for, and what there is; 0 where nobody knows or nothing limits it.

    ``memory`` of each of ``runs`` at once, ``queries`` of all that are answered at once, ``machine`` of all processes, as
    ``limiter`` has it. ``pool``: connections of the API to the catalog; ``connections`` that its server takes, ``used`` of
    them are taken. ``files`` that a process may open.
    """

    runs: int
    memory: int
    pool: int
    queries: int = 0
    machine: int = 0
    limiter: str = ""
    connections: int = 0
    used: int = 0
    files: int = 0

    @property
    def asked_connections(self) -> int:
        """What one `jivs serve` may open to the catalog when all its runs are at work."""
        return self.pool + _BESIDE + _OF_RUN * self.runs


def judge(sizes: Sizes) -> list[Finding]:
    """What does not fit, and what to set. An ERROR cannot work; a NOTE may run into its limit when all is at work."""
    found = []

    def add(severity: Severity, object_: str, message: str) -> None:
        found.append(Finding(code="size", severity=severity, object=object_, message=message))

    if 0 < sizes.connections < sizes.pool:
        add(
            Severity.ERROR,
            "HIKARI_MAXIMUM_POOL_SIZE",
            f"The API may open {sizes.pool} connections, and the catalog's server takes {sizes.connections}: lower "
            "HIKARI_MAXIMUM_POOL_SIZE, or raise max_connections of PostgreSQL.",
        )
    elif sizes.connections and sizes.asked_connections > sizes.connections - sizes.used:
        add(
            Severity.NOTE,
            "HIKARI_MAXIMUM_POOL_SIZE",
            f"This service may open {sizes.asked_connections} connections to the catalog, and {sizes.used} of "
            f"{sizes.connections} that its server takes are in use: lower HIKARI_MAXIMUM_POOL_SIZE, raise max_connections.",
        )
    if sizes.machine and sizes.runs * sizes.memory + RESERVE + sizes.queries > sizes.machine:
        add(
            Severity.NOTE,
            "EXTRACTION_MAX_PARALLEL_JOBS",
            f"{sizes.runs} runs of {sizes.memory >> 20} MiB, queries of {sizes.queries >> 20} MiB and {RESERVE >> 20} MiB "
            f"for the service are more than the {sizes.machine >> 20} MiB of the {sizes.limiter}: lower "
            "EXTRACTION_MAX_PARALLEL_JOBS, JIVS_EXTRACTION__MEMORY_LIMIT or JIVS_QUERY__CONCURRENT.",
        )
    if 0 < sizes.files < _FEWEST_FILES:
        add(
            Severity.NOTE,
            "open files",
            f"A process may open {sizes.files} files and connections: raise it to {_FEWEST_FILES} or more (ulimit -n).",
        )
    return found
