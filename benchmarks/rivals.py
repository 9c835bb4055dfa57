"""The rivals, each in an environment of its own, in the best configuration that its documentation gives."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
ENVIRONMENTS = ROOT / "bench-data" / "environments"
DUCKDB = "1.5.5"


def environment(name: str, requirements: list[str]) -> Path:
    """The folder of programs of a virtual environment with these packages; made when first asked for."""
    folder = ENVIRONMENTS / name
    if not (folder / ".complete").exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", *requirements], check=True)
        (folder / ".complete").touch()
    return folder / "bin"


@cache
def _duckdb() -> Path:
    return environment("duckdb", [f"duckdb=={DUCKDB}", f"duckdb-extension-postgres-scanner=={DUCKDB}"])


@cache
def _connectorx() -> Path:
    return environment("connectorx", ["connectorx", "pyarrow"])


def duckdb(url: str, out: Path) -> list[str]:
    """DuckDB with its PostgreSQL extension: parallel ctid scans in binary COPY, its defaults."""
    code = f"""
import duckdb, glob, os
folder = os.path.dirname(os.path.dirname(duckdb.__file__))
extension, = glob.glob(folder + '/duckdb_extension_postgres_scanner/extensions/*/*.duckdb_extension')
con = duckdb.connect()
con.execute(f"load '{{extension}}'")
con.execute("set preserve_insertion_order = false")
con.execute("attach '{url}' as pg (type postgres, read_only)")
con.execute("copy (select * from pg.lineitem) to '{out}/x.parquet' (format parquet, compression zstd, compression_level 1)")
"""
    return [str(_duckdb() / "python"), "-c", code]


def connectorx(url: str, out: Path) -> list[str]:
    """connectorx as a stream of Arrow batches, written by pyarrow."""
    code = f"""
import connectorx, pyarrow.parquet as pq
reader = connectorx.read_sql('{url}', 'select * from lineitem', return_type='arrow_stream', batch_size=100000)
with pq.ParquetWriter('{out}/x.parquet', reader.schema, compression='zstd', compression_level=1) as writer:
    for batch in reader:
        writer.write_batch(batch)
"""
    return [str(_connectorx() / "python"), "-c", code]


RIVALS: dict[str, Callable[[str, Path], list[str]]] = {f"DuckDB {DUCKDB}": duckdb, "connectorx": connectorx}
