"""Our own pages: every command in them names what exists, and the form for issues is one."""

from __future__ import annotations

import os
import re

import pytest

from jivs.testing.servers import PASSWORD, PostgresServer
from tests.deployment.commands import UnknownError, Walker
from tests.deployment.deployed import ROOT, run, tool
from tests.deployment.test_guide import blocks, lines

PAGES = (
    "docs/deployment-guide.md", "docs/runbook.md", "docs/maintenance.md", "DISASTER_RECOVERY.md", "SECURITY_AUDIT_CHECKLIST.md",
)  # fmt: skip


@pytest.mark.parametrize("page", PAGES)
def test_every_command_names_what_exists(page: str) -> None:
    found = [block for block in blocks((ROOT / page).read_text(encoding="utf-8")) if block.language == "bash"]
    assert found
    for block in found:
        walker = Walker()
        for line in lines(block.text):
            try:
                walker.follow(line.partition("  #")[0])
            except UnknownError as error:
                pytest.fail(f"{page}, line {block.line} ff.: {line}: {error}")


@pytest.mark.parametrize(
    "line",
    [
        "kubectl exec postgres-1 -n jivs-platform -- psql -U jivs -d jivs",
        "kubectl exec postgres-0 -n jivs-platform -- psql -U admin -d jivs",
        "kubectl rollout undo deployment/redis -n jivs-platform",
        "kubectl get pods -n elsewhere",
        "kubectl wait --for=condition=ready pod -l app=database -n jivs-platform",
        "kubectl port-forward deployment/grafana 3000:3001 -n jivs-platform",
        "kubectl apply -f kubernetes/ingress.yaml",
        "kubectl create secret generic jivs-backend-secrets --from-literal=MASTER_PASSWORD=x",
        "docker-compose up -d database",
        "docker exec jivs-postgres psql -U jivs -d jivs < backup.sql",
        "docker exec jivs-database psql -U jivs -d jivs",
        "curl http://localhost:8081/actuator/health",
        "curl http://localhost:8080/actuator/heapdump",
        "k6 run load-tests/none.js",
        "jivs migrate-everything",
        "make coffee",
        "helm install jivs",
        "cd nowhere",
    ],
)
def test_what_does_not_exist_is_noticed(line: str) -> None:
    with pytest.raises(UnknownError):
        Walker().follow(line)


@pytest.fixture(scope="module")
def database(postgres: PostgresServer) -> dict[str, str]:
    """A database of the name that the pages use; the environment in which psql reaches it."""
    postgres.create("jivs")
    return {"PATH": os.environ["PATH"], "PGHOST": "127.0.0.1", "PGPORT": str(postgres.port), "PGPASSWORD": PASSWORD}


def test_every_statement_of_the_pages_runs(database: dict[str, str]) -> None:
    """On a real PostgreSQL, in the order of the pages."""
    texts = [
        line for page in PAGES for block in blocks((ROOT / page).read_text(encoding="utf-8")) for line in lines(block.text)
    ]
    statements = [found[1] for text in texts if (found := re.search(r'psql -U jivs -d jivs -c "([^"]+)"', text))]
    assert len(statements) > 8
    for statement in statements:
        done = run("psql", "-U", "jivs", "-d", "jivs", "-v", "ON_ERROR_STOP=1", "-c", statement, env=database)
        assert done.returncode == 0, f"{statement}: {done.stderr}"


def test_a_backup_brings_back_what_was_there(database: dict[str, str]) -> None:
    """With the commands of the page on disaster recovery, into a database that went on in the meantime."""
    page = (ROOT / "DISASTER_RECOVERY.md").read_text(encoding="utf-8")
    backup = re.search(r"docker exec jivs-postgres (pg_dump .*) > backup.sql", page)
    restore = re.search(r"docker exec -i jivs-postgres (psql .*) < backup.sql", page)
    assert backup
    assert restore
    ask = ["psql", "-U", "jivs", "-d", "jivs", "-tAc"]
    run(*ask, "create table kept (a int primary key); insert into kept values (1), (2)", env=database)
    dump = run(*backup[1].split(), env=database)
    assert dump.returncode == 0, dump.stderr
    run(*ask, "delete from kept; insert into kept values (3)", env=database)
    done = run(*restore[1].split(), env=database, input=dump.stdout)
    assert done.returncode == 0, done.stderr
    assert run(*ask, "select array_agg(a order by a) from kept", env=database).stdout.strip() == "{1,2}"


def test_the_form_for_issues_follows_its_schema() -> None:
    done = run(tool("check-jsonschema"), "--builtin-schema", "vendor.github-issue-forms", ".github/ISSUE_TEMPLATE/bug.yml")
    assert done.returncode == 0, done.stdout
