"""Prometheus, its alerts and the dashboard, checked by Prometheus's own tool and by a real Prometheus."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import pytest
import yaml

from tests.deployment import names
from tests.deployment.deployed import (
    ROOT,
    alerts,
    dashboard,
    metric_names,
    objects,
    panel_queries,
    run,
    services,
)
from tests.deployment.prometheus import Prometheus

MONITORING = ROOT / "monitoring"
VERDICT = ROOT / "tools/rollback-verdict.py"


def test_promtool_accepts_the_configuration_and_the_rules() -> None:
    for command in (("check", "config", "prometheus.yml"), ("check", "rules", "prometheus-alerts.yml")):
        done = run("promtool", *command, cwd=MONITORING)
        assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_when_they_should_and_not_otherwise() -> None:
    done = run("promtool", "test", "rules", "prometheus-alerts-test.yml", cwd=MONITORING)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_seen_to_fire() -> None:
    """The first case, in which all is well, expects no alert at all; here each is expected by name in another."""
    cases = yaml.safe_load((MONITORING / "prometheus-alerts-test.yml").read_text(encoding="utf-8"))["tests"]
    assert cases[0]["promql_expr_test"] == [{"expr": "ALERTS", "eval_time": "1h", "exp_samples": []}]
    fired = {
        test["alertname"] for case in cases for test in case.get("alert_rule_test", []) if test["exp_alerts"]
    } | {
        name
        for case in cases
        for test in case.get("promql_expr_test", [])
        for sample in test["exp_samples"]
        for name in re.findall(r'alertname="(\w+)"', sample["labels"])
    }  # fmt: skip
    assert fired == set(alerts())


def test_every_alert_has_an_entry_in_the_runbook() -> None:
    headings = re.findall(r"^### (\w+)$", (ROOT / "docs/runbook.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(alerts()) <= set(headings)
    for name, rule in alerts().items():
        assert rule["annotations"]["runbook"] == f"docs/runbook.md#{name.lower()}"
        assert {"summary", "description"} <= set(rule["annotations"])
        assert rule["labels"]["severity"] in {"info", "warning", "critical"}


def test_targets_are_services_of_both_deployments() -> None:
    jobs = yaml.safe_load((MONITORING / "prometheus.yml").read_text(encoding="utf-8"))["scrape_configs"]
    aliases = {
        alias for item in services().values() for alias in (item.get("networks") or {}).get("default", {}).get("aliases", [])
    }
    asked = {item["names"][0]: item["port"] for job in jobs for item in job.get("dns_sd_configs", [])}
    assert len(asked) == 5
    for name, port in asked.items():
        assert name in aliases | set(services()), name
        service = objects("Service")[name]["spec"]
        assert service["clusterIP"] == "None", f"{name}: one address for several pods would hide all but one of them"
        assert port in {item["port"] for item in service["ports"]}, name


def test_every_query_of_the_dashboard_parses(tmp_path: Path) -> None:
    rules = [{"record": f"panel_{index}", "expr": query} for index, query in enumerate(panel_queries().values())]
    file = tmp_path / "panels.yml"
    file.write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}), encoding="utf-8")
    done = run("promtool", "check", "rules", file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(rules) > 25


def test_queries_ask_for_metrics_that_exist() -> None:
    asked = {
        query: metric_names(query) for query in [*panel_queries().values(), *(rule["expr"] for rule in alerts().values())]
    }
    unknown = {query: found - names.metrics() - names.EXPORTERS for query, found in asked.items()}
    assert {query: found for query, found in unknown.items() if found} == {}


def test_the_dashboard_is_provisioned_with_its_source() -> None:
    assert dashboard()["title"] == "JiVS Extraction Performance Dashboard"
    (source,) = yaml.safe_load((MONITORING / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"]
    (provider,) = yaml.safe_load((MONITORING / "grafana/provisioning/dashboards/jivs.yml").read_text())["providers"]
    panels = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])
    mounted = [volume.split(":")[1] for volume in services()["grafana"]["volumes"]]
    assert provider["options"]["path"] in mounted
    (grafana,) = objects("Deployment")["grafana"]["spec"]["template"]["spec"]["containers"]
    assert provider["options"]["path"] in {mount["mountPath"] for mount in grafana["volumeMounts"]}


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24, panel["title"]
        assert not cells & taken, panel["title"]
        taken |= cells


def past(records_per_minute: int, slow_share: float) -> list[str]:
    """40 minutes of two workers and one process of the API, a sample every 30 s."""
    end = time.time()
    moments = [end - 2400 + 30 * step for step in range(81)]
    lines = ["# TYPE extraction_records counter"]
    for worker in ("a", "b"):
        lines += [
            f'extraction_records_total{{instance="{worker}"}} {index * records_per_minute / 4} {moment:.3f}'
            for index, moment in enumerate(moments)
        ]
    lines.append("# TYPE extraction_duration histogram")
    for bound, share in (("0.2", 1 - slow_share), ("0.3", 1 - slow_share), ("0.8", 1), ("+Inf", 1)):
        lines += [
            f'extraction_duration_bucket{{instance="api",le="{bound}"}} {index * 100 * share} {moment:.3f}'
            for index, moment in enumerate(moments)
        ]
    return lines


@pytest.mark.parametrize(
    ("records_per_minute", "slow_share", "code", "said"),
    [
        (24_000, 0.0, 0, "Keep it"),
        (12_000, 0.0, 3, "Roll back: throughput"),
        (24_000, 0.2, 3, "Roll back: latency"),
    ],
)
def test_the_verdict_of_a_rollback(records_per_minute: int, slow_share: float, code: int, said: str) -> None:
    with Prometheus(past=past(records_per_minute, slow_share)) as server:
        done = run(VERDICT, server.url)
        assert (done.returncode, said in done.stdout) == (code, True), done.stdout + done.stderr


def test_no_verdict_without_measurements() -> None:
    with Prometheus(past=["# TYPE up gauge", f"up 1 {time.time() - 60:.3f}"]) as server:
        done = run(VERDICT, server.url)
        assert done.returncode == 2
        assert "no measurement" in done.stderr
    gone = run(VERDICT, "http://127.0.0.1:9")
    assert gone.returncode == 5
    assert "does not answer" in gone.stderr
