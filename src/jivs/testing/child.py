"""A process that does what its job says, for the suite of ``ports.children``."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

from jivs.settings import variable


def main() -> int:
    """Obey."""
    job = json.load(sys.stdin.buffer)
    if "write" in job:
        with os.fdopen(int(sys.argv[1]), "wb") as out:
            out.write(job["write"].encode())
    time.sleep(job.get("sleep", 0))
    if "signal" in job:
        os.kill(os.getpid(), job["signal"])
    files = [path.name for path in Path("/proc/self/fd").iterdir() if path.exists()]  # without that of the list itself
    said = {"job": job, "variable": variable(job.get("variable", "")), "files": files, "folder": str(Path.cwd())}
    sys.stdout.write(job.get("say") or json.dumps(said))
    return int(job.get("exit", 0))
