"""The image, as far as it goes without Docker: the file's lint, what is sent to the build, and the entry point itself."""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

from tests.deployment.deployed import ROOT, run, tool

DOCKERFILE = (ROOT / "backend/Dockerfile").read_text(encoding="utf-8")
_, BUILD, FINAL = DOCKERFILE.split("\nFROM ")
ENTRYPOINT = ROOT / "backend/entrypoint.py"


def sent(path: str) -> bool:
    """Whether .dockerignore lets a file of the repository into the build: the last line that fits decides."""
    answer = True
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.split("#")[0].strip()
        keep = pattern.startswith("!")
        pattern = pattern.lstrip("!")
        names = [path, *(str(parent) for parent in Path(path).parents if str(parent) != ".")]
        plain = pattern.removeprefix("**/")
        fits = any(
            fnmatch.fnmatchcase(part if plain != pattern else name, plain)
            for name in names
            for part in (Path(name).name, name)
        )
        if pattern and fits:
            answer = keep
    return answer


def test_the_dockerfile_passes_its_lint() -> None:
    done = run(tool("hadolint"), "--config", ".hadolint.yaml", "backend/Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


def test_the_image_runs_as_nobody_special() -> None:
    assert re.findall(r"^USER (.*)$", FINAL, re.MULTILINE) == ["10001:10001"]
    assert " curl " in FINAL
    assert "gcc" not in FINAL


def test_nothing_but_the_product_is_sent_to_the_build() -> None:
    tracked = run("git", "ls-files", "--cached", "--others", "--exclude-standard").stdout.split()
    got_in = {path for path in tracked if sent(path)}
    outside = {path for path in got_in if not path.startswith("src/")}
    assert outside == {"pyproject.toml", "hatch_build.py", "README.md", "LICENSE", "backend/entrypoint.py"}
    for secret in (".env", ".git/config", "demo/archive/x", "src/jivs/wire/_native.so", "src/jivs/__pycache__/a.pyc"):
        assert not sent(secret), secret


def test_what_is_sent_suffices_to_build_the_package(tmp_path: Path) -> None:
    """The COPY lines of the build stage name all that the wheel is made of, its compiled part included."""
    copied = " ".join(re.findall(r"^COPY (.*) \S+$", BUILD, re.MULTILINE)).split()
    for path in run("git", "ls-files", "--cached", "--others", "--exclude-standard", *copied).stdout.split():
        assert sent(path), path
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / path, tmp_path / path)
    done = run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "out", tmp_path)
    assert done.returncode == 0, done.stderr
    (wheel,) = (tmp_path / "out").glob("jivs-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "jivs/wire/_native.so" in names
    assert "jivs/cli/serve.py" in names


def start(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The entry point with a command, in an environment of its own."""
    return run(sys.executable, ENTRYPOINT, *command, env={"PATH": os.environ["PATH"], **environment})


def test_a_restart_takes_what_was_changed_in_the_file(tmp_path: Path) -> None:
    file = tmp_path / ".env"
    given = {"JIVS_ENV_FILE": str(file), "JWT_SECRET": "of the container", "DATABASE_URL": "postgresql://postgres/jivs"}
    file.write_text("# comment\nJWT_SECRET=first\nEXTRACTION_BATCH_SIZE=500\nDATABASE_URL=\n", encoding="utf-8")
    shown = start("sh", "-c", 'echo "$JWT_SECRET $EXTRACTION_BATCH_SIZE $DATABASE_URL"', **given)
    assert shown.stdout == "first 500 postgresql://postgres/jivs\n"
    file.write_text("JWT_SECRET=se$cond=\nEXTRACTION_BATCH_SIZE=2000\n", encoding="utf-8")
    shown = start("sh", "-c", 'echo "$JWT_SECRET $EXTRACTION_BATCH_SIZE"', **given)
    assert shown.stdout == "se$cond= 2000\n"


def test_without_a_file_the_environment_is_as_given() -> None:
    assert start("sh", "-c", 'echo "$LOG_LEVEL"', LOG_LEVEL="DEBUG").stdout == "DEBUG\n"


def test_the_command_gets_signals_and_gives_its_exit_code() -> None:
    """The entry point becomes the command: nothing stands between it and SIGTERM."""
    assert start("sh", "-c", "kill -TERM $$").returncode == -15
    assert start("sh", "-c", "exit 5").returncode == 5


def test_what_cannot_be_read_or_started_is_said(tmp_path: Path) -> None:
    missing = start("true", JIVS_ENV_FILE=str(tmp_path / "none"))
    assert missing.returncode == 1
    assert "none cannot be read: No such file or directory" in missing.stderr
    folder = start("true", JIVS_ENV_FILE=str(tmp_path))
    assert "Is a directory" in folder.stderr
    binary = tmp_path / "binary"
    binary.write_bytes(b"JWT_SECRET=\xff\xfe")
    assert "it is not UTF-8" in start("true", JIVS_ENV_FILE=str(binary)).stderr
    assert "Name a command" in start().stderr
    assert "no-such-command cannot be started" in start("no-such-command").stderr
