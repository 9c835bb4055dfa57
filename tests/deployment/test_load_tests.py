"""The load tests, as far as they go without a service: k6 takes each of them, and the acceptance table judges as it should."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import pytest

from jivs.testing.service import ServiceProcess
from tests.deployment.deployed import ROOT, run, tool

SCRIPTS = ("extraction-load-test", "smoke", "stress", "spike", "soak")
CRITERIA = """
import { between, table, totals, verdicts } from '%s/load-tests/acceptance.js';

export default function () {
  const before = totals('extraction_records_total 100\\nextraction_cache_hits 10\\nextraction_cache_misses 10\\n').sums;
  const after = totals(`# HELP extraction_records_total rows
extraction_records_total{worker="a b"} 20000
extraction_records_total{worker="c"} 20100.0 1700000000
extraction_errors_total 400
extraction_cache_hits 80
extraction_cache_misses 20
extraction_pool_active{source="one"} 1
extraction_pool_active{source="two {x}"} 8
extraction_pool_max{source="one"} 10
extraction_pool_max{source="two {x}"} 10
extraction_pool_max{source="closed"} 0
`);
  const found = between(before, after.sums, 120);
  const edge = (pool) => verdicts({ throughput: 18000, p95: 220, p99: 400, cache: 60, pool, errors: 1.4999 });
  const missed = (pool) => verdicts({ throughput: 17999, p95: 220.1, p99: 400.1, cache: 59.9, pool, errors: 1.5 });
  const nothing = between(after.sums, after.sums, 60);
  console.log(JSON.stringify({
    pool: after.pool, found, edge: [edge(70), edge(95)], missed: [missed(69.9), missed(95.1)],
    nothing: verdicts({ ...nothing, p95: NaN }), table: table({ ...found, p95: 12.34, p99: 20, pool: 80 }),
  }));
}
"""


@pytest.mark.parametrize("name", SCRIPTS)
def test_k6_takes_the_script(name: str, tmp_path: Path) -> None:
    """Archived, so that every import is resolved; with thresholds, so that a failure has an exit code."""
    done = run(tool("k6"), "archive", "-O", tmp_path / "x.tar", f"load-tests/{name}.js")
    assert done.returncode == 0, done.stderr
    assert json.loads(run(tool("k6"), "inspect", f"load-tests/{name}.js").stdout)["thresholds"]


def test_the_guides_options_are_taken() -> None:
    """No scenarios: `--vus 100 --duration 10m` on the command line counts."""
    options = json.loads(run(tool("k6"), "inspect", "load-tests/extraction-load-test.js").stdout)
    assert options["scenarios"] is None
    assert (options["vus"], options["duration"]) == (100, "10m0s")


def test_the_acceptance_table_judges_at_its_limits(tmp_path: Path) -> None:
    script = tmp_path / "criteria.js"
    script.write_text(CRITERIA % ROOT, encoding="utf-8")
    done = run(tool("k6"), "run", "--no-usage-report", "--quiet", "--log-format", "raw", script)
    (line,) = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith('{"pool"')]
    said = json.loads(line)
    assert said["pool"] == 0.8
    assert said["found"] == {"throughput": 20000, "cache": 87.5, "errors": 1}
    assert [set(verdict.values()) for verdict in said["edge"]] == [{"accepted"}] * 2
    assert [set(verdict.values()) for verdict in said["missed"]] == [{"MISSED"}] * 2
    assert said["nothing"] == {
        "throughput": "MISSED", "p95": "NOT MEASURED", "p99": "NOT MEASURED", "cache": "NOT MEASURED", "pool": "NOT MEASURED",
        "errors": "NOT MEASURED",
    }  # fmt: skip
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in said["table"].splitlines()]
    assert rows[2] == ["Throughput (records/min)", "10,000", "20,000", ">= 18,000", "20000", "accepted"]
    assert len(rows) == 8
    assert len({len(row) for row in said["table"].splitlines()}) == 1


ONE = """
import { begin, browse, extract } from '%s/load-tests/jivs.js';

export const options = { vus: 1, iterations: 2, thresholds: { checks: ['rate==1'] } };

export function setup() {
  return begin({ extracts: true });
}

export default function (session) {
  console.log(`state ${extract(session)}`);
  browse(session);
}
"""


def test_a_user_of_the_load_tests_extracts_from_a_real_service(tmp_path: Path) -> None:
    """Login, create, start, poll to the end, read, and start again: k6 against `jivs serve`."""
    with sqlite3.connect(tmp_path / "sales.db") as database:
        database.execute("create table orders (id integer primary key)")
        database.executemany("insert into orders values (?)", ((number,) for number in range(1000)))
    script = tmp_path / "one.js"
    script.write_text(ONE % ROOT, encoding="utf-8")
    with ServiceProcess(tmp_path / "state", JIVS_FILE_ROOTS=str(tmp_path)) as service:
        given = {
            "BASE_URL": service.url, "PASSWORD": service.password, "SOURCE_URL": f"sqlite:///{tmp_path}/sales.db", "TABLES": "orders",
            "POLL_SECONDS": "0.1", "THINK_SECONDS": "0",
        }  # fmt: skip
        done = run(tool("k6"), "run", "--no-usage-report", "--quiet", script, env=given)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (done.stdout + done.stderr).count("state COMPLETED") == 2


@pytest.mark.parametrize("missing", ["PASSWORD", "SOURCE_URL", "TABLES"])
def test_what_is_not_set_is_asked_for(missing: str) -> None:
    given = {"PASSWORD": "x", "SOURCE_URL": "postgresql://db.example/sales", "TABLES": "public.orders"}
    del given[missing]
    environment = {**given, "BASE_URL": "http://127.0.0.1:9"}
    done = run(tool("k6"), "run", "--no-usage-report", "--quiet", "load-tests/smoke.js", env=environment)
    assert done.returncode != 0
    assert f"Set {missing}" in done.stderr


def test_every_setting_of_the_scripts_is_in_the_guide() -> None:
    page = (ROOT / "docs/deployment-guide.md").read_text(encoding="utf-8")
    used = {
        name
        for script in (ROOT / "load-tests").glob("*.js")
        for name in re.findall(r"__ENV\.(\w+)|required\('(\w+)'\)", script.read_text(encoding="utf-8"))
        for name in name
        if name
    }
    assert len(used) > 15
    assert [name for name in sorted(used) if f"`{name}`" not in page] == []
