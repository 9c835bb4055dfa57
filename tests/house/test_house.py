"""The house's own rules, each with the reason for which it is there."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from jivs.backends.metrics import families

ROOT = Path(__file__).parent.parent.parent
SOURCES = sorted((ROOT / "src" / "jivs").rglob("*.py"))
TREES = {path: ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}
LONGEST_MODULE, LONGEST_FUNCTION = 500, 60


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_module_hides_a_second_idea() -> None:
    long = {shown(path): count for path in SOURCES if (count := len(path.read_text().splitlines())) > LONGEST_MODULE}
    assert long == {}


def test_no_function_hides_a_second_idea() -> None:
    long = {
        f"{shown(path)}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and (node.end_lineno or 0) - node.lineno + 1 > LONGEST_FUNCTION
    }
    assert long == {}


def test_only_settings_read_the_environment() -> None:
    """A setting read elsewhere is in no document and no error message. The command line chooses Arrow's allocator in it."""
    readers = {
        shown(path)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"}
    }
    assert readers == {"src/jivs/settings.py", "src/jivs/cli/main.py"}


def test_only_the_command_line_prints() -> None:
    """Whatever else prints, breaks --output json and the API to come."""
    printers = {
        shown(path)
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
    }
    assert {path for path in printers if not path.startswith("src/jivs/cli/")} == set()


def test_names_are_the_fields_own() -> None:
    """A module called utils takes whatever nobody thought about."""
    banned = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "data", "process"}
    assert [shown(path) for path in SOURCES if path.stem.strip("_") in banned] == []


def test_every_module_and_public_name_says_what_it_is() -> None:
    silent = [shown(path) for path, tree in TREES.items() if not ast.get_docstring(tree) and "versions/" not in shown(path)
              and path.read_text().strip()]  # fmt: skip
    assert silent == []
    for path, tree in TREES.items():
        if any(part in shown(path) for part in ("connectors/", "testing/", "backends/")):
            continue  # there the port's docstrings are the promise
        for node in tree.body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
                assert ast.get_docstring(node), f"{shown(path)}:{node.name}"


def test_importing_connects_and_loads_nothing_heavy() -> None:
    """The command line answers at once, and a missing driver is no error until it is needed."""
    code = "import sys, jivs.cli.main; print(sorted({name.partition('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavies = (
        "pyarrow",
        "duckdb",
        "psycopg",
        "pymysql",
        "sqlalchemy",
        "alembic",
        "pydantic",
        "boto3",
        "fsspec",
        "redis",
        "pika",
    )
    for heavy in heavies:
        assert f"'{heavy}'" not in loaded, heavy


def test_rings() -> None:
    done = subprocess.run([Path(sys.executable).parent / "lint-imports", "--no-cache"], cwd=ROOT, capture_output=True, text=True,
                          check=False)  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_generated_pages_are_what_the_code_says() -> None:
    done = subprocess.run(
        [sys.executable, "tools/generate-docs.py", "--check"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


def test_every_metric_is_explained_as_it_is() -> None:
    page = (ROOT / "docs" / "observability.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \| ([\w, ]*) \| (.+) \|$", page, flags=re.MULTILINE)
    said = [(name, kind, labels.strip(), meaning) for name, kind, labels, meaning in rows]
    every = (*families.RECORDED, *families.COMPUTED)
    assert said == [(one.name, one.kind, ", ".join(one.labels), one.meaning) for one in every]


def test_links_between_pages_lead_somewhere() -> None:
    """The requirement is kept as it was given; whether what it links to is there, tests/deployment/test_guide.py asks."""
    broken = []
    pages = [page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "requirements"]
    for page in [*ROOT.glob("*.md"), *pages]:
        for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
            if not (page.parent / link).exists():
                broken.append(f"{shown(page)}: {link}")
    assert broken == []


def test_the_readme_shows_both_commands_on_its_first_screen() -> None:
    first = "\n".join((ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:40])
    assert "make demo" in first
    assert "make test" in first


def test_the_independent_verifier_is_small_and_independent() -> None:
    path = ROOT / "tools" / "verify_archive.py"
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 200
    imported = {
        name.partition(".")[0]
        for node in ast.walk(ast.parse(text))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported - set(sys.stdlib_module_names) == {"pyarrow"}


@pytest.mark.parametrize("word", ["/" + "root/", "/" + "work/"])
def test_no_path_of_a_developers_machine(word: str) -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    texts = [
        path for path in files if path.endswith((".py", ".md", ".toml", ".sh", ".yaml", ".c")) and "golden/" not in path
    ]
    found = [path for path in texts if re.search(rf"(^|[^A-Za-z0-9._/-]){word}", (ROOT / path).read_text(encoding="utf-8"))]
    assert found == []


def test_licences_of_dependencies_are_known() -> None:
    """Each direct dependency with the licence it was chosen under; a new one is added here on purpose."""
    licences = {
        "alembic": "MIT", "duckdb": "MIT", "pyarrow": "Apache-2.0", "pydantic": "MIT", "pydantic-settings": "MIT", "rich": "MIT",
        "sqlalchemy": "MIT", "typer": "MIT", "psycopg": "LGPL-3.0", "PyMySQL": "MIT", "cryptography": "Apache-2.0",
        "argon2-cffi": "MIT", "fastapi": "MIT", "fastapi-swagger": "MIT", "joserfc": "BSD-3-Clause", "uvicorn": "BSD-3-Clause", "prometheus-client": "Apache-2.0",
        "opentelemetry-sdk": "Apache-2.0", "opentelemetry-exporter-otlp-proto-http": "Apache-2.0",
        "sqlglot": "MIT", "httptools": "MIT", "uvloop": "MIT",
        "redis": "MIT", "pika": "BSD-3-Clause", "boto3": "Apache-2.0", "fsspec": "BSD-3-Clause",
        "cronsim": "BSD-3-Clause", "tzdata": "Apache-2.0",
    }  # fmt: skip
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    named = [*project["dependencies"], *(item for extra in project["optional-dependencies"].values() for item in extra)]
    names = {re.split(r"[\[<>=]", item)[0] for item in named} - {"jivs"}
    assert names == set(licences)
