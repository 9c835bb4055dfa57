"""One verification in a process of its own, which can be ended at any time."""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

from jivs import bootstrap, settings
from jivs.errors import JivsError
from jivs.operations.verify import VerifyJob, verify

_MOST = 1_000
"""Findings that are told; more are counted."""


def main() -> int:
    """Run the job from standard input; the verdict, or the error, goes to standard output."""
    job = json.load(sys.stdin.buffer)
    signal.alarm(job["seconds"] + 1)  # if nobody is there any more to end it
    try:
        said = _run(job)
    except JivsError as error:
        said = {"error": [type(error).__name__, error.message]}
    json.dump(said, sys.stdout)
    return 0


def _run(job: dict[str, Any]) -> dict[str, Any]:
    app = bootstrap.build(settings.load())
    wanted = VerifyJob(archive=job["archive"], level=job["level"], limits=app.limits, expect=job["expect"])
    said = verify(app, wanted).to_json()
    return {**said, "findings": said["findings"][:_MOST], "found": len(said["findings"])}
