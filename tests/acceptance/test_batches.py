"""What EXTRACTION_BATCH_SIZE does to memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psycopg

PEAK = """\
import sys
from jivs.cli.main import _tune_process, app
_tune_process()
app(sys.argv[1:], standalone_mode=False)
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def peak(url: str, archive: Path, **settings: str) -> int:
    """The most memory that an extraction had, in bytes."""
    command = [sys.executable, "-c", PEAK, "extract", url, "--to", str(archive), "--progress", "none", "--verify", "none"]
    done = subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1]) << 10


def test_a_ceiling_on_batches_lowers_memory(pg: str, tmp_path: Path) -> None:
    with psycopg.connect(pg, autocommit=True) as connection:
        connection.execute("create table wide (id int, v text); alter table wide alter v set storage external")
        connection.execute(
            "insert into wide select g, (select string_agg(md5((g * 1000 + i)::text), '') from generate_series(1, 900) i) "
            "from generate_series(1, 3000) g"
        )
    free = min(peak(pg, tmp_path / str(number)) for number in range(2))
    assert max(peak(pg, tmp_path / str(number), EXTRACTION_BATCH_SIZE="20") for number in range(2, 4)) < free - (4 << 20)


def test_batches_of_few_short_rows_take_no_memory_of_their_own(pg: str, tmp_path: Path) -> None:
    with psycopg.connect(pg, autocommit=True) as connection:
        columns = ", ".join(f"g::smallint as c{number}" for number in range(16))
        connection.execute(
            f"create table narrow as select {columns} from generate_series(-30000, 30000) g, generate_series(1, 2)"
        )
        connection.execute("analyze")
    free = peak(pg, tmp_path / "free")
    assert peak(pg, tmp_path / "few", EXTRACTION_BATCH_SIZE="20") < free + (24 << 20)
