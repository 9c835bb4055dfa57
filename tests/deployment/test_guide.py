"""The requirement, walked line by line: every code block and every table. What it names exists, or docs/differences.md has it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import yaml

from tests.deployment import names
from tests.deployment.commands import UnknownError, Walker, require
from tests.deployment.deployed import (
    ROOT,
    alerts,
    dashboard,
    metric_names,
    objects,
    panel_queries,
    pods,
    services,
    settings_of_cluster,
    workloads,
)

GUIDE = (ROOT / "docs/requirements/deployment-guide.md").read_text(encoding="utf-8")
DIFFERENCES = (ROOT / "docs/differences.md").read_text(encoding="utf-8")
OURS = (ROOT / "docs/deployment-guide.md").read_text(encoding="utf-8")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A code block: its language, its text, and the line of the page on which it begins."""

    language: str
    text: str
    line: int


def blocks(page: str) -> list[Block]:
    """Every fenced code block, indented ones too."""
    found = []
    for match in re.finditer(r"^( *)```(\w*)\n(.*?)^ *```$", page, re.MULTILINE | re.DOTALL):
        text = re.sub(rf"^{match[1]}", "", match[3], flags=re.MULTILINE)
        found.append(Block(language=match[2], text=text, line=page[: match.start()].count("\n") + 1))
    return found


def tables(page: str) -> list[list[list[str]]]:
    """Every table, as rows of cells; the first row is its head."""
    found = re.findall(r"(?:^\|.*\|\n)+", page, re.MULTILINE)
    split = re.compile(r"(?<!\\)\|")
    return [
        [
            [cell.strip() for cell in split.split(line.strip()[1:-1])]
            for line in table.splitlines()
            if not set(line) <= set("|-: ")
        ]
        for table in found
    ]


def excused() -> set[str]:
    """What the first column of the differences quotes."""
    (table,) = [table for table in tables(DIFFERENCES) if table[0][0] == "The guide says"]
    return {quoted for row in table[1:] for quoted in re.findall(r"`([^`]+)`", row[0])}


def lines(text: str) -> Iterator[str]:
    """Lines as a shell sees them: continued ones are joined."""
    for line in re.sub(r"\\\n\s*", "", text).splitlines():
        if line.strip():
            yield line.strip()


def comment(text: str) -> None:
    """A remark in a code block: the names, paths, titles and ports in it. Raises UnknownError."""
    for name in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", text):
        require(name in names.settings(), f"the setting {name}")
    for path in re.findall(r"[\w./-]+\.(?:json|yaml|yml|js)\b", text):
        require((ROOT / path).exists() or any((ROOT / "kubernetes").glob(path)), f"the file {path}")
    for title in re.findall(r'"(JiVS [^"]+)"', text):
        require(title == dashboard()["title"], f"the dashboard {title}")
    for image in re.findall(r"image: (\S+)", text):
        used = {container["image"] for item in workloads().values() for container in pods(item)["containers"]}
        require(image in used, f"the image {image}")
    for word in ("jconsole", "JMX"):
        require(word not in text, f"{word}, which needs a JVM")
    if found := re.search(r"Expected output: (\d+)", text):
        require(f"max_connections={found[1]}" in pods(workloads()["postgres"])["containers"][0]["args"], "max_connections")
    if found := re.search(r"Expected: \d+ \((\d)GB\), (\S+)", text):
        require(settings_of_cluster()["REDIS_MAXMEMORY"] == f"{found[1]}gb", "maxmemory of Redis")
        require(found[2] in pods(workloads()["redis"])["containers"][0]["command"][2], "the eviction policy of Redis")


BEFORE = {
    "maxmemory": lambda: settings_of_cluster()["REDIS_MAXMEMORY"],
    "memory": lambda: pods(workloads()["jivs-backend"])["containers"][0]["resources"]["limits"]["memory"],
}


def fragment(line: str) -> bool:
    """A line of configuration: `NAME: value  # Instead of before`. Whether it is one. Raises UnknownError."""
    if line in {"resources:", "limits:"}:
        return True
    if found := re.fullmatch(r"postgres -c max_connections=\d+\s+# Instead of (\d+)", line):
        require(f"max_connections={found[1]}" in services()["postgres"]["command"], "max_connections before")
        return True
    found = re.fullmatch(r"(\w+): (.*?)(?:\s+# (.*))?", line)
    if not found:
        return False
    name, value, remark = found.groups()
    if name not in BEFORE:
        require(name in names.settings(), f"the setting {name}")
        require(name in settings_of_cluster(), f"{name} is in the config map")
    before = BEFORE[name]() if name in BEFORE else settings_of_cluster()[name]
    if remark and (said := re.fullmatch(r"Instead of (\S+)", remark)):
        require(before == said[1], f"{name} is {before}, not {said[1]}")
    elif remark:
        require(remark == "2 hours instead of 1" and int(value) == 2 * int(before), f"{name}: {remark}")
    return True


def bash(block: Block) -> None:
    walker = Walker()
    if block.text.startswith(("# Apply ", "# Build and push", "# Deploy Grafana")):
        walker.folder = "kubernetes"  # the steps before it went there
    for line in lines(block.text):
        try:
            if line.startswith("#"):
                comment(line)
            elif not fragment(line):
                walker.follow(line)
        except UnknownError as error:
            assert line in excused(), f"line {block.line} ff.: {line!r}: {error}"


def promql(block: Block) -> None:
    """Each expression is drawn by a panel, as it is written."""
    for line in lines(block.text):
        if not line.startswith("#"):
            assert any(line in query for query in panel_queries().values()), line
            assert metric_names(line) <= names.metrics(), line


def rules(block: Block) -> None:
    """Alerts: name, expression, duration, labels, group and summary to the letter; descriptions too, or excused."""
    (group,) = yaml.safe_load(block.text)["groups"]
    assert len(group["rules"]) == 4
    for rule in group["rules"]:
        ours = alerts()[rule["alert"]]
        assert ours["group"] == group["name"]
        for part in ("expr", "for", "labels"):
            assert ours[part] == rule[part], rule["alert"]
        assert ours["annotations"]["summary"] == rule["annotations"]["summary"]
        assert metric_names(rule["expr"]) <= names.metrics()
        description = rule["annotations"]["description"]
        if ours["annotations"]["description"] != description:
            assert f'description: "{description}"' in excused()
            assert "humanizePercentage" in ours["annotations"]["description"]


def profile(block: Block) -> None:
    """Settings for a kind of workload: a column of the table in our own guide."""
    (table,) = [table for table in tables(OURS) if table[0][0] == "Workload"]
    given = yaml.safe_load(block.text)
    ours = {row[0]: dict(zip(table[0][2:], row[2:], strict=True)) for row in table[1:]}
    assert set(given) <= names.settings()
    assert {f"`{name}`": str(value) for name, value in given.items()} in ours.values()


def yaml_block(block: Block) -> None:
    (rules if block.text.startswith("# Prometheus AlertManager") else profile)(block)


WALKS = {"bash": bash, "promql": promql, "yaml": yaml_block}


@pytest.mark.parametrize("block", blocks(GUIDE), ids=lambda block: f"{block.language}-line-{block.line}")
def test_every_code_block_of_the_guide_is_accounted_for(block: Block) -> None:
    WALKS[block.language](block)


def test_no_code_block_is_overlooked() -> None:
    assert len(blocks(GUIDE)) == GUIDE.count("```") / 2 > 20


def optimizations(row: list[str]) -> None:
    for file in re.findall(r"`([^`]+)`", row[2]):
        assert file in excused(), file


def acceptance(row: list[str]) -> None:
    """The load test judges by this line."""
    criteria = (ROOT / "load-tests/acceptance.js").read_text(encoding="utf-8")
    metric, baseline, target, accepted = row
    assert f"title: '{metric}', baseline: '{baseline}', target: '{target}', accepted: '{accepted}'" in criteria


def parameters(row: list[str]) -> None:
    """The setting is there, with the guide's default, and our own guide gives the same range and impact."""
    name, default, impact, range_ = row[0].strip("`"), *row[1:]
    assert name in names.settings()
    if settings_of_cluster()[name] != default:
        assert {name, default} <= excused()
    (table,) = [table for table in tables(OURS) if table[0][0] == "Parameter"]
    (ours,) = [line for line in table if line[0] == row[0]]
    assert ours[2:] == [impact, range_]


TABLES = {"Optimization": optimizations, "Metric": acceptance, "Parameter": parameters}


@pytest.mark.parametrize("table", tables(GUIDE), ids=lambda table: table[0][0])
def test_every_table_of_the_guide_is_accounted_for(table: list[list[str]]) -> None:
    for row in table[1:]:
        TABLES[table[0][0]](row)


def test_the_pages_that_the_guide_links_to_are_there() -> None:
    linked = re.findall(r"\]\(\.\./([\w.]+)\)", GUIDE)
    assert len(linked) == 4
    assert [name for name in linked if not (ROOT / name).exists() and name not in excused()] == []


def test_every_difference_quotes_the_guide() -> None:
    """A row for something that the guide does not say explains nothing."""
    assert [quoted for quoted in excused() if quoted not in GUIDE] == []


def test_what_the_guide_names_in_its_lists_is_there() -> None:
    """Ports, container names, labels and objects, named in one place each."""
    for container in set(re.findall(r"docker exec (\S+)", GUIDE)):
        assert container in {item.get("container_name") for item in services().values()}
    for label in set(re.findall(r"-l (app=\S+)", GUIDE)):
        assert label.partition("=")[2] in workloads()
    for kind, name in set(
        re.findall(r"\b(deployment|statefulset|configmap)/? ?([a-z]+-[a-z-]+|redis|postgres|grafana)\b", GUIDE)
    ):
        assert name in objects({"deployment": "Deployment", "statefulset": "StatefulSet", "configmap": "ConfigMap"}[kind]), (
            name
        )
