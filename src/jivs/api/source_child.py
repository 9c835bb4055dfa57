"""A source looked at by a process of its own, which can be ended at any time.

What a source answers is not ours to choose: notices without end, a version of gigabytes, a packet that never ends. The job
comes on standard input, the password in it: the address, checked and pinned, and whether to list its tables. Nothing of the
service's own is in its environment.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing
from typing import Any

from jivs import bootstrap, settings
from jivs.api import cage
from jivs.domain.source import Address, Secret
from jivs.errors import FatalError, JivsError, OverLimitError, UnreachableError
from jivs.operations import sources

_MEMORY = 256 << 20
_WRITTEN = 64 << 20
_THREADS = 4
_LONGEST = 200


def load() -> None:
    """What a look needs besides: the drivers."""
    bootstrap.preload("connectors")


def main() -> int:
    """Run the job; what the source said, or the error, goes to standard output."""
    job = json.load(sys.stdin.buffer)
    cage.limit(seconds=job["seconds"], threads=_THREADS, memory=_MEMORY, written=_WRITTEN)
    try:
        said = json.dumps(_run(job))
    except MemoryError:
        said = _error(OverLimitError(f"The source answered with more than fits into {_MEMORY >> 20} MiB."))
    except FatalError as error:
        said = _error(UnreachableError(error.message))
    except JivsError as error:
        said = _error(error)
    except Exception as error:  # whatever a server sends that is none is no defect of ours
        said = _error(UnreachableError(f"What answered is no such source as it should be ({type(error).__name__})."))
    sys.stdout.write(said)
    return 0


def _error(error: JivsError) -> str:
    return json.dumps({"error": [type(error).__name__, error.message]})


def _run(job: dict[str, Any]) -> dict[str, Any]:
    app = bootstrap.build(settings.load())
    address = Address(**job["address"] | {"password": Secret(job["address"]["password"])})
    with closing(sources.session(app, address)) as session:
        if job["tables"]:
            return {"tables": [sources.listed(one) for one in session.tables()]}
        server = session.ping()
        return {"product": server.product[:_LONGEST], "version": server.version[:_LONGEST]}
