"""`make drill`: what an operator practises each quarter works."""

from __future__ import annotations

import re
import sys

from tests.deployment.deployed import run


def test_the_drill_brings_everything_back_and_prints_its_times() -> None:
    done = run(sys.executable, "tools/drill.py", timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.rstrip().endswith("All came back.")
    assert len(re.findall(r"^  .* \d+\.\d\d s$", done.stdout, re.MULTILINE)) == 14, done.stdout
