"""What the deployment files say, read once: the services of Compose, the objects of Kubernetes, the monitoring."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
NAMESPACE = "jivs-platform"
DASHBOARD = ROOT / "monitoring/grafana/dashboards/extraction-performance-dashboard.json"


def tool(name: str) -> str:
    """A program of the development environment."""
    return str(Path(sys.executable).parent / name)


def run(*command: str | Path, **more: Any) -> subprocess.CompletedProcess[str]:
    """A command's end and output, in the repository's root."""
    given = {"cwd": ROOT, "capture_output": True, "text": True, "timeout": 120, **more}
    return subprocess.run([str(part) for part in command], check=False, **given)


@cache
def compose() -> dict[str, Any]:
    """docker-compose.yml, as it is written."""
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


def services() -> dict[str, Any]:
    return compose()["services"]


@cache
def manifests() -> tuple[tuple[Path, dict[str, Any]], ...]:
    """Each object of Kubernetes, with the file that it stands in."""
    files = [
        *sorted((ROOT / "kubernetes").glob("*.yaml")),
        *sorted((ROOT / "monitoring").glob("*-deployment.yaml")),
    ]
    return tuple(
        (file, item)
        for file in files
        if file.name != "kustomization.yaml"
        for item in yaml.safe_load_all(file.read_text(encoding="utf-8"))
        if item
    )


def objects(kind: str) -> dict[str, dict[str, Any]]:
    """The objects of a kind (``statefulset``, ``configmap``, ...) by name."""
    return {item["metadata"]["name"]: item for _, item in manifests() if item["kind"].lower() == kind.lower()}


def workloads() -> dict[str, dict[str, Any]]:
    """Everything that has pods."""
    return objects("Deployment") | objects("StatefulSet")


def pods(workload: dict[str, Any]) -> dict[str, Any]:
    """The specification of a workload's pods."""
    return workload["spec"]["template"]["spec"]


def containers(workload: dict[str, Any]) -> list[dict[str, Any]]:
    spec = pods(workload)
    return [*spec.get("initContainers", []), *spec["containers"]]


@cache
def settings_of_cluster() -> dict[str, str]:
    """The config map of the API and the workers."""
    return objects("ConfigMap")["jivs-backend-config"]["data"]


@cache
def alerts() -> dict[str, dict[str, Any]]:
    """The alerting rules by name, each with the name of its group."""
    groups = yaml.safe_load((ROOT / "monitoring/prometheus-alerts.yml").read_text(encoding="utf-8"))["groups"]
    return {rule["alert"]: {**rule, "group": group["name"]} for group in groups for rule in group["rules"]}


@cache
def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text(encoding="utf-8"))


def panel_queries() -> dict[str, str]:
    """Every query of the dashboard, by panel and letter."""
    return {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in dashboard()["panels"]
        for target in panel.get("targets", [])
    }


_WORDS = {
    "and",
    "or",
    "unless",
    "on",
    "by",
    "ignoring",
    "without",
    "bool",
    "offset",
    "group_left",
    "group_right",
    "inf",
    "nan",
}


def metric_names(query: str) -> set[str]:
    """The names of metrics in a PromQL expression."""
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]|\"[^\"]*\"|'[^']*'", " ", query)
    bare = re.sub(r"\b(by|on|without|ignoring|group_left|group_right)\s*\([^)]*\)", " ", bare)
    return {
        found[1]
        for found in re.finditer(r"(?<![\w:.])([a-zA-Z_:][\w:]*)\b(?!\s*\()", bare)
        if found[1].lower() not in _WORDS
    }
