"""The decoders under the sanitizers: the kept inputs in every run, new ones for as long as there is time in the soak."""

from __future__ import annotations

import os
import subprocess
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CORPUS = ROOT / "tests" / "fuzz" / "corpus.zip"
"""Inputs that fuzzing has found to take paths of their own, and those that once did harm."""

SOURCES = [ROOT / "tests" / "fuzz" / "fuzz_wire.c", *sorted((ROOT / "src" / "jivs" / "wire" / "c").glob("*.c"))]
SANITIZED = ["-g", "-O1", "-std=c11", "-fno-sanitize-recover=all"]
SECONDS = int(os.environ.get("TEST_FUZZ_SECONDS", "300"))


def build(compiler: str, flags: list[str], target: Path) -> None:
    subprocess.run([compiler, *SANITIZED, *flags, *SOURCES, "-o", target], check=True)


def unpacked(folder: Path) -> list[Path]:
    with zipfile.ZipFile(CORPUS) as corpus:
        corpus.extractall(folder / "corpus")
    return sorted((folder / "corpus").iterdir())


def test_the_compiled_part_compiles_without_a_warning(tmp_path: Path) -> None:
    """With more warnings than the build asks for: a user's compiler must not stumble over them."""
    flags = ["-O3", "-std=c11", "-Wall", "-Wextra", "-Wconversion", "-Wno-psabi", "-Werror", "-fPIC", "-shared"]
    subprocess.run(["cc", *flags, *SOURCES[1:], "-o", tmp_path / "native.so"], check=True)


def test_kept_inputs_do_no_harm(tmp_path: Path) -> None:
    build("cc", ["-fsanitize=address,undefined", "-DREPLAY"], tmp_path / "replay")
    kept = unpacked(tmp_path)
    assert len(kept) > 100
    done = subprocess.run([tmp_path / "replay", *kept], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.soak
@pytest.mark.timeout(SECONDS + 300)
def test_new_inputs_do_no_harm(tmp_path: Path) -> None:
    """libFuzzer, from the kept inputs on. What it finds belongs into the corpus."""
    build("clang", ["-fsanitize=fuzzer,address,undefined"], tmp_path / "fuzz")
    unpacked(tmp_path)
    command = [
        tmp_path / "fuzz",
        f"-max_total_time={SECONDS}",
        "-max_len=4096",
        f"-artifact_prefix={tmp_path}/",
        tmp_path / "corpus",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
