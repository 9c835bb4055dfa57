"""A process that is measured: obeys lines on its standard input, each answered by one line.

``python -m tests.contracts.measured NAME``: "records N", "pool ACTIVE IDLE LIMIT", "source ACTIVE IDLE LIMIT", "scrape".
"""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack

from jivs import settings
from jivs.backends.metrics.prometheus import PrometheusMetrics
from jivs.domain.run import RunState
from jivs.ports.metrics import PoolUse


def main() -> None:
    metrics = PrometheusMetrics(sys.argv[1], folder=settings.metrics_folder(), source_limit=10)
    print("ready", flush=True)
    with ExitStack() as opened:
        for line in sys.stdin:
            what, *given = line.split()
            numbers = [int(one) for one in given]
            if what == "records":
                metrics.records(numbers[0])
                metrics.request("GET", "/x", 200, 0.21, extraction=True)
                metrics.run_ended("extract", RunState.COMPLETED, 2.0)
            elif what == "threads":
                metrics.threads_active(numbers[0])
            elif what == "batch":
                metrics.batch_size(numbers[0])
            elif what in {"pool", "source"}:
                use = PoolUse(active=numbers[0], idle=numbers[1], limit=numbers[2])
                if what == "pool":
                    metrics.catalog_pool(lambda use=use: use)
                else:
                    opened.enter_context(metrics.source_pool("sales", lambda use=use: use))
            elif what == "closed":
                opened.close()
            elif what == "scrape":
                print(json.dumps(metrics.exposition("")[0].decode()), flush=True)
                continue
            print("done", flush=True)


main()
