"""What is installed without extras does the main job: no package of an extra is asked for before it is needed."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent.parent
MODULES = {
    "argon2-cffi": "argon2",
    "fastapi-swagger": "fastapi_swagger",
    "prometheus-client": "prometheus_client",
    "opentelemetry-exporter-otlp-proto-http": "opentelemetry",
    "opentelemetry-sdk": "opentelemetry",
    "PyMySQL": "pymysql",
}
"""Where a package's module is not called as the package is."""


def extras() -> set[str]:
    """The modules of all packages that only extras have."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    asked = [Requirement(text).name for some in project["optional-dependencies"].values() for text in some]
    return {MODULES.get(name, name) for name in asked if name != "jivs"}


def test_the_main_job_needs_no_extra(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "s.db") as lite:
        lite.execute("create table t as select 1 as a, 'x' as b")
    lite.close()
    missing = extras()
    assert {"psycopg", "fastapi", "cryptography"} <= missing
    script = f"""
import sys
for name in {sorted(missing)}:
    sys.modules[name] = None
from jivs.cli.main import main
main()
"""
    for arguments in (
        ["extract", f"sqlite:///{tmp_path}/s.db", "--to", f"{tmp_path}/archive", "--verify", "full"],
        ["verify", f"{tmp_path}/archive", "--level", "full"],
        ["query", f"{tmp_path}/archive", "select a, b from t"],
        ["inspect", f"{tmp_path}/archive"],
    ):
        done = subprocess.run(
            ["env", f"XDG_STATE_HOME={tmp_path}", sys.executable, "-c", script, *arguments],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, (arguments, done.stdout, done.stderr)


def test_a_catalog_in_postgresql_says_what_it_needs(tmp_path: Path) -> None:
    script = "import sys; sys.modules['psycopg'] = None; from jivs.cli.main import main; main()"
    given = [f"XDG_STATE_HOME={tmp_path}", "DATABASE_URL=postgresql://u:p@127.0.0.1:1/x"]
    secrets = ["JWT_SECRET=" + "x" * 48, "ENCRYPTION_KEY=MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="]
    command = ["env", *given, *secrets, sys.executable, "-c", script, "user", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    said = "DATABASE_URL needs a package that is not installed (psycopg): pip install 'jivs[postgresql]'"
    assert (done.returncode, done.stderr.strip()) == (2, f"Error: {said}")
