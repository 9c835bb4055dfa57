"""The manifests: valid for the oldest and the newest Kubernetes, complete, named as the guide names them, and strict."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
import yaml

from jivs.domain.sizing import Sizes
from tests.deployment.deployed import (
    NAMESPACE,
    ROOT,
    containers,
    manifests,
    objects,
    pods,
    run,
    settings_of_cluster,
    tool,
    workloads,
)

OURS = ("jivs-backend", "jivs-worker")
GUIDE_FILES = ("namespace", "configmap", "postgres-statefulset", "redis-statefulset", "backend-deployment")


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `kubectl apply -k kubernetes` would send."""
    done = run(tool("kubectl"), "kustomize", "kubernetes")
    assert done.returncode == 0, done.stderr
    path = tmp_path_factory.mktemp("kubernetes") / "all.yaml"
    path.write_text(done.stdout, encoding="utf-8")
    return path


@pytest.mark.parametrize("version", ["1.25", "1.37"])
def test_every_object_is_valid(rendered: Path, version: str) -> None:
    """Strict: an unknown or misspelt field is an error. 1.25 is the oldest whose schemas are published with the tool; what
    is used of it (apps/v1, policy/v1, networking.k8s.io/v1) is the same in 1.24."""
    done = run(tool("kubernetes-validate"), "-k", version, "--strict", "--no-warn", rendered)
    assert done.returncode == 0, done.stdout + done.stderr


def test_only_api_versions_that_1_24_and_the_newest_both_have() -> None:
    assert {item["apiVersion"] for _, item in manifests()} == {"v1", "apps/v1", "policy/v1", "networking.k8s.io/v1"}


def test_the_kustomization_has_every_object(rendered: Path) -> None:
    sent = {(item["kind"], item["metadata"]["name"]) for item in yaml.safe_load_all(rendered.read_text(encoding="utf-8"))}
    written = {(item["kind"], item["metadata"]["name"]) for _, item in manifests()}
    assert written <= sent
    generated = {"prometheus-config", "grafana-datasources", "grafana-providers", "grafana-dashboards"}
    assert {name for _, name in sent - written} == generated


def test_the_guides_files_are_there() -> None:
    assert [name for name in GUIDE_FILES if not (ROOT / f"kubernetes/{name}.yaml").is_file()] == []


def test_everything_is_in_the_platforms_namespace(rendered: Path) -> None:
    for item in yaml.safe_load_all(rendered.read_text(encoding="utf-8")):
        if item["kind"] != "Namespace":
            assert item["metadata"].get("namespace") == NAMESPACE, item["metadata"]["name"]
    assert list(objects("Namespace")) == [NAMESPACE]


def test_labels_lead_to_pods() -> None:
    for name, workload in workloads().items():
        labels = workload["spec"]["template"]["metadata"]["labels"]
        assert labels["app"] == name
        assert workload["spec"]["selector"]["matchLabels"] == {"app": name}
    apps = set(workloads())
    for name, service in objects("Service").items():
        assert service["spec"]["selector"]["app"] in apps, name
        owner = workloads()[service["spec"]["selector"]["app"]]
        ports = {port["name"] for container in containers(owner) for port in container.get("ports", [])}
        assert {port["targetPort"] for port in service["spec"]["ports"]} <= ports, name
    for name, budget in objects("PodDisruptionBudget").items():
        assert budget["spec"]["selector"]["matchLabels"] == {"app": name}
        assert name in apps


def test_the_backend_is_as_the_guide_says() -> None:
    text = (ROOT / "kubernetes/backend-deployment.yaml").read_text(encoding="utf-8")
    assert "image: jivs-backend:latest" in text
    (container,) = pods(workloads()["jivs-backend"])["containers"]
    assert {port["containerPort"] for port in container["ports"]} == {8080, 9010}
    assert container["resources"] == {
        "requests": {"memory": "3Gi", "cpu": "1500m"},
        "limits": {"memory": "5Gi", "cpu": "2500m"},
    }
    volumes = {volume["name"]: volume for volume in pods(workloads()["jivs-backend"])["volumes"]}
    assert volumes["extraction-temp"]["emptyDir"]["sizeLimit"] == "20Gi"


@pytest.mark.parametrize("name", OURS)
def test_settings_come_from_the_config_map_and_the_secret(name: str) -> None:
    for container in containers(workloads()[name]):
        assert container["envFrom"] == [
            {"configMapRef": {"name": "jivs-backend-config"}},
            {"secretRef": {"name": "jivs-backend-secrets"}},
        ]
        assert container["image"] == "jivs-backend:latest"


def test_no_manifest_holds_a_secret() -> None:
    assert objects("Secret") == {}
    assert [key for key in settings_of_cluster() if "PASSWORD" in key or "SECRET" in key or key.endswith("KEY")] == []
    for name, workload in workloads().items():
        for container in containers(workload):
            for variable in container.get("env", []):
                if any(word in variable["name"] for word in ("PASS", "SECRET", "AUTH")):
                    assert "secretKeyRef" in variable["valueFrom"], f"{name}: {variable['name']}"


def test_the_guides_command_makes_every_secret_that_is_needed() -> None:
    """Run for real: kubectl makes the object without a cluster."""
    keys = (
        "DATABASE_PASSWORD",
        "REDIS_PASSWORD",
        "JWT_SECRET",
        "ENCRYPTION_KEY",
        "RABBITMQ_PASSWORD",
        "AWS_ACCESS_KEY",
        "AWS_SECRET_KEY",
    )
    literals = [f"--from-literal={key}=of-{key}" for key in keys]
    done = run(
        tool("kubectl"), "create", "secret", "generic", "jivs-backend-secrets", *literals, "--namespace", NAMESPACE,
        "--dry-run=client", "-o", "yaml",
    )  # fmt: skip
    made = yaml.safe_load(done.stdout)
    assert base64.b64decode(made["data"]["JWT_SECRET"]) == b"of-JWT_SECRET"
    needed = {
        variable["valueFrom"]["secretKeyRef"]["key"]
        for workload in workloads().values()
        for container in containers(workload)
        for variable in container.get("env", [])
        if variable.get("valueFrom", {}).get("secretKeyRef", {}).get("name") == made["metadata"]["name"]
    }
    assert needed <= set(made["data"])


def test_every_container_is_confined() -> None:
    for name, workload in workloads().items():
        spec = pods(workload)
        assert spec["automountServiceAccountToken"] is False, name
        assert spec["securityContext"]["runAsNonRoot"] is True, name
        assert spec["securityContext"]["runAsUser"] > 0, name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        for container in containers(workload):
            assert container["securityContext"]["allowPrivilegeEscalation"] is False, name
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}, name
            assert {"requests", "limits"} <= set(container["resources"]), name
            if name not in ("rabbitmq", "elasticsearch"):  # both write below their own folders of the image
                assert container["securityContext"]["readOnlyRootFilesystem"] is True, name


def test_every_container_is_probed_at_a_port_it_has() -> None:
    for name, workload in workloads().items():
        for container in pods(workload)["containers"]:
            ports = {port["name"] for port in container["ports"]}
            for probe in ("readinessProbe", "livenessProbe"):
                asked = container[probe].get("httpGet") or container[probe].get("tcpSocket")
                assert asked is None or asked["port"] in ports, name
    backend = pods(workloads()["jivs-backend"])["containers"][0]
    assert backend["livenessProbe"]["httpGet"]["path"] == "/actuator/health/liveness"
    assert backend["readinessProbe"]["httpGet"]["path"] == "/actuator/health/readiness"


def test_volumes_that_are_mounted_exist() -> None:
    for name, workload in workloads().items():
        claims = {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
        known = claims | {volume["name"] for volume in pods(workload).get("volumes", [])}
        for container in containers(workload):
            assert {mount["name"] for mount in container.get("volumeMounts", [])} <= known, name


def test_the_backend_waits_for_the_catalog_only() -> None:
    """RabbitMQ, Redis and Elasticsearch may be away when it starts."""
    (migrate,) = pods(workloads()["jivs-backend"])["initContainers"]
    assert migrate["args"] == ["jivs", "db", "upgrade"]


def test_the_catalogs_connections_suffice() -> None:
    """All pools at their largest, in a rollout too, and what PostgreSQL keeps for its superuser."""
    given = settings_of_cluster()
    most = 0
    for name in OURS:
        pool = int(given["HIKARI_MAXIMUM_POOL_SIZE"]) if name == "jivs-backend" else 0
        one = Sizes(runs=int(given["EXTRACTION_MAX_PARALLEL_JOBS"]), memory=0, pool=pool)
        spec = workloads()[name]["spec"]
        most += one.asked_connections * (spec["replicas"] + spec["strategy"]["rollingUpdate"]["maxSurge"])
    assert most <= 200 - 3


def test_nothing_is_reachable_unless_a_policy_says_so() -> None:
    policies = objects("NetworkPolicy")
    assert policies["deny-all"]["spec"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}
    for name, policy in policies.items():
        for rule in policy["spec"].get("ingress", []):
            if "from" not in rule:
                assert (name, rule["ports"]) == ("jivs-backend", [{"protocol": "TCP", "port": 8080}])
    out = policies["jivs-out"]["spec"]["egress"][1]["to"][0]["ipBlock"]
    assert "169.254.0.0/16" in out["except"]


def test_policies_name_workloads_and_ports_that_exist() -> None:
    for name, policy in objects("NetworkPolicy").items():
        if name in ("deny-all", "names", "jivs-out"):
            continue
        ports = {port["containerPort"] for workload in workloads().values() for container in containers(workload)
                 for port in container.get("ports", [])}  # fmt: skip
        for rule in policy["spec"].get("ingress", []):
            assert {port["port"] for port in rule.get("ports", [])} <= ports, name
            for peer in rule.get("from", []):
                selector = peer["podSelector"]
                apps = [selector.get("matchLabels", {}).get("app")] if "matchLabels" in selector else []
                apps += [value for term in selector.get("matchExpressions", []) for value in term["values"]]
                assert set(apps) <= set(workloads()), name
