"""A process that extracts and ends itself with SIGKILL at a chosen moment: child.py URL ARCHIVE NUMBER LEVEL [resume].

Moments are counted over all steps that the engine names and over every operation that writes to the store, before and
after it. Number 0: no kill; prints how many moments there were.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import threading
from dataclasses import replace

import jivs.connectors.sqlite
from jivs import bootstrap
from jivs.domain.plan import Level, Selection
from jivs.operations.extract import extract
from jivs.operations.job import ExtractJob, Progress
from jivs.settings import Settings
from jivs.testing.faults import FaultyStore

url, archive, number, level = sys.argv[1], sys.argv[2], int(sys.argv[3]), Level(sys.argv[4])
jivs.connectors.sqlite._PARTITION_ROWS = 200
counter = itertools.count(1)
lock = threading.Lock()
last = 0


def moment(_name: str) -> None:
    global last  # noqa: PLW0603 - the count of this process
    with lock:
        last = next(counter)
        if last == number:
            os.kill(os.getpid(), signal.SIGKILL)


app = bootstrap.build(Settings())
store = FaultyStore(app.store(archive), moment)
app = replace(app, store=lambda _: store)
job = ExtractJob(
    address=app.address(url),
    archive=archive,
    selection=Selection(),
    limits=replace(app.limits, parallel=2, batch_rows=100),
    level=level,
    resume="resume" in sys.argv,
    partition_bytes=16 << 10,
)
outcome = extract(app, job, Progress(), moment)
print(last, outcome.complete)
