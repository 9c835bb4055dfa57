#!/usr/bin/env python3
"""Say whether a deployment is to be rolled back: rollback-verdict.py [PROMETHEUS-URL] [WINDOW].

It is when, over the window (30m), fewer than 15,000 records a minute were extracted or the API's p95 was above 300 ms.
Exit code 0: keep it. 3: roll back. 2: nothing was measured, so there is no verdict. 5: Prometheus does not answer.
"""

from __future__ import annotations

import json
import math
import sys
import urllib.error
import urllib.parse
import urllib.request

LEAST_RECORDS, MOST_SECONDS = 15_000, 0.3
THROUGHPUT = "sum(rate(extraction_records_total[{window}])) * 60"
LATENCY = "histogram_quantile(0.95, sum by (le) (rate(extraction_duration_bucket[{window}])))"


def ask(server: str, query: str) -> float | None:
    """The value of an expression now; None where there is none."""
    address = f"{server.rstrip('/')}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310 - the operator names the server
        found = json.load(answer)["data"]["result"]
    value = float(found[0]["value"][1]) if found else math.nan
    return None if math.isnan(value) else value


def main(server: str = "http://localhost:9090", window: str = "30m") -> int:
    """Ask, print the verdict, return the exit code."""
    try:
        records = ask(server, THROUGHPUT.format(window=window))
        seconds = ask(server, LATENCY.format(window=window))
    except (OSError, ValueError, KeyError) as error:
        print(f"{server} does not answer as Prometheus does: {error}. Name its URL.", file=sys.stderr)
        return 5
    if records is None or seconds is None:
        missing = "extraction_records_total" if records is None else "extraction_duration_bucket"
        print(
            f"There is no measurement of {missing} over {window} at {server}: wait, or see whether it is scraped.",
            file=sys.stderr,
        )
        return 2
    print(f"Throughput: {records:,.0f} records/min over {window} (at least {LEAST_RECORDS:,})")
    print(f"Latency p95: {seconds * 1000:,.0f} ms over {window} (at most {MOST_SECONDS * 1000:,.0f})")
    reasons = ["throughput"] * (records < LEAST_RECORDS) + ["latency"] * (seconds > MOST_SECONDS)
    print(f"Roll back: {' and '.join(reasons)}" if reasons else "Keep it")
    return 3 if reasons else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
