"""``python -m jivs.api.source_child``: a source looked at by a process of its own, which can be ended at any time.

What a source answers is not ours to choose: notices without end, a version of gigabytes, a packet that never ends. The job
comes on standard input, the password in it: the address, checked and pinned, and whether to list its tables.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from typing import Any

from jivs import bootstrap, settings
from jivs.api import cage
from jivs.domain.source import Address, Secret
from jivs.errors import JivsError, OverLimitError
from jivs.operations import sources

_MEMORY = 512 << 20
_WRITTEN = 64 << 20
_THREADS = 4


def main() -> int:
    """Run the job; what the source said, or the error, goes to standard output."""
    job = json.load(sys.stdin.buffer)
    cage.limit(seconds=job["seconds"], threads=_THREADS, memory=_MEMORY, written=_WRITTEN)
    try:
        said = _run(job)
    except JivsError as error:
        said = {"error": [type(error).__name__, error.message]}
    except MemoryError:
        said = {"error": [OverLimitError.__name__, f"The source answered with more than fits into {_MEMORY >> 20} MiB."]}
    json.dump(said, sys.stdout)
    return 0


def _run(job: dict[str, Any]) -> dict[str, Any]:
    app = bootstrap.build(settings.load())
    address = Address(**job["address"] | {"password": Secret(job["address"]["password"])})
    with closing(sources.session(app, address)) as session:
        if job["tables"]:
            return {"tables": [sources.listed(one) for one in session.tables()]}
        server = session.ping()
        return {"product": server.product, "version": server.version}


if __name__ == "__main__":
    sys.exit(main())
